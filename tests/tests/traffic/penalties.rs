//! The penalty box, with a real server and real clients: who hammers is blocked for a while and longer each time, nobody is in
//! another's name, and an agent that was started anew knows them yet.

use super::far;
use anyhow::{Context, Result, ensure};
use std::{net::IpAddr, time::Duration};
use throttle_agent::api::wire::{Block, Blocks, Envelope};
use throttle_common::packet::tcp;
use throttle_tests::{
    agent::{Agent, Site},
    clients::{Ending, fetch, send_raw},
    frames::Frame,
    generator::Sender,
    needs_root,
    nginx::Server,
    say,
    wire::{FAR, FAR_V4, NEAR, Wire},
};

/// Refusals of one attack: half as many trip the penalty.
const ATTACK: usize = 60;

fn policy(mode: &str) -> String {
    format!(
        "mode = \"{mode}\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n[[limit]]\nname = \"opens\"\n\
         service = \"web\"\nunit = \"connections\"\nrate = \"3/day\"\n\
         [limit.penalty]\nafter = 30\nwithin = \"2s\"\nblock = \"2s\"\nat-most = \"1h\"\n"
    )
}

/// A wire with a server at its far end and these clients at its near end.
struct Stage {
    wire: Wire,
    _server: Server,
    _near: Sender,
}

impl Stage {
    fn with(clients: &[&str]) -> Result<Self> {
        let wire = Wire::new()?;
        for client in clients {
            wire.near.ip(&["address", "add", &format!("{client}/16"), "dev", NEAR])?;
        }
        let (server, near) = (Server::on(&wire.far)?, Sender::on(&wire)?);
        Ok(Self { wire, _server: server, _near: near })
    }

    /// Fetches a page, which proves the client.
    fn is_served(&self, client: &str) -> Result<bool> {
        let patience = Duration::from_millis(1_500);
        Ok(fetch(&self.wire.near, far(client), far(FAR_V4), patience)? == Ending::Served)
    }

    /// Sends SYNs in the name of a client, all but the first few of which its limit refuses.
    fn hammer(&self, client: &str) -> Result<()> {
        let frames: Vec<Vec<u8>> = (0..ATTACK as u16)
            .map(|port| Frame::from(client).to(FAR_V4).tcp(20_000 + port, 80, tcp::SYN).bytes())
            .collect();
        self.wire.near.enter(|| send_raw(NEAR, frames.iter().map(Vec::as_slice)))?
    }
}

fn start(site: &Site<'_>) -> Result<Agent> {
    site.start(&["--interface", FAR, "--mode=native"])
}

fn blocks(site: &Site<'_>) -> Result<Vec<Block>> {
    let listed: Envelope<Blocks> = serde_json::from_value(site.json(&["block", "list"])?)?;
    Ok(listed.body.blocks)
}

fn block_of(site: &Site<'_>, client: &str) -> Result<Option<Block>> {
    let client: IpAddr = client.parse()?;
    Ok(blocks(site)?.into_iter().find(|block| block.prefix.addr() == client))
}

/// Hammers until the client is sentenced for that time, and gives its block, with how long it lasts in seconds.
fn sentenced(stage: &Stage, site: &Site<'_>, client: &str, times: u32) -> Result<(Block, i64)> {
    stage.hammer(client)?;
    site.until("it is sentenced", |_| block_of(site, client).is_ok_and(|block| block.is_some()))?;
    let block = block_of(site, client)?.context("its block has ended already")?;
    let sentence = block.sentence.clone().with_context(|| format!("{block:?} is no sentence"))?;
    ensure!((sentence.limit.as_str(), sentence.times) == ("opens", times), "{block:?}");
    let seconds = sentence.until.duration_since(sentence.since).as_secs();
    Ok((block, seconds))
}

