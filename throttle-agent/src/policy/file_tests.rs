//! Files that are right read back, files that are wrong are refused where and why they are: every one of the corpus
//! with the message that its first line promises.

use super::*;
use crate::policy::{
    Lengths, Limit, Mode,
    tests::EXAMPLE,
    units::{Period, Quantity, Rate},
};
use proptest::prelude::*;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};
use throttle_common::words::{Action, Algorithm, Overflow, Unit};

#[test]
fn every_wrong_file_is_refused_with_its_own_message() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy/corpus");
    let mut files: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 50, "only {} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# expected: ")).expect("a promise");
        let name = file.file_name().unwrap().to_str().unwrap();
        let found = match parse(&text) {
            Ok(_) => "nothing".to_owned(),
            // One mistake is told once: what follows from it is not a second one.
            Err(diagnostics) => diagnostics.in_file(name),
        };
        if found != format!("{name}:{expected}") {
            wrong.push(found);
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().in_file("p").lines().map(str::to_owned).collect()
}

#[test]
fn every_problem_is_named_in_the_order_of_the_file() {
    let text = "mode = \"enforced\"\n[[limit]]\nnmae = \"ä\"\nunit = \"packets\"\nrate = \"5/y\"\n[sources]\nallow = [\"x\", 7]\n";
    let places: Vec<_> =
        problems(text).iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "p:1:8 mode",
        "p:3:1 limit 1",
        "p:5:8 limit 1",
        "p:7:10 sources.allow, item 1",
        "p:7:15 sources.allow, item 2",
    ];
    assert_eq!(places, expected);
}

#[test]
fn every_problem_of_meaning_is_named_in_the_order_of_the_file() {
    let limit = "[[limit]]\nname = \"a b\"\nunit = \"packets\"\nrate = \"0/s\"\nservice = \"web\"\n";
    let text = format!("[answers]\nrate = \"1MB/s\"\n{limit}sources = 0\n");
    let places: Vec<_> = problems(&text).iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect();
    assert_eq!(places, ["p:2:8", "p:4:8", "p:6:8", "p:7:11", "p:8:11"]);
}

#[test]
fn what_cannot_be_read_and_what_cannot_be_meant_are_named_together() {
    let text = "\
mode = \"enforced\"
[[service]]
name = \"web\"
protocol = \"tcp\"
[[limit]]
name = \"few\"
unit = \"packets\"
rate = \"5/y\"
sources = 0
service = \"wbe\"
[[limit]]
name = \"few\"
unit = \"bytes\"
rate = \"1MB/s\"
burst = 7
[answers]
rate = \"1MB/s\"
";
    let lines: Vec<_> = parse(text).unwrap_err().0.iter().map(|fault| fault.line.unwrap()).collect();
    assert_eq!(lines, [1, 2, 8, 9, 10, 12, 15, 17]);
}

#[test]
fn bytes_that_are_no_text_are_refused_where_they_begin() {
    let fault = text(b"mode = \"observe\"\nx = \"\xff\"".to_vec()).unwrap_err().in_file("p");
    assert!(fault.starts_with("p:2:6: this is no text"), "{fault}");
    assert!(text(vec![0xfe]).unwrap_err().in_file("p").starts_with("p:1:1: "));
    assert_eq!(text("ä".into()), Ok("ä".to_owned()));
}

#[test]
fn a_text_of_nothing_but_blanks_and_remarks_says_nothing() {
    for nothing in ["", "\n\n", " \t\r\n", "# mode = \"enforce\"\n\n  # to be written"] {
        let said = require_words(nothing).unwrap_err().in_file("p");
        assert!(said.starts_with("p:1:1: this says nothing") && said.contains("`--empty`"), "{said}");
    }
    for something in ["mode = \"observe\"", "# a\n[sources]\n", "?", &to_toml(&Document::default())] {
        assert_eq!(require_words(something), Ok(()), "{something}");
    }
}

#[test]
fn columns_count_characters() {
    assert!(
        problems("mode = \"observe\"\n\"ä\" = 1\nshapes = { \"öö\" = \"drop\" }\n")[1]
            .starts_with("p:3:12: shapes.öö: ")
    );
}

#[test]
fn warnings_have_their_place_too() {
    let (_, warnings) = parse_with_warnings("mode = \"enforce\"\n[sources]\nallow = [\"0.0.0.0/0\"]\n").unwrap();
    assert!(warnings[0].in_file("p").starts_with("p:3:10: sources.allow, item 1: this allows everyone"));
}

