//! What is written is there, once and whole; what is damaged is never believed.

use super::*;
use crate::policy::{self, Document};
use ipnet::IpNet;
use jiff::Timestamp;
use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    sync::LazyLock,
    time::{Duration, Instant},
};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A document that says `number`, and is large enough to spread over pages.
pub(super) fn document(number: u64) -> Document {
    let blocks: Vec<_> = (0..200).map(|low| format!("\"10.{}.{}.{low}\"", number / 250, number % 250)).collect();
    policy::parse(&format!("[sources]\nblock = [{}]\n", blocks.join(", "))).unwrap()
}

pub(super) fn block(number: u32, until: Option<i64>) -> Block {
    Block {
        prefix: IpNet::from(std::net::IpAddr::from(Ipv4Addr::from(number))),
        until: until.map(at),
        reason: "scan".into(),
        author: "root".into(),
        added: at(1),
    }
}

const MINUTE: Duration = Duration::from_mins(1);

fn since() -> Moment {
    Moment { boot: "first".into(), after: Duration::from_secs(100) }
}

fn fresh() -> (tempfile::TempDir, PathBuf, Store) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let (store, notes) = Store::open(&path).unwrap();
    assert_eq!(notes, []);
    (directory, path, store)
}

#[test]
fn a_revision_is_there_after_closing() {
    let (_directory, path, store) = fresh();
    assert_eq!(store.current().unwrap(), None);
    assert_eq!(store.append(&document(1), "root", "first", at(1)).unwrap(), 1);
    assert_eq!(store.append(&document(2), "root", "second", at(2)).unwrap(), 2);
    drop(store);
    let (store, notes) = Store::open(&path).unwrap();
    assert_eq!(notes, []);
    let current = store.current().unwrap().unwrap();
    assert_eq!((current.info.revision, current.info.message.as_str(), &current.document), (2, "second", &document(2)));
    assert_eq!(store.revision(1).unwrap().document, document(1));
    assert!(matches!(store.revision(3), Err(StoreError::NoRevision(3))));
    let numbers: Vec<_> = store.revisions().unwrap().iter().map(|info| info.revision).collect();
    assert_eq!(numbers, [2, 1]);
}

#[test]
fn the_oldest_revisions_go_when_there_are_too_many() {
    let (_directory, path, store) = fresh();
    for _ in 1..=KEPT + 5 {
        store.append(&Document::default(), "root", "", at(1)).unwrap();
    }
    let revisions = store.revisions().unwrap();
    assert_eq!((revisions.len() as u64, revisions.last().unwrap().revision), (KEPT, 6));
    assert!(matches!(store.revision(5), Err(StoreError::NoRevision(5))));
    assert!(fs::metadata(path).unwrap().len() < 8 << 20);
}

#[test]
fn large_documents_are_not_kept_by_the_thousand() {
    let (_directory, path, store) = fresh();
    // None has anything of the one before, so that each is whole.
    for number in 0..20 {
        store.append(&blocking(number * 300_000..(number + 1) * 300_000), "root", "", at(1)).unwrap();
    }
    let revisions = store.revisions().unwrap();
    assert!((10..20).contains(&revisions.len()), "{}", revisions.len());
    assert!(revisions.iter().map(|info| info.bytes).sum::<u64>() <= KEPT_BYTES);
    println!("the file has {} MiB", fs::metadata(path).unwrap().len() >> 20);
}

/// A document that blocks these addresses.
fn blocking(addresses: std::ops::Range<u32>) -> Document {
    let block = addresses.map(|number| std::net::IpAddr::from(Ipv4Addr::from(number)).into()).collect();
    Document { sources: policy::Sources { block, ..Default::default() }.into(), ..Document::default() }
}

/// A large document, of which `number` is all that differs.
fn large(number: u64) -> Document {
    static BLOCKING: LazyLock<Document> = LazyLock::new(|| blocking(0..20_000));
    let limit =
        policy::Limit::new("one", throttle_common::words::Unit::Packets, policy::units::Rate::per_second(number));
    policy::edit::set_limit(&BLOCKING, limit)
}

