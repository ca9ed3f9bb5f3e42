//! `throttle upgrade --check`: what this build would do with what is in force, said beforehand; changes nothing.

use std::{fmt::Write as _, path::Path};

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use throttle_agent::{
    agent,
    api::wire::{Build, Envelope, paths},
    datapath::forecast::{Fate, Forecast, Plan, Replacement, forecast},
    policy::{self, Document, Layout},
};

use super::{Context, DEFAULT_SETS, Pins, failure::Failure, output, output::Paint};

/// What to look at.
#[derive(Debug, Args)]
#[command(after_help = "\
Run it as the new binary, beside the agent in force or without one, in the network namespace of the interfaces. The
upgrade itself is a restart with the new binary: `install throttle /usr/bin/ && systemctl restart throttle`.

Exits 0 when this build would take over or has nothing to take over, 5 when it would refuse.

Examples:
  ./throttle upgrade --check
  ./throttle upgrade --check --json | jq -r .plan   # fresh, adopt, migrate, finish or refuse")]
pub(crate) struct Upgrade {
    /// Say what would happen and what would be lost
    #[arg(long, required = true)]
    check: bool,
    #[command(flatten)]
    pins: Pins,
}

/// What is in force, and what this build would make of it.
#[derive(Debug, Serialize)]
struct Report {
    /// The build of the agent that runs; nothing where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<Build>,
    /// The build of this command.
    this: Build,
    /// Whether this build would put the policy of the agent that runs in force.
    policy: Policy,
    #[serde(flatten)]
    forecast: Forecast,
}

/// What this build makes of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Policy {
    /// It puts it in force.
    Accepted,
    /// It refuses it, for this reason.
    Refused(String),
    /// Nobody says what the policy is.
    Unknown,
}

impl Policy {
    /// For a table of so many sets.
    fn of(view: Option<&Value>, sets: u32) -> Self {
        let Some(toml) = view.and_then(|view| view["toml"].as_str()) else { return Self::Unknown };
        let layout = Layout { sets, ..Layout::default() };
        // As the store will be read. What cannot be is told with its place in the file.
        let stored = view.and_then(|view| serde_json::from_value::<Document>(view["document"].clone()).ok());
        let document = stored.map_or_else(|| policy::parse(toml), |document| Ok(document.with_units()));
        match document.and_then(|document| policy::compile(&document, 1, &layout)) {
            Ok(_) => Self::Accepted,
            Err(faults) => Self::Refused(faults.to_string()),
        }
    }
}

/// Maps cannot change over without a policy. Maps that stay would keep the one that they have, but no command could edit that,
/// and nothing would put it in force after the next start of the host.
fn with_policy(plan: Plan, policy: &Policy) -> Plan {
    match (plan, policy) {
        (Plan::Adopt | Plan::Migrate { .. } | Plan::Finish { .. }, Policy::Refused(why)) => Plan::Refuse {
            reason: format!("this build refuses the policy of the agent that runs: {why}"),
            remedy: "apply a policy that both builds take, first: `throttle policy check` of this build helps"
                .to_owned(),
        },
        (plan, _) => plan,
    }
}

/// An agent that runs has pinned something: where nothing is seen of that, this looks elsewhere.
fn where_it_runs(plan: Plan, running: Option<&Build>, pin_dir: &Path) -> Plan {
    match plan {
        Plan::Fresh if running.is_some() => Plan::Refuse {
            reason: format!("an agent runs, and nothing of it is pinned in {} as seen from here", pin_dir.display()),
            remedy: "name its --pin-dir, or look from where it runs: `nsenter --mount --net --target PID`".to_owned(),
        },
        plan => plan,
    }
}

impl Upgrade {
    /// Looks.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        debug_assert!(self.check, "the command line asks for it");
        // An agent of another version may say more or less than this command knows.
        let client = context.client()?;
        let ask = |path| client.get(path).and_then(|answer| answer.parse::<Value>()).ok();
        let running = ask(paths::STATUS).and_then(|status| serde_json::from_value(status["build"].clone()).ok());
        let mut forecast = forecast(&self.pins.pin_dir)?;
        let policy = Policy::of(ask(paths::POLICY).as_ref(), forecast.table_sets.unwrap_or(DEFAULT_SETS));
        forecast.plan = where_it_runs(with_policy(forecast.plan, &policy), running.as_ref(), &self.pins.pin_dir);
        let report = Report { running, this: agent::build(), policy, forecast };
        if context.output.json {
            output::json(&Envelope::new(&report))?;
        } else {
            output::data(&render(&report, context.output.paint))?;
        }
        if matches!(report.forecast.plan, Plan::Refuse { .. }) { Err(Failure::Incompatible) } else { Ok(()) }
    }
}

