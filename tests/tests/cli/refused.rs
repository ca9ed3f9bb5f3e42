//! A corpus of wrong policies: each is refused with a message of its own, at its place, and nothing changes.

use super::ends_with;
use anyhow::{Result, ensure};
use aya::maps::{Array, Map, MapData};
use std::{collections::BTreeSet, fs};
use throttle_common::records::{Control, GENERATIONS, Limit, MAX_LIMITS, Policy, maps};
use throttle_tests::{
    agent::{Site, path},
    needs_root, say,
    wire::{FAR, Wire},
};

const LIMIT: &str = "[[limit]]\nname = \"a\"\nunit = \"packets\"\nrate = \"10/s\"\n";
const WEB: &str = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n";

/// What is wrong, the policy, the line that is to be named, and a word of the reason.
fn corpus() -> Vec<(&'static str, String, u32, &'static str)> {
    let limit = |line: &str| format!("{LIMIT}{line}\n");
    let replaced = |from: &str, to: &str| LIMIT.replace(from, to);
    vec![
        ("no TOML", "mode = ".to_owned(), 1, ""),
        ("an unknown field", "mod = \"enforce\"".to_owned(), 1, "`mod`"),
        ("an unknown field of a limit", limit("limit = 3"), 5, "`limit`"),
        ("an unknown mode", "mode = \"enforced\"".to_owned(), 1, "enforce"),
        ("a mode that is no text", "mode = 3".to_owned(), 1, ""),
        ("a limit without a name", replaced("name = \"a\"\n", ""), 1, "name"),
        ("a limit without a unit", replaced("unit = \"packets\"\n", ""), 1, "unit"),
        ("a limit without a rate", replaced("rate = \"10/s\"\n", ""), 1, "rate"),
        ("a rate without a period", replaced("10/s", "10"), 4, "10"),
        ("a rate in words", replaced("10/s", "ten/s"), 4, "ten"),
        ("a rate of nothing", replaced("10/s", "0/s"), 4, "admits nothing"),
        ("a rate per fortnight", replaced("10/s", "10/fortnight"), 4, "fortnight"),
        ("a rate of bytes for packets", replaced("10/s", "10MB/s"), 4, "bytes"),
        ("a negative rate", replaced("10/s", "-10/s"), 4, "-10"),
        ("a rate as a number", replaced("\"10/s\"", "10"), 4, ""),
        ("a rate beyond any network", replaced("10/s", "999999999999/s"), 4, ""),
        ("a burst of nothing", limit("burst = 0"), 5, "0"),
        ("a burst that takes days", limit("burst = 999999999"), 5, "day"),
        ("an unknown unit", replaced("packets", "frames"), 3, "frames"),
        ("an unknown action", limit("action = \"refuse\""), 5, "refuse"),
        ("an unknown overflow rule", limit("overflow = \"drop\""), 5, "drop"),
        ("a prefix longer than an address", limit("prefix = { ipv4 = 33, ipv6 = 64 }"), 5, "33"),
        ("an aggregate as long as a source", limit("aggregate = { ipv4 = 32, ipv6 = 48 }"), 5, "shorter"),
        ("room for nobody", limit("sources = 0"), 5, "source"),
        ("two limits of one name", format!("{LIMIT}{LIMIT}"), 6, "already"),
        ("an empty name", replaced("\"a\"", "\"\""), 2, "empty"),
        ("a name with a space", replaced("\"a\"", "\"a b\""), 2, "a b"),
        ("a limit of an unknown service", limit("service = \"web\""), 5, "web"),
        ("a service without ports", WEB.replace("ports = [80]\n", ""), 1, "ports"),
        ("a service of an unknown protocol", WEB.replace("tcp", "sctp"), 3, "sctp"),
        ("a port beyond the last", WEB.replace("80", "65536"), 4, "65536"),
        ("port 0", WEB.replace("80", "0"), 4, "0"),
        ("a range that runs backwards", WEB.replace("80", "\"90-80\""), 4, "90-80"),
        ("ports of ICMP", WEB.replace("tcp", "icmp"), 4, "ICMP"),
        ("two services of one name", format!("{WEB}{}", WEB.replace("80", "81")), 6, "already"),
        ("two services on one port", format!("{WEB}{}", WEB.replace("web", "also")), 5, "80"),
        (
            "connections of a UDP service",
            format!("{}{}service = \"web\"\n", WEB.replace("tcp", "udp"), replaced("packets", "connections")),
            7,
            "connections",
        ),
        ("a destination that is no prefix", format!("{WEB}destination = \"everywhere\"\n"), 5, "everywhere"),
        ("a destination with host bits", format!("{WEB}destination = \"10.0.0.1/8\"\n"), 5, "10.0.0.1/8"),
        ("a block of no prefix", "[sources]\nblock = [\"192.0.2.0/24\", \"x\"]".to_owned(), 2, "x"),
        ("a block of a prefix too long", "[sources]\nblock = [\"192.0.2.0/33\"]".to_owned(), 2, "33"),
        (
            "the same blocked and allowed",
            "[sources]\nblock = [\"192.0.2.7\"]\nallow = [\"192.0.2.7\"]".to_owned(),
            2,
            "192.0.2.7",
        ),
        ("an unknown shape", "[shapes]\nmartian = \"drop\"".to_owned(), 2, "martian"),
        ("an unknown fate", "[shapes]\narp = \"refuse\"".to_owned(), 2, "refuse"),
        ("a reason that is no shape", "[shapes]\nblocked = \"drop\"".to_owned(), 2, "blocked"),
        ("an unknown table", "[limits]\nname = \"a\"".to_owned(), 1, "limits"),
        ("bytes of answers", "[answers]\nrate = \"1MB/s\"".to_owned(), 2, "1MB/s"),
        (
            "more limits than a packet may meet",
            (0..9).map(|n| LIMIT.replace("\"a\"", &format!("\"l{n}\""))).collect(),
            33,
            "8",
        ),
        ("more room than the table has", limit("sources = 100000000"), 1, "--table-sets"),
    ]
}