#[test]
fn of_a_large_document_only_what_changes_is_written() {
    let (_directory, path, store) = fresh();
    for number in 1..=50 {
        store.append(&large(number), "root", "", at(1)).unwrap();
    }
    let bytes: Vec<_> = store.revisions().unwrap().iter().map(|info| info.bytes).collect();
    assert!(bytes[..49].iter().all(|&bytes| bytes < 2_000) && bytes[49] > 200_000, "{bytes:?}");
    drop(store);
    let (store, notes) = Store::open(&path).unwrap();
    assert_eq!(notes, []);
    for number in (1..=50).rev() {
        assert_eq!(store.revision(number).unwrap().document, large(number));
    }
    assert_eq!(store.current().unwrap().unwrap().document, large(50));
}

#[test]
fn what_revisions_are_made_of_outlives_the_revision_that_it_was() {
    let (_directory, path, store) = fresh();
    for number in 1..=KEPT + 20 {
        store.append(&large(number), "root", "", at(1)).unwrap();
    }
    drop(store);
    let (store, notes) = Store::open(&path).unwrap();
    assert_eq!((notes, store.revisions().unwrap().len() as u64), (vec![], KEPT));
    assert!(matches!(store.revision(20), Err(StoreError::NoRevision(20))));
    for number in [21, 500, KEPT + 20] {
        assert_eq!(store.revision(number).unwrap().document, large(number));
    }
}

#[test]
fn changes_never_come_to_more_than_the_whole_that_they_follow() {
    let (_directory, path, store) = fresh();
    // A fifth of it each time, so that every sixth is whole.
    let mut wholes = 0;
    for number in 0..30u32 {
        store.append(&blocking(number * 4_000..number * 4_000 + 20_000), "root", "", at(1)).unwrap();
        wholes += u32::from(store.revisions().unwrap()[0].bytes > 200_000);
    }
    assert!((4..=10).contains(&wholes), "{wholes}");
    drop(store);
    let (store, notes) = Store::open(&path).unwrap();
    assert_eq!(notes, []);
    for number in 0..30u32 {
        let held = store.revision(u64::from(number) + 1).unwrap().document;
        assert_eq!(held, blocking(number * 4_000..number * 4_000 + 20_000));
    }
}

#[test]
fn what_is_withdrawn_or_goes_back_is_followed_by_what_was_there_before() {
    let (_directory, path, store) = fresh();
    store.append(&large(1), "root", "", at(1)).unwrap();
    store.append(&large(2), "root", "", at(1)).unwrap();
    store.withdraw(2).unwrap();
    store.append(&large(3), "root", "", at(1)).unwrap();
    store.append_pending(&Document::default(), "root", "", at(2), since(), MINUTE).unwrap();
    assert_eq!(store.go_back("throttle", at(60)).unwrap(), Some(4));
    store.append(&large(5), "root", "", at(61)).unwrap();
    drop(store);
    let (store, notes) = Store::open(&path).unwrap();
    assert_eq!(notes, []);
    let documents: Vec<_> = (1..=5).map(|number| store.revision(number).unwrap().document).collect();
    assert_eq!(documents, [large(1), large(3), Document::default(), large(3), large(5)]);
}

#[test]
fn small_documents_are_written_as_earlier_versions_read_them() {
    let (_directory, path, store) = fresh();
    let format = |path: &Path| {
        let database = redb::ReadOnlyDatabase::open(path).unwrap();
        let transaction = redb::ReadableDatabase::begin_read(&database).unwrap();
        let state = transaction.open_table(file::STATE).unwrap();
        let sealed = state.get("format").unwrap().unwrap();
        record::open::<u64>("state", b"format", sealed.value()).unwrap()
    };
    (1..=3).for_each(|number| _ = store.append(&document(number), "root", "", at(1)).unwrap());
    drop(store);
    assert_eq!(format(&path), record::WHOLE_FORMAT);
    let (store, _) = Store::open(&path).unwrap();
    (1..=3).for_each(|number| _ = store.append(&large(number), "root", "", at(1)).unwrap());
    drop(store);
    assert_eq!(format(&path), record::FORMAT);
}

