//! What a daemon owes its host: one instance, few privileges, readable logs, and word to the service manager.

pub mod lock;
pub mod logs;
pub mod notify;
pub mod private;
pub mod privileges;
pub mod retry;
