//! What a host lacks, or has too much of, for throttling; each finding with its remedy.

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Works, but worse than it could.
    Warning,
    /// Does not work.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `kernel`, `bpffs`, `capabilities`, an interface's name.
    pub subject: String,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it; empty where nothing is to be done.
    pub remedy: String,
}

/// Looks at the kernel, at what this process may do, and at the interfaces named, or at all but the loopback.
pub fn examine(interfaces: &[String]) -> Vec<Finding> {
    let _ = interfaces;
    Vec::new()
}