fn render(report: &Report, paint: Paint) -> String {
    let Report { running, this, policy, forecast } = report;
    let mut text = String::new();
    let mut line = |what: &str, said: &str| _ = writeln!(text, "{what:<12}{said}");
    line("in force", &in_force(running.as_ref(), forecast));
    let tag = forecast.program_tag.as_ref().map_or_else(String::new, |tag| format!(", program {tag}"));
    line("this build", &format!("{}{tag}", build(this)));
    line("plan", &plan(&forecast.plan, paint));
    if let Plan::Refuse { remedy, .. } = &forecast.plan {
        line("", &format!("-> {remedy}"));
    }
    if let Some(sets) = forecast.table_sets.filter(|&sets| sets != DEFAULT_SETS) {
        line("", &format!("-> the table has {sets} sets: keep --table-sets {sets}"));
    }
    line(
        "policy",
        &match policy {
            Policy::Accepted => "this build puts it in force".to_owned(),
            Policy::Refused(why) => format!("{}: {why}", paint.warning("this build refuses it")),
            Policy::Unknown => {
                "not checked: no agent says what it is; `throttle policy check FILE` of this build checks a file"
                    .to_owned()
            }
        },
    );
    for it in &forecast.interfaces {
        line("interface", &interface(it));
    }
    line("sockets", &sockets(forecast, paint));
    line("egress", &leaving(forecast, paint));
    line("connects", &connects(forecast, paint));
    for Fate { what, kept, text } in &forecast.fates {
        let mark = if *kept { paint.good("kept        ") } else { paint.warning("lost        ") };
        line(&mark, &format!("{what}: {text}"));
    }
    text
}

fn in_force(running: Option<&Build>, forecast: &Forecast) -> String {
    let pinned = match (forecast.pinned_layout, forecast.table_sets) {
        (Some(layout), Some(sets)) => format!("maps of layout {layout}, a table of {sets} sets"),
        (Some(layout), None) => format!("maps of layout {layout}"),
        (None, _) => "nothing is pinned".to_owned(),
    };
    match running {
        Some(running) => format!("{pinned}; the agent that runs is {}", build(running)),
        None => format!("{pinned}; no agent answers"),
    }
}

fn build(build: &Build) -> String {
    let digest = build.object_digest.get(..12).unwrap_or(&build.object_digest);
    format!("{}, layout {}, object {digest}", build.version, build.layout)
}

fn plan(plan: &Plan, paint: Paint) -> String {
    match plan {
        Plan::Fresh => format!("{}: nothing is there to be taken over", paint.good("fresh")),
        Plan::Adopt => format!("{}: this build goes on with the maps as they are", paint.good("adopt")),
        Plan::Migrate { from } => {
            format!("{}: the maps are changed over from layout {from} at the next start", paint.good("migrate"))
        }
        Plan::Finish { from } => format!(
            "{}: a change from layout {from} was interrupted, and is ended at the next start",
            paint.warning("finish")
        ),
        Plan::Refuse { reason, .. } => format!("{}: {reason}; what is in force stays", paint.fault("refuse")),
    }
}

fn interface(it: &Replacement) -> String {
    let mode = it.mode.map_or_else(|| "in another network namespace".to_owned(), |mode| format!("{mode} mode"));
    let tag = it.program_tag.as_ref().map_or_else(String::new, |tag| format!(", program {tag}"));
    let how = match (it.in_place, it.mode) {
        (false, _) => "its interface is gone",
        (true, Some(_)) => "replaced in place, no packet in between",
        (true, None) => "replaced in place by an agent that is started there, no packet in between",
    };
    format!("{}: {mode}{tag}: {how}", it.interface)
}

fn sockets(forecast: &Forecast, paint: Paint) -> String {
    match (&forecast.sockets_unwatchable, forecast.sockets_watched) {
        (Some(why), _) => {
            format!("{}: {why}; completed handshakes would prove nobody", paint.warning("cannot be watched"))
        }
        (None, true) => "watched: the new program is attached beside the old one, which then goes".to_owned(),
        (None, false) => "not watched yet: a program is attached at the next start".to_owned(),
    }
}

fn leaving(forecast: &Forecast, paint: Paint) -> String {
    match (&forecast.leaving_unseeable, forecast.leaving_seen) {
        (Some(why), _) => format!(
            "{}: {why}; limits on open connections of `forwarded` services would count nothing, and no time to first byte \
             be measured",
            paint.warning("cannot be seen")
        ),
        (None, true) => "seen: the new program takes the place of the old one".to_owned(),
        (None, false) => "not seen yet: a program is attached beside that of each interface".to_owned(),
    }
}

