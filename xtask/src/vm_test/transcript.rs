//! What a machine said, and what follows from it: nothing is passed that was not seen to pass.

use super::guest::{SIGN, Step};
use super::table::{Row, Verdict};
use crate::test::Report;

/// The step that says what a kernel lacks.
pub(super) const DOCTOR: &str = "doctor";
/// What a suite prints when all its tests have passed.
pub(super) const ALL_PASSED: &str = "test result: ok.";

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It switched itself off.
    Off,
    /// Its kernel gave up.
    Panicked,
    /// It was switched off when its time was up.
    TimedOut,
}

/// All lines of a machine's serial console.
#[derive(Debug)]
pub(super) struct Transcript {
    pub(super) lines: Vec<String>,
    pub(super) end: End,
}

/// Whether a line says that the kernel has given up.
pub(super) fn is_panic(line: &str) -> bool {
    line.contains("Kernel panic - not syncing")
}

/// Whether a line is a complaint of the kernel about itself. That a CPU got no time says nothing here, where others
/// share the processor.
fn is_complaint(line: &str) -> bool {
    let starved = line.contains("soft lockup");
    !starved && ["] WARNING: ", "] BUG: ", "] Oops: "].iter().any(|sign| line.contains(sign))
}

impl Transcript {
    /// The row of a kernel, by its name and by what it must call itself, that was to do these steps.
    pub(super) fn judge(&self, kernel: String, release: &str, steps: &[Step]) -> Row {
        let mut faults: Vec<String> = self.end().into_iter().chain(self.first(is_complaint)).collect();
        let booted = format!("{SIGN}kernel {release} ");
        if !self.lines.iter().any(|line| line.starts_with(&booted)) {
            faults.push("it did not come as far as the tests".to_owned());
        }
        let (mut total, mut tables) = (Report::default(), Vec::new());
        for step in steps {
            match self.between(&step.name) {
                Ok((said, code)) => {
                    for line in said {
                        total.read(line);
                        tables.extend(line.starts_with('|').then(|| line.clone()));
                    }
                    faults.extend(fault_of(step, said, code));
                }
                Err(why) => faults.push(format!("{} {why}", step.name)),
            }
        }
        let tests = steps.iter().any(|step| step.prints == ALL_PASSED);
        if tests && total.passed == 0 {
            faults.push("no test ran".to_owned());
        }
        let verdict = match (faults.is_empty(), tests) {
            (false, _) => Verdict::Failed,
            (true, true) => Verdict::Passed,
            (true, false) => Verdict::Refused,
        };
        faults.extend(self.lacking());
        Row { kernel, verdict, tests: counts(&total), notes: faults, skipped: total.skipped, tables }
    }

    /// What is wrong with how the machine ended.
    fn end(&self) -> Option<String> {
        let overs = self.lines.iter().filter(|line| **line == format!("{SIGN}over")).count();
        match self.end {
            End::Off if overs == 1 => None,
            End::Off => Some(format!("it ended after saying {overs} times that all was done")),
            End::Panicked => self.first(is_panic),
            End::TimedOut => {
                let last = self.lines.last().map_or("nothing", String::as_str);
                Some(format!("the time was up; it said last: {last}"))
            }
        }
    }

    /// The lines of a step, and the code that it ended with.
    fn between(&self, name: &str) -> Result<(&[String], u8), &'static str> {
        let (begin, end) = (format!("{SIGN}begin {name}"), format!("{SIGN}end {name} "));
        let mut begins = self.lines.iter().enumerate().filter(|(_, line)| **line == begin).map(|(number, _)| number);
        let mut ends = self.lines.iter().enumerate().filter_map(|(number, line)| {
            let code = line.strip_prefix(&end)?;
            Some((number, code.parse().ok()?))
        });
        match (begins.next(), begins.next(), ends.next(), ends.next()) {
            (None, ..) => Err("did not begin"),
            (Some(_), None, None, _) => Err("did not end"),
            (Some(begin), None, Some((end, code)), None) if begin < end => Ok((&self.lines[begin + 1..end], code)),
            _ => Err("began or ended twice"),
        }
    }

    /// What `throttle doctor` found amiss.
    fn lacking(&self) -> Vec<String> {
        let (lines, _) = self.between(DOCTOR).unwrap_or_default();
        let found = lines.iter().filter_map(|line| {
            let (level, found) = line.split_once("  ")?;
            matches!(level, "note" | "warning" | "fault")
                .then(|| found.split_whitespace().collect::<Vec<_>>().join(" "))
        });
        found.collect()
    }

    fn first(&self, is: impl Fn(&str) -> bool) -> Option<String> {
        self.lines.iter().find(|line| is(line)).cloned()
    }
}

/// What is wrong with how a step ended.
fn fault_of(step: &Step, said: &[String], code: u8) -> Option<String> {
    let Step { name, prints, .. } = step;
    if code != step.code {
        let why = why(said).map_or(String::new(), |why| format!(": {why}"));
        return Some(format!("{name} ended with {code} instead of {}{why}", step.code));
    }
    let printed = said.iter().any(|line| line.contains(prints));
    (!printed).then(|| format!("{name} did not say `{prints}`"))
}