#[test]
fn who_hammers_is_blocked_and_longer_each_time_and_an_agent_started_anew_knows_it() -> Result<()> {
    const CLIENT: &str = "10.98.1.1";
    needs_root!();
    let stage = Stage::with(&[CLIENT])?;
    let site = Site::on(&stage.wire.far)?;
    let agent = start(&site)?;
    site.apply(&policy("enforce"))?;
    ensure!(stage.is_served(CLIENT)?, "it is served, and proven");
    let (block, length) = sentenced(&stage, &site, CLIENT, 1)?;
    ensure!(length == 2 && block.reason.as_deref() == Some("penalty: limit `opens`, 1st time"), "{block:?}");
    let blocked = |site: &Site<'_>| site.judged(|reason, _| reason == "blocked");
    site.until("it ends", |_| block_of(&site, CLIENT).is_ok_and(|block| block.is_none()))?;

    let (_, length) = sentenced(&stage, &site, CLIENT, 2)?;
    ensure!(length == 4, "the second lasts {length} s");
    let before = blocked(&site)?;
    stage.hammer(CLIENT)?;
    ensure!(blocked(&site)? > before, "what it sends is refused for its block");
    agent.kill()?;
    let _agent = start(&site)?;
    site.until("it ends", |_| block_of(&site, CLIENT).is_ok_and(|block| block.is_none()))?;
    let (_, length) = sentenced(&stage, &site, CLIENT, 3)?;
    ensure!(length == 8, "the third, by the next agent, lasts {length} s");

    let explained = site.ask(&["explain", CLIENT, "--port", "80"])?;
    ensure!(explained.contains("by limit opens, for the 3rd time"), "{explained}");
    let listed = site.ask(&["block", "list"])?;
    ensure!(listed.contains("penalty: limit `opens`, 3rd time"), "{listed}");

    // Whoever is forgiven begins anew.
    site.ask(&["block", "delete", CLIENT])?;
    ensure!(block_of(&site, CLIENT)?.is_none());
    std::thread::sleep(Duration::from_secs(3));
    let (_, length) = sentenced(&stage, &site, CLIENT, 1)?;
    ensure!(length == 2, "after it was forgiven it lasts {length} s");
    let counts = site.limit("opens")?.sentences.context("no counts")?;
    ensure!(counts.sentenced == 2 && counts.observed == 0, "{counts:?}");
    say!("sentences of 2, 4 and 8 s; 2 s once it was forgiven");
    Ok(())
}

#[test]
fn nobody_is_blocked_in_anothers_name_nor_if_allowed_nor_where_the_host_observes() -> Result<()> {
    needs_root!();
    let [victim, friend, client] = ["10.98.1.1", "10.98.1.2", "10.98.1.3"];
    let stage = Stage::with(&[victim, friend, client])?;
    let site = Site::on(&stage.wire.far)?;
    let _agent = start(&site)?;
    site.apply(&policy("enforce"))?;
    // Nobody has seen an answer of this host in the victim's name.
    stage.hammer(victim)?;
    site.until("its refusals were seen", |status| status.penalties.unproven >= 50)?;
    ensure!(stage.is_served(friend)?);
    site.ask(&["allow", "add", friend])?;
    (0..5).try_for_each(|_| stage.hammer(friend))?;
    // Whoever comes after them is sentenced, so those before would have been.
    ensure!(stage.is_served(client)?);
    sentenced(&stage, &site, client, 1)?;
    let all = blocks(&site)?;
    ensure!(all.len() == 1, "{all:?}");
    // An allow that comes later takes the effect of a block away.
    site.ask(&["allow", "add", client])?;
    ensure!(stage.is_served(client)?, "it is allowed");

    site.ask(&["allow", "delete", client])?;
    site.ask(&["block", "delete", "--all"])?;
    site.apply(&policy("observe").replace("opens", "watched"))?;
    ensure!(stage.is_served(client)?);
    stage.hammer(client)?;
    let observed = |site: &Site<'_>| site.limit("watched").ok()?.sentences;
    site.until("it would be sentenced", |_| observed(&site).is_some_and(|counts| counts.observed == 1))?;
    ensure!(blocks(&site)?.is_empty() && observed(&site).is_some_and(|counts| counts.sentenced == 0));
    ensure!(stage.is_served(client)?, "nobody is blocked");
    Ok(())
}