fn connects(forecast: &Forecast, paint: Paint) -> String {
    match (&forecast.connects_unseeable, forecast.connects_seen) {
        (Some(why), _) => {
            format!("{}: {why}; with --cgroup this build would not start", paint.warning("cannot be seen"))
        }
        (None, true) => {
            "seen: with --cgroup the new programs take the place of the old ones, without they go".to_owned()
        }
        (None, false) => "not seen: programs are attached where --cgroup says".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use throttle_agent::datapath::XdpMode;

    fn report(plan: Plan, fates: Vec<Fate>) -> Report {
        let build =
            |layout| Build { version: "0.1.0".to_owned(), layout, object_digest: "0123456789abcdef".to_owned() };
        Report {
            running: Some(build(2)),
            this: build(3),
            policy: Policy::Accepted,
            forecast: Forecast {
                plan,
                pinned_layout: Some(2),
                table_sets: Some(4096),
                layout: 3,
                program_tag: Some("00000000000000aa".to_owned()),
                interfaces: vec![Replacement {
                    interface: "eth0".to_owned(),
                    mode: Some(XdpMode::Native),
                    program_tag: Some("00000000000000bb".to_owned()),
                    in_place: true,
                }],
                sockets_watched: true,
                sockets_unwatchable: None,
                leaving_seen: true,
                leaving_unseeable: None,
                connects_seen: false,
                connects_unseeable: None,
                fates,
            },
        }
    }

    #[test]
    fn says_what_is_in_force_what_would_happen_and_what_would_be_lost() {
        let fate = |what, kept, text: &str| Fate { what, kept, text: text.to_owned() };
        let fates = vec![fate("counters", true, "7 frames"), fate("events", false, "3 unread")];
        let expected = "\
in force    maps of layout 2, a table of 4096 sets; the agent that runs is 0.1.0, layout 2, object 0123456789ab
this build  0.1.0, layout 3, object 0123456789ab, program 00000000000000aa
plan        migrate: the maps are changed over from layout 2 at the next start
            -> the table has 4096 sets: keep --table-sets 4096
policy      this build puts it in force
interface   eth0: native mode, program 00000000000000bb: replaced in place, no packet in between
sockets     watched: the new program is attached beside the old one, which then goes
egress      seen: the new program takes the place of the old one
connects    not seen: programs are attached where --cgroup says
kept        counters: 7 frames
lost        events: 3 unread
";
        assert_eq!(render(&report(Plan::Migrate { from: 2 }, fates), Paint::PLAIN), expected);
    }

    #[test]
    fn a_program_that_the_kernel_refuses_is_told_with_what_happens_then() {
        let mut report = report(Plan::Adopt, Vec::new());
        report.forecast.leaving_unseeable = Some("R1 invalid mem access".to_owned());
        report.forecast.connects_unseeable = Some("operation not permitted".to_owned());
        let text = render(&report, Paint::PLAIN);
        let egress =
            "egress      cannot be seen: R1 invalid mem access; limits on open connections of `forwarded` services";
        let connects =
            "connects    cannot be seen: operation not permitted; with --cgroup this build would not start\n";
        assert!(text.contains(egress) && text.contains(connects), "{text}");
    }

    #[test]
    fn a_policy_that_this_build_refuses_stands_in_the_way() {
        let view = |toml: &str| Some(serde_json::json!({ "toml": toml }));
        let of = |toml: &str| Policy::of(view(toml).as_ref(), 4096);
        assert_eq!(of("mode = \"observe\""), Policy::Accepted);
        assert_eq!(Policy::of(None, 4096), Policy::Unknown);
        // Earlier versions took rates of bytes without a unit, and this one goes on with them.
        let bare = "[[limit]]\nname = \"few\"\nunit = \"bytes\"\nrate = \"9000/s\"\nsources = 9\n";
        let limit = serde_json::json!({"name": "few", "unit": "bytes", "rate": "9000/s", "sources": 9});
        let earlier = serde_json::json!({"toml": bare, "document": {"limit": [limit]}});
        assert_eq!(Policy::of(Some(&earlier), 4096), Policy::Accepted);
        let large = of("[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"1/s\"\nsources = 1000000\n");
        assert!(matches!(&large, Policy::Refused(why) if why.contains("sources")), "{large:?}");
        let refused = of("mood = \"observe\"");
        assert!(matches!(&refused, Policy::Refused(why) if why.contains("mood")), "{refused:?}");
        for plan in [Plan::Adopt, Plan::Migrate { from: 2 }, Plan::Finish { from: 2 }] {
            assert!(matches!(with_policy(plan.clone(), &refused), Plan::Refuse { .. }), "{plan:?}");
            assert_eq!(with_policy(plan.clone(), &Policy::Unknown), plan);
        }
    }

    #[test]
    fn a_refusal_has_its_remedy_below_it() {
        let plan = Plan::Refuse { reason: "layout 9".to_owned(), remedy: "detach".to_owned() };
        let text = render(&report(plan, Vec::new()), Paint::PLAIN);
        assert!(
            text.contains("plan        refuse: layout 9; what is in force stays\n            -> detach\n"),
            "{text}"
        );
    }
}
