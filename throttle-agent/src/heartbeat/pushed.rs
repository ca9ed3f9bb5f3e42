//! The heartbeats that backends push: what may be in one, and which is the last.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::roll::seconds;
use crate::{
    api::wire::{HeartbeatRequest, PushedView},
    health::{
        Nanos, SECOND,
        life::Incarnation,
        succession::{Order, Succession},
        whole,
    },
};

#[cfg(test)]
#[path = "pushed_tests.rs"]
mod tests;

/// Characters of a node's name, and of a build's.
const LINE: usize = 128;
/// Bytes of metadata, names and values together.
const METADATA: usize = 1024;
/// The highest load.
const LOAD: f64 = 1_000.0;
/// The longest latency, in seconds.
const LATENCY: f64 = 3_600.0;

/// A heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Beat {
    /// Whose.
    pub(super) of: Incarnation,
    /// Its number.
    pub(super) sequence: u64,
    /// How long the backend's answers take.
    pub(super) latency: Option<Nanos>,
    at: Nanos,
    node: String,
    time: Timestamp,
    load: Option<f64>,
    build: Option<String>,
    metadata: BTreeMap<String, String>,
}

impl Beat {
    /// Reads one that came at `at`, or says what is wrong with it.
    pub(super) fn read(request: HeartbeatRequest, at: Nanos) -> Result<Self, String> {
        let HeartbeatRequest { node, generation, sequence, time, load, build, metadata, .. } = request;
        if node.is_empty() {
            return Err("`node` is empty; name the host that the backend runs on".to_owned());
        }
        line("node", &node)?;
        line("build", build.as_deref().unwrap_or_default())?;
        let boot = boot(&request.boot_id).ok_or_else(|| {
            let remedy = "send the text of /proc/sys/kernel/random/boot_id";
            format!("`boot_id` is no UUID: `{}`; {remedy}", request.boot_id.escape_debug())
        })?;
        bounded("load", load, LOAD)?;
        bounded("latency_seconds", request.latency_seconds, LATENCY)?;
        let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > METADATA {
            return Err(format!("`metadata` has {bytes} bytes; send {METADATA} at most"));
        }
        let latency = request.latency_seconds.map(|latency| whole(latency * SECOND as f64));
        Ok(Self { of: Incarnation { boot, generation }, sequence, latency, at, node, time, load, build, metadata })
    }

    /// Whether it says that the backend is asked for more than it can do.
    pub(super) fn is_overloaded(&self) -> bool {
        self.load.is_some_and(|load| load > 1.0)
    }
}

fn line(field: &str, text: &str) -> Result<(), String> {
    let characters = text.chars().count();
    if characters > LINE {
        return Err(format!("`{field}` has {characters} characters; send {LINE} at most"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("`{field}` has control characters; send one line of plain text"));
    }
    Ok(())
}

fn bounded(field: &str, value: Option<f64>, most: f64) -> Result<(), String> {
    let is_fine = value.is_none_or(|value| (0.0..=most).contains(&value));
    if is_fine { Ok(()) } else { Err(format!("`{field}` is not within 0 and {most}")) }
}

/// The number of a boot id: 32 hexadecimal digits, in groups of 8, 4, 4, 4 and 12 or without a break.
fn boot(text: &str) -> Option<u128> {
    let groups: Vec<&str> = text.trim_end().split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let is_uuid = matches!(*lengths, [8, 4, 4, 4, 12] | [32]);
    let digits = groups.concat();
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_uuid && are_digits { u128::from_str_radix(&digits, 16).ok() } else { None }
}

/// The latest beat of an instance.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    last: Option<Beat>,
    succession: Succession,
}

impl Pushed {
    /// Takes a beat of one that is to beat every `interval`, if it is the latest: as the detector has it.
    pub(super) fn take(&mut self, beat: Beat, interval: Nanos) -> Order {
        let order = self.succession.take(beat.at, interval, beat.of, beat.sequence);
        if order.is_fresh() {
            self.last = Some(beat);
        }
        order
    }

    /// The latest, for the API.
    pub(super) fn view(&self, now: Nanos) -> Option<PushedView> {
        let beat = self.last.as_ref()?;
        Some(PushedView {
            ago_seconds: seconds(now.saturating_sub(beat.at)),
            node: beat.node.clone(),
            boot_id: written(beat.of.boot),
            generation: beat.of.generation,
            sequence: beat.sequence,
            time: beat.time,
            load: beat.load,
            build: beat.build.clone(),
            metadata: beat.metadata.clone(),
        })
    }
}

fn written(boot: u128) -> String {
    let digits = format!("{boot:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
