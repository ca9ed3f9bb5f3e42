//! Whether a few sources carry most of what a limit admits, and are refused.
//!
//! Behind a load balancer, a CDN or a NAT stand many clients with one address: a limit per source then hurts them all.

use std::fmt::Write as _;

use throttle_common::{
    connections::PLACE,
    records::{LimitTally, Tally},
    words::Unit,
};

use super::{IN_A_ROW, Look, Trend, unit_price};
use crate::datapath::Source;

/// Packets between two looks that make a share worth telling: it is then known within 3 %, at two standard deviations.
const ENOUGH: u64 = 1000;
/// The same of segments that ask for connections, which are fewer.
const ENOUGH_CONNECTIONS: u64 = 100;
/// As many sources as the nodes of one load balancer; more, and a limit per source does what it is for.
const FEW: usize = 8;
/// The share of what a limit admits that is most of it: the rest cannot be many ordinary clients.
const MOST: f64 = 0.8;
/// The share of packets refused from which a limit hurts whoever stands behind these sources.
const HURTS: f64 = 0.1;
/// Sources at their limit that carry most of what it admits.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    sources: Vec<Source>,
    /// Of what the limit admits.
    share: f64,
    /// Of what it was asked.
    refused: f64,
}

impl Trend {
    /// Who carried most since the last look, where few did and were refused for it.
    ///
    /// What a source was admitted is what its bucket's end moved on, which is exact while it stays in debt. For one that
    /// was not it is too much; then the sum is more than the limit admitted, and nothing is said. Where open connections
    /// are counted, it is what the source has of them.
    pub(super) fn carriers(&self, look: &Look) -> Option<Carriers> {
        let grown = |of: fn(&LimitTally) -> Tally| {
            let (now, before) = (of(&look.tally), of(&self.last.tally));
            (now.packets.saturating_sub(before.packets), now.bytes.saturating_sub(before.bytes))
        };
        let (admitted, refused, observed) = (grown(|it| it.admitted), grown(|it| it.refused), grown(|it| it.observed));
        let refused = refused.0 + observed.0;
        let asked = admitted.0 + refused;
        let refused_share = refused as f64 / asked.max(1) as f64;
        let concurrency = self.record.is_concurrency();
        let of_connections = self.record.unit == Unit::Connections as u8;
        let enough = if of_connections { ENOUGH_CONNECTIONS } else { ENOUGH };
        if asked < enough || refused_share < HURTS || self.record.is_shared() {
            return None;
        }
        let units = if self.record.unit == Unit::Bytes as u8 { admitted.1 } else { admitted.0 };
        let total = if concurrency { (look.open * PLACE) as f64 } else { units as f64 * unit_price(&self.record) };
        let mut charged = self.charged(look);
        charged.sort_by(|one, other| other.1.total_cmp(&one.1));
        charged.truncate(FEW);
        let share = charged.iter().map(|(_, charged)| charged).sum::<f64>() / total.max(1.0);
        (MOST..1.05).contains(&share).then(|| Carriers {
            sources: charged
                .into_iter()
                .filter(|(_, charged)| charged / total >= 0.01)
                .map(|(source, _)| source)
                .collect(),
            share: share.min(1.0),
            refused: refused_share,
        })
    }

    /// What sources at their limit, then and now, were charged since the last look, or have.
    fn charged(&self, look: &Look) -> Vec<(Source, f64)> {
        let at_limit = |debt: u64| debt >= self.record.depth / 2;
        let mut charged = Vec::new();
        for (now, before) in look.regions.iter().zip(&self.last.regions) {
            for talker in now.most.iter().filter(|talker| at_limit(talker.debt)) {
                let mut held = before.most.iter();
                if let Some(held) = held.find(|held| held.source == talker.source && at_limit(held.debt)) {
                    let grown = talker.full_at.wrapping_sub(held.full_at);
                    charged
                        .push((talker.source, if self.record.is_concurrency() { talker.debt } else { grown } as f64));
                }
            }
        }
        charged
    }

    /// A few sources carry most of the traffic, and are refused.
    pub(super) fn carried_by_few(&self) -> Option<String> {
        let Carriers { sources, share, refused } = &self.carriers;
        (self.few >= IN_A_ROW).then(|| {
            let mut text = format!(
                "limit `{}`: {:.0} % of {} {}",
                self.name(),
                share * 100.0,
                if self.record.is_concurrency() {
                    "the connections that it counts are of"
                } else {
                    "what it admits comes from"
                },
                if sources.len() == 1 { "one source" } else { "few sources" }
            );
            for (index, source) in sources.iter().enumerate() {
                _ = write!(text, "{} {source}", if index == 0 { "," } else { " and" });
            }
            _ = write!(
                text,
                ", and {:.0} % is refused. If a load balancer, CDN or NAT stands there, this hurts all behind it: \
                 `throttle allow add` it and limit there, or give this limit what all of them need; if it is one \
                 client, the limit does its work",
                refused * 100.0
            );
            text
        })
    }
}