/// Everything that policy writes to the kernel.
fn kernel_state(site: &Site<'_>) -> Result<Vec<String>> {
    fn array<T: aya::Pod>(site: &Site<'_>, name: &str) -> Result<Array<MapData, T>> {
        Ok(Map::Array(MapData::from_pin(site.pin_dir().join("maps").join(name))?).try_into()?)
    }
    let policies = array::<Policy>(site, maps::POLICIES)?;
    let limits = array::<Limit>(site, maps::LIMITS)?;
    let mut state = vec![format!("{:?}", array::<Control>(site, maps::CONTROL)?.get(&0, 0)?)];
    for generation in 0..GENERATIONS {
        state.push(format!("{:?}", policies.get(&generation, 0)?));
        for number in 0..16 {
            state.push(format!("{:?}", limits.get(&(generation * MAX_LIMITS + number), 0)?));
        }
    }
    Ok(state)
}

#[test]
fn each_wrong_policy_is_refused_with_its_own_message_and_nothing_changes() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(&format!("mode = \"enforce\"\n{WEB}{LIMIT}service = \"web\"\n"))?;
    let (before, revision) = (kernel_state(&site)?, site.status()?.revision);
    let mut messages = BTreeSet::new();
    let corpus = corpus();
    for (number, (what, policy, line, word)) in corpus.iter().enumerate() {
        let file = site.file(&format!("wrong-{number}.toml"));
        fs::write(&file, policy)?;
        let applied = ends_with(&site, 78, &["policy", "apply", &path(&file)])?;
        let place = format!("{}:{line}:", path(&file));
        // What does not fit in the table has no line, and depends on what the table holds.
        let fits = *word != "--table-sets";
        ensure!(applied.contains(&place) || !fits, "{what}: {place} is not named: {applied}");
        ensure!(applied.contains(word), "{what}: {word:?} is not named: {applied}");
        let own = applied.replace(&path(&file), "");
        ensure!(messages.insert(own.clone()), "{what}: another fault has the same message: {own}");
        let checked = ends_with(&site, 78, &["policy", "check", &path(&file)])?;
        let faults = |said: &str| said.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        ensure!(faults(&checked) == faults(&applied) || !fits, "{what}: check and apply differ: {checked} {applied}");
    }
    ensure!(site.status()?.revision == revision, "a refused policy became a revision");
    ensure!(kernel_state(&site)? == before, "a refused policy left something in the kernel");
    say!("{} wrong policies refused, each with its own message", corpus.len());
    Ok(())
}

#[test]
fn several_faults_are_all_named_at_once() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let file = site.file("wrong.toml");
    fs::write(&file, "mode = \"no\"\n[[limit]]\nname = \"a\"\nunit = \"x\"\nrate = \"1\"\n")?;
    // No agent runs: a check needs none.
    let said = ends_with(&site, 78, &["policy", "check", &path(&file)])?;
    for line in [1, 4, 5] {
        ensure!(said.contains(&format!("wrong.toml:{line}:")), "line {line} is not named: {said}");
    }
    Ok(())
}
