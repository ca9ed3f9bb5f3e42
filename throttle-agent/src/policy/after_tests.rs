//! What is made of a document after another, whose parts need not be looked at again, is what is made of it by itself.

use super::{
    Compiled, Diagnostic, Document, HeldLimit, Layout,
    arbitrary::documents,
    check, compile, compile_after, edit, new_warnings,
    sources::{resolve, state_the_same, stated},
};
use proptest::prelude::*;
use std::sync::Arc;
use throttle_common::records::name_str;

fn layout(compiled: &Compiled) -> Layout {
    Layout {
        sets: 1 << 16,
        bearable: 0,
        cpus: 2,
        limits: compiled.limits.iter().map(|&(number, record)| HeldLimit { number, record }).collect(),
        tenants: Arc::clone(&compiled.tenants),
        clocks: compiled.services.iter().map(|it| (name_str(&it.name).to_owned(), it.clock)).collect(),
    }
}

/// A document with some parts of another: shared with it, or just the same.
fn with_parts_of(document: &Document, other: &Document, parts: [Option<bool>; 5]) -> Document {
    let mut mixed = document.clone();
    let [services, backends, tenants, sources, limits] = parts;
    if let Some(shared) = services {
        mixed.services = if shared { other.services.clone() } else { other.services.to_vec().into() };
    }
    if let Some(shared) = backends {
        mixed.backends = if shared { other.backends.clone() } else { other.backends.to_vec().into() };
    }
    if let Some(shared) = tenants {
        mixed.tenants = if shared { other.tenants.clone() } else { other.tenants.to_vec().into() };
    }
    if let Some(shared) = sources {
        mixed.sources = if shared { other.sources.clone() } else { (*other.sources).clone().into() };
    }
    if limits.is_some() {
        mixed.limits.clone_from(&other.limits);
    }
    mixed
}

/// Documents that follow each other.
fn sequences() -> impl Strategy<Value = Vec<Document>> {
    let parts = prop::array::uniform5(prop::option::weighted(0.6, any::<bool>()));
    prop::collection::vec((documents(), parts), 2..8).prop_map(|drawn| {
        let mut sequence: Vec<Document> = Vec::new();
        for (document, parts) in drawn {
            let next = sequence.last().map_or_else(|| document.clone(), |last| with_parts_of(&document, last, parts));
            sequence.push(next);
        }
        sequence
    })
}

proptest! {
    #[test]
    fn a_document_means_the_same_whatever_it_follows(sequence in sequences()) {
        let mut held = (Document::default(), compile(&Document::default(), 0, &Layout::default()).unwrap());
        for (document, revision) in sequence.into_iter().zip(1..) {
            let (before, compiled) = &held;
            let layout = layout(compiled);
            let alone = compile(&document, revision, &layout);
            let after = compile_after(Some(before), &document, revision, &layout);
            prop_assert_eq!(&after, &alone);
            // What is refused leaves in force what is.
            let Ok(after) = after else { continue };

            let texts = |document| check(document).unwrap().iter().map(Diagnostic::text).collect::<Vec<_>>();
            let known = texts(before);
            let mut new = texts(&document);
            new.retain(|text| !known.contains(text));
            prop_assert_eq!(new_warnings(before, &document), new);

            if state_the_same(before, &document) {
                let of = |document, tenants| resolve(stated(document, tenants));
                prop_assert_eq!(of(before, &compiled.tenants), of(&document, &after.tenants));
            }
            held = (document, after);
        }
    }
}

#[test]
fn what_a_changed_limit_shares_with_the_policy_before_is_known_without_a_look() {
    let tenants = super::parse("[[tenant]]\nname = \"a\"\nsources = [\"10.0.0.0/8\"]\n").unwrap();
    let compiled = compile(&tenants, 1, &Layout { sets: 1 << 16, ..Layout::default() }).unwrap();
    let limited = edit::set_limit(&tenants, super::arbitrary::limit(0, 1));
    let after = compile_after(Some(&tenants), &limited, 2, &layout(&compiled)).unwrap();
    assert!(Arc::ptr_eq(&after.tenants, &compiled.tenants));
}
