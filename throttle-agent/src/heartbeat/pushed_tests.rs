use proptest::prelude::*;

use super::{
    Order::{Fresh, Late, Repeated, Restarted},
    *,
};

const BOOT: &str = "01234567-89ab-cdef-0123-456789abcdef";
const OTHER: &str = "fedcba98-7654-3210-fedc-ba9876543210";

fn request(boot: &str, generation: u64, sequence: u64) -> HeartbeatRequest {
    HeartbeatRequest {
        backend: "web-1".to_owned(),
        node: "node-1".to_owned(),
        boot_id: boot.to_owned(),
        generation,
        sequence,
        ..HeartbeatRequest::default()
    }
}

fn beat(boot: &str, generation: u64, sequence: u64) -> Beat {
    Beat::read(request(boot, generation, sequence), 0).unwrap()
}

fn fault(change: impl FnOnce(&mut HeartbeatRequest)) -> String {
    let mut request = request(BOOT, 1, 1);
    change(&mut request);
    Beat::read(request, 0).unwrap_err()
}

#[test]
fn the_later_of_two_is_kept() {
    let mut pushed = Pushed::default();
    let orders: Vec<_> = [
        beat(BOOT, 1, 5),
        beat(BOOT, 1, 5),
        beat(BOOT, 1, 4),
        beat(BOOT, 1, 6),
        // A new start counts its heartbeats anew.
        beat(BOOT, 2, 1),
        beat(BOOT, 1, 7),
        // After a boot of the host generations may begin anew too.
        beat(OTHER, 1, 1),
        beat(BOOT, 2, 2),
        beat(OTHER, 1, 2),
    ]
    .into_iter()
    .map(|beat| pushed.take(beat, SECOND))
    .collect();
    assert_eq!(orders, [Fresh, Repeated, Late, Fresh, Restarted, Late, Restarted, Late, Fresh]);
    let view = pushed.view(SECOND).unwrap();
    assert_eq!((&*view.boot_id, view.generation, view.sequence), (OTHER, 1, 2));
}

#[test]
fn the_detector_takes_what_the_table_takes() {
    use crate::health::{detector::Detector, life::Sign};
    let (mut pushed, mut detector) = (Pushed::default(), Detector::new(0, SECOND));
    let beats = [(BOOT, 1, 5), (BOOT, 1, 4), (BOOT, 2, 1), (BOOT, 1, 7), (OTHER, 1, 1), (BOOT, 2, 2), (OTHER, 1, 2)];
    let late = [(BOOT, 2, 2), (OTHER, 0, 1), (OTHER, 1, 9)];
    let beats = beats.map(|beat| (SECOND, beat)).into_iter().chain(late.map(|beat| (4 * SECOND + SECOND / 2, beat)));
    for (number, (at, (boot, generation, sequence))) in (1..).zip(beats) {
        let at = at + number;
        let beat = Beat { at, ..beat(boot, generation, sequence) };
        let before = detector.clone();
        detector.sign(at, Sign::Beat { of: beat.of, sequence });
        let taken = pushed.take(beat, SECOND).is_fresh();
        assert_eq!(taken, detector != before, "{boot} {generation} {sequence}");
    }
}

#[test]
fn what_is_wrong_with_a_heartbeat_is_named() {
    assert!(fault(|it| it.node.clear()).starts_with("`node` is empty"));
    assert!(fault(|it| it.node = "x".repeat(LINE + 1)).contains("129 characters"));
    assert!(fault(|it| it.build = Some("a\nb".to_owned())).starts_with("`build` has control characters"));
    assert!(fault(|it| it.boot_id = "soon".to_owned()).starts_with("`boot_id` is no UUID: `soon`"));
    for load in [-1.0, f64::NAN, f64::INFINITY, 1_001.0] {
        assert_eq!(fault(|it| it.load = Some(load)), "`load` is not within 0 and 1000");
    }
    assert!(fault(|it| it.latency_seconds = Some(3_601.0)).starts_with("`latency_seconds`"));
    let metadata = fault(|it| it.metadata = [("k".to_owned(), "v".repeat(METADATA))].into());
    assert_eq!(metadata, "`metadata` has 1025 bytes; send 1024 at most");
}

#[test]
fn a_heartbeat_at_its_bounds_is_taken() {
    let mut request = request(BOOT, u64::MAX, u64::MAX);
    request.node = "ü".repeat(LINE);
    request.load = Some(LOAD);
    request.latency_seconds = Some(0.25);
    request.metadata = [("k".to_owned(), "v".repeat(METADATA - 1))].into();
    let beat = Beat::read(request, 0).unwrap();
    assert_eq!(beat.latency, Some(SECOND / 4));
}

proptest! {
    #[test]
    fn a_boot_id_is_read_as_it_is_written(number: u128) {
        prop_assert_eq!(boot(&written(number)), Some(number));
        prop_assert_eq!(boot(&written(number).replace('-', "").to_uppercase()), Some(number));
    }

    #[test]
    fn no_boot_id_panics(text: String) {
        boot(&text);
    }
}
