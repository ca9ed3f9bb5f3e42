//! What the tests with a kernel are made of.
//!
//! [`frames`] writes packets, [`netns`] and [`wire`] lay out hosts and the cable between them, [`generator`] floods it with
//! what [`kernel`] has, [`program`] holds the kernel program on its own with a clock that the test sets, [`set`] is one set
//! of its table in user space, [`agent`] runs the real binary, [`attached`] asks the program that it attached, [`rebuild`]
//! makes another build of it, [`previous`] builds earlier ones from the history, [`denied`] has the kernel refuse it a call,
//! [`paced`] is a client that asks at a constant rate, [`stranger`] one of frames alone, [`clients`] are real servers and
//! clients, [`slow`] a server that takes as long as the test says, [`sockets`] those that the kernel lists, and
//! [`bulkheads`] are two neighbours of which one floods. [`policies`] are those that are measured, [`paths`] what becomes of
//! packets under the full one, and [`calls`] counts the helpers that they call on their way. Everything that these make is
//! undone when it is dropped. [`stack`] and [`simulator`] need no kernel: the one reads the programs' code, the other runs
//! the agent's pure code on health. [`workers`] is a real server of the same capacity, [`demand`] are its clients,
//! [`overload`] has them meet behind a throttle or none, and an [`outcome`] is what came of a phase, real or simulated.
//! [`upstreams`] are hosts behind a host, whose cables fail; [`recorder`] is somebody on the way; [`backends`] are processes
//! on them that are killed and stopped; [`standing`] is what an agent holds of them, and [`groups`] have a control group of
//! processes.

pub mod agent;
pub mod attached;
pub mod backends;
mod binary;
pub mod bulkheads;
pub mod calls;
pub mod clients;
pub mod demand;
pub mod denied;
pub mod filters;
pub mod frames;
pub mod generator;
pub mod groups;
pub mod kept;
pub mod kernel;
pub mod loops;
pub mod machine;
pub mod memory;
pub mod netns;
pub mod nginx;
pub mod outcome;
pub mod overload;
pub mod paced;
pub mod paths;
pub mod pins;
pub mod policies;
pub mod previous;
pub mod program;
pub mod rebuild;
pub mod recorder;
pub mod set;
pub mod simulator;
pub mod slow;
pub mod sockets;
pub mod stack;
pub mod standing;
pub mod stranger;
pub mod upstreams;
pub mod wire;
pub mod workers;

/// Prints a line past the test harness, which would otherwise keep the figures of a passing test to itself.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::machine::print(&format!($($text)*))
    };
}

/// Ends the test, saying why, where it cannot run: tests with a kernel need root.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !$crate::machine::is_root() {
            $crate::say!("skipped {}: needs root", std::thread::current().name().unwrap_or("a test"));
            return Ok(());
        }
    };
}
