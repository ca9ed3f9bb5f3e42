//! What a host tells its stamp of itself, and whether its policy stands in the way of the others.

use std::{io, net::SocketAddr};

use sha2::{Digest as _, Sha256};
use throttle_common::{packet::protocol, records, words::Outcome};

use super::{Control, kernel};
use crate::{
    api::wire::Problem,
    datapath::explain::packet,
    policy::{Document, Mode},
    stamp::{Board, hex},
};

/// Bytes of a datagram of gossip with its headers, in a stamp of some ten hosts.
const LENGTH: u32 = 600;

/// Bytes of the first packet of a TCP connection.
const SYN_LENGTH: u32 = 74;

/// What is in force here, and what came of it since the kernel's maps exist.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The number of the policy.
    pub revision: u64,
    /// Its digest.
    pub policy: String,
    /// Whether the host enforces.
    pub mode: Mode,
    /// The agent's version.
    pub version: String,
    /// The kernel's hash of the program; absent where it gives none.
    pub program: Option<u64>,
    /// Frames judged.
    pub packets: u64,
    /// Frames refused.
    pub refused: u64,
}

impl Control {
    /// Has the status warn of what is wrong with the stamp.
    pub fn watch_stamp(&mut self, board: Board) {
        self.stamp = Some(board);
    }

    /// What is wrong with the stamp.
    pub(super) fn stamp_warnings(&self) -> Vec<String> {
        let of_hosts = self.stamp.as_ref().map_or_else(Vec::new, Board::warnings);
        [of_hosts, self.shared_warnings()].concat()
    }

    /// What is in force, for others to know.
    pub fn tells(&mut self) -> Result<InForce, Problem> {
        let revision = self.head().revision;
        if self.digest.as_ref().is_none_or(|(of, _)| *of != revision) {
            self.digest = Some((revision, digest(self.in_force())));
        }
        let (_, policy) = self.digest.clone().expect("it was set a moment ago");
        let reasons = self.reasons()?;
        let count = |outcomes: &[Outcome]| {
            let counted = reasons.iter().filter(|it| outcomes.iter().any(|outcome| outcome.name() == it.outcome));
            counted.map(|it| it.packets).sum()
        };
        Ok(InForce {
            revision,
            policy,
            mode: self.mode(),
            version: self.build.version.clone(),
            program: self.datapath.program_tag().ok(),
            packets: count(Outcome::ALL),
            refused: count(&[Outcome::Drop, Outcome::Reject]),
        })
    }

    /// Those of the `peers` whose gossip, which comes to `here`, the policy would refuse at this moment: with the reason, and
    /// the limit where it is one.
    pub fn refuses(&self, peers: &[SocketAddr], here: SocketAddr) -> Result<Vec<(SocketAddr, String)>, Problem> {
        let now = self.datapath.now();
        let mut refused = Vec::new();
        let near = peers.iter().filter(|peer| peer.is_ipv4() == here.is_ipv4());
        // Gossip first, and then the first packet of who asks for changes of the policy.
        let ways = [(protocol::UDP, LENGTH, false), (protocol::TCP, SYN_LENGTH, true)];
        for (peer, (protocol, length, syn)) in near.flat_map(|peer| ways.map(|way| (peer, way))) {
            if refused.last().is_some_and(|(before, _)| before == peer) {
                continue;
            }
            let asked = packet(peer.ip(), Some(here.ip()), protocol, here.port(), syn);
            let explained = self.datapath.explain(&asked, length, now).map_err(|error| kernel(&error))?;
            let verdict = explained.verdict;
            if verdict.outcome == Outcome::Pass {
                continue;
            }
            let limit = explained.limits.iter().find(|it| Some(it.number) == verdict.limit);
            let limit = limit.map_or_else(String::new, |it| format!(" `{}`", records::name_str(&it.record.name)));
            let later = if verdict.outcome == Outcome::Observe { ", once it enforces" } else { "" };
            refused.push((*peer, format!("{}{limit}{later}", verdict.reason.name())));
        }
        Ok(refused)
    }
}

/// The digest of a policy. Two hosts that were given the same one have the same.
fn digest(document: &Document) -> String {
    struct Hashed(Sha256);
    impl io::Write for Hashed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hashed = Hashed(Sha256::new());
    serde_json::to_writer(&mut hashed, document).expect("a policy is plain data");
    hex(&hashed.0.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_one_digest_and_another_one_another() {
        let policy = |rate: &str| {
            crate::policy::parse(&format!("[[limit]]\nname = \"all\"\nunit = \"packets\"\nrate = \"{rate}\"\n"))
                .unwrap()
        };
        assert_eq!(digest(&policy("5/s")), digest(&policy("5/s")));
        assert_ne!(digest(&policy("5/s")), digest(&policy("6/s")));
        assert_eq!(digest(&policy("5/s")).len(), 16);
    }
}
