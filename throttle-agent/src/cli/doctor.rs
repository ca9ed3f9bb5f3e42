//! `throttle doctor`: what this host has and lacks, each finding with its remedy; no agent is asked.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use throttle_agent::{
    api::wire::Envelope,
    datapath::doctor::{self, Finding, Level},
};

use super::{Context, Pins, failure::Failure, output, output::Paint};

/// What to examine.
#[derive(Debug, Args)]
#[command(after_help = "\
Exits 0 when the agent can run here, 1 when a fault stands in its way.

Examples:
  throttle doctor
  throttle doctor --interface eth0 --interface eth1")]
pub(crate) struct Doctor {
    /// An interface to examine; by default every one that is up
    #[arg(long = "interface", short, value_name = "IF")]
    interfaces: Vec<String>,
    #[command(flatten)]
    pins: Pins,
}

#[derive(Debug, Serialize)]
struct Findings<'a> {
    findings: Vec<Entry<'a>>,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    subject: &'a str,
    level: &'static str,
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    remedy: &'a str,
}

impl Doctor {
    /// Examines.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let findings = doctor::examine(&self.interfaces, &self.pins.pin_dir);
        if context.output.json {
            let findings = findings.iter().map(entry).collect();
            output::json(&Envelope::new(Findings { findings }))?;
        } else {
            output::data(&render(&findings, context.output.paint))?;
        }
        match findings.iter().filter(|finding| finding.level == Level::Fault).count() {
            0 => Ok(()),
            1 => Err(Failure::Failed(anyhow::anyhow!("a fault stands in the agent's way"))),
            faults => Err(Failure::Failed(anyhow::anyhow!("{faults} faults stand in the agent's way"))),
        }
    }
}

fn entry(finding: &Finding) -> Entry<'_> {
    Entry { subject: &finding.subject, level: word(finding.level), text: &finding.text, remedy: &finding.remedy }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Note => "note",
        Level::Warning => "warning",
        Level::Fault => "fault",
    }
}

/// A line for each finding, its remedy below it.
fn render(findings: &[Finding], paint: Paint) -> String {
    let width = findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { subject, level, text: found, remedy } in findings {
        let mark = format!("{:<7}", word(*level));
        let mark = match level {
            Level::Ok => paint.good(&mark),
            Level::Note => paint.faint(&mark),
            Level::Warning => paint.warning(&mark),
            Level::Fault => paint.fault(&mark),
        };
        _ = writeln!(text, "{mark}  {subject:<width$}  {found}");
        if !remedy.is_empty() {
            _ = writeln!(text, "{:9}{:width$}  -> {remedy}", "", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_its_remedy_below_it() {
        let finding = |subject: &str, level, text: &str, remedy: &str| Finding {
            subject: subject.to_owned(),
            level,
            text: text.to_owned(),
            remedy: remedy.to_owned(),
        };
        let findings = [
            finding("kernel", Level::Ok, "6.1.0", ""),
            finding("bpffs", Level::Fault, "not mounted", "mount -t bpf bpf /sys/fs/bpf"),
        ];
        let expected = "\
ok       kernel  6.1.0
fault    bpffs   not mounted
                 -> mount -t bpf bpf /sys/fs/bpf
";
        assert_eq!(render(&findings, Paint::PLAIN), expected);
    }
}