/// Why a step failed, as far as it can be said in a line: what the verifier objects to, what a test expected, or an error.
fn why(said: &[String]) -> Option<&str> {
    let statistics =
        |line: &String| ["verification time ", "stack depth ", "processed "].iter().any(|it| line.starts_with(it));
    let verifier = said.iter().position(statistics).and_then(|at| at.checked_sub(1));
    let test = said.iter().position(|line| line.contains("panicked at")).map(|at| at + 1);
    let error = said.iter().position(|line| line.starts_with("Error: ") || line.starts_with("error: "));
    verifier.or(test).or(error).and_then(|at| said.get(at)).map(|line| line.trim())
}

fn counts(total: &Report) -> String {
    let passed = format!("{} passed", total.passed);
    let failed = (total.failed > 0).then(|| format!("{} failed", total.failed));
    let skipped = (!total.skipped.is_empty()).then(|| format!("{} skipped", total.skipped.len()));
    [Some(passed), failed, skipped].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
[    2.1] Unstable clock detected
vm-test: kernel 6.1.0-56 #1 SMP Debian 6.1.192-2
vm-test: begin doctor
ok       kernel        Linux 6.1.0-56
warning  kernel        has no frames of several buffers
                       -> use Linux 5.18 or newer
vm-test: end doctor 0
vm-test: begin verdicts
test a ... ok
test b ... skipped b: no VLAN
| a | b |
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.0s
vm-test: end verdicts 0
vm-test: over
[   85.4] reboot: Power down";

    fn step(name: &str, code: u8, prints: &'static str) -> Step {
        Step { name: name.to_owned(), command: String::new(), code, prints }
    }

    fn judge(said: &str, end: End) -> Row {
        let lines = said.lines().map(str::to_owned).collect();
        let steps = [step(DOCTOR, 0, ""), step("verdicts", 0, ALL_PASSED)];
        Transcript { lines, end }.judge("6.1".to_owned(), "6.1.0-56", &steps)
    }

    fn fault(said: &str, end: End) -> String {
        let row = judge(said, end);
        assert_eq!(row.verdict, Verdict::Failed, "{row:?}");
        row.notes[0].clone()
    }

    #[test]
    fn a_machine_that_said_everything_once_has_passed() {
        let row = judge(GOOD, End::Off);
        assert_eq!((row.verdict, row.tests.as_str()), (Verdict::Passed, "2 passed, 1 skipped"), "{row:?}");
        assert_eq!(row.notes, ["kernel has no frames of several buffers"]);
        assert_eq!(row.skipped, ["b: no VLAN"]);
        assert_eq!(row.tables, ["| a | b |"]);
    }

    #[test]
    fn a_line_that_is_missing_or_doubled_is_no_pass() {
        for line in GOOD.lines().filter(|line| line.starts_with(SIGN) || line.starts_with("test result")) {
            fault(&GOOD.replacen(&format!("{line}\n"), "", 1), End::Off);
        }
        for line in GOOD.lines().filter(|line| line.starts_with(SIGN) && !line.contains("kernel")) {
            fault(&GOOD.replacen(line, &format!("{line}\n{line}"), 1), End::Off);
        }
        assert_eq!(fault(&GOOD.replace("2 passed", "0 passed"), End::Off), "no test ran");
        assert!(fault(&GOOD.replace("6.1.0-56 #1", "6.1.0-55 #1"), End::Off).contains("did not come as far"));
    }

    #[test]
    fn a_machine_that_did_not_end_by_itself_is_no_pass() {
        assert!(fault(GOOD, End::TimedOut).ends_with("reboot: Power down"));
        let panic = "[    1.0] Kernel panic - not syncing: no init";
        assert_eq!(fault(&format!("{GOOD}\n{panic}"), End::Panicked), panic);
    }

    #[test]
    fn a_kernel_that_complains_is_no_pass_unless_it_only_waited() {
        let warning = "test c ... [   12.0] WARNING: CPU: 0 PID: 9 at kernel/bpf/verifier.c:1";
        assert_eq!(fault(&format!("{warning}\n{GOOD}"), End::Off), warning);
        let starved = "[   12.0] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!";
        assert_eq!(judge(&format!("{starved}\n{GOOD}"), End::Off).verdict, Verdict::Passed);
    }

    #[test]
    fn a_step_that_fails_says_why() {
        let failed = GOOD.replace("end verdicts 0", "end verdicts 101");
        let verifier = "the verifier says:\nR1 invalid mem access 'scalar'\nstack depth 0\nprocessed 9 insns\ntest a";
        let said = fault(&failed.replace("test a", verifier), End::Off);
        assert_eq!(said, "verdicts ended with 101 instead of 0: R1 invalid mem access 'scalar'");
        let test = "thread 'a' (9) panicked at a.rs:1:1:\nassertion failed: one\ntest a";
        let said = fault(&failed.replace("test a", test), End::Off);
        assert_eq!(said, "verdicts ended with 101 instead of 0: assertion failed: one");
    }

    #[test]
    fn a_refusal_is_one_in_the_words_that_are_asked_for() {
        let said =
            "vm-test: kernel 5.10.0 #1\nvm-test: begin run\nerror: too old: use 6.1\nvm-test: end run 1\nvm-test: over";
        let transcript = Transcript { lines: said.lines().map(str::to_owned).collect(), end: End::Off };
        let verdict = |prints| transcript.judge("5.10".to_owned(), "5.10.0", &[step("run", 1, prints)]).verdict;
        assert_eq!((verdict("use 6.1"), verdict("use 6.2")), (Verdict::Refused, Verdict::Failed));
    }
}
