//! Hosts: network namespaces of our own, removed when they are dropped, with everything in them.

use crate::machine;
use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    panic::resume_unwind,
    path::PathBuf,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

/// A network namespace with its loopback up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one; `role` appears in its name, beside the process and a number.
    pub fn new(role: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("throttle-{}-{number}-{role}", process::id());
        machine::run(Command::new("ip").args(["netns", "add", &name]))?;
        let made = Self { name };
        made.ip(&["link", "set", "lo", "up"])?;
        made.enter(trust_addresses)?.context("let addresses be used at once")?;
        Ok(made)
    }

    /// Its name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        machine::run(Command::new("ip").args(["-netns", &self.name]).args(arguments))
    }

    /// A command that will run inside, with a `/sys` of its own; the process is the program itself.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Has packets be filtered inside by these rules of nft(8). Says so, and is `false`, where there is none.
    pub fn filter(&self, rules: &str) -> Result<bool> {
        if Command::new("nft").arg("--version").output().is_err() {
            crate::say!("skipped: there is no nft; apt install nftables");
            return Ok(false);
        }
        machine::run(self.command("nft").arg(rules)).context("filter packets")?;
        Ok(true)
    }

    /// The way in, for a thread that will stay inside.
    pub fn entry(&self) -> Result<Entry> {
        let path = PathBuf::from("/run/netns").join(&self.name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Entry(file))
    }

    /// Runs `act` on a thread inside.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        let entry = self.entry()?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| entry.enter().map(|()| act()));
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// TCP segments that were sent again from inside.
    pub fn sent_again(&self) -> Result<u64> {
        let text = self.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, numbers) = lines.next().zip(lines.next()).context("the kernel counts no segments")?;
        let mut pairs = names.split(' ').zip(numbers.split(' '));
        let (_, number) = pairs.find(|(name, _)| *name == "RetransSegs").context("it counts none sent again")?;
        Ok(number.parse()?)
    }

    /// The number of an interface inside.
    pub fn interface_index(&self, interface: &str) -> Result<u32> {
        self.enter(|| {
            let name = std::ffi::CString::new(interface).context("an interface name has no NUL")?;
            // SAFETY: the name is a string that lives through the call.
            let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
            anyhow::ensure!(index != 0, "no interface {interface} in {}", self.name);
            Ok(index)
        })?
    }
}

/// Has addresses be used before the network was asked whether they are another's. A router asks for its neighbours by its
/// link's own address, and gives up after three seconds: on a busy machine that question may take longer.
fn trust_addresses() -> io::Result<()> {
    ["all", "default"]
        .iter()
        .try_for_each(|which| fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0"))
}

/// The way into a namespace.
#[derive(Debug)]
pub struct Entry(File);

impl Entry {
    /// Moves the calling thread inside.
    pub fn enter(&self) -> Result<()> {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.0.as_fd(), kind).context("enter a network namespace")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = machine::run(Command::new("ip").args(["netns", "delete", &self.name])) {
            machine::print(&format!("left behind: {error:#}"));
        }
    }
}
