//! Classes: sources that have the same overrides of the same limits.
//!
//! Overrides are told apart by prefixes and tenants, packets by one look-up of their source. So each combination that
//! occurs has a number, which stands with what else policy says of a source (`SourceEntry`); of several overrides of one
//! limit the longest prefix has won by then, and any prefix over a tenant. Numbers follow the order of prefixes: they are
//! the same for the same document, whatever else it says.

use super::document::{Document, Limit};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The classes of a document.
#[derive(Debug, Default)]
pub(super) struct Classes<'d> {
    /// The class of each prefix that is not of that of its cover; 0 is no class.
    pub(super) prefixes: Vec<(IpNet, u16)>,
    /// Whom each class is of; the number of each is its index + 1.
    pub(super) members: Vec<Member<'d>>,
    /// How many there would be.
    pub(super) wanted: usize,
}

/// What those in a class have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Member<'d> {
    /// Their tenant, where a limit has an override for it.
    pub(super) tenant: Option<&'d str>,
    /// The override of each limit that names a prefix of theirs: their places in the document, by limit.
    by_source: BTreeMap<usize, usize>,
}

impl Member<'_> {
    /// What those in the class have of the limit at a place in the document, where that is not what all have.
    pub(super) fn terms(&self, index: usize, limit: &Limit, by_tenant: &HashMap<&str, Limit>) -> Option<Limit> {
        let by_source = self.by_source.get(&index).map(|&place| limit.with(&limit.overrides[place]));
        by_source.or_else(|| by_tenant.get(self.tenant?).cloned())
    }
}

/// What is said of a prefix itself: whether it is a tenant's, of which one if an override is for it, and overrides by limit.
#[derive(Default)]
struct Said<'d> {
    is_tenants: bool,
    tenant: Option<&'d str>,
    by_source: BTreeMap<usize, usize>,
}

impl<'d> Classes<'d> {
    pub(super) fn of(document: &'d Document) -> Self {
        let overridden: Vec<_> =
            document.limits.iter().enumerate().filter(|(_, it)| !it.overrides.is_empty()).collect();
        if overridden.is_empty() {
            return Self::default();
        }
        let named: HashSet<&str> =
            overridden.iter().flat_map(|(_, limit)| limit.by_tenant().map(|(tenant, _)| tenant)).collect();
        let mut said: BTreeMap<IpNet, Said<'_>> = BTreeMap::new();
        for tenant in document.tenants.iter() {
            let name = named.get(tenant.name.as_str()).copied();
            for prefix in &tenant.sources {
                let said = said.entry(prefix.net()).or_default();
                (said.is_tenants, said.tenant) = (true, name);
            }
        }
        for (index, limit) in overridden {
            for (place, terms) in limit.overrides.iter().enumerate() {
                for prefix in &terms.sources {
                    said.entry(prefix.net()).or_default().by_source.insert(index, place);
                }
            }
        }
        Self::number(said)
    }

    /// Gives each prefix the number of what is said of it and of what covers it.
    fn number(said: BTreeMap<IpNet, Said<'d>>) -> Self {
        let mut classes = Self::default();
        let mut numbers: HashMap<Member<'d>, usize> = HashMap::new();
        let mut covers: Vec<(IpNet, Member<'d>, usize)> = Vec::new();
        for (net, Said { is_tenants, tenant, by_source }) in said {
            while covers.last().is_some_and(|(cover, ..)| !cover.contains(&net)) {
                covers.pop();
            }
            let (mut member, around) =
                covers.last().map_or_else(Default::default, |(_, it, number)| (it.clone(), *number));
            member.tenant = if is_tenants { tenant } else { member.tenant };
            member.by_source.extend(by_source);
            // Nothing is said of most: they need a number only where another would be inherited.
            let number = if around == 0 && member == Member::default() {
                0
            } else {
                let next = numbers.len() + 1;
                *numbers.entry(member.clone()).or_insert_with(|| {
                    classes.members.push(member.clone());
                    next
                })
            };
            if number != around {
                classes.prefixes.push((net, u16::try_from(number).unwrap_or(0)));
            }
            covers.push((net, member, number));
        }
        classes.wanted = numbers.len();
        classes
    }
}