#[test]
fn what_is_not_confirmed_goes_back_even_after_a_restart() {
    let (_directory, path, store) = fresh();
    store.append(&document(1), "root", "", at(1)).unwrap();
    let pending = store.append_pending(&document(2), "root", "", at(2), since(), MINUTE).unwrap();
    assert_eq!(pending, Pending { revision: 2, back_to: 1, since: since(), window: MINUTE });
    drop(store);
    let (store, _) = Store::open(&path).unwrap();
    assert_eq!(store.pending().unwrap(), Some(pending));
    assert!(matches!(store.append(&document(3), "root", "", at(3)), Err(StoreError::AwaitsConfirmation(2))));
    assert_eq!(store.go_back("throttle", at(60)).unwrap(), Some(3));
    assert_eq!(store.current().unwrap().unwrap().document, document(1));
    assert_eq!((store.pending().unwrap(), store.go_back("throttle", at(61)).unwrap()), (None, None));
}

#[test]
fn a_step_back_is_remembered_as_one_also_from_a_step_back() {
    let (_directory, path, store) = fresh();
    (1..=3).for_each(|number| _ = store.append(&document(number), "root", "", at(1)).unwrap());
    assert_eq!(store.append(Policy::back_to(&document(2), Some(2)), "root", "", at(1)).unwrap(), 4);
    store.append_pending(&document(5), "root", "", at(2), since(), MINUTE).unwrap();
    assert_eq!(store.go_back("throttle", at(60)).unwrap(), Some(6));
    drop(store);
    let (store, _) = Store::open(&path).unwrap();
    let back_to: Vec<_> = (1..=6).map(|number| store.info(number).unwrap().back_to).collect();
    assert_eq!(back_to, [None, None, None, Some(2), None, Some(2)]);
    let before: Vec<_> = (1..=6).map(|number| store.info(number).unwrap().before()).collect();
    assert_eq!(before, [Some(0), Some(1), Some(2), Some(1), Some(4), Some(1)]);
}

#[test]
fn rates_of_bytes_without_a_unit_are_read_as_bytes() {
    let (_directory, path, store) = fresh();
    let limit = |rate: &str, guarantee: &str| {
        let rate: policy::units::Rate = rate.parse().unwrap();
        let guarantee = Some(guarantee.parse().unwrap());
        let tenant = Some("t".into());
        let overrides = vec![policy::Override { tenant, rate: Some(rate), guarantee, ..Default::default() }];
        let limit = policy::Limit::new("few", throttle_common::words::Unit::Bytes, rate);
        policy::Limit { guarantee, overrides, ..limit }
    };
    let one = |limit| Document { limits: vec![limit], ..Document::default() };
    // As earlier versions wrote it.
    store.append(&one(limit("5000/s", "70/min")), "root", "", at(1)).unwrap();
    drop(store);
    let (store, notes) = Store::open(&path).unwrap();
    assert_eq!(notes, []);
    assert_eq!(store.current().unwrap().unwrap().document, one(limit("5000B/s", "70B/min")));
    let packets = policy::Limit { unit: throttle_common::words::Unit::Packets, ..limit("5/s", "1/s") };
    store.append(&one(packets.clone()), "root", "", at(1)).unwrap();
    assert_eq!(store.revision(2).unwrap().document, one(packets), "other rates have no unit");
}

#[test]
fn what_is_confirmed_stays() {
    let (_directory, _path, store) = fresh();
    store.append_pending(&document(1), "root", "", at(1), since(), MINUTE).unwrap();
    assert!(matches!(store.confirm(2, Changes::default()), Err(StoreError::NothingPending(2))));
    store.confirm(1, Changes::default()).unwrap();
    assert_eq!(store.pending().unwrap(), None);
    assert_eq!(store.append(&document(2), "root", "", at(2)).unwrap(), 2);
}

#[test]
fn what_is_withdrawn_never_was() {
    let (_directory, _, store) = fresh();
    store.append(&document(1), "ann", "", at(1)).unwrap();
    let pending = store.append_pending(&document(2), "ann", "", at(2), since(), MINUTE).unwrap();
    store.withdraw(pending.revision).unwrap();
    assert_eq!((store.pending().unwrap(), store.current().unwrap().unwrap().document), (None, document(1)));
    assert!(matches!(store.withdraw(2), Err(StoreError::NoRevision(2))));
    assert_eq!(store.append(&document(3), "ann", "", at(3)).unwrap(), 2);
}

