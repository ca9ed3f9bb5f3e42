//! The figures for Prometheus: a page made from one [`Status`] at each scrape.
//!
//! Labels are bounded by policy and by closed lists of words: limit, result, reason, outcome, family, interface, mode,
//! service, backend, level, signal, state, subject.
//! Counters that never counted stand at 0, so that the first refusal is a change and not an appearance.

mod health;
mod stamp;

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use throttle_common::words::{Outcome, Reason};

use super::wire::{
    Connections, HeartbeatView, Heartbeats, LimitView, PageCounts, PenaltyCounts, RegionLoad, StampView, Status, Tally,
};
use crate::policy::Mode;

/// What [`encode`] writes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Mistakes of the API's peers.
#[derive(Debug, Default)]
pub struct Faults {
    /// Requests that were answered with a problem of the peer's (4xx). Reads 0 or grows slowly.
    pub requests: AtomicU64,
    /// Peers that may not use the socket. Reads 0.
    pub peers: AtomicU64,
    /// Clients of heartbeats over TLS that did not come to speak: no certificate, or one that is not trusted, or silence.
    /// Reads 0, but where strangers reach the port.
    pub handshakes: AtomicU64,
}

/// The page.
pub(super) fn encode(status: Status, heartbeats: Heartbeats, stamp: Option<StampView>, faults: &Faults) -> String {
    let refused = [&faults.requests, &faults.peers, &faults.handshakes].map(|count| count.load(Relaxed));
    let page = Page { status, heartbeats, stamp, refused };
    let mut registry = Registry::with_prefix("throttle");
    registry.register_collector(Box::new(page));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a string takes all text");
    text
}

#[derive(Debug)]
struct Page {
    status: Status,
    heartbeats: Heartbeats,
    stamp: Option<StampView>,
    /// Requests, peers and handshakes.
    refused: [u64; 3],
}

type Labels = Vec<(&'static str, String)>;

/// Writes one family of samples after the other.
struct Writer<'e>(DescriptorEncoder<'e>);

impl Writer<'_> {
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) -> Result<(), fmt::Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                family.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, i64)>,
    ) -> Result<(), fmt::Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn ratios(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) -> Result<(), fmt::Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
        self.counters(name, help, [(Labels::new(), value)])
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
        self.gauges(name, help, [(Labels::new(), gauge(value))])
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut to = Writer(encoder);
        self.verdicts(&mut to)?;
        self.limits(&mut to)?;
        self.table(&mut to)?;
        self.losses(&mut to)?;
        self.penalties(&mut to)?;
        self.heartbeats(&mut to)?;
        health::write(&mut to, &self.status)?;
        stamp::write(&mut to, self.stamp.as_ref())?;
        self.host(&mut to)
    }
}

impl Page {
    fn verdicts(&self, to: &mut Writer) -> Result<(), fmt::Error> {
        let samples = |count: fn(&Tally) -> u64| {
            Reason::ALL.iter().flat_map(move |reason| {
                Outcome::ALL.iter().map(move |outcome| {
                    let (reason, outcome) = (reason.name(), outcome.name());
                    let labels = vec![("reason", reason.to_owned()), ("outcome", outcome.to_owned())];
                    (labels, count(&self.tally(reason, outcome)))
                })
            })
        };
        to.counters("packets", "Frames judged, by reason and outcome", samples(|tally| tally.packets))?;
        to.counters("bytes", "Bytes of frames judged, by reason and outcome", samples(|tally| tally.bytes))
    }

    fn tally(&self, reason: &str, outcome: &str) -> Tally {
        let counted = |it: &&super::wire::ReasonCount| it.reason == reason && it.outcome == outcome;
        let found = self.status.reasons.iter().find(counted);
        found.map_or(Tally::default(), |it| Tally { packets: it.packets, bytes: it.bytes })
    }

