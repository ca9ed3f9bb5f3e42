//! Limits in bytes, and frames of more than a page: datagrams of a real socket, as many as come out at the other end.

use super::far;
use anyhow::{Context, Result, ensure};
use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};
use throttle_agent::api::wire::Tallies;
use throttle_tests::{
    agent::Site,
    machine, needs_root, say,
    wire::{FAR, FAR_V4, FAR_V6, NEAR, Wire},
};

const PORT: u16 = 9_999;

fn policy(rate: &str, burst: &str) -> String {
    format!(
        "mode = \"enforce\"\n[[service]]\nname = \"sink\"\nprotocol = \"udp\"\nports = [{PORT}]\n[[limit]]\n\
         name = \"bytes\"\nservice = \"sink\"\nunit = \"bytes\"\nrate = \"{rate}\"\nburst = \"{burst}\"\n"
    )
}

/// Bytes of a frame around the payload: Ethernet, IP and UDP.
fn overhead(server: IpAddr) -> u64 {
    14 + if server.is_ipv4() { 20 } else { 40 } + 8
}

/// Two hosts whose server counts what arrives.
struct Sink {
    server: IpAddr,
    socket: UdpSocket,
}

impl Sink {
    fn on(wire: &Wire, server: IpAddr) -> Result<Self> {
        let socket = wire.far.enter(|| UdpSocket::bind(SocketAddr::new(server, PORT)))??;
        socket.set_nonblocking(true)?;
        Ok(Self { server, socket })
    }

    fn client(&self, wire: &Wire) -> Result<UdpSocket> {
        let any: IpAddr = if self.server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = wire.near.enter(|| UdpSocket::bind(SocketAddr::new(any, 0)))??;
        socket.connect(SocketAddr::new(self.server, PORT))?;
        Ok(socket)
    }

    /// Datagrams that have arrived since the last call, and the bytes of their frames.
    fn arrived(&self) -> Result<[u64; 2]> {
        let mut arrived = [0; 2];
        let mut payload = vec![0; 1 << 16];
        loop {
            match self.socket.recv(&mut payload) {
                Ok(length) => arrived = [arrived[0] + 1, arrived[1] + length as u64 + overhead(self.server)],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(arrived),
                Err(error) => return Err(error).context("receive"),
            }
        }
    }
}

#[test]
fn a_limit_in_bytes_lets_as_many_bytes_arrive_as_it_promises() -> Result<()> {
    const RATE: u64 = 1_000_000;
    const BURST: u64 = 200_000;
    const SPAN: Duration = Duration::from_secs(2);
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    for server in [far(FAR_V4), far(FAR_V6)] {
        // Another limit for each: full buckets.
        site.apply("mode = \"enforce\"")?;
        let sink = Sink::on(&wire, server)?;
        let client = sink.client(&wire)?;
        site.apply(&policy(&format!("{RATE}B/s"), &format!("{BURST}B")))?;
        let (mut arrived, mut sent, mut number) = ([0; 2], 0, 0);
        let start = Instant::now();
        while start.elapsed() < SPAN {
            // Three times the rate, in datagrams of every size.
            let due = 3 * RATE * start.elapsed().as_micros() as u64 / 1_000_000;
            while sent < due {
                let payload = vec![0; 18 + number * 97 % 1_400];
                client.send(&payload)?;
                sent += payload.len() as u64 + overhead(server);
                number += 1;
            }
            thread::sleep(Duration::from_millis(1));
            let [frames, bytes] = sink.arrived()?;
            arrived = [arrived[0] + frames, arrived[1] + bytes];
        }
        let span = start.elapsed();
        let tallies = settled(&site, number as u64)?;
        let [frames, bytes] = sink.arrived()?;
        arrived = [arrived[0] + frames, arrived[1] + bytes];
        let entitled = BURST + RATE * span.as_micros() as u64 / 1_000_000;
        say!("bytes to {server}: {} of {sent} arrived, {entitled} entitled in {span:.2?}", arrived[1]);
        ensure!([tallies.admitted.packets, tallies.admitted.bytes] == arrived, "{arrived:?} arrived, {tallies:?}");
        ensure!(tallies.admitted.bytes + tallies.refused.bytes == sent, "{sent} bytes were sent, {tallies:?}");
        ensure!(arrived[1] <= entitled, "{} bytes arrived, {entitled} entitled", arrived[1]);
        // The sender sleeps; its bucket may not run over meanwhile. And a large datagram may be refused for its last byte.
        ensure!(arrived[1] >= entitled * 99 / 100, "only {} bytes arrived, {entitled} entitled", arrived[1]);
    }
    Ok(())
}

#[test]
fn a_frame_of_more_than_a_page_is_limited_by_its_whole_length() -> Result<()> {
    const PAYLOAD: usize = 8_900;
    needs_root!();
    let wire = Wire::new()?;
    wire.near.ip(&["link", "set", NEAR, "mtu", "9000"])?;
    wire.far.ip(&["link", "set", FAR, "mtu", "9000"])?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    for server in [far(FAR_V4), far(FAR_V6)] {
        site.apply("mode = \"enforce\"")?;
        let sink = Sink::on(&wire, server)?;
        let client = sink.client(&wire)?;
        let frame = PAYLOAD as u64 + overhead(server);
        // Room for three of these and one that is empty, for minutes.
        let room = 3 * frame + overhead(server);
        site.apply(&policy("1B/s", &format!("{room}B")))?;
        for payload in [&[7; PAYLOAD][..]; 5].into_iter().chain([&[][..]; 2]) {
            client.send(payload)?;
        }
        let tallies = settled(&site, 7)?;
        let arrived = sink.arrived()?;
        ensure!(arrived == [4, room], "{arrived:?} arrived of room for {room} bytes, {tallies:?}");
        ensure!([tallies.admitted.bytes, tallies.refused.bytes] == [room, 2 * frame + overhead(server)], "{tallies:?}");
    }
    Ok(())
}

/// What the limit did, once it has judged so many frames.
fn settled(site: &Site<'_>, frames: u64) -> Result<Tallies> {
    let status = site.until("every frame is judged", |status| {
        status.limits.iter().all(|it| it.tallies.admitted.packets + it.tallies.refused.packets >= frames)
    })?;
    Ok(status.limits.first().context("no limit")?.tallies)
}
