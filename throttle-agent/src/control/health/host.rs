//! What this host shows beside the programs: whether it keeps the agent from its CPU, and whether listening sockets overflow.
//!
//! Everything here is read from `/proc`, of the thread that calls: the counters of its network namespace, and its own time.

use std::{fs, path::Path};

use crate::health::Nanos;

/// `CPU` of pressure stall information (Documentation/accounting/psi.rst): how long somebody has waited for a CPU, in
/// microseconds.
const PRESSURE: &str = "/proc/pressure/cpu";
/// How long this thread has run and has waited for a CPU, in nanoseconds (Documentation/scheduler/sched-stats.rst).
const SCHEDULED: &str = "/proc/thread-self/schedstat";
/// Counters of TCP in this network namespace, among them those of connections that found a listener's queue full.
const NETSTAT: &str = "/proc/thread-self/net/netstat";
/// Those that tell of an overload.
const OVERFLOWS: [&str; 3] = ["ListenOverflows", "ListenDrops", "TCPReqQFullDrop"];
/// The share of the time above which somebody was kept from a CPU for most of it.
const MOST: f64 = 0.5;

/// Reads it, again and again.
#[derive(Debug, Default)]
pub(super) struct Host {
    pressure: Counter,
    waiting: Counter,
    overflows: Counter,
}

/// A counter that grows, as it was when it was last read.
#[derive(Debug, Default)]
pub(super) struct Counter(Option<(Nanos, u64)>);

impl Counter {
    /// By how much it has grown, and in which time; nothing at first, and where it cannot be read.
    pub(super) fn since(&mut self, now: Nanos, value: Option<u64>) -> Option<(u64, Nanos)> {
        let value = value?;
        let (then, before) = self.0.replace((now, value))?;
        Some((value.saturating_sub(before), now.saturating_sub(then).max(1)))
    }
}

/// Whether the host keeps somebody from its CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pressure {
    /// The share of the time since the last look in which somebody waited for a CPU; nothing where the kernel does not say.
    pub(super) share: Option<f64>,
    /// Whether this thread did, for most of it: then it has seen nothing of others.
    pub(super) starved: bool,
}

impl Host {
    /// Whether somebody has waited for a CPU since the last look. That of the whole host is a gate and no verdict: a host may
    /// be busy all day. The agent was starved where its own thread waited too.
    pub(super) fn pressure(&mut self, now: Nanos) -> Pressure {
        let share =
            |grown: Option<(u64, Nanos)>, unit: f64| grown.map(|(grown, time)| grown as f64 * unit / time as f64);
        let all = share(self.pressure.since(now, read(PRESSURE).and_then(|text| stalled(&text))), 1e3);
        let own = share(self.waiting.since(now, read(SCHEDULED).and_then(|text| waited(&text))), 1.0);
        let most = |share: f64| share > MOST;
        Pressure {
            share: all,
            starved: (all.is_some() || own.is_some()) && all.is_none_or(most) && own.is_none_or(most),
        }
    }

    /// How many connections have found a listener's queue full since the last look, whosesoever.
    pub(super) fn overflows(&mut self, now: Nanos) -> u64 {
        let count = read(NETSTAT).map(|text| overflows(&text));
        self.overflows.since(now, count).map_or(0, |(grown, _)| grown)
    }
}

pub(super) fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Microseconds in which some process has waited, of pressure stall information.
pub(super) fn stalled(text: &str) -> Option<u64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    some.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

fn waited(text: &str) -> Option<u64> {
    text.split_whitespace().nth(1)?.parse().ok()
}

/// The names stand in one line, their values in the next.
fn overflows(text: &str) -> u64 {
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("TcpExt: ")).collect();
    let [names, values] = lines[..] else { return 0 };
    let pairs = names.split(' ').zip(values.split(' '));
    pairs.filter(|(name, _)| OVERFLOWS.contains(name)).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let pressure = "some avg10=4.33 avg60=5.33 avg300=4.63 total=42019302\nfull avg10=0.00 total=7\n";
        assert_eq!(stalled(pressure), Some(42_019_302));
        assert_eq!(waited("123 1448611 1\n"), Some(1_448_611));
        let netstat = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPReqQFullDrop\nTcpExt: 1 20 300 4000\nIpExt: \
                       InNoRoutes\nIpExt: 5\n";
        assert_eq!(overflows(netstat), 4_320);
        assert_eq!((stalled(""), waited(""), overflows("")), (None, None, 0));
    }

    #[test]
    fn what_grew_is_told_with_the_time_that_it_took() {
        let mut counter = Counter::default();
        assert_eq!(counter.since(100, Some(7)), None, "nothing is known of the time before");
        assert_eq!(counter.since(150, None), None);
        assert_eq!(counter.since(300, Some(10)), Some((3, 200)));
        assert_eq!(counter.since(400, Some(2)), Some((0, 100)), "one that begins anew has not grown");
    }

    #[test]
    fn an_agent_that_runs_is_not_starved() {
        let mut host = Host::default();
        assert!(!host.pressure(1).starved);
        assert!(!host.pressure(1_000_000_001).starved);
    }
}
