//! What the agent shows of itself.

use std::collections::HashMap;

use throttle_common::{
    connections, records,
    table::WAYS,
    words::{Outcome, Reason},
};

use super::{Control, kernel, occupancy::crowded, speeds::ratio, stored, weighed::units};
use crate::{
    api::wire::{
        Attachment, CheckReport, Connections, DiffReport, GuaranteeView, History, LimitForecast, LimitView, LossCounts,
        PageCounts, PolicyView, Problem, ProblemKind, ReasonCount, RevisionView, Status, Table, Tallies, Tally,
    },
    datapath::{self, Standing, Use, XdpMode},
    policy::{self, Diagnostic, Document, HeldLimit, Mode, sharing::Sharing, word::one_of},
    store::RevisionInfo,
};

/// Bytes of a set and of its aggregate.
const SET_BYTES: u64 = (WAYS * size_of::<records::Slot>() + size_of::<u64>()) as u64;

impl Control {
    /// Everything on one page.
    pub fn status(&self) -> Result<Status, Problem> {
        let sharing = self.sharing();
        let limits = self.limit_views(&sharing)?;
        let losses = self.datapath.losses().map_err(|error| kernel(&error))?;
        let (mut problems, health) = (self.problems(), self.health(None)?);
        problems.extend(self.connections().filter(|it| it.uncounted > 0).map(|it| {
            format!(
                "{} connections were not counted: as many as there is room for hold places; limit the service as a whole \
                 (per = \"service\") below {}",
                it.uncounted,
                records::MAX_CONNECTIONS
            )
        }));
        problems.extend(limits.iter().flat_map(crowded));
        Ok(Status {
            problems,
            warnings: [
                self.trends.warnings(),
                self.held_breakers(),
                self.unmet_breakers(&self.document),
                self.sharing_warning(&sharing).into_iter().collect(),
                self.stamp_warnings(),
            ]
            .concat(),
            health: health.services,
            health_transitions: health.transitions_in_all,
            health_notices_lost: health.notices_lost,
            mode: self.mode(),
            revision: self.head().revision,
            pending: self.pending(),
            session_allows: self.sessions.allows().to_vec(),
            attachments: self.attachments(),
            ends_with_agent: !self.datapath.outlives_agent(),
            connections: self.connections(),
            sockets_unwatched: self.datapath.unwatched().map(str::to_owned),
            table: self.table(),
            speeds: self.speeds().into_iter().filter(|it| it.speed < 1.0 || it.author.is_some()).collect(),
            limits,
            reasons: self.reasons()?,
            losses: self::losses(&losses),
            pages: self.datapath.page_tally().map(pages).map_err(|error| kernel(&error))?,
            penalties: self.penalty_counts()?,
            blocks: self.blocks.len() as u64,
            started: self.started,
            build: self.build.clone(),
            capabilities: self.capabilities.clone(),
        })
    }

    /// Frames by reason and outcome.
    pub(super) fn reasons(&self) -> Result<Vec<ReasonCount>, Problem> {
        let reasons = self.datapath.reason_tallies().map_err(|error| kernel(&error))?;
        let count = |(reason, outcome, tally): (Reason, Outcome, records::Tally)| ReasonCount {
            reason: reason.name().to_owned(),
            outcome: outcome.name().to_owned(),
            packets: tally.packets,
            bytes: tally.bytes,
        };
        Ok(reasons.into_iter().map(count).collect())
    }

    /// The limits of the policy that the kernel holds too, each with what the kernel holds.
    pub(super) fn held_limits(&self) -> Vec<(&policy::Limit, HeldLimit)> {
        let held = self.datapath.limits();
        let held: HashMap<&str, &HeldLimit> =
            held.iter().map(|held| (records::name_str(&held.record.name), held)).collect();
        let of = |limit: &policy::Limit| held.get(limit.name.as_str()).copied().cloned();
        self.in_force().limits.iter().filter_map(|limit| Some((limit, of(limit)?))).collect()
    }

