//! What processes of this host dial, against a real control group: a backend whose breaker refuses is refused at once.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::Output,
    thread,
    time::{Duration, Instant},
};
use throttle_agent::{
    api::wire::{Envelope, Heartbeats},
    health::circuit::State,
};
use throttle_common::{
    breakers::{Forced, TRIALS},
    packet::protocol,
    records::FIRST_BACKEND,
};
use throttle_tests::{
    agent::{Site, path},
    groups::Group,
    needs_root,
    netns::Namespace,
    program::Program,
    standing::health,
    wire::{FAR, Wire},
};

/// Has a process in a group and a namespace dial once.
fn dial_from(group: &Group, host: &Namespace, port: u16, address: &str) -> Result<Output> {
    dial_in_a_row(group, host, port, address, 1)
}

/// The same so many times; writes a line for each that is connected, and ends as the last one did.
fn dial_in_a_row(group: &Group, host: &Namespace, port: u16, address: &str, times: u32) -> Result<Output> {
    let dials = format!("for _ in {{1..{times}}}; do echo 3<>/dev/tcp/{address}/{port}; done");
    group.command(host, "bash").args(["-c", &dials]).output().context("run a process that dials")
}

fn was_refused(output: &Output) -> bool {
    !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("Connection refused")
}

#[test]
fn who_dials_a_backend_whose_breaker_refuses_is_refused_at_once_and_nobody_else() -> Result<()> {
    needs_root!();
    let (Some(group), Some(outside)) = (Group::new("inside")?, Group::new("outside")?) else { return Ok(()) };
    let (host, elsewhere) = (Namespace::new("dialling")?, Namespace::new("elsewhere")?);
    let mut program = host.enter(|| Program::live("mode = \"enforce\"\n"))??;
    program.change(|compiled| compiled.policy.has_breakers = 1)?;
    let (backend, other) = host.enter(|| Ok::<_, std::io::Error>((listen("[::1]:0")?, listen("127.0.0.1:0")?)))??;
    let (v6, v4) = (backend.local_addr()?, other.local_addr()?);
    let (first, second) = (FIRST_BACKEND, FIRST_BACKEND + 1);
    program.datapath.set_backends(&[(v6, protocol::TCP, first), (v4, protocol::TCP, second)])?;
    host.enter(|| program.datapath.guard_connects(group.path()))??;
    let at = |number| if number == first { ("::1", v6.port()) } else { ("127.0.0.1", v4.port()) };
    let dial = |group: &Group, number| dial_from(group, &host, at(number).1, at(number).0);
    for number in [first, second] {
        let connected = dial(&group, number)?;
        ensure!(connected.status.success(), "{connected:?}");
        program.datapath.publish_breaker(number, State::Forced(Forced::Open))?;
        let refused = dial(&group, number)?;
        ensure!(was_refused(&refused), "{refused:?}");
        ensure!(dial(&outside, number)?.status.success(), "another control group is none of ours");
        let trials = State::HalfOpen { left: TRIALS };
        program.datapath.publish_breaker(number, trials)?;
        // By one process, before they expire, however slow the machine is.
        let tried = dial_in_a_row(&group, &host, at(number).1, at(number).0, TRIALS + 1)?;
        let connected = String::from_utf8_lossy(&tried.stdout).lines().count();
        ensure!(connected == TRIALS as usize && was_refused(&tried), "one more than there are trials: {tried:?}");
        assert_eq!(program.datapath.trials_taken(number), TRIALS);
    }
    // In another network namespace the same address is another backend: there nobody listens, and somebody will.
    program.datapath.publish_breaker(second, State::Forced(Forced::Open))?;
    let namesake = elsewhere.enter(|| listen(&format!("127.0.0.1:{}", v4.port())))??;
    ensure!(dial_from(&group, &elsewhere, v4.port(), "127.0.0.1")?.status.success(), "the breaker is not its");
    drop(namesake);
    // Another program takes the place of the first, and at last there is none.
    host.enter(|| program.datapath.guard_connects(group.path()))??;
    ensure!(was_refused(&dial(&group, second)?) && program.datapath.guards_connects());
    program.datapath.unguard_connects()?;
    ensure!(dial(&group, second)?.status.success() && !program.datapath.guards_connects());
    Ok(())
}

/// Two services with a backend each, at these addresses.
fn policy(backends: [SocketAddr; 2]) -> String {
    let one = |(name, address): (&str, SocketAddr)| {
        let port = address.port();
        format!(
            "[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\nports = [{port}]\n\
             [service.health]\nmode = \"enforce\"\ncontrol = \"fixed\"\n\
             [[backend]]\nname = \"{name}-1\"\nservice = \"{name}\"\naddress = \"{address}\"\n"
        )
    };
    let all: String = ["v4", "v6"].into_iter().zip(backends).map(one).collect();
    format!("mode = \"enforce\"\n{all}")
}

/// Returns once it is so.
fn until(what: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is()? {
        ensure!(start.elapsed() < Duration::from_secs(30), "{what}: not after {:?}", start.elapsed());
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn the_agents_own_probes_pass_an_open_breaker_that_guards_the_agent_too() -> Result<()> {
    needs_root!();
    let Some(group) = Group::new("guarded")? else { return Ok(()) };
    let wire = Wire::new()?;
    let (host, site) = (&wire.far, Site::on(&wire.far)?);
    let listeners = host.enter(|| Ok::<_, std::io::Error>((listen("127.0.0.1:0")?, listen("[::1]:0")?)))??;
    let backends = [listeners.0.local_addr()?, listeners.1.local_addr()?];
    let agent = site.start(&["--interface", FAR, "--mode=native", "--cgroup", &path(group.path())])?;
    fs::write(group.path().join("cgroup.procs"), agent.process().to_string()).context("guard the agent")?;
    site.apply(&policy(backends))?;
    for (service, at) in ["v4", "v6"].into_iter().zip(backends) {
        let backend = format!("{service}/{service}-1");
        until("it is watched", || Ok(!health(&site, service)?.backends.is_empty()))?;
        site.ask(&["breaker", "open", &backend])?;
        let counts = || -> Result<(u64, u64)> {
            let (_, body) = site.request("GET", "/v1/heartbeats", "")?;
            let said: Envelope<Heartbeats> = serde_json::from_str(&body)?;
            let view = said.body.heartbeats.into_iter().find(|it| it.address == at).context("it is watched")?;
            Ok((view.answered, view.refused))
        };
        let (answered, refused) = counts()?;
        until("it answers probes", || Ok(counts()?.0 >= answered + 10))?;
        ensure!(counts()?.1 == refused, "{backend} refused probes: {:?}", counts()?);
        let dialled = dial_from(&group, host, at.port(), &at.ip().to_string())?;
        ensure!(was_refused(&dialled), "another process of the group: {dialled:?}");
    }
    Ok(())
}

fn listen(address: &str) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
}
