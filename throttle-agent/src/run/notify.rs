//! Word to the service manager: ready, status, and a watchdog that only a working control loop feeds.

use std::{
    env,
    ffi::OsStr,
    future::Future,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// Says that the policy is in force and the interfaces are attached.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says how it stands in one line.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Says that the agent ends.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// How often the watchdog is fed: at half of its deadline. `None` where the service manager set none.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|deadline| deadline / 2)
}

/// Feeds the watchdog every `period` for as long as `alive` says so, until `end`. A dead backend or a full table is no
/// reason to be restarted; a control loop that stands still or maps that cannot be read are.
pub async fn feed_watchdog<F>(period: Duration, end: CancellationToken, alive: impl Fn() -> F)
where
    F: Future<Output = bool>,
{
    let mut was_alive = true;
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while end.run_until_cancelled(ticks.tick()).await.is_some() {
        let is_alive = tokio::time::timeout(period, alive()).await.unwrap_or(false);
        if is_alive {
            tell(&[NotifyState::Watchdog]);
        } else if was_alive {
            tracing::error!("the control loop does not answer; the watchdog is not fed");
        }
        was_alive = is_alive;
    }
}

fn tell(states: &[NotifyState]) {
    let Some(address) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&address, states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// As sd_notify(3) has it, but never waiting: a service manager that does not read must not stop the agent.
fn send(address: &OsStr, states: &[NotifyState]) -> io::Result<()> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let lines = states.iter().fold(String::new(), |lines, state| lines + &state.to_string() + "\n");
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(lines.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_that_does_not_read_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let deaf = UnixDatagram::bind(&path).unwrap();
        assert!(
            (0..100_000).any(|_| send(path.as_os_str(), &[NotifyState::Status("once more")]).is_err()),
            "its queue is never full"
        );
        let mut told = [0; 64];
        let length = deaf.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"STATUS=once more\n");
    }
}