    /// Every limit that is in force.
    pub fn limits(&self) -> Result<Vec<LimitView>, Problem> {
        self.limit_views(&self.sharing())
    }

    fn limit_views(&self, sharing: &Sharing<'_>) -> Result<Vec<LimitView>, Problem> {
        self.held_limits().into_iter().map(|(limit, held)| self.limit_view(limit, &held, sharing)).collect()
    }

    /// One limit that is in force.
    pub fn limit(&self, name: &str) -> Result<LimitView, Problem> {
        let limits = &self.in_force().limits;
        let stated = limits.iter().find(|limit| limit.name == name);
        let held = self.datapath.limits().into_iter().find(|held| records::name_str(&held.record.name) == name);
        let (Some(limit), Some(held)) = (stated, held) else {
            let names: Vec<_> = limits.iter().map(|limit| limit.name.as_str()).collect();
            let remedy = if names.is_empty() { "there are none".to_owned() } else { one_of(name, &names) };
            return Err(Problem::new(ProblemKind::NotFound, format!("there is no limit `{name}`; {remedy}")));
        };
        self.limit_view(limit, &held, &self.sharing())
    }

    fn limit_view(&self, limit: &policy::Limit, held: &HeldLimit, sharing: &Sharing<'_>) -> Result<LimitView, Problem> {
        let tally = self.datapath.limit_tally(held.number).map_err(|error| kernel(&error))?;
        let occupancy = self.datapath.occupancy(&held.record);
        let speed = speed_of(&self.datapath, &held.record);
        Ok(LimitView {
            reserved: reserved(limit, &held.record),
            guarantee: self.guarantee(limit)?,
            sentences: self.sentence_counts(limit),
            limit: limit.clone(),
            host_observes: self.mode() == Mode::Observe,
            open: held.record.is_concurrency().then(|| self.datapath.open_connections(&held.record)),
            burst: limit.burst_units(),
            speed,
            number: held.number,
            tallies: tallies(&tally),
            regions: self.regions(&held.record, [occupancy.v4, occupancy.v6], speed, sharing),
        })
    }

    /// What a limit guarantees, by the limit beside it that the kernel holds.
    fn guarantee(&self, limit: &policy::Limit) -> Result<Option<GuaranteeView>, Problem> {
        if !limit.guarantees() {
            return Ok(None);
        }
        let name = limit.guarantee_name();
        let held = self.datapath.limits().into_iter().find(|held| records::name_str(&held.record.name) == name);
        let Some(HeldLimit { number, record }) = held else { return Ok(None) };
        let tally = self.datapath.limit_tally(number).map_err(|error| kernel(&error))?;
        Ok(Some(GuaranteeView {
            burst: units(&record, record.depth),
            open: record.is_concurrency().then(|| self.datapath.open_connections(&record)),
            tallies: tallies(&tally),
        }))
    }

