//! What is measured of connections that the throttled host only forwards, though strangers send what they like.

use super::router::{Router, Way};
use anyhow::{Result, ensure};
use std::{
    io::{Read as _, Write as _},
    thread,
    time::Duration,
};
use throttle_agent::datapath::{Answers, Egress};
use throttle_common::packet::tcp;
use throttle_tests::{needs_root, say, stranger::Stranger};

const SOURCE: &str = "10.98.77.1";
/// Honest requests, and strays of each kind before each.
const REQUESTS: u16 = 10;
const STRAYS: u16 = 500;
const TAKES: Duration = Duration::from_millis(5);
/// More clocks than there are.
const CLOCKS: u16 = 16;

/// What was measured of the only service.
fn measured(router: &mut Router) -> Result<Answers> {
    let all = (0..CLOCKS).map(|clock| router.host.act(|datapath| datapath.answers(clock)));
    let all = all.collect::<Result<Vec<_>>>()?;
    Ok(all.into_iter().find(|it| it.requests() + it.resets() > 0).unwrap_or(Answers::NONE))
}

#[test]
fn strays_change_nothing_of_what_is_measured_of_forwarded_connections() -> Result<()> {
    needs_root!();
    // Where a limit counts them connections are known, and elsewhere requests by their answers.
    for known in [true, false] {
        let Some(mut router) = Router::new(Egress::Tcx, Way::Route)? else { return Ok(()) };
        let policy = router.policy(1000);
        let (service, limit) = policy.split_at(policy.find("[[limit]]").expect("it has a limit"));
        let limit = if known { limit } else { "" };
        router.host.put(&format!("{service}[service.health]\ncontrol = \"fixed\"\nbreaker = false\n{limit}"))?;
        let stranger = Stranger::new(&router.host.wire, SOURCE, router.to)?;
        let (mut client, mut server) = router.connect()?;
        client.read_exact(&mut [0])?;
        let mut waited = 0;
        for request in 0..REQUESTS {
            for port in (1..=STRAYS).map(|number| 1024 + request * STRAYS + number) {
                stranger.says(port, [77, 99], tcp::ACK, 0)?;
                stranger.says(port, [77, 99], tcp::ACK, 64)?;
            }
            client.write_all(&[b'G'; 64])?;
            server.read_exact(&mut [0; 64])?;
            waited += measured(&mut router)?.waiting();
            thread::sleep(TAKES);
            server.write_all(b"!")?;
            client.read_exact(&mut [0])?;
        }
        let answers = measured(&mut router)?;
        say!("known: {known}: {answers:?}, waited: {waited}");
        let honest = u64::from(REQUESTS);
        assert_eq!([answers.requests(), answers.answers(), answers.resets()], [honest, honest, 0], "known: {known}");
        assert_eq!((answers.waiting(), waited), (0, if known { REQUESTS.into() } else { 0 }), "known: {known}");
        ensure!(answers.median().is_some_and(|median| median * 5 / 4 >= TAKES), "{answers:?}");
    }
    Ok(())
}
