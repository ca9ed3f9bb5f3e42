//! Sources: in groups that are tenants, and with a standing of their own.

use crate::policy::prefix::Prefix;
use serde::Serialize;
use utoipa::ToSchema;

/// A named group of sources.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tenant {
    /// Unique among tenants, as for services. What limits remember of the tenant is kept by this name.
    pub name: String,
    /// Whose packets are the tenant's. Where prefixes of tenants overlap, the longest wins.
    pub sources: Vec<Prefix>,
}

/// Sources with a standing of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sources {
    /// Touched by no block and no limit.
    #[serde(default)]
    pub allow: Vec<Prefix>,
    /// Known not to be spoofed: a place in the table is kept for them.
    #[serde(default)]
    pub known: Vec<Prefix>,
    /// Refused for as long as they stand here.
    #[serde(default)]
    pub block: Vec<Prefix>,
}