    /// What is wrong and quick to find, each with its remedy.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.faults.all();
        problems.extend(self.attachments().into_iter().filter_map(|it| it.problem));
        problems.extend(self.health_problems());
        if self.datapath.policy().counts_forwarded != 0 {
            problems.extend(self.uncounted());
        }
        if self.attachments.is_empty() {
            problems.push("no interface is throttled; run the agent with --interface IF".to_owned());
        }
        problems
    }

    /// Through which interfaces forwarded connections cannot be counted.
    fn uncounted(&self) -> impl Iterator<Item = String> {
        self.datapath.unseen().map(|(interface, reason)| {
            format!("forwarded connections through {interface} are not counted: {reason}; `throttle doctor` says more")
        })
    }

    /// How it stands, in one line.
    pub(super) fn summary(&self) -> String {
        let interfaces: Vec<String> = self
            .attachments()
            .iter()
            .map(|it| format!("{} ({})", it.interface, it.mode.as_deref().unwrap_or("not attached")))
            .collect();
        let mode = if self.mode() == Mode::Enforce { "enforcing" } else { "observing" };
        let problems = match self.problems().len() {
            0 => "healthy".to_owned(),
            1 => "1 problem".to_owned(),
            many => format!("{many} problems"),
        };
        let on = if interfaces.is_empty() { "no interface".to_owned() } else { interfaces.join(", ") };
        format!("{mode} revision {} on {on}; {problems}", self.head().revision)
    }

    /// What becomes of the interfaces when the agent has ended, in one line.
    pub fn farewell(&mut self) -> String {
        self.look();
        let attached: Vec<&str> =
            self.attachments.iter().filter(|it| it.attached()).map(|it| it.interface.as_str()).collect();
        let on = attached.join(", ");
        match (self.mode(), self.datapath.outlives_agent()) {
            _ if attached.is_empty() => "ended; no interface is throttled".to_owned(),
            (_, false) => format!("ended, and with it the throttling of {on}: {}", datapath::PRIVATE_PINS),
            (Mode::Enforce, true) => {
                format!("ended; enforcement on {on} goes on from the pins, `throttle detach` undoes it")
            }
            (Mode::Observe, true) => {
                format!("ended; the programs on {on} go on counting and refuse nothing, `throttle detach` removes them")
            }
        }
    }

    fn attachments(&self) -> Vec<Attachment> {
        self.attachments.iter().cloned().map(attachment).collect()
    }

    fn connections(&self) -> Option<Connections> {
        let counted = self.datapath.policy().counts_connections != 0;
        let (drift, losses) = (self.counting.drift(), self.datapath.losses().unwrap_or_default());
        counted.then_some(Connections {
            mended_closed: drift.closed,
            mended_open: drift.open,
            forgotten_idle: drift.idle,
            uncounted: losses.connections_uncounted,
            forwarded: self.document.services.iter().filter(|it| it.forwarded).map(|it| it.name.clone()).collect(),
        })
    }

    fn table(&self) -> Table {
        let layout = self.datapath.layout();
        let used = layout
            .limits
            .iter()
            .flat_map(|held| held.record.regions())
            .map(|(_, region)| u64::from(region.extent()))
            .sum();
        Table { sets: layout.sets.into(), sets_used: used, bytes: u64::from(layout.sets) * SET_BYTES }
    }

    /// A revision: the last, which commands edit, or any that is kept.
    pub fn policy(&self, revision: Option<u64>) -> Result<PolicyView, Problem> {
        let held = match revision {
            Some(number) => Some(self.store.revision(number).map_err(|error| stored(&error))?),
            None => self.store.current().map_err(|error| stored(&error))?,
        };
        let (revision, document) = match held {
            Some(held) => (revision_view(held.info), held.document),
            None => (
                RevisionView {
                    revision: 0,
                    author: super::AGENT.to_owned(),
                    message: "nothing was applied yet".to_owned(),
                    at: self.started,
                },
                Document::default(),
            ),
        };
        Ok(PolicyView { revision, toml: policy::to_toml(&document), document })
    }

    /// The revisions that are kept.
    pub fn history(&self) -> Result<History, Problem> {
        let revisions = self.store.revisions().map_err(|error| stored(&error))?;
        Ok(History {
            revisions: revisions.into_iter().map(revision_view).collect(),
            current: self.head().revision,
            pending: self.pending(),
        })
    }

    /// Which tenants of the policy in force share compartments.
    pub(super) fn sharing(&self) -> Sharing<'_> {
        Sharing::of(self.datapath.tenants())
    }

    /// Which of them do so only because of their numbers.
    pub(super) fn sharing_warning(&self, sharing: &Sharing<'_>) -> Option<String> {
        sharing.warning(self.datapath.limits().iter().map(|held| &held.record))
    }

    /// What a policy would do.
    pub fn check(&self, document: &Document) -> Result<CheckReport, Problem> {
        let warnings = policy::check(document).map_err(super::refused)?;
        let compiled = policy::compile(document, self.revision + 1, &self.datapath.layout()).map_err(super::refused)?;
        let sharing = Sharing::of(&compiled.tenants);
        let shown = compiled.limits.iter().filter(|(_, record)| !record.is_guarantee());
        let limits = shown.map(|(_, record)| LimitForecast {
            name: records::name_str(&record.name).to_owned(),
            regions: self.regions(record, [Use::default(); 2], 1.0, &sharing),
        });
        let mut warnings: Vec<_> = warnings.iter().map(Diagnostic::to_string).collect();
        if compiled.policy.counts_forwarded != 0 {
            warnings.extend(self.uncounted());
        }
        warnings.extend(self.unmet_breakers(document));
        warnings.extend(sharing.warning(compiled.limits.iter().map(|(_, limit)| limit)));
        Ok(CheckReport { limits: limits.collect(), warnings })
    }

    /// How a policy differs from the one in force.
    pub fn diff(&self, document: &Document) -> DiffReport {
        DiffReport { revision: self.head().revision, changes: policy::diff(self.in_force(), document) }
    }
}

