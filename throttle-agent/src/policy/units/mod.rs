//! Quantities, rates and times as people write them: `50/min`, `10Mbit/s`, `64KiB`, `5m`.
//!
//! Each keeps the form in which it was written, so that an exported policy reads as the one that was applied.

mod quantity;
mod rate;
mod span;

pub use quantity::{Quantity, Scale};
pub use rate::{Period, Rate};
pub use span::Span;

#[cfg(test)]
mod tests;
