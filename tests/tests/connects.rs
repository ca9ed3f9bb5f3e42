//! What processes of this host dial, against a real control group: a backend whose breaker refuses is refused at once.

use anyhow::{Context as _, Result, ensure};
use std::{net::TcpListener, process::Output};
use throttle_agent::health::circuit::State;
use throttle_common::{
    breakers::{Forced, TRIALS},
    packet::protocol,
    records::FIRST_BACKEND,
};
use throttle_tests::{groups::Group, needs_root, netns::Namespace, program::Program};

/// Has a process in a group and a namespace dial.
fn dial_from(group: &Group, host: &Namespace, port: u16, address: &str) -> Result<Output> {
    let dials = format!("exec 3<>/dev/tcp/{address}/{port}");
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
    let dial = |group: &Group, number| {
        let (address, at) = if number == first { ("::1", v6) } else { ("127.0.0.1", v4) };
        dial_from(group, &host, at.port(), address)
    };
    for number in [first, second] {
        let connected = dial(&group, number)?;
        ensure!(connected.status.success(), "{connected:?}");
        program.datapath.publish_breaker(number, State::Forced(Forced::Open))?;
        let refused = dial(&group, number)?;
        ensure!(was_refused(&refused), "{refused:?}");
        ensure!(dial(&outside, number)?.status.success(), "another control group is none of ours");
        let trials = State::HalfOpen { left: TRIALS };
        program.datapath.publish_breaker(number, trials)?;
        for _ in 0..TRIALS {
            ensure!(dial(&group, number)?.status.success(), "a trial");
        }
        ensure!(was_refused(&dial(&group, number)?), "one more than there are trials");
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

fn listen(address: &str) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
}