fn attachment(it: datapath::Attachment) -> Attachment {
    let name = &it.interface;
    let (mode, problem) = match it.standing {
        Standing::Attached(mode) if it.asked.is_none() && it.was.is_some() => {
            let was = it.was.as_deref().unwrap_or_default();
            (Some(mode), Some(format!("{name} was {was} when it was attached to; run with --interface {name} instead")))
        }
        Standing::Attached(mode) if it.asked.is_none() => {
            let remedy = format!(
                "run with --interface {name} too, or stop the agent and `throttle detach --interface {name}`, which keeps \
                 buckets and counters"
            );
            (Some(mode), Some(format!("{name} is throttled by the program of an earlier agent; {remedy}")))
        }
        Standing::Attached(XdpMode::Native) => (Some(XdpMode::Native), None),
        Standing::Attached(XdpMode::Generic) => {
            let problem = format!("{name} is throttled in generic mode, which costs far more per packet");
            (Some(XdpMode::Generic), Some(problem))
        }
        Standing::Absent => (None, Some(format!("{name} does not exist now; the agent waits for it"))),
        Standing::Refused(reason) => (None, Some(format!("{name} is not throttled: {reason}"))),
    };
    let attached = mode.is_some();
    let driver = (!it.driver.is_empty()).then_some(it.driver);
    let (mode, egress) = (mode.map(|mode| mode.to_string()), it.egress.map(|egress| egress.to_string()));
    Attachment { mode, egress, attached, driver, problem, interface: it.interface }
}

pub(super) fn losses(losses: &records::Losses) -> LossCounts {
    LossCounts {
        events_withheld: losses.events_withheld,
        events_lost: losses.events_lost,
        answers_withheld: losses.answers_withheld,
        answers_undue: losses.answers_undue,
    }
}

fn pages(tally: records::PageTally) -> PageCounts {
    let records::PageTally { greeted, told, cut, acknowledged } = tally;
    PageCounts { greeted, told, cut, acknowledged }
}

fn revision_view(info: RevisionInfo) -> RevisionView {
    RevisionView { revision: info.revision, author: info.author, message: info.message, at: info.at }
}

pub(super) fn tallies(tally: &records::LimitTally) -> Tallies {
    let of = |tally: records::Tally| Tally { packets: tally.packets, bytes: tally.bytes };
    Tallies {
        admitted: of(tally.admitted),
        refused: of(tally.refused),
        observed: of(tally.observed),
        spared: of(tally.spared),
        overflowed: of(tally.overflowed),
    }
}

/// How many places guarantees have of a limit on open connections.
fn reserved(limit: &policy::Limit, record: &records::Limit) -> Option<u64> {
    let rest = record.depth / connections::PLACE;
    limit.concurrent.map(|all| u64::from(all).saturating_sub(rest)).filter(|&reserved| reserved > 0)
}

/// How fast a limit's clock runs.
fn speed_of(datapath: &datapath::Datapath, limit: &records::Limit) -> f64 {
    if limit.is_concurrency() { 1.0 } else { ratio(datapath.clock_state(limit.clock).speed) }
}
