//! The store under kill -9, flipped bits, torn files and a full disk.

use super::{
    tests::{at, block, document},
    *,
};
use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

/// Set for the child process: the path of its store.
const CHILD: &str = "THROTTLE_TEST_STORE";
/// Set for the child process: a file that it removes when the disk is full.
const BALLAST: &str = "THROTTLE_TEST_BALLAST";
/// Blocks that the child adds at once.
const BATCH: u32 = 100;
/// Where the reproducible dice start.
const SEED: u64 = 0x7468_726f_7474_6c65;

/// Dice: splitmix64 (Steele et al. 2014).
fn dice(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Not a test by itself: what the children of the tests below do until they are killed, or fail for the second time.
/// Each line that it prints is an acknowledgement.
#[test]
fn child() {
    let Ok(path) = env::var(CHILD) else { return };
    let (store, notes) = Store::open(Path::new(&path)).unwrap();
    assert_eq!(notes, []);
    let mut revision = store.current().unwrap().map_or(0, |current| current.info.revision);
    loop {
        let blocks: Vec<_> = (0..BATCH).map(|n| block(revision as u32 * BATCH + n, None)).collect();
        let written = store.add_blocks(&blocks);
        let written = written.and_then(|()| store.append(&document(revision + 1), "child", "", at(1)));
        match written {
            Ok(number) => {
                assert_eq!(number, revision + 1);
                revision = number;
                println!("\nrevision {number}");
            }
            Err(error) => {
                println!("\nfailed: {error}");
                // With room again the same store goes on.
                if !env::var(BALLAST).is_ok_and(|ballast| fs::remove_file(ballast).is_ok()) {
                    return;
                }
            }
        }
    }
}

fn spawn_child(path: &Path, program: &mut Command) -> std::process::Child {
    program.env(CHILD, path).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn child_arguments() -> [&'static str; 4] {
    ["--exact", "store::crash_tests::child", "--nocapture", "--test-threads=1"]
}

/// What the store holds is a state that the child made, at least as new as what it acknowledged.
fn assert_whole(path: &Path, acknowledged: u64) -> u64 {
    let (store, notes) = Store::open(path).unwrap();
    assert_eq!(notes, []);
    let current = store.current().unwrap();
    let revision = current.as_ref().map_or(0, |current| current.info.revision);
    assert!((acknowledged..=acknowledged + 1).contains(&revision), "{revision} of {acknowledged} acknowledged");
    if let Some(current) = current {
        assert_eq!(current.document, document(revision));
    }
    let blocks = store.blocks().unwrap().len() as u64;
    let batches = blocks / u64::from(BATCH);
    assert_eq!(blocks % u64::from(BATCH), 0);
    assert!((revision..=revision + 1).contains(&batches), "{batches} batches at revision {revision}");
    revision
}

#[test]
fn what_was_acknowledged_survives_kill_9_at_any_instant() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    // The first opening makes the file; there is nothing yet to lose.
    drop(Store::open(&path).unwrap());
    let (mut state, mut acknowledged) = (SEED, 0);
    for _ in 0..30 {
        let mut child = spawn_child(&path, Command::new(env::current_exe().unwrap()).args(child_arguments()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.by_ref().map_while(Result::ok).find_map(|line| revision_of(&line));
        acknowledged = first.unwrap_or_else(|| panic!("the child acknowledged nothing after {acknowledged}"));
        // The instant is the point: a random time within the writing of a few revisions.
        std::thread::sleep(Duration::from_micros(dice(&mut state) % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = lines.map_while(Result::ok).filter_map(|line| revision_of(&line)).last().unwrap_or(acknowledged);
        acknowledged = assert_whole(&path, acknowledged);
    }
}

fn revision_of(line: &str) -> Option<u64> {
    line.strip_prefix("revision ")?.parse().ok()
}

/// The bytes of a closed store of five revisions and some blocks.
fn sample() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let (store, _) = Store::open(&path).unwrap();
    for number in 1..=5 {
        store.append(&document(number), "root", "", at(1)).unwrap();
    }
    store.add_blocks(&(0..BATCH).map(|number| block(number, None)).collect::<Vec<_>>()).unwrap();
    drop(store);
    fs::read(&path).unwrap()
}

/// Opens damaged bytes: they are moved aside whole, or hold what was written, short of the last change at most if the
/// store says so. Gives whether they were moved aside.
fn assert_never_wrong(bytes: &[u8], what: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    fs::write(&path, bytes).unwrap();
    let (store, notes) = Store::open(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
    let moved = notes.iter().find_map(|note| match note {
        Note::MovedAside { to, .. } => Some(to),
        Note::Repaired => None,
    });
    if let Some(to) = moved {
        assert!(to.exists(), "{what}");
        assert_eq!(store.revisions().unwrap(), [], "{what}");
    } else {
        let blocks = store.blocks().unwrap();
        let whole = blocks == (0..BATCH).map(|number| block(number, None)).collect::<Vec<_>>();
        assert!(whole || (blocks.is_empty() && notes == [Note::Repaired]), "{what}: {notes:?}");
        let numbers: Vec<_> = store.revisions().unwrap().iter().map(|info| info.revision).collect();
        assert_eq!(numbers, [5, 4, 3, 2, 1], "{what}");
        assert!((1..=5).all(|number| store.revision(number).unwrap().document == document(number)), "{what}");
    }
    store.append(&document(9), "root", "", at(9)).unwrap();
    moved.is_some()
}

#[test]
fn no_flipped_bit_becomes_policy() {
    let bytes = sample();
    let (mut state, mut moved) = (SEED, 0);
    // Where redb has not written a byte is zero; what it has written is what matters.
    let written: Vec<_> = (0..bytes.len()).filter(|&place| bytes[place] != 0).collect();
    for _ in 0..150 {
        let (place, bit) = (written[dice(&mut state) as usize % written.len()], dice(&mut state) % 8);
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << bit;
        moved += u32::from(assert_never_wrong(&damaged, &format!("bit {bit} of byte {place}")));
    }
    println!("{moved} of 150 flipped files were moved aside, the rest read as they were written");
    assert!(moved > 0);
}

#[test]
fn no_torn_file_becomes_policy() {
    let bytes = sample();
    let mut state = SEED;
    for _ in 0..30 {
        let length = dice(&mut state) as usize % bytes.len();
        assert!(assert_never_wrong(&bytes[..length], &format!("the first {length} bytes")));
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    if !rustix::process::geteuid().is_root() {
        crate::skip::skipped("a small tmpfs needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // The mount lives in a mount namespace of the child's own, and ends with it.
    let script = "mount -t tmpfs -o size=8m tmpfs \"$1\" && head -c 2000000 /dev/zero > \"$THROTTLE_TEST_BALLAST\" \
                  && shift && \"$@\"; cp \"$THROTTLE_TEST_STORE\" \"$0\"";
    let copy = directory.path().join("copy.redb");
    let disk = directory.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut program = Command::new("unshare");
    program.args(["--mount", "sh", "-c", script]).arg(&copy).arg(&disk).arg(env::current_exe().unwrap());
    program.args(child_arguments()).env(BALLAST, disk.join("ballast"));
    let child = spawn_child(&disk.join("store.redb"), &mut program);
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let lines: Vec<_> = output.lines().filter(|line| !line.is_empty()).collect();
    let full = lines.iter().position(|line| line.starts_with("failed: the store failed: ")).expect(&output);
    let before = lines[..full].iter().rev().find_map(|line| revision_of(line)).expect("some revisions fit");
    let after = lines[full..].iter().rev().find_map(|line| revision_of(line)).expect("the same store went on");
    assert!(after > before);
    assert_eq!(assert_whole(&copy, after), after);
}