#[test]
fn the_first_revision_goes_back_to_nothing() {
    let (_directory, _path, store) = fresh();
    store.append_pending(&document(1), "root", "", at(1), since(), MINUTE).unwrap();
    store.go_back("throttle", at(60)).unwrap();
    assert_eq!(store.current().unwrap().unwrap().document, Document::default());
}

#[test]
fn a_hundred_thousand_blocks_are_one_change() {
    let (_directory, _path, store) = fresh();
    let blocks: Vec<_> = (0..100_000).map(|number| block(number, Some(i64::from(number)))).collect();
    let start = Instant::now();
    store.add_blocks(&blocks).unwrap();
    println!("100 000 blocks were added in {:?}", start.elapsed());
    assert_eq!(store.blocks().unwrap(), blocks);
    store.add_blocks(&[block(7, None)]).unwrap();
    assert_eq!(store.blocks().unwrap()[7], block(7, None));
    assert_eq!(store.purge(at(50_000)).unwrap().len(), 50_000);
    assert_eq!(store.remove_blocks(&[blocks[7].prefix, blocks[8].prefix]).unwrap(), 1);
    assert_eq!(store.blocks().unwrap(), blocks[50_001..]);
}

#[test]
fn a_hundred_thousand_blocks_take_no_more_room_the_second_time() {
    let (_directory, path, store) = fresh();
    let size = || fs::metadata(&path).unwrap().len();
    let blocks = |end| (0..100_000).map(|number| block(number, Some(end))).collect::<Vec<_>>();
    let mut sizes = Vec::new();
    for end in 1..=5 {
        store.add_blocks(&blocks(end)).unwrap();
        sizes.push(size() >> 10);
    }
    println!("100 000 blocks that were added 1 to 5 times have a file of {sizes:?} KiB");
    assert!(sizes.iter().all(|&size| size < 12 << 10), "{sizes:?}");
    drop(store);
    let (store, notes) = Store::open(&path).unwrap();
    assert_eq!((store.blocks().unwrap(), notes), (blocks(5), vec![]));
}

#[test]
fn what_blocks_have_in_common_goes_with_the_last_of_them() {
    let (_directory, path, store) = fresh();
    let of = |numbers: std::ops::Range<u32>, until| numbers.map(|it| block(it, until)).collect::<Vec<_>>();
    store.add_blocks(&of(0..10, Some(50))).unwrap();
    store.add_blocks(&[of(5..15, None), of(5..7, None)].concat()).unwrap();
    store.remove_blocks(&of(0..3, None).iter().map(|it| it.prefix).collect::<Vec<_>>()).unwrap();
    assert_eq!(store.blocks().unwrap(), [of(3..5, Some(50)), of(5..15, None)].concat());
    assert_eq!(store.purge(at(50)).unwrap().len(), 2);
    drop(store);
    // What was left behind, or counted wrongly, opening does not forgive.
    let (store, notes) = Store::open(&path).unwrap();
    assert_eq!((store.blocks().unwrap(), notes), (of(5..15, None), vec![]));
}

#[test]
fn a_store_is_for_its_owner_alone_whatever_it_was() {
    let (_directory, path, store) = fresh();
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o600);
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&path).unwrap());
    assert_eq!(mode(), 0o600);
}

#[test]
fn two_agents_cannot_share_a_file() {
    let (_directory, path, store) = fresh();
    assert!(matches!(Store::open(&path), Err(StoreError::InUse { .. })));
    drop(store);
    assert!(Store::open(&path).is_ok());
}

#[test]
fn a_file_that_is_no_store_is_moved_aside_each_time_under_another_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    for number in 1..=3 {
        fs::write(&path, format!("this is letter {number}, not a store")).unwrap();
        let (store, notes) = Store::open(&path).unwrap();
        let [Note::MovedAside { to, .. }] = &notes[..] else { panic!("{notes:?}") };
        assert_eq!(fs::read_to_string(to).unwrap(), format!("this is letter {number}, not a store"));
        assert!(to.ends_with(format!("store.redb.bad-{number}")));
        assert_eq!(store.append(&document(1), "root", "", at(1)).unwrap(), 1);
    }
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = Store::open(Path::new("/nonexistent/store.redb")).err().unwrap().to_string();
    assert!(error.starts_with("cannot open /nonexistent/store.redb: "), "{error}");
}