    fn limits(&self, to: &mut Writer) -> Result<(), fmt::Error> {
        let samples = |count: fn(&Tally) -> u64| {
            self.status.limits.iter().flat_map(move |view| {
                results(view).map(move |(result, tally)| {
                    (vec![("limit", view.limit.name.clone()), ("result", result.to_owned())], count(&tally))
                })
            })
        };
        to.counters("limit_packets", "Frames that a limit was asked about, by result", samples(|it| it.packets))?;
        to.counters("limit_bytes", "Bytes that a limit was asked about, by result", samples(|it| it.bytes))?;
        let overflowed = self.status.limits.iter().map(|view| (of(view), view.tallies.overflowed.packets));
        let open = self.status.limits.iter().filter_map(|view| Some((of(view), gauge(view.open?))));
        to.gauges("open_connections", "Connections that hold a place under a limit now", open)?;
        let speeds = self.status.limits.iter().map(|view| (of(view), view.speed));
        to.ratios("limit_speed_ratio", "How fast a limit's clock runs, as a share of real time", speeds)?;
        to.counters("limit_overflowed_packets", "Frames whose source found no room in the limit's region", overflowed)
    }

    fn table(&self, to: &mut Writer) -> Result<(), fmt::Error> {
        let regions = |count: fn(&RegionLoad) -> u64| {
            self.status.limits.iter().flat_map(move |view| {
                view.regions.iter().map(move |region| {
                    let mut labels = of(view);
                    labels.push(("family", region.family.clone()));
                    (labels, gauge(count(region)))
                })
            })
        };
        to.gauges("region_slots", "Buckets that a limit has room for", regions(|it| it.slots))?;
        to.gauges("region_busy_slots", "Buckets of a limit in debt now", regions(|it| it.busy))?;
        to.gauges("region_busy_aggregates", "Aggregates of a limit in debt now", regions(|it| it.aggregates_busy))?;
        let help = "Compartments that tenants have of a limit's region, 0 where it is not divided";
        to.gauges("region_compartments", help, regions(|it| it.compartments.into()))?;
        let help = "Tenants without a compartment of their own in a limit's region";
        to.gauges("region_sharing_tenants", help, regions(|it| it.sharing_tenants))?;
        to.gauge("table_sets", "Sets of the table of buckets", self.status.table.sets)?;
        to.gauge("table_used_sets", "Sets that belong to limits", self.status.table.sets_used)
    }

    fn losses(&self, to: &mut Writer) -> Result<(), fmt::Error> {
        let losses = &self.status.losses;
        to.counter("events_withheld", "Events beyond their budget", losses.events_withheld)?;
        to.counter("events_lost", "Events that found the ring buffer full", losses.events_lost)?;
        to.counter("answers_withheld", "Answers of reject beyond their budget", losses.answers_withheld)?;
        to.counter("answers_undue", "Refusals that must not be answered", losses.answers_undue)?;
        let PageCounts { greeted, told, cut, acknowledged } = self.status.pages;
        let pages = [("syn-ack", greeted), ("429", told), ("ack", acknowledged)];
        let pages = pages.map(|(answer, count)| (vec![("answer", answer.to_owned())], count));
        to.counters("page_answers", "Answers in place of services that have pages, by what they were", pages)?;
        to.counter("pages_cut", "Answers with 429 that had no room for what policy adds to them", cut)?;
        let connections = self.status.connections.clone().unwrap_or_default();
        let Connections { mended_closed, mended_open, forgotten_idle, uncounted, .. } = connections;
        let mended = [("closed", mended_closed), ("open", mended_open)];
        let mended = mended.map(|(result, count)| (vec![("result", result.to_owned())], count));
        to.counters("connections_mended", "Open connections that were miscounted, by what they had come to", mended)?;
        to.counter("connections_idle", "Forwarded connections forgotten for their silence", forgotten_idle)?;
        to.counter("connections_uncounted", "Open connections that found no room to be counted", uncounted)?;
        let [requests, peers, handshakes] = self.refused;
        to.counter("api_refused_requests", "Requests that were a mistake of the peer's", requests)?;
        to.counter("api_refused_peers", "Peers that may not use the socket", peers)?;
        to.counter("api_refused_handshakes", "Handshakes of heartbeats over TLS that failed", handshakes)
    }

