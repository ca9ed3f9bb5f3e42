//! Changes of single entries: what they do not name stays as it is, and what would contradict what they name goes.

mod backend;
mod limit;
mod penalty;
mod service;

pub use backend::BackendChange;
pub use limit::LimitChange;
pub use penalty::PenaltyChange;
pub use service::{HealthChange, HttpChange, ServiceChange};

fn replace<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}
