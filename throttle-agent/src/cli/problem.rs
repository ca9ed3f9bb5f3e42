//! The agent's refusals, as people read them and as exit codes.

use hyper::StatusCode;
use throttle_agent::{
    api::wire::{Problem, ProblemKind},
    policy::Diagnostics,
};

use super::failure::Failure;

/// What a refused request means for the command that sent it.
pub(crate) fn failure(status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Failure::Refused { problem, file: None },
        // Not our agent's words: something else listens there.
        Err(_) => Failure::Failed(anyhow::anyhow!(
            "HTTP {status} without an explanation; is it an agent of throttle that listens on this socket?"
        )),
    }
}

/// The exit code of a refusal, of a file or of what was typed.
pub(crate) fn code(problem: &Problem, of_file: bool) -> u8 {
    match problem.kind {
        ProblemKind::PolicyRefused if of_file => 78,
        ProblemKind::PolicyRefused | ProblemKind::Malformed => 2,
        ProblemKind::Unavailable | ProblemKind::Busy => 3,
        _ => 1,
    }
}

/// What was refused, one line for each fault; `file` is where the faults' positions are.
pub(crate) fn render(problem: &Problem, file: Option<&str>) -> String {
    if problem.diagnostics.is_empty() {
        // What the one who asks can mend explains itself; what the agent met does not.
        let own = problem.status < 500;
        return if own { problem.detail.clone() } else { format!("{}: {}", lower(&problem.title), problem.detail) };
    }
    let lines = problem.diagnostics.iter().map(|diagnostic| match file {
        Some(file) => diagnostic.in_file(file),
        None => diagnostic.to_string(),
    });
    let mut text = format!("{}; nothing was changed", lower(&problem.title));
    for line in lines {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

/// What is wrong with a file, one line for each fault.
pub(crate) fn list(title: &str, faults: &Diagnostics, file: &str) -> String {
    format!("{}\n{}", lower(title), faults.in_file(file))
}

fn lower(title: &str) -> String {
    let mut letters = title.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use throttle_agent::policy::Diagnostic;

    #[test]
    fn every_fault_of_a_policy_has_its_own_line() {
        let fault = |line, path: &str| Diagnostic {
            line: Some(line),
            column: Some(8),
            path: path.to_owned(),
            name: Some("web".to_owned()).filter(|_| line == 3),
            reason: "`50` names no period".to_owned(),
            remedy: "write 50/min".to_owned(),
        };
        let mut problem = Problem::new(ProblemKind::PolicyRefused, "2 faults");
        problem.diagnostics = vec![fault(3, "limit[0].rate"), fault(9, "limit[1].rate")];
        let expected = "\
the policy is refused; nothing was changed
p.toml:3:8: limit \"web\": rate: `50` names no period; write 50/min
p.toml:9:8: limit 2: rate: `50` names no period; write 50/min";
        assert_eq!(render(&problem, Some("p.toml")), expected);
    }

    #[test]
    fn what_is_wrong_in_a_file_ends_otherwise_than_what_was_typed() {
        let problem = Problem::new(ProblemKind::PolicyRefused, "`0/s` admits nothing");
        assert_eq!((code(&problem, true), code(&problem, false)), (78, 2));
        let problem = Problem::new(ProblemKind::Malformed, "a confirmation within 99999 s; write 1 to 86400");
        assert_eq!((code(&problem, true), code(&problem, false)), (2, 2));
    }

    #[test]
    fn other_refusals_say_what_and_why() {
        let problem = Problem::new(ProblemKind::NotFound, "no limit is named `x`; see `throttle limit list`");
        assert_eq!(render(&problem, None), "no limit is named `x`; see `throttle limit list`");
        assert_eq!(code(&problem, false), 1);
        let problem = Problem::new(ProblemKind::Store, "no space left on the device; make room");
        assert_eq!(render(&problem, None), "the store refused: no space left on the device; make room");
    }

    #[test]
    fn a_strangers_answer_is_no_problem_of_ours() {
        let failure = failure(StatusCode::BAD_GATEWAY, b"<html>");
        assert!(matches!(failure, Failure::Failed(_)));
    }
}
