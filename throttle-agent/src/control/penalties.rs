//! The penalty box at the kernel and the store: offences come in, sentences are blocks like others, which end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use jiff::Timestamp;
use throttle_common::records::{self, Offence};

use super::{AGENT, Control, kernel, stored};
use crate::{
    api::wire::{PenaltyCounts, PenaltyWalk, Problem, SentenceCounts, SentenceView},
    penalties::{self, Book, Offender, Ruling, Sentence, ordinal},
    policy::{Limit, Mode},
    store::Block,
};

/// What happened so long ago, in nanoseconds, nobody is sentenced for any more: no agent was there to do it in time.
const STALE: u64 = 10_000_000_000;
/// Sentences of one batch that are logged one by one.
const NAMED: usize = 16;
/// How often it is looked who is to be forgotten.
const SWEEP: Duration = Duration::from_mins(1);

/// Who was sentenced, and what came of penalties since the agent was started.
pub(super) struct Penalties {
    pub(super) book: Book,
    counts: BTreeMap<String, SentenceCounts>,
    full: u64,
    swept: Instant,
}

impl Default for Penalties {
    fn default() -> Self {
        Self { book: Book::new(penalties::MOST), counts: BTreeMap::new(), full: 0, swept: Instant::now() }
    }
}

/// What is to be done with some offences.
#[derive(Default)]
struct Rulings {
    sentences: Vec<(Offender, Sentence)>,
    blocks: BTreeMap<IpNet, Block>,
    gone: Vec<Offender>,
    full: u64,
}

impl Control {
    /// Remembers who was sentenced under the agent before.
    pub(super) fn resume_sentences(&mut self) {
        match self.store.sentences() {
            Ok(all) => all.into_iter().for_each(|(offender, sentence)| self.penalties.book.enter(offender, sentence)),
            Err(error) => {
                let forgotten = self.store.forget_sentences();
                let fault = format!("who was sentenced how often is forgotten, because it cannot be read: {error}");
                self.faults.note("sentences", if forgotten.is_ok() { Err(fault) } else { Err(error.to_string()) });
            }
        }
    }

    /// Sentences those who have tripped a penalty: blocks them, unless it is only observed or something speaks against it.
    pub fn sentence(&mut self, offences: &[Offence]) -> Result<(), Problem> {
        let before = self.penalties.book.clone();
        let Rulings { sentences, blocks, gone, full } = self.rule(offences, Timestamp::now());
        self.penalties.full += full;
        if sentences.is_empty() {
            return Ok(());
        }
        let blocks: Vec<Block> = blocks.into_values().collect();
        let keep = |control: &Self| control.store.sentence(&sentences, &blocks, &gone);
        let written = if blocks.is_empty() {
            keep(&*self).map_err(|error| stored(&error))
        } else {
            let mut all = self.blocks.clone();
            all.extend(blocks.iter().map(|block| (block.prefix, block.clone())));
            self.replace_blocks(all, keep)
        };
        let told = written.as_ref().copied().map_err(|problem| format!("nobody could be sentenced: {problem}"));
        self.faults.note("offences", told);
        if written.is_err() {
            self.penalties.book = before;
            return written;
        }
        self.tell_of(&sentences);
        Ok(())
    }

    fn rule(&mut self, offences: &[Offence], now: Timestamp) -> Rulings {
        let names: HashMap<u16, String> = self
            .datapath
            .limits()
            .iter()
            .map(|held| (held.number, records::name_str(&held.record.name).to_owned()))
            .collect();
        let clock = self.datapath.now();
        let mut rulings = Rulings::default();
        for offence in offences.iter().filter(|it| clock.saturating_sub(it.time) < STALE) {
            // It may be of a policy that is in force no more.
            if self.datapath.penalty(offence.limit).salt != offence.salt {
                continue;
            }
            let limit = names.get(&offence.limit).and_then(|name| self.limit_of(name)).cloned();
            let Some((limit, penalty)) = limit.and_then(|limit| limit.penalty.map(|penalty| (limit, penalty))) else {
                continue;
            };
            let Some(prefix) = source_of(offence, &limit) else { continue };
            // Whoever was allowed since wins, and what a command has blocked stays as that said.
            let by_command = self.blocks.get(&prefix).is_some_and(|block| block.author != AGENT);
            if self.datapath.allows(prefix) || by_command {
                continue;
            }
            let observed = offence.observed != 0 || limit.mode == Mode::Observe || self.mode() == Mode::Observe;
            let offender = Offender { prefix, limit: limit.name };
            let (ruling, forgotten) = self.penalties.book.judge(&offender, &penalty, observed, now);
            rulings.gone.extend(forgotten);
            match ruling {
                Ruling::Serves => {}
                Ruling::Full => rulings.full += 1,
                Ruling::Sentenced(sentence) => {
                    // Another limit may have sentenced it for longer.
                    let others = [self.blocks.get(&prefix), rulings.blocks.get(&prefix)];
                    let longer = others.into_iter().flatten().any(|block| block.until > Some(sentence.until));
                    if !observed && !longer {
                        let (reason, author) = (sentence.reason(&offender.limit), AGENT.to_owned());
                        let block = Block { prefix, until: Some(sentence.until), reason, author, added: now };
                        rulings.blocks.insert(prefix, block);
                    }
                    rulings.sentences.push((offender, sentence));
                }
            }
        }
        rulings
    }

    fn limit_of(&self, name: &str) -> Option<&Limit> {
        self.in_force().limits.iter().find(|limit| limit.name == name)
    }

