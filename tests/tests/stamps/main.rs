//! Real agents on hosts of their own, behind one router: who they say takes part in their stamp, and what they make of
//! whoever does not belong there.

mod changes;
mod cuts;
mod keys;
mod names;
mod policy;
mod skew;
mod strangers;

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};
use throttle_agent::api::wire::{Envelope, StampHostView, StampView};
use throttle_tests::{
    agent::{Agent, Site, path},
    netns::Namespace,
    upstreams::Upstream,
};

/// Where all of them gossip.
const PORT: u16 = 7946;
/// What they are called.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// How long anything may take that is awaited.
const PATIENCE: Duration = Duration::from_mins(1);

/// A router and the hosts behind it.
struct Ground {
    router: Namespace,
    hosts: Vec<Upstream>,
}

impl Ground {
    /// With so many hosts.
    fn of(count: u8) -> Result<Self> {
        let router = Namespace::new("router")?;
        router.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?.context("have the router forward")?;
        let hosts = (1..=count).map(|number| Upstream::behind(&router, number)).collect::<Result<_>>()?;
        Ok(Self { router, hosts })
    }

    fn ip(&self, host: usize) -> IpAddr {
        self.hosts[host].of(2)
    }

    fn gossip(&self, host: usize) -> SocketAddr {
        SocketAddr::new(self.ip(host), PORT)
    }
}

/// The agents on these hosts, all of one stamp.
struct Stamp<'g> {
    ground: &'g Ground,
    sites: Vec<Site<'g>>,
    agents: Vec<Option<Agent>>,
}

impl<'g> Stamp<'g> {
    /// Whose keys are made, and whose agents are not started yet.
    fn on(ground: &'g Ground) -> Result<Self> {
        let sites = ground.hosts.iter().map(|it| Site::on(&it.host)).collect::<Result<Vec<_>>>()?;
        let stamp = Self { agents: sites.iter().map(|_| None).collect(), ground, sites };
        stamp.sites[0].ask(&["stamp", "key", "new", &path(&stamp.key(0))])?;
        (1..stamp.sites.len()).try_for_each(|host| stamp.copy_key(host))?;
        Ok(stamp)
    }

    /// The same with all agents running, and each of them knowing the others.
    fn running(ground: &'g Ground) -> Result<Self> {
        let mut stamp = Self::on(ground)?;
        (0..stamp.sites.len()).try_for_each(|host| stamp.start(host, &[]))?;
        stamp.all_alive()?;
        Ok(stamp)
    }

    /// The same with the last of them having a key of its own.
    fn with_a_stranger(ground: &'g Ground) -> Result<Self> {
        let mut stamp = Self::on(ground)?;
        let last = stamp.sites.len() - 1;
        fs::remove_file(stamp.key(last))?;
        stamp.sites[last].ask(&["stamp", "key", "new", &path(&stamp.key(last))])?;
        (0..=last).try_for_each(|host| stamp.start(host, &[]))?;
        stamp.until(0, "b is alive", |view| is(view, 1, "alive"))?;
        Ok(stamp)
    }

    fn key(&self, host: usize) -> PathBuf {
        self.sites[host].file("stamp.key")
    }

    /// Has a host have the first one's keys, as an operator would.
    fn copy_key(&self, host: usize) -> Result<()> {
        let keys = fs::read(self.key(0))?;
        let new = self.sites[host].file("stamp.key.new");
        fs::write(&new, keys)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        fs::rename(new, self.key(host)).context("put the keys in place")
    }

    /// Starts a host's agent with these arguments beside the usual ones. All but the first name that one as their seed.
    fn start(&mut self, host: usize, beside: &[&str]) -> Result<()> {
        let (listen, seed) = (self.ground.gossip(host).to_string(), self.ground.gossip(0).to_string());
        let key = path(&self.key(host));
        let mut arguments = vec!["--interface", "uplink", "--table-sets", "1024", "--stamp", "blue"];
        arguments.extend(["--stamp-listen", &listen, "--stamp-key", &key]);
        if !beside.contains(&"--stamp-host") {
            arguments.extend(["--stamp-host", NAMES[host]]);
        }
        if host > 0 {
            arguments.extend(["--stamp-seed", &seed]);
        }
        arguments.extend(beside);
        self.agents[host] = Some(self.sites[host].start(&arguments)?);
        Ok(())
    }

    fn take(&mut self, host: usize) -> Result<Agent> {
        self.agents[host].take().context("its agent does not run")
    }

    /// What a host sees of the stamp.
    fn view(&self, host: usize) -> Result<StampView> {
        let view: Envelope<StampView> = serde_json::from_value(self.sites[host].json(&["stamp", "status"])?)?;
        Ok(view.body)
    }

    /// Returns once a host sees what it should; gives how long that took.
    fn until(&self, host: usize, what: &str, is: impl Fn(&StampView) -> bool) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let view = self.view(host)?;
            if is(&view) {
                return Ok(start.elapsed());
            }
            ensure!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?} as {} sees it: {view:#?}", NAMES[host]);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns once every host whose agent runs sees all of those alive.
    fn all_alive(&self) -> Result<()> {
        let running: Vec<usize> = (0..self.agents.len()).filter(|&host| self.agents[host].is_some()).collect();
        for &host in &running {
            self.until(host, "all are alive", |view| running.iter().all(|&it| is(view, it, "alive")))?;
        }
        Ok(())
    }

    /// The changes that a host has told of, the oldest first: whose, and what.
    fn changes(&self, host: usize) -> Result<Vec<(String, String)>> {
        let changes = self.view(host)?.changes.into_iter().rev();
        Ok(changes.map(|it| (it.host, it.message)).collect())
    }

    /// Fails where a host has told of another than alive since it told of `before` changes.
    fn nobody_was_missed(&self, host: usize, before: usize) -> Result<()> {
        let changes = self.changes(host)?;
        let missed = changes.iter().skip(before).find(|(_, what)| what.contains("dead") || what.contains("suspect"));
        ensure!(missed.is_none(), "{} missed {missed:?}: {changes:?}", NAMES[host]);
        Ok(())
    }

    /// Datagrams that a host has refused for a reason.
    fn refused(&self, host: usize, reason: &str) -> Result<u64> {
        let refused = self.view(host)?.datagrams.refused.into_iter();
        let found = refused.filter(|it| it.reason == reason).map(|it| it.datagrams).next();
        found.with_context(|| format!("{reason} is not counted"))
    }
}

/// What a view has of a host, by the address at which it listens.
fn of(view: &StampView, host: usize) -> Option<&StampHostView> {
    view.hosts.iter().find(|it| it.host == NAMES[host])
}

/// Whether a host is in a state.
fn is(view: &StampView, host: usize, state: &str) -> bool {
    of(view, host).is_some_and(|it| it.state == state)
}
