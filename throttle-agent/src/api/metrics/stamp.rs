//! The figures of the stamp: nothing where this host is in none. No label names another host.

use std::fmt;

use super::{Labels, Writer, gauge};
use crate::api::wire::StampView;

/// How hosts may stand.
const STATES: [&str; 5] = ["alive", "suspect", "dead", "left", "unheard"];
/// In what they may differ.
const SUBJECTS: [&str; 4] = ["build", "program", "policy", "key"];

pub(super) fn write(to: &mut Writer, stamp: Option<&StampView>) -> Result<(), fmt::Error> {
    let Some(stamp) = stamp else { return Ok(()) };
    let label = |name, value: &str| -> Labels { vec![(name, value.to_owned())] };
    let states = STATES.map(|state| {
        let hosts = stamp.hosts.iter().filter(|it| it.state == state).count() as u64;
        (label("state", state), gauge(hosts))
    });
    to.gauges("stamp_hosts", "Hosts of the stamp, this one among them, by how they stand", states)?;
    let subjects = SUBJECTS.map(|subject| {
        let hosts = stamp.skew.iter().filter(|it| it.subject == subject).count() as u64;
        (label("subject", subject), gauge(hosts))
    });
    to.gauges("stamp_skewed_hosts", "Hosts of the stamp that differ from most, by what they differ in", subjects)?;
    let datagrams = &stamp.datagrams;
    to.counter("stamp_datagrams_sent", "Datagrams of gossip that were sent", datagrams.sent)?;
    to.counter("stamp_datagrams_unsent", "Datagrams of gossip that the system did not take", datagrams.unsent)?;
    to.counter("stamp_datagrams_received", "Datagrams of gossip that came and count", datagrams.received)?;
    let refused = datagrams.refused.iter().map(|it| (label("reason", &it.reason), it.datagrams));
    to.counters("stamp_datagrams_refused", "Datagrams that came and do not count, by reason", refused)?;
    policy(to, stamp)
}

/// The figures of the stamp's policy.
fn policy(to: &mut Writer, stamp: &StampView) -> Result<(), fmt::Error> {
    let policy = &stamp.policy;
    let label = |name, value: &str| -> Labels { vec![(name, value.to_owned())] };
    to.gauge("stamp_policy_held", "Whether this host has the stamp's policy", policy.belongs.into())?;
    to.gauge("stamp_policy_changes", "Changes of the stamp's policy that this host knows", policy.changes)?;
    to.gauge("stamp_policy_conflicts", "Fields that hosts gave different values at the same time", policy.conflicts)?;
    to.gauge(
        "stamp_policy_set_aside",
        "Entries that are not in force, because together they are none",
        policy.set_aside,
    )?;
    to.gauge("stamp_policy_dead_letters", "What came as a change and is none, as far as kept", policy.dead_letters)?;
    to.counter("stamp_policy_changes_made", "Changes of the stamp's policy that were made here", policy.made)?;
    to.counter("stamp_policy_changes_taken", "Changes of others that were taken in", policy.taken)?;
    to.counter("stamp_policy_conflicts_seen", "Conflicts that came up", policy.conflicts_seen)?;
    let refused = policy.refused.iter().map(|it| (label("reason", &it.reason), it.changes));
    to.counters("stamp_policy_changes_refused", "What came as a change and is none, by reason", refused)?;
    let exchanges = &stamp.exchanges;
    let outcomes = [("done", exchanges.done), ("failed", exchanges.failed)];
    let outcomes = outcomes.map(|(outcome, times)| (label("outcome", outcome), times));
    to.counters("stamp_exchanges", "Other hosts asked for changes, by what came of it", outcomes)?;
    to.counter("stamp_exchanges_refused", "Connections of whoever has no key of the stamp", exchanges.strangers)
}