    /// Counts and logs each of them once.
    fn tell_of(&mut self, sentences: &[(Offender, Sentence)]) {
        for (offender, sentence) in sentences {
            let counts = self.penalties.counts.entry(offender.limit.clone()).or_default();
            *(if sentence.observed { &mut counts.observed } else { &mut counts.sentenced }) += 1;
        }
        for (Offender { prefix, limit }, Sentence { times, until, observed, .. }) in sentences.iter().take(NAMED) {
            let did = if *observed { "would be sentenced" } else { "sentenced" };
            tracing::info!(source = %prefix, limit, time = ordinal(*times), %until, "{did}");
        }
        if sentences.len() > NAMED {
            tracing::info!(more = sentences.len() - NAMED, "sentenced at once; `throttle block list` names all");
        }
    }

    /// Forgets who was sentenced long enough ago.
    pub(super) fn forget_sentences(&mut self, now: Timestamp) {
        if self.penalties.swept.elapsed() < SWEEP {
            return;
        }
        self.penalties.swept = Instant::now();
        let gone = self.penalties.book.forget(now);
        if !gone.is_empty() {
            let kept = self.store.sentence(&[], &[], &gone);
            let told = kept.map_err(|error| format!("who was sentenced long ago stays in the store: {error}"));
            self.faults.note("sentences", told);
        }
    }

    /// Forgets the sentences of exactly these sources, as if there had been none.
    pub(super) fn forgive(&mut self, prefixes: &[IpNet]) -> Result<(), Problem> {
        let before = self.penalties.book.clone();
        let gone: Vec<_> = prefixes.iter().flat_map(|prefix| self.penalties.book.forgive(*prefix)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let kept = self.store.sentence(&[], &[], &gone).map_err(|error| stored(&error));
        if kept.is_err() {
            self.penalties.book = before;
        }
        kept
    }

    /// Whether a sentence of exactly this source is remembered, served or not.
    pub(super) fn is_held_against(&self, prefix: IpNet) -> bool {
        self.penalties.book.of(prefix).next().is_some()
    }

    /// The sentence that a block is of.
    pub(super) fn sentence_of(&self, block: &Block) -> Option<SentenceView> {
        let own = |(offender, sentence): &(&Offender, &Sentence)| {
            block.author == AGENT
                && block.until == Some(sentence.until)
                && block.reason == sentence.reason(&offender.limit)
        };
        self.penalties.book.of(block.prefix).find(own).map(|(offender, sentence)| view(offender, sentence))
    }

    /// The sentences of a source that are remembered, by whatever limit.
    pub(super) fn sentences(&self, source: IpAddr, now: Timestamp) -> Vec<SentenceView> {
        let lengths = self.in_force().limits.iter().filter(|limit| limit.penalty.is_some()).map(|limit| limit.prefix);
        let lengths = lengths.map(|it| if source.is_ipv4() { it.ipv4 } else { it.ipv6 });
        let prefixes: BTreeSet<IpNet> =
            lengths.filter_map(|length| IpNet::new(source, length).ok()).map(|net| net.trunc()).collect();
        let held = prefixes.into_iter().flat_map(|prefix| self.penalties.book.of(prefix));
        held.filter(|(_, sentence)| sentence.forgotten > now)
            .map(|(offender, sentence)| view(offender, sentence))
            .collect()
    }

    /// How near a source is to the penalty of a limit.
    pub(super) fn penalty_walk(&self, limit: &records::Limit, source: IpAddr, now: u64) -> Option<PenaltyWalk> {
        let stated = self.limit_of(records::name_str(&limit.name))?.penalty?;
        let refused = self.datapath.refused(limit, source, now);
        Some(PenaltyWalk {
            after: stated.after,
            within_seconds: stated.within.millis() as f64 / 1e3,
            refused: refused.times,
            forgotten_in_seconds: refused.rest as f64 / 1e9,
            unproven: stated.unproven,
        })
    }

    /// What the penalty of a limit came to.
    pub(super) fn sentence_counts(&self, limit: &Limit) -> Option<SentenceCounts> {
        limit.penalty?;
        Some(self.penalties.counts.get(&limit.name).copied().unwrap_or_default())
    }

    /// What all penalties came to.
    pub(super) fn penalty_counts(&self) -> Result<PenaltyCounts, Problem> {
        let tally = self.datapath.penalty_tally().map_err(|error| kernel(&error))?;
        let book = &self.penalties.book;
        let serving = book.served(Timestamp::now()).filter(|(_, sentence)| !sentence.observed).count();
        Ok(PenaltyCounts {
            serving: serving as u64,
            remembered: book.len() as u64,
            room: penalties::MOST as u64,
            full: self.penalties.full,
            untold: tally.withheld + tally.lost,
            unproven: tally.unproven,
            uncounted: tally.uncounted,
        })
    }
}

fn view(offender: &Offender, sentence: &Sentence) -> SentenceView {
    let Sentence { times, since, until, forgotten, observed } = *sentence;
    SentenceView { limit: offender.limit.clone(), prefix: offender.prefix, times, since, until, forgotten, observed }
}

/// The source of an offence, as the limit sees it.
fn source_of(offence: &Offence, limit: &Limit) -> Option<IpNet> {
    let records::Address { high, low } = offence.source;
    let (address, length) = match offence.family {
        4 => (Ipv4Addr::from_bits(low as u32).into(), limit.prefix.ipv4),
        _ => (Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(), limit.prefix.ipv6),
    };
    IpNet::new(address, length).ok().map(|net| net.trunc())
}
