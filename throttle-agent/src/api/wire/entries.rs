//! Limits, tenants, blocks, allows: the entries of the policy that commands edit one by one.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::{IntoParams, ToSchema};

use super::{Pending, RegionLoad, SentenceCounts, SentenceView, SessionAllow};
use crate::policy::{Limit, LimitChange, Mode, Tenant};

/// What every write may say beside its subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Write {
    /// Why, for the history: one line of up to 500 characters.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "comment")]
    pub message: Option<String>,
    /// The address from which the writer is logged in (SSH). It is warned of a rule that would hit it, and stays
    /// allowed for an hour.
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<IpAddr>,
    /// The port of this host that the session goes to; 22 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_port: Option<u16>,
    /// Leaves the session unprotected, and ends the protection that it has.
    pub lock_out: bool,
    /// Does what is dangerous for everybody, such as a block of `0.0.0.0/0`. The session stays protected.
    pub force: bool,
    /// Goes back by itself unless it is confirmed within these seconds (1 to 86 400).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_within_seconds: Option<u64>,
}

/// What a write did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// The revision in force now.
    pub revision: u64,
    /// Whether the host enforces it.
    #[serde(default)]
    pub mode: Mode,
    /// What changed, a line each, for people; empty where everything was so already.
    pub changes: Vec<String>,
    /// What deserves a second look, and did not before.
    pub warnings: Vec<String>,
    /// Set where the write goes back by itself.
    pub pending: Option<Pending>,
    /// Set where the writer's session stays allowed for a while.
    pub session_allow: Option<SessionAllow>,
}

/// All limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// In the policy's order.
    pub limits: Vec<LimitView>,
}

/// A limit and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitView {
    /// As the policy has it.
    pub limit: Limit,
    /// Whether the whole host only observes, so that it refuses nothing, whatever its own mode is.
    #[serde(default)]
    pub host_observes: bool,
    /// How many connections are open under it; absent where it does not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
    /// What a source may do at once, in packets, connections or bytes: the policy's `burst`, or what stands for it.
    #[serde(default)]
    pub burst: u64,
    /// How fast its clock runs, as a share of real time: it admits that share of its rate. Always 1 where it counts
    /// connections that are open.
    #[serde(default = "real_time")]
    pub speed: f64,
    /// Of a shared limit on open connections, how many places are kept for guarantees, its own and narrower ones; those that
    /// hold them are not among `open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<u64>,
    /// What it guarantees, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<GuaranteeView>,
    /// What its penalty came to, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentences: Option<SentenceCounts>,
    /// Its place in the kernel's maps, stable by name.
    pub number: u16,
    /// What it did since it exists.
    pub tallies: Tallies,
    /// Its parts of the table.
    pub regions: Vec<RegionLoad>,
}

const fn real_time() -> f64 {
    1.0
}

/// What a limit guarantees, and what came of that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GuaranteeView {
    /// What may be used of it at once, in packets, connections or bytes; 0 where only overrides guarantee something.
    pub burst: u64,
    /// How many of its places are taken, where it is of open connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
    /// What was admitted within it: the limit's own tallies have that too, but for open connections.
    pub tallies: Tallies,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// Frames.
    pub packets: u64,
    /// Their whole lengths.
    pub bytes: u64,
}

/// What a limit did. Every packet that it was asked about is in one of the first four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tallies {
    /// Charged and let through.
    pub admitted: Tally,
    /// Refused.
    pub refused: Tally,
    /// Would have been refused.
    pub observed: Tally,
    /// Not charged because another limit refused.
    pub spared: Tally,
    /// Found no place in the region; each is also in one of the above.
    pub overflowed: Tally,
}

/// A limit to set: created, or replaced as a whole. The name in the path must be the limit's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitRequest {
    /// The limit.
    pub limit: Limit,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}

/// A change of a limit: what it does not name stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitPatch {
    /// The change.
    pub change: LimitChange,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}

/// All tenants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tenants {
    /// In the policy's order.
    pub tenants: Vec<Tenant>,
}

/// A tenant to set: created, or replaced as a whole. The name in the path must be the tenant's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    /// The tenant.
    pub tenant: Tenant,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}

/// Whether the host enforces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// `enforce` or `observe`.
    pub mode: Mode,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}

/// Everything that is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Blocks {
    /// The policy's permanent ones, then those that were added by command.
    pub blocks: Vec<Block>,
}

/// A source or prefix that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Block {
    /// Whom.
    #[schema(value_type = String)]
    pub prefix: IpNet,
    /// Until when; absent where it does not end.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
    /// Who added it; absent for the policy's own.
    pub author: Option<String>,
    /// When; absent for the policy's own.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub added: Option<Timestamp>,
    /// The sentence that it is, where the penalty of a limit added it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<SentenceView>,
}

/// Blocks to add, all or none. A prefix that is blocked already takes the new end and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlocksRequest {
    /// At most 100 000.
    pub blocks: Vec<NewBlock>,
    /// How to write them; `confirm_within_seconds` is refused, because blocks end by themselves.
    #[serde(default)]
    pub write: Write,
}

/// A block to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBlock {
    /// Whom; an address is a prefix of full length.
    #[schema(value_type = String)]
    pub prefix: IpNet,
    /// For how long, at least 1; absent for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Why: one line of up to 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "comment")]
    pub reason: Option<String>,
}

/// The prefixes of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Prefixes {
    /// In the policy's order.
    #[schema(value_type = Vec<String>)]
    pub prefixes: Vec<IpNet>,
}

/// Prefixes to add to a list, all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixesRequest {
    /// Whom.
    #[schema(value_type = Vec<String>)]
    pub prefixes: Vec<IpNet>,
    /// How to write them.
    #[serde(default)]
    pub write: Write,
}

/// Prefixes to take off a list; one that is not on it refuses the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixesDelete {
    /// Whom.
    #[schema(value_type = Vec<String>)]
    pub prefixes: Vec<IpNet>,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}

/// Characters of a comment.
const COMMENT: usize = 500;

/// Reads what somebody says of a change. It is stored, logged and shown in tables: so it is short, and one line.
fn comment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let length = text.as_ref().map_or(0, |text| text.chars().count());
    if length > COMMENT {
        return Err(D::Error::custom(format!("a comment of {length} characters; write at most {COMMENT}")));
    }
    if text.as_ref().is_some_and(|text| text.chars().any(char::is_control)) {
        return Err(D::Error::custom("a comment with a line break or another control character; write one line"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_one_short_line() {
        let write = |message: &str| serde_json::from_value::<Write>(serde_json::json!({ "message": message }));
        assert_eq!(write(&"ä".repeat(COMMENT)).unwrap().message, Some("ä".repeat(COMMENT)));
        assert!(write(&"ä".repeat(COMMENT + 1)).unwrap_err().to_string().contains("write at most 500"));
        assert!(write("two\nlines").unwrap_err().to_string().contains("write one line"));
        assert_eq!(serde_json::from_str::<Write>("{}").unwrap(), Write::default());
        let block = serde_json::json!({ "prefix": "192.0.2.7/32", "reason": "\u{1b}[2J" });
        assert!(serde_json::from_value::<NewBlock>(block).is_err());
    }
}
