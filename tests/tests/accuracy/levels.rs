//! Whose limits are measured, and by which algorithms and units: as policy writes them, and what they promise.

use super::{HELD, LENGTH, SOURCE};
use std::fmt::Write as _;
use throttle_common::packet::tcp;
use throttle_tests::{frames::Frame, program::SECOND};

/// Who shares what a limit allows.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) name: &'static str,
    per: &'static str,
    of_service: bool,
    /// For whom an override says what is measured, where the limit itself admits hardly anything.
    overridden: Option<&'static str>,
    /// Whether it is a guarantee that is measured, where all else is taken by others.
    guaranteed: bool,
    /// The adjoining bits by which sources differ who share what is measured; not the lowest.
    pub(crate) turns: u64,
}

const SOURCE_LEVEL: Level =
    Level { name: "source", per: "source", of_service: false, overridden: None, guaranteed: false, turns: 0 };
/// A thousand sources and a bit.
const MANY: u64 = 0x7fe;

pub(crate) const LEVELS: [Level; 10] = [
    SOURCE_LEVEL,
    Level { name: "tenant", per: "tenant", turns: MANY, ..SOURCE_LEVEL },
    Level { name: "service", per: "service", of_service: true, turns: MANY, ..SOURCE_LEVEL },
    Level { name: "host", per: "host", turns: MANY, ..SOURCE_LEVEL },
    Level { name: "source at a service", of_service: true, ..SOURCE_LEVEL },
    Level { name: "tenant at a service", per: "tenant", of_service: true, turns: MANY, ..SOURCE_LEVEL },
    Level { name: "override of a source", overridden: Some("sources = [\"198.51.0.0/16\"]"), ..SOURCE_LEVEL },
    Level {
        name: "override of a tenant",
        per: "tenant",
        overridden: Some("tenant = \"t\""),
        turns: MANY,
        ..SOURCE_LEVEL
    },
    Level { name: "guarantee of a tenant", per: "tenant", guaranteed: true, turns: MANY, ..SOURCE_LEVEL },
    Level {
        name: "guarantee of a service",
        per: "service",
        of_service: true,
        guaranteed: true,
        turns: MANY,
        ..SOURCE_LEVEL
    },
];

/// How a limit decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    TokenBucket,
    LeakyBucket,
    FixedWindow,
    SlidingWindow,
}

pub(crate) const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow];

impl Algorithm {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TokenBucket => "token-bucket",
            Self::LeakyBucket => "leaky-bucket",
            Self::FixedWindow => "fixed-window",
            Self::SlidingWindow => "sliding-window",
        }
    }

    /// Whether it counts in windows, which are a second long here.
    pub(crate) const fn counts_windows(self) -> bool {
        matches!(self, Self::FixedWindow | Self::SlidingWindow)
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Packets,
    /// Frames of a thousand bytes.
    Bytes,
    Connections,
}

pub(crate) const UNITS: [Unit; 3] = [Unit::Packets, Unit::Bytes, Unit::Connections];

impl Unit {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Connections => "connections",
        }
    }

    /// Units of a frame.
    const fn of_frame(self) -> u64 {
        if let Self::Bytes = self { LENGTH } else { 1 }
    }
}

/// A limit under test: so many frames a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) level: &'static Level,
    pub(crate) algorithm: Algorithm,
    pub(crate) unit: Unit,
    pub(crate) rate: u64,
}

impl Limit {
    /// All that there are: what is guaranteed is always a token bucket.
    pub(crate) fn all(rate: u64) -> impl Iterator<Item = Self> {
        let algorithms = LEVELS.iter().flat_map(|level| ALGORITHMS.map(|algorithm| (level, algorithm)));
        algorithms
            .filter(|(level, algorithm)| !level.guaranteed || *algorithm == Algorithm::TokenBucket)
            .flat_map(move |(level, algorithm)| UNITS.map(|unit| Self { level, algorithm, unit, rate }))
    }

    /// The limit whose counters tell what was admitted.
    pub(crate) fn counted(&self) -> &'static str {
        if self.level.guaranteed { "l:guarantee" } else { "l" }
    }

    /// Frames that a token bucket holds.
    fn burst(&self) -> u64 {
        // For bytes no less than the largest frame.
        (self.rate * HELD / SECOND).max(2)
    }

    /// Frames that are admitted in so many nanoseconds, in which as many windows begin.
    pub(crate) fn due(&self, nanos: f64) -> f64 {
        let flowing = self.rate as f64 * nanos / SECOND as f64;
        match (self.algorithm, self.unit) {
            (Algorithm::TokenBucket, _) => self.burst() as f64 + flowing,
            // Of bytes a leaky bucket holds 64 KiB.
            (Algorithm::LeakyBucket, Unit::Bytes) => (65_536 / LENGTH) as f64 + flowing,
            (Algorithm::LeakyBucket, _) => 1.0 + flowing,
            (Algorithm::FixedWindow | Algorithm::SlidingWindow, _) => self.rate as f64 * (nanos / SECOND as f64).ceil(),
        }
    }

    pub(crate) fn policy(&self) -> String {
        let Self { level, algorithm, unit, rate } = *self;
        let (unit, name, of_frame) = (if unit == Unit::Bytes { "B" } else { "" }, unit.name(), unit.of_frame());
        let terms = |times: u64| {
            let (rate, burst) = (rate * of_frame * times, self.burst() * of_frame * times);
            let mut terms = format!("rate = \"{rate}{unit}/s\"\n");
            if algorithm == Algorithm::TokenBucket {
                // Writing to a string cannot fail.
                _ = writeln!(terms, "burst = {burst}");
            }
            terms
        };
        let mut text = format!(
            "mode = \"enforce\"\n[[service]]\nname = \"s\"\nprotocol = \"tcp\"\nports = [80]\n\
             [[tenant]]\nname = \"t\"\nsources = [\"198.51.0.0/16\"]\n\
             [[limit]]\nname = \"l\"\nunit = \"{name}\"\nper = \"{}\"\nalgorithm = \"{}\"\n{}",
            level.per,
            algorithm.name(),
            if level.of_service { "service = \"s\"\n" } else { "" },
        );
        if let Some(whose) = level.overridden {
            _ = write!(text, "rate = \"{}{unit}/s\"\n[[limit.override]]\n{whose}\n{}", 2 * of_frame, terms(1));
        } else if level.guaranteed {
            let guarantee = terms(1).replace("rate =", "guarantee =").replace("burst =", "guarantee-burst =");
            _ = write!(text, "{}{guarantee}", terms(10));
            _ = write!(text, "[[limit]]\nname = \"host\"\nunit = \"{name}\"\nper = \"host\"\n{}", terms(1));
        } else {
            text += &terms(1);
        }
        text
    }

    /// The frame of its first source.
    pub(crate) fn frame(&self) -> Vec<u8> {
        self.frame_of(SOURCE)
    }

    /// The frame of a source.
    pub(crate) fn frame_of(&self, source: [u8; 4]) -> Vec<u8> {
        let length = if self.unit == Unit::Bytes { LENGTH as usize } else { 60 };
        Frame::v4(source).tcp(40_000, 80, tcp::SYN).length(length).bytes()
    }
}
