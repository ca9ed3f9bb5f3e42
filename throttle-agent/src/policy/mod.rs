//! Policy: what a host enforces, as people write it and as the kernel reads it.
//!
//! Everything here is pure: text or JSON in, a [`Document`] or the list of what is wrong with it out; a document and
//! what the kernel holds in, the records to write out. No file here opens a file, a socket or a map, or reads a clock.
//!
//! - [`parse()`], [`check()`] and [`to_toml()`]: between text and document; nothing contradictory or unknown gets in.
//! - [`compile()`]: from document to [`throttle_common::records`], with numbers and regions that stay.
//! - [`sources`]: what addresses and prefixes amount to together.
//! - [`diff()`] and [`mod@forecast`]: what a change changes, and which flood a limit withstands.
//! - [`Patch`]: what makes one document of the one before.
//! - [`edit`]: the changes that single commands make.
//! - [`entries`] and [`salvage()`]: what hosts tell each other of a document, and the policy that comes of it.

mod change;
mod check;
mod claims;
mod classes;
mod classify;
mod compile;
mod diff;
mod document;
pub mod edit;
pub mod entries;
mod fault;
mod file;
pub mod forecast;
mod guarantee;
mod keyed;
mod layout;
mod overrides;
mod patch;
mod ports;
mod prefix;
mod read;
mod salvage;
mod shared;
pub mod sharing;
pub mod sources;
mod text;
pub mod units;
pub mod word;

pub use change::{BackendChange, HealthChange, HttpChange, LimitChange, PenaltyChange, ServiceChange};
pub use check::{check, new_warnings};
pub use compile::{compile, compile_after};
pub use diff::{Change, diff};
pub use document::{
    Answers, Backend, ControlKind, Document, Endpoint, Events, Health, HealthMode, Http, Lengths, Limit, Mode, Penalty,
    Probe, Protocol, Service, Sources, Tenant,
};
pub use fault::{Diagnostic, Diagnostics, Fault, Warning};
pub use file::{parse, parse_with_warnings, require_words, text, to_toml};
pub use guarantee::Guarantee;
pub use layout::{Clocks, Compiled, HeldLimit, Layout, Overridden, Tenants};
pub use overrides::Override;
pub use patch::Patch;
pub use ports::PortRange;
pub use prefix::Prefix;
pub use salvage::{SetAside, salvage};
pub use shared::Shared;
pub use throttle_common::words::Speaks;
pub use word::Word;

#[cfg(test)]
mod after_tests;
#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod overrides_tests;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod tests;
