//! Limits that follow the health of a real server, with a real agent on a host of its own: a window that sinks and comes
//! back, what is in force with the agent dead, breakers, and what others are told.

mod alerts;
mod breaking;
mod kept;
mod pacing;
mod telling;
mod window;

use throttle_tests::wire::FAR;

const RUN: [&str; 3] = ["--interface", FAR, "--mode=native"];

/// A service that follows its health as is said, with so many connections at most.
fn policy(health: &str, rest: &str) -> String {
    format!(
        "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80, 81]\n[service.health]\n\
         {health}\n[[limit]]\nname = \"open\"\nservice = \"web\"\nunit = \"connections\"\nper = \"service\"\nconcurrent = \
         100\naction = \"reject\"\n{rest}"
    )
}
