//! Tenants that have a compartment of a limit's table together: a flood of one may take the places of another's sources.
//!
//! The check of policy warns where there is no room to keep all apart. Where there is, they may share one all the same: a
//! tenant keeps its number as long as its name lives, and tables are divided by numbers.

use super::layout::Tenants;
use std::collections::HashMap;
use throttle_common::records::{Limit, Region, name_str};

/// The tenants that have no compartment of a limit's region to themselves, in the order of their names.
pub fn tenants<'t>(limit: &Limit, region: &Region, tenants: &'t Tenants) -> Vec<&'t str> {
    let having = having(limit, region, tenants);
    let shares = |number: u16| number != limit.rest && having[place(region, number)] > 1;
    tenants.iter().filter(|&(_, &number)| shares(number)).map(|(name, _)| name.as_str()).collect()
}

/// How many these are.
pub fn count(limit: &Limit, region: &Region, tenants: &Tenants) -> usize {
    having(limit, region, tenants).into_iter().filter(|&having| having > 1).sum()
}

/// How many tenants have each compartment.
fn having(limit: &Limit, region: &Region, tenants: &Tenants) -> Vec<usize> {
    let mut having = vec![0; region.tenants_compartments().max(1) as usize];
    tenants.values().filter(|&&number| number != limit.rest).for_each(|&number| having[place(region, number)] += 1);
    having
}

fn place(region: &Region, number: u16) -> usize {
    region.place_of(number).unwrap_or(0) as usize
}

/// A warning where tenants share a compartment only because of the numbers that they have kept. One limit is named: there may
/// be a thousand.
pub fn warning<'l>(limits: impl Iterator<Item = &'l Limit>, numbers: &Tenants) -> Option<String> {
    // Most limits are divided alike.
    let mut seen: HashMap<(u16, u32), Vec<&str>> = HashMap::new();
    let mut among = |limit: &'l Limit, region: Region| {
        let names = || {
            let others = numbers.values().filter(|&&number| number != limit.rest).count();
            let has_room = region.tenants_compartments() as usize >= others;
            if has_room { tenants(limit, &region, numbers) } else { Vec::new() }
        };
        seen.entry((limit.rest, region.tenants_compartments())).or_insert_with(names).clone()
    };
    let sharing = |limit: &'l Limit| {
        let mut names = limit.regions().map(|(_, region)| among(limit, region));
        names.find(|names| !names.is_empty()).map(|names| (limit, names))
    };
    let mut found = limits.filter(|limit| !limit.is_shared()).filter_map(sharing);
    let (limit, names) = found.next()?;
    let others = match found.count() {
        0 => String::new(),
        others => format!(" (so it is for {others} more limits)"),
    };
    let whose = if names.len() > 3 { format!("{} and others", names[..3].join(", ")) } else { names.join(", ") };
    Some(format!(
        "limit `{}`: the tenants {whose} share compartments of its table, although there is room for one each: a flood of one \
         may take the places of another's sources{others}; tables are divided by numbers that tenants keep as long as their \
         names: give one another name, or write more `sources`",
        name_str(&limit.name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Compiled, Document, Layout, check, compile, compile::compartments::sources_in, parse};

    /// With room for compartments of two tenants.
    fn document(tenants: &[&str]) -> Document {
        let tenant = |(number, name): (usize, &&str)| {
            format!("[[tenant]]\nname = \"{name}\"\nsources = [\"10.{number}.0.0/16\"]\n")
        };
        let tenants: String = tenants.iter().enumerate().map(tenant).collect();
        let sources = sources_in(256);
        let limit = format!("[[limit]]\nname = \"all\"\nunit = \"packets\"\nrate = \"10/s\"\nsources = {sources}\n");
        parse(&format!("mode = \"enforce\"\n{tenants}{limit}")).unwrap()
    }

    fn after(before: Option<&Compiled>, tenants: &[&str]) -> Compiled {
        let tenants_before = before.map_or_else(Default::default, |it| it.tenants.clone());
        compile(&document(tenants), 1, &Layout { sets: 1 << 16, tenants: tenants_before, ..Layout::default() }).unwrap()
    }

    fn said(compiled: &Compiled) -> Option<String> {
        warning(compiled.limits.iter().map(|(_, limit)| limit), &compiled.tenants)
    }

    #[test]
    fn tenants_that_share_a_compartment_by_their_numbers_are_named_and_another_name_helps() {
        let three = after(None, &["a", "b", "c"]);
        assert_eq!(said(&three), None, "there is no room: the check says so");
        assert!(check(&document(&["a", "b", "c"])).unwrap().iter().any(|it| it.path == "limit[0].sources"));
        let two = after(Some(&three), &["a", "c"]);
        assert!(check(&document(&["a", "c"])).unwrap().is_empty());
        assert!(said(&two).unwrap().starts_with("limit `all`: the tenants a, c share"), "{:?}", said(&two));
        assert_eq!(said(&after(Some(&two), &["a", "d"])), None);
        assert_eq!(said(&after(None, &["a", "b"])), None);
    }

    #[test]
    fn all_share_a_table_that_is_not_divided_and_nobody_one_of_his_own() {
        let numbers: Tenants =
            [("a", 1), ("b", 2), ("c", 3), ("rest", 4)].map(|(name, it)| (name.to_owned(), it)).into();
        let sharing = |compartments, rest| {
            let limit = Limit { rest, ..Limit::NONE };
            let region = Region { sets: 256, compartments, ..Region::NONE };
            let found = tenants(&limit, &region, &numbers);
            assert_eq!(found.len(), count(&limit, &region, &numbers));
            found
        };
        assert_eq!(sharing(0, 4), ["a", "b", "c"]);
        assert_eq!(sharing(Region::compartments_of(1), 4), ["a", "c"]);
        assert_eq!(sharing(Region::compartments_of(1), 0), ["a", "b", "c", "rest"]);
        assert_eq!(sharing(Region::compartments_of(2), 4), [""; 0]);
    }
}
