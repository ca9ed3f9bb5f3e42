//! A corpus of wrong policies: each is refused with a message of its own, at its place, by the binary and by the API, and
//! nothing changes in the kernel.

use super::ends_with;
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use throttle_agent::api::wire::{Problem, ProblemKind};
use throttle_common::records::{
    CANDIDATES, Control, GENERATIONS, Limit, MAX_CANDIDATES, MAX_LIMITS, MAX_SERVICES, Policy, Service, maps,
};
use throttle_tests::{
    agent::{Site, path},
    needs_root, say,
    wire::{FAR, Wire},
};

/// What is in force while wrong policies are offered.
const HELD: &str = "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n\
                    [[limit]]\nname = \"a\"\nunit = \"packets\"\nrate = \"10/s\"\nservice = \"web\"\n";

/// The wrong policies. The first line of each says where and how it is to be refused.
fn corpus() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../throttle-agent/src/policy/corpus");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Everything that policy writes to the kernel, element by element.
#[derive(Debug, PartialEq)]
struct KernelState {
    control: Vec<Control>,
    policies: Vec<Policy>,
    limits: Vec<Limit>,
    services: Vec<Service>,
    candidates: Vec<[u16; CANDIDATES]>,
}

impl KernelState {
    fn read(site: &Site<'_>) -> Result<Self> {
        Ok(Self {
            control: elements(site, maps::CONTROL, 1)?,
            policies: elements(site, maps::POLICIES, GENERATIONS)?,
            limits: elements(site, maps::LIMITS, GENERATIONS * MAX_LIMITS)?,
            services: elements(site, maps::SERVICES, GENERATIONS * MAX_SERVICES)?,
            candidates: elements(site, maps::CANDIDATE_LISTS, GENERATIONS * MAX_CANDIDATES)?,
        })
    }
}

fn elements<T: aya::Pod>(site: &Site<'_>, name: &str, count: u32) -> Result<Vec<T>> {
    let path = site.pin_dir().join("maps").join(name);
    let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    let array: Array<_, T> = Map::Array(data).try_into()?;
    (0..count).map(|element| Ok(array.get(&element, 0)?)).collect()
}

/// Has an agent hold a policy while wrong ones are offered, which must leave nothing behind.
fn offered(offer: impl FnOnce(&Site<'_>) -> Result<()>) -> Result<()> {
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(HELD)?;
    let before = KernelState::read(&site)?;
    offer(&site)?;
    ensure!(KernelState::read(&site)? == before, "a refused policy left something in the kernel");
    ensure!(site.status()?.revision == 1, "a refused policy became a revision");
    Ok(())
}

#[test]
fn each_wrong_policy_is_refused_with_its_own_message_and_nothing_changes() -> Result<()> {
    needs_root!();
    let corpus = corpus()?;
    ensure!(corpus.len() >= 50, "only {} wrong policies", corpus.len());
    let mut messages = BTreeSet::new();
    offered(|site| {
        for file in &corpus {
            let expected = refused(site, file)?;
            ensure!(messages.insert(expected.clone()), "another policy has the same message: {expected}");
        }
        Ok(())
    })?;
    say!("{} wrong policies refused by the binary and by the API, each with its own message", corpus.len());
    Ok(())
}

/// Offers one file of the corpus to the binary and to the API; gives the message that it promises.
fn refused(site: &Site<'_>, file: &Path) -> Result<String> {
    let text = fs::read_to_string(file)?;
    let expected = text.lines().next().and_then(|line| line.strip_prefix("# expected: "));
    let expected = expected.with_context(|| format!("{} does not say how it is refused", file.display()))?;
    let applied = ends_with(site, 78, &["policy", "apply", &path(file)])?;
    ensure!(applied.contains(&format!("\n{}:{expected}\n", path(file))), "{expected} is not said: {applied}");
    let checked = ends_with(site, 78, &["policy", "check", &path(file)])?;
    let faults = |said: &str| said.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    ensure!(faults(&checked) == faults(&applied), "check and apply differ: {checked}\n{applied}");

    let (status, body) = site.request("POST", "/v1/policy/apply", &serde_json::json!({"toml": text}).to_string())?;
    let problem: Problem = serde_json::from_str(&body).with_context(|| body.clone())?;
    ensure!((status, problem.kind) == (422, ProblemKind::PolicyRefused), "the API answers {status} {body}");
    let first = problem.diagnostics.first().context("the API names no fault")?.in_file("");
    ensure!(first == format!(":{expected}"), "the API says {first}");
    Ok(expected.to_owned())
}

#[test]
fn more_room_than_the_table_has_is_refused_by_the_agent() -> Result<()> {
    needs_root!();
    offered(|site| {
        let file = site.file("large.toml");
        fs::write(&file, format!("{HELD}sources = 100000000\n"))?;
        let said = ends_with(site, 78, &["policy", "apply", &path(&file)])?;
        ensure!(said.contains("--table-sets"), "the remedy is named: {said}");
        Ok(())
    })
}

#[test]
fn a_file_that_is_not_there_ends_with_78_and_what_was_typed_wrong_with_2() -> Result<()> {
    needs_root!();
    offered(|site| {
        let file: &str = &path(&site.file("nowhere.toml"));
        for arguments in [
            &["policy", "apply", file][..],
            &["policy", "check", file],
            &["block", "add", "--file", file],
            &["run", "--policy", file],
        ] {
            let said = ends_with(site, 78, arguments)?;
            ensure!(said.contains(file) && said.contains("cannot be read"), "{arguments:?}: {said}");
        }
        for (arguments, named) in [
            (&["limit", "set", "", "--unit", "packets", "--rate", "1/s"][..], "NAME"),
            (&["service", "delete", ""], "NAME"),
            (&["service", "set", "dns", "--protocol", "udp", "--port", "53", "--port", "53"], "53 is there twice"),
            (&["run", "--metrics", "0.0.0.0:9851"], "127.0.0.1:9851"),
        ] {
            let said = ends_with(site, 2, arguments)?;
            ensure!(said.contains(named) && !said.contains("/v1/"), "{arguments:?}: {said}");
        }
        Ok(())
    })
}
