//! Warnings that say the same of many: one line for all of them.

use std::collections::HashMap;

/// So many of a kind are told one by one.
const FEW: usize = 3;

/// Warnings as people read them, each with how it is to be shown. Of more than [`FEW`] that differ in nothing but the name of
/// what they are about, the first stands for all.
pub(crate) fn grouped<'w>(warnings: impl IntoIterator<Item = (&'w str, String)>) -> Vec<String> {
    let mut groups: Vec<Vec<(&str, String)>> = Vec::new();
    let mut places = HashMap::new();
    for (text, shown) in warnings {
        let (kind, name) = kind_and_name(text);
        let place = *places.entry(kind).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push((name, shown));
    }
    groups.into_iter().flat_map(told).collect()
}

fn told(group: Vec<(&str, String)>) -> Vec<String> {
    let [(_, first), rest @ ..] = &group[..] else { return Vec::new() };
    if group.len() <= FEW {
        return group.into_iter().map(|(_, shown)| shown).collect();
    }
    let names: Vec<_> = rest.iter().take(FEW).map(|(name, _)| format!("`{name}`")).collect();
    let others = if rest.len() > FEW { ", ..." } else { "" };
    vec![format!("{first} (so it is for {} more: {}{others})", rest.len(), names.join(", "))]
}

/// What a warning says, without the name of what it is about; and that.
fn kind_and_name(text: &str) -> ((&str, &str), &str) {
    let mut parts = text.splitn(3, '"');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(before), Some(name), Some(after)) => ((before, after), name),
        _ => ((text, ""), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(warnings: &[String]) -> Vec<String> {
        grouped(warnings.iter().map(|text| (text.as_str(), format!("file:1: {text}"))))
    }

    #[test]
    fn few_are_told_one_by_one_and_many_in_one_line_at_the_place_of_the_first() {
        let same = |count: usize| (0..count).map(|it| format!("limit \"l{it}\": rate: it never refuses anything"));
        let other = "limit \"x\": per: there are no tenants".to_owned();
        let few: Vec<_> = same(3).chain([other.clone()]).collect();
        assert_eq!(said(&few).len(), 4);
        let many: Vec<_> = same(6).chain([other.clone()]).collect();
        let first =
            "file:1: limit \"l0\": rate: it never refuses anything (so it is for 5 more: `l1`, `l2`, `l3`, ...)";
        assert_eq!(said(&many), [first.to_owned(), format!("file:1: {other}")]);
        assert!(said(&same(4).collect::<Vec<_>>())[0].ends_with("(so it is for 3 more: `l1`, `l2`, `l3`)"));
        assert!(said(&[]).is_empty());
    }
}
