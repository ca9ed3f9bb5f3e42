//! Tenants that have a compartment of a limit's table together: a flood of one may take the places of another's sources.
//!
//! The check of policy warns where there is no room to keep all apart. Where there is, they may share one all the same: a
//! tenant keeps its number as long as its name lives, and tables are divided by numbers.

use super::layout::Tenants;
use std::{cell::RefCell, collections::HashMap, rc::Rc};
use throttle_common::records::{Limit, Region, name_str};

/// Those who share, in the order of their names.
type Names<'t> = Rc<[&'t str]>;

/// Those who share, and how many tenants there are, that of all the rest left out.
type Found<'t> = (Names<'t>, usize);

/// Who shares with whom. Most limits are divided alike: for all of these it is looked for once.
#[derive(Debug)]
pub struct Sharing<'t> {
    tenants: &'t Tenants,
    /// By the number of the tenant of all the rest, and how many compartments there are.
    found: RefCell<HashMap<(u16, u32), Found<'t>>>,
}

impl<'t> Sharing<'t> {
    /// Of tenants with these numbers.
    pub fn of(tenants: &'t Tenants) -> Self {
        Self { tenants, found: RefCell::default() }
    }

    /// The tenants that have no compartment of a limit's region to themselves, in the order of their names.
    pub fn tenants(&self, limit: &Limit, region: &Region) -> Names<'t> {
        self.find(limit, region).0
    }

    fn find(&self, limit: &Limit, region: &Region) -> Found<'t> {
        let key = (limit.rest, region.tenants_compartments());
        self.found.borrow_mut().entry(key).or_insert_with(|| self.look(limit, region)).clone()
    }

    fn look(&self, limit: &Limit, region: &Region) -> Found<'t> {
        let mut having = vec![0; region.tenants_compartments().max(1) as usize];
        let place = |number: u16| region.place_of(number).unwrap_or(0) as usize;
        self.others(limit).for_each(|(_, number)| having[place(number)] += 1);
        let names = self.others(limit).filter(|&(_, number)| having[place(number)] > 1).map(|(name, _)| name).collect();
        (names, having.iter().sum())
    }

    /// All but the tenant of all the rest, which has the part of those of none.
    fn others(&self, limit: &Limit) -> impl Iterator<Item = (&'t str, u16)> {
        self.tenants.iter().map(|(name, &number)| (name.as_str(), number)).filter(|&(_, number)| number != limit.rest)
    }

    /// A warning where tenants share a compartment only because of the numbers that they have kept. One limit is named: there
    /// may be a thousand.
    pub fn warning<'l>(&self, limits: impl Iterator<Item = &'l Limit>) -> Option<String> {
        let sharing = |limit: &'l Limit| {
            let of_region = |(_, region): (_, Region)| {
                let (names, all) = self.find(limit, &region);
                (!names.is_empty() && region.tenants_compartments() as usize >= all).then_some((limit, names))
            };
            limit.regions().find_map(of_region)
        };
        let mut found = limits.filter(|limit| !limit.is_shared()).filter_map(sharing);
        let (limit, names) = found.next()?;
        let others = match found.count() {
            0 => String::new(),
            others => format!(" (so it is for {others} more limits)"),
        };
        let whose = if names.len() > 3 { format!("{} and others", names[..3].join(", ")) } else { names.join(", ") };
        Some(format!(
            "limit `{}`: the tenants {whose} share compartments of its table, although there is room for one each: a flood of \
             one may take the places of another's sources{others}; tables are divided by numbers that tenants keep as long as \
             their names: give one another name, or write more `sources`",
            name_str(&limit.name)
        ))
    }
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
        Sharing::of(&compiled.tenants).warning(compiled.limits.iter().map(|(_, limit)| limit))
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
            [("a", 1), ("b", 2), ("c", 3), ("rest", 4)].map(|(name, it)| (name.to_owned(), it)).into_iter().collect();
        let sharing = |compartments, rest| {
            let limit = Limit { rest, ..Limit::NONE };
            let region = Region { sets: 256, compartments, ..Region::NONE };
            Sharing::of(&numbers).tenants(&limit, &region).to_vec()
        };
        assert_eq!(sharing(0, 4), ["a", "b", "c"]);
        assert_eq!(sharing(Region::compartments_of(1), 4), ["a", "c"]);
        assert_eq!(sharing(Region::compartments_of(1), 0), ["a", "b", "c", "rest"]);
        assert_eq!(sharing(Region::compartments_of(2), 4), [""; 0]);
    }
}
