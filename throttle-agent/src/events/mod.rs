//! Sampled refusals on their way from the kernel to readers: in names, filtered, with a word on every gap.

mod filter;
mod hub;
mod names;

pub use filter::{Filter, Named};
pub use hub::{Hub, Next, Subscription};
pub use names::Names;
