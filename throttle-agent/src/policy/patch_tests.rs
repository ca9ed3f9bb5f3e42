//! What a difference makes of the earlier document is the later one, whatever the two are.

use super::*;
use crate::policy::{
    Mode,
    arbitrary::{documents, limit, prefix, service, tenant},
    edit,
};
use proptest::prelude::*;

proptest! {
    #[test]
    fn it_makes_the_later_document_of_the_earlier_even_after_it_was_written(
        before in documents(), after in documents(),
    ) {
        if let Some(patch) = Patch::between(&before, &after) {
            let written: Patch = serde_json::from_slice(&serde_json::to_vec(&patch).unwrap()).unwrap();
            prop_assert_eq!(written.apply(before), after);
        }
    }

    #[test]
    fn what_a_command_changes_can_always_be_said(before in documents(), name in 0..6u8, kind in 1..4u8) {
        let changes = [
            edit::set_mode(&before, Mode::Enforce),
            edit::set_limit(&before, limit(name, kind)),
            edit::set_service(&before, service(name, kind)),
            edit::set_tenant(&before, tenant(name, kind)),
            edit::add_sources(&before, edit::List::Known, &[prefix(name), prefix(kind)]),
        ];
        let removals = [
            edit::delete_limit(&before, &format!("limit-{name}")),
            edit::delete_tenant(&before, &format!("tenant-{name}")),
            edit::remove_sources(&before, edit::List::Block, &[prefix(name)]),
        ];
        for after in changes.into_iter().chain(removals.into_iter().flatten()) {
            let patch = Patch::between(&before, &after).expect("nothing changes its place");
            prop_assert_eq!(patch.apply(before.clone()), after);
        }
    }
}

#[test]
fn what_is_alike_is_not_said_again() {
    let limits: Vec<_> = (0..6).map(|name| limit(name, 1)).collect();
    let before = Document { limits, ..Document::default() };
    let after = edit::set_limit(&before, limit(3, 2));
    let patch = Patch::between(&before, &after).unwrap();
    assert_eq!(patch.put.limits, [limit(3, 2)]);
    assert_eq!(patch.removed, Removed::default());
}