    fn penalties(&self, to: &mut Writer) -> Result<(), fmt::Error> {
        let counts = self.status.limits.iter().filter_map(|view| Some((view, view.sentences?)));
        let sentences = counts.flat_map(|(view, counts)| {
            [("sentenced", counts.sentenced), ("observed", counts.observed)]
                .map(|(result, count)| ([of(view), vec![("result", result.to_owned())]].concat(), count))
        });
        let help = "Sources that a limit's penalty has blocked, or would have where it only observes";
        to.counters("sentences", help, sentences)?;
        let PenaltyCounts { serving, remembered, room, full, untold, unproven, uncounted } = self.status.penalties;
        to.gauge("sentences_served", "Sentences that are being served now", serving)?;
        to.gauge("sentences_remembered", "Sentences that are remembered, served or not", remembered)?;
        to.gauge("sentences_room", "Sentences that can be remembered", room)?;
        to.counter("sentences_full", "Offences without a sentence, because there was no room for more", full)?;
        to.counter("offences_untold", "Offences that the agent was not told of at once", untold)?;
        let help = "Refusals that no penalty counts, because nothing proves who they are of";
        to.counter("refusals_unproven", help, unproven)?;
        to.counter("refusals_uncounted", "Refusals that found no room to be counted for a penalty", uncounted)
    }

    fn heartbeats(&self, to: &mut Writer) -> Result<(), fmt::Error> {
        let mut backends = BTreeMap::<_, Vec<&HeartbeatView>>::new();
        for view in &self.heartbeats.heartbeats {
            backends.entry((&view.service, &view.backend)).or_default().push(view);
        }
        let labels = |(service, backend): &(&String, &String)| -> Labels {
            vec![("service", (*service).clone()), ("backend", (*backend).clone())]
        };
        let results = backends.iter().flat_map(|(backend, views)| {
            HEARTBEATS.iter().map(move |(result, count)| {
                let counted = views.iter().map(|view| count(view)).sum();
                ([labels(backend), vec![("result", (*result).to_owned())]].concat(), counted)
            })
        });
        to.counters("heartbeats", "Probes of a backend's instances and what they pushed, by result", results)?;
        let instances = backends.iter().map(|(backend, views)| (labels(backend), gauge(views.len() as u64)));
        to.gauges("backend_instances", "Addresses that a backend has", instances)?;
        let latencies = backends.iter().filter_map(|(backend, views)| {
            let slowest = views.iter().filter_map(|view| view.latency_seconds).reduce(f64::max)?;
            Some((labels(backend), slowest))
        });
        let help = "How long the last answer took, of the slowest of a backend's instances";
        to.ratios("heartbeat_latency_seconds", help, latencies)?;
        to.counter("heartbeats_lost", "Heartbeats that were not looked at in time", self.heartbeats.lost)
    }

    fn host(&self, to: &mut Writer) -> Result<(), fmt::Error> {
        let status = &self.status;
        let attached = status.attachments.iter().map(|it| {
            let mode = it.mode.clone().unwrap_or_else(|| "none".to_owned());
            (vec![("interface", it.interface.clone()), ("mode", mode)], i64::from(it.attached))
        });
        to.gauges("attached", "1 where the program judges an interface's packets", attached)?;
        to.gauge("enforcing", "1 where the host enforces", u64::from(status.mode == Mode::Enforce))?;
        to.gauge("policy_revision", "The revision in force", status.revision)?;
        to.gauge("policy_pending", "1 where the revision waits for its confirmation", status.pending.is_some().into())?;
        to.gauge("blocks", "Blocks added by command", status.blocks)?;
        to.gauge("problems", "What status says is wrong", status.problems.len() as u64)?;
        let build = vec![
            ("version", status.build.version.clone()),
            ("layout", status.build.layout.to_string()),
            ("object", status.build.object_digest.chars().take(12).collect()),
        ];
        to.gauges("build_info", "What is running", [(build, 1)])
    }
}

/// A count of heartbeats.
type Count = fn(&HeartbeatView) -> u64;

/// What becomes of heartbeats.
const HEARTBEATS: [(&str, Count); 6] = [
    ("answered", |view| view.answered),
    ("failed", |view| view.failed),
    ("unanswered", |view| view.unanswered),
    ("refused", |view| view.refused),
    ("unsent", |view| view.unsent),
    ("pushed", |view| view.beats),
];

fn of(view: &LimitView) -> Labels {
    vec![("limit", view.limit.name.clone())]
}

fn results(view: &LimitView) -> impl Iterator<Item = (&'static str, Tally)> + use<> {
    let tallies = view.tallies;
    [
        ("admitted", tallies.admitted),
        ("refused", tallies.refused),
        ("observed", tallies.observed),
        ("spared", tallies.spared),
    ]
    .into_iter()
}
