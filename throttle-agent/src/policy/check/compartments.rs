//! Where tenants are not kept apart as well as they may be.

use crate::policy::{
    compile::compartments::{most, rests, sets, sets_for, sources_in},
    document::{Document, Limit},
};
use ipnet::IpNet;
use throttle_common::words::Per;

pub(super) fn warn(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    let limits = document.limits.iter().enumerate().filter(|(_, limit)| limit.per == Per::Source);
    let limits: Vec<(usize, &Limit)> = limits.collect();
    small(document, &limits, warn);
    straddling(document, &limits, warn);
    two_rests(document, warn);
}

/// A table in which not every tenant has places of its own. The smallest is named: there may be a thousand.
fn small(document: &Document, limits: &[(usize, &Limit)], warn: &mut impl FnMut(String, String, &str)) {
    let tenants = (document.tenants.len() - usize::from(rests(document).next().is_some())) as u32;
    let room = limits.iter().map(|(index, limit)| (most(sets(limit.sources)), *index));
    let short: Vec<_> = room.filter(|&(room, _)| room < tenants).collect();
    let Some(&(room, index)) = short.iter().min() else { return };
    let reason = match room {
        0 => "its table is too small to be divided among tenants".to_owned(),
        room => format!("its table has room for compartments of {room} tenants, and there are {tenants}"),
    };
    let others =
        if short.len() > 1 { format!(" (so it is for {} more limits)", short.len() - 1) } else { String::new() };
    let reason = format!("{reason}: a flood of one may take the places of another's sources{others}");
    let remedy = format!("write sources = {} or more", sources_in(sets_for(tenants)));
    warn(format!("limit[{index}].sources"), reason, &remedy);
}

/// A limit whose sources are wider than a tenant's networks, so that one lies in several compartments.
fn straddling(document: &Document, limits: &[(usize, &Limit)], warn: &mut impl FnMut(String, String, &str)) {
    let longest = |is_v4: bool, prefix: fn(&Limit) -> u8| {
        // Nothing is longer than whole addresses, and there may be a hundred thousand networks.
        let whole = if is_v4 { 32 } else { 128 };
        if limits.iter().all(|(_, limit)| prefix(limit) == whole) {
            return None;
        }
        let nets = document.tenants.iter().flat_map(|tenant| &tenant.sources).map(|prefix| prefix.net());
        nets.filter(|net| matches!(net, IpNet::V4(_)) == is_v4).max_by_key(IpNet::prefix_len)
    };
    let longest = [longest(true, |limit| limit.prefix.ipv4), longest(false, |limit| limit.prefix.ipv6)];
    let straddled = limits.iter().find_map(|(index, limit)| {
        let wider = |(net, source): (Option<IpNet>, u8)| net.filter(|net| net.prefix_len() > source);
        let net = longest.into_iter().zip([limit.prefix.ipv4, limit.prefix.ipv6]).find_map(wider)?;
        Some((*index, net))
    });
    let Some((index, net)) = straddled else { return };
    let reason =
        format!("its sources are wider than {net}, a tenant's: one may have a bucket in each tenant's part of it");
    warn(
        format!("limit[{index}].prefix"),
        reason,
        "write a prefix as long as the tenants', or give them whole networks",
    );
}

/// Tenants of all the rest of one family each: the table knows one.
fn two_rests(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    let Some((index, tenant)) = rests(document).nth(1) else { return };
    let reason = format!(
        "another tenant is that of all the rest too, and has half of each table: `{}` has a compartment like any other",
        tenant.name
    );
    warn(format!("tenant[{index}].sources"), reason, "write both \"0.0.0.0/0\" and \"::/0\" in one tenant");
}
