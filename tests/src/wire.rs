//! Two hosts and the cable between them: a veth pair with a queue for each of two CPUs.

use crate::{machine, netns::Namespace};
use anyhow::{Context, Result, ensure};
use std::{io, net::UdpSocket, os::fd::AsRawFd as _, process::Command};

/// The interface of the near host, from which traffic comes.
pub const NEAR: &str = "near";
/// The interface of the far host, which is throttled.
pub const FAR: &str = "far";
/// The near host's IPv4 address; further ones are `10.98.0.3` and up.
pub const NEAR_V4: &str = "10.98.0.2";
/// The far host's IPv4 address.
pub const FAR_V4: &str = "10.98.0.1";
/// The near host's IPv6 address.
pub const NEAR_V6: &str = "fd98::2";
/// The far host's IPv6 address.
pub const FAR_V6: &str = "fd98::1";
/// The far interface's MAC address: frames of the tests carry it.
pub const FAR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x98, 1];
/// The near interface's MAC address.
pub const NEAR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x98, 2];

/// include/uapi/linux/sockios.h
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Queues of the cable at each end.
const QUEUES: usize = 2;

/// A near host, a far host and the cable.
#[derive(Debug)]
pub struct Wire {
    /// Where clients and floods run.
    pub near: Namespace,
    /// Where throttle and servers run.
    pub far: Namespace,
}

impl Wire {
    /// Lays it, with addresses at both ends, up and running.
    pub fn new() -> Result<Self> {
        let wire = Self { near: Namespace::new("near")?, far: Namespace::new("far")? };
        wire.connect()?;
        wire.address()?;
        Ok(wire)
    }

    /// Lays it without addresses: neither end says a word of its own, and every frame on it is the test's.
    pub fn silent() -> Result<Self> {
        Self::silent_with(QUEUES)
    }

    /// The same with so many queues at each end: of one, packets of all CPUs meet in it.
    pub fn silent_with(queues: usize) -> Result<Self> {
        let wire = Self { near: Namespace::new("near")?, far: Namespace::new("far")? };
        for host in [&wire.near, &wire.far] {
            host.enter(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"))?
                .context("switch IPv6 off in a namespace")?;
        }
        wire.connect_with(queues)?;
        Ok(wire)
    }

    /// Lays the cable between the two hosts.
    pub fn connect(&self) -> Result<()> {
        self.connect_with(QUEUES)
    }

    fn connect_with(&self, queues: usize) -> Result<()> {
        let queues = queues.to_string();
        let queues = ["numtxqueues", &queues, "numrxqueues", &queues];
        machine::run(
            Command::new("ip")
                .args(["link", "add", NEAR, "netns", self.near.name()])
                .args(queues)
                .args(["address", &mac(NEAR_MAC), "type", "veth"])
                .args(["peer", "name", FAR, "netns", self.far.name()])
                .args(queues)
                .args(["address", &mac(FAR_MAC)]),
        )?;
        self.near.ip(&["link", "set", NEAR, "up"])?;
        self.far.ip(&["link", "set", FAR, "up"]).map(drop)
    }

    fn address(&self) -> Result<()> {
        for (host, interface, v4, v6) in [(&self.near, NEAR, NEAR_V4, NEAR_V6), (&self.far, FAR, FAR_V4, FAR_V6)] {
            host.ip(&["address", "add", &format!("{v4}/16"), "dev", interface])?;
            host.ip(&["address", "add", &format!("{v6}/32"), "dev", interface])?;
        }
        Ok(())
    }

    /// Frames from the near end that never came to the far one, because its queue was full: a kernel that leaves receiving
    /// to a thread of its own while a CPU is busy (Linux 6.1) lets that happen.
    pub fn lost(&self) -> Result<u64> {
        counted(&self.near, NEAR, "/tx/dropped")
    }

    /// Frames that the far end has taken.
    pub fn received(&self) -> Result<u64> {
        counted(&self.far, FAR, "/rx/packets")
    }

    /// Has the far host take its packets in threads of its own (threaded NAPI), once a program is attached in its driver.
    ///
    /// Else they are taken in the name of whatever process runs on the CPU. There are kernels, this project's CI's among them,
    /// that run no tracing program in the name of process 1: ends that it happens to take nobody is told of, 2 in 100 000 under
    /// full load. An agent mends that; what is held against the programs alone must not meet it.
    pub fn receive_in_threads(&self) -> Result<()> {
        let on = format!("echo 1 > /sys/class/net/{FAR}/threaded");
        machine::run(self.far.command("sh").args(["-c", &on])).map(drop)
    }

    /// Has the near host complete the checksums of what it sends, as it must be before it leaves a machine.
    pub fn complete_checksums(&self) -> Result<()> {
        self.near.enter(complete_checksums)?
    }

    /// Pulls the cable out: both interfaces are gone.
    pub fn disconnect(&self) -> Result<()> {
        self.far.ip(&["link", "delete", FAR]).map(drop)
    }
}

/// What the kernel has counted of an interface.
fn counted(host: &Namespace, interface: &str, what: &str) -> Result<u64> {
    let said = host.ip(&["-json", "-statistics", "link", "show", interface])?;
    let links: serde_json::Value = serde_json::from_str(&said).context("`ip` prints JSON")?;
    let counted = links[0]["stats64"].pointer(what).and_then(serde_json::Value::as_u64);
    counted.with_context(|| format!("`ip` counts no {what}: {said}"))
}

fn complete_checksums() -> Result<()> {
    // include/uapi/linux/ethtool.h: ETHTOOL_STXCSUM, and 0 for off.
    let mut off: [u32; 2] = [0x17, 0];
    // SAFETY: zero is a valid value of every field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(NEAR.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = off.as_mut_ptr().cast();
    let socket = UdpSocket::bind(("127.0.0.1", 0)).context("open a socket")?;
    // SAFETY: the request and what it points to live through the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    ensure!(done == 0, "have {NEAR} complete checksums: {}", io::Error::last_os_error());
    Ok(())
}

/// A MAC address as `ip` writes it.
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