proptest! {
    #[test]
    fn no_text_is_too_strange_to_be_refused(text in "[\\[\\]{}=\"a-z0-9\\n. ä-]{0,80}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_damage_to_a_file_is_too_strange_to_be_refused(place in 0usize..1400, junk in ".{0,3}", length in 0usize..5) {
        let mut text = EXAMPLE.to_owned();
        let end = |at: usize| (at.min(text.len())..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap();
        text.replace_range(end(place)..end(place + length), &junk);
        if let Err(Diagnostics(found)) = parse(&text) {
            prop_assert!(found.iter().all(|diagnostic| diagnostic.line.is_some() && !diagnostic.reason.is_empty()));
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_one_fault_and_no_more(document in documents(), place in 0usize..1000) {
        let toml = to_toml(&document);
        let fields: Vec<_> = toml.lines().enumerate().filter_map(|(at, line)| Some((at, line.split_once(" = ")?.0))).collect();
        let (broken, key) = fields[place % fields.len()];
        let lines: Vec<_> = toml.lines().enumerate().map(|(at, line)| if at == broken { format!("{key} = 1979-05-27") } else { line.to_owned() }).collect();
        let Err(Diagnostics(found)) = parse(&lines.join("\n")) else { panic!("no field takes a date") };
        prop_assert_eq!(found.len(), 1, "{:?}", found);
        prop_assert_eq!(found[0].line, Some(broken as u32 + 1));
    }

    #[test]
    fn what_is_written_reads_back(document in documents()) {
        let json = serde_json::to_string(&document).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Document>(&json).unwrap(), &document);
        prop_assert_eq!(&parse(&to_toml(&document)).unwrap(), &document);
    }
}

fn limits() -> impl Strategy<Value = Limit> {
    let words = (0..Unit::ALL.len(), 0..Action::ALL.len(), 0..Overflow::ALL.len(), any::<bool>());
    (words, 1..1_000_000u64, 1_522..10_000u64, 9u8..=32, 9u8..=64, 1..1_000_000u32).prop_map(
        |((unit, action, overflow, enforce), amount, burst, ipv4, ipv6, sources)| {
            let rate = Rate { quantity: Quantity::bare(amount), per: Period::Second };
            let limit = Limit::new("", Unit::ALL[unit], rate);
            let algorithms =
                [Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow];
            let algorithm = match algorithms[sources as usize % 4] {
                Algorithm::TokenBucket => Algorithm::TokenBucket,
                // A window, or a largest frame, that is too small is another test's.
                _ if limit.unit == Unit::Bytes => Algorithm::TokenBucket,
                other => other,
            };
            Limit {
                burst: enforce
                    .then_some(Quantity::bare(burst))
                    .filter(|_| amount > 1 && algorithm == Algorithm::TokenBucket),
                algorithm,
                action: Action::ALL[action],
                overflow: Overflow::ALL[overflow],
                mode: if enforce { Mode::Enforce } else { Mode::Observe },
                prefix: Lengths { ipv4, ipv6 },
                aggregate: Lengths { ipv4: ipv4 - 8, ipv6: ipv6 - 8 },
                sources,
                // A rate so low that its burst would take more than a day is another test's.
                rate: Some(if amount < 100 { Rate::per_second(100) } else { rate }),
                ..limit
            }
            .with_units()
        },
    )
}

fn documents() -> impl Strategy<Value = Document> {
    let prefixes = prop::collection::vec(any::<u32>(), 0..5);
    (prop::collection::vec(limits(), 0..5), prefixes, any::<bool>()).prop_map(|(mut limits, addresses, enforce)| {
        let mut document =
            Document { mode: if enforce { Mode::Enforce } else { Mode::Observe }, ..parse(EXAMPLE).unwrap() };
        for (index, limit) in limits.iter_mut().enumerate() {
            limit.name = format!("limit-{index}");
        }
        // Health follows a limit of the example.
        document.limits.retain(|limit| limit.name == "open");
        document.limits.append(&mut limits);
        document.sources.known =
            addresses.into_iter().map(|address| IpAddr::from(Ipv4Addr::from(address)).into()).collect();
        document.sources.block.clear();
        document
    })
}
