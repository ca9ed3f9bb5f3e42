//! Heartbeats as a whole, against real listeners.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use super::*;
use crate::{
    health::{
        detector::{CONFIRM_EVERY, KNOCKS},
        life::Sign,
    },
    policy::{Endpoint, Probe, Protocol},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn target(backend: &str, address: SocketAddr, probe: Probe) -> Target {
    Target {
        service: "web".into(),
        backend: backend.into(),
        protocol: Protocol::Tcp,
        endpoint: Endpoint::Static(address),
        probe,
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(500),
    }
}

fn http() -> Probe {
    Probe::Http { path: "/".to_owned() }
}

fn start() -> (Heartbeats, mpsc::Receiver<Seen>) {
    Heartbeats::start(Faults::default()).unwrap()
}

/// The next sign of a backend that is like this one.
async fn wait_for(seen: &mut mpsc::Receiver<Seen>, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
    let next = async {
        loop {
            let next = seen.recv().await.expect("heartbeats ended");
            if holds(&next) {
                return next;
            }
        }
    };
    timeout(PATIENCE, next).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

async fn wait_for_members(heartbeats: &Heartbeats, count: usize) -> Arc<[Member]> {
    let mut members = heartbeats.members();
    let found = timeout(PATIENCE, members.wait_for(|members| members.len() == count)).await;
    found.expect("the members did not come").unwrap().clone()
}

fn beat(backend: &str, sequence: u64) -> HeartbeatRequest {
    HeartbeatRequest {
        backend: backend.to_owned(),
        node: "node-1".to_owned(),
        boot_id: "01234567-89ab-cdef-0123-456789abcdef".to_owned(),
        generation: 1,
        sequence,
        latency_seconds: Some(0.25),
        ..HeartbeatRequest::default()
    }
}

#[tokio::test]
async fn who_answers_is_heard_until_it_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (heartbeats, mut seen) = start();
    let address = listener.local_addr().unwrap();
    heartbeats.set_targets(vec![target("a", address, Probe::Tcp)]);
    let first = wait_for(&mut seen, "an answer", |seen| seen.said.sign == Sign::Answered).await;
    assert!(first.said.good == Some(true) && first.said.latency.is_some() && first.at <= now());
    let second = wait_for(&mut seen, "another", |seen| seen.said.sign == Sign::Answered).await;
    assert!(second.at > first.at);
    drop(listener);
    let refused = wait_for(&mut seen, "a refusal", |seen| seen.said.sign == Sign::Refused).await;
    assert!(refused.said.good == Some(false) && refused.said.latency.is_none());
    let view = &heartbeats.views(now()).heartbeats[0];
    assert!(view.answered >= 2 && view.refused >= 1, "{view:?}");
    assert_eq!(view.last.as_deref(), Some("refused: connection refused"));
    heartbeats.set_targets(Vec::new());
    wait_for_members(&heartbeats, 0).await;
    assert!(heartbeats.views(now()).heartbeats.is_empty());
}

#[tokio::test]
async fn one_that_hangs_is_confirmed_by_its_kernel_while_its_answer_is_still_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (heartbeats, mut seen) = start();
    let mut target = target("a", listener.local_addr().unwrap(), http());
    (target.interval, target.timeout) = (Duration::from_millis(50), Duration::from_hours(1));
    heartbeats.set_targets(vec![target]);
    let instance = wait_for(&mut seen, "a sign of its kernel", |seen| seen.said.sign == Sign::Packet).await.instance;
    let (mut asked, _) = listener.accept().await.unwrap();
    for _ in 0..2 {
        heartbeats.confirm(&instance);
        wait_for(&mut seen, "a sign of its kernel", |seen| seen.said.sign == Sign::Packet).await;
        let silence = wait_for(&mut seen, "silence", |seen| seen.said.sign == Sign::Mute).await;
        assert_eq!(silence.said.good, None, "it may take longer than a confirmation waits");
    }
    // The probe of the beginning is not over: an answer that is late is one.
    let mut request = [0; 512];
    assert!(asked.read(&mut request).await.unwrap() > 0);
    asked.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert!(
        wait_for(&mut seen, "the late answer", |seen| seen.said.sign == Sign::Answered).await.said.good == Some(true)
    );
}

#[tokio::test]
async fn who_cannot_wait_has_it_probed_at_once_with_all_the_time_that_it_has() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (heartbeats, mut seen) = start();
    let mut target = target("a", listener.local_addr().unwrap(), http());
    (target.interval, target.timeout) = (Duration::from_hours(1), Duration::from_hours(1));
    heartbeats.set_targets(vec![target]);
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.expect("it is asked").unwrap();
    for turn in 0..3 {
        let mut request = [0; 512];
        assert!(timeout(PATIENCE, stream.read(&mut request)).await.expect("it is asked").unwrap() > 0);
        tokio::time::sleep(2 * Duration::from_nanos(CONFIRM_EVERY)).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let answered = wait_for(&mut seen, "an answer", |seen| seen.said.sign == Sign::Answered).await;
        assert_eq!(answered.said.good, Some(true), "turn {turn}");
        heartbeats.hurry(&answered.instance);
    }
}

#[tokio::test]
async fn a_kept_connection_that_breaks_is_a_reason_to_ask_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (heartbeats, mut seen) = start();
    let mut target = target("a", listener.local_addr().unwrap(), http());
    target.interval = Duration::from_hours(1);
    heartbeats.set_targets(vec![target]);
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.expect("it is asked").unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    wait_for(&mut seen, "an answer", |seen| seen.said.sign == Sign::Answered).await;
    // As when the process is killed: nobody listens any more, and what it had open ends.
    drop(listener);
    drop(stream);
    wait_for(&mut seen, "a refusal, long before the interval is over", |seen| seen.said.sign == Sign::Refused).await;
}

#[tokio::test]
async fn a_pushed_heartbeat_is_a_sign_of_its_backend() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (heartbeats, mut seen) = start();
    heartbeats.set_targets(vec![target("a", listener.local_addr().unwrap(), Probe::Push)]);
    let instance = Arc::clone(&wait_for_members(&heartbeats, 1).await[0].instance);
    let taken = heartbeats.pushed(beat("a", 7), now()).unwrap();
    assert_eq!((&*taken.service, taken.fresh, taken.interval_seconds), ("web", true, 0.05));
    let told = seen.recv().await.unwrap();
    assert!(matches!(told.said.sign, Sign::Beat { of, sequence: 7 } if of.generation == 1), "{told:?}");
    assert_eq!((told.said.good, told.said.latency), (Some(true), Some(crate::health::SECOND / 4)));
    assert!(!heartbeats.pushed(beat("a", 7), now()).unwrap().fresh);
    assert_eq!(heartbeats.pushed(beat("a", 6), now()).unwrap_err().kind, ProblemKind::Conflict);
    let unknown = heartbeats.pushed(beat("b", 1), now()).unwrap_err();
    assert_eq!(unknown.kind, ProblemKind::NotFound);
    assert!(unknown.detail.contains("did you mean `a`") || unknown.detail.contains("`a`"), "{}", unknown.detail);
    let elsewhere = HeartbeatRequest { address: Some("192.0.2.1:80".parse().unwrap()), ..beat("a", 8) };
    assert_eq!(heartbeats.pushed(elsewhere, now()).unwrap_err().kind, ProblemKind::NotFound);
    assert!(seen.try_recv().is_err(), "what is refused or repeated is no sign");
    // It is not probed, but its kernel is asked when it is suspect.
    heartbeats.confirm(&instance);
    for _ in 0..KNOCKS {
        assert_eq!(seen.recv().await.unwrap().said.sign, Sign::Packet);
    }
    assert_eq!(seen.recv().await.unwrap().said.sign, Sign::Mute);
    let views = heartbeats.views(now());
    let view = views.heartbeats[0].pushed.as_ref().unwrap();
    assert_eq!((view.sequence, &*view.node), (7, "node-1"));
    assert_eq!(views.heartbeats[0].beats, 1);
}

#[tokio::test]
async fn nobody_waits_for_who_does_not_look() {
    let (heartbeats, mut seen) = start();
    heartbeats.set_targets(vec![target("a", "192.0.2.1:80".parse().unwrap(), Probe::Push)]);
    wait_for_members(&heartbeats, 1).await;
    for sequence in 0..BACKLOG as u64 + 7 {
        heartbeats.pushed(beat("a", sequence), now()).unwrap();
    }
    assert_eq!(heartbeats.views(now()).lost, 7);
    let mut batch = Vec::new();
    assert_eq!(seen.recv_many(&mut batch, usize::MAX).await, BACKLOG);
}

#[tokio::test]
async fn a_name_and_a_file_come_to_their_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.backends");
    std::fs::write(&path, "127.0.0.1:81\n127.0.0.2:81\n").unwrap();
    let faults = Faults::default();
    let (heartbeats, _seen) = Heartbeats::start(faults.clone()).unwrap();
    let named = Endpoint::Dns { name: "localhost".to_owned(), port: 80 };
    let listed = Endpoint::File(path.clone());
    let targets = [("named", named), ("listed", listed)].map(|(backend, endpoint)| {
        let address = "127.0.0.1:80".parse().unwrap();
        Target { endpoint, ..target(backend, address, Probe::Push) }
    });
    heartbeats.set_targets(targets.to_vec());
    let known = |members: &Arc<[Member]>, backend: &str| -> Vec<String> {
        let of_backend = members.iter().filter(|member| *member.instance.backend == *backend);
        of_backend.map(|member| member.instance.address.to_string()).collect()
    };
    let mut members = heartbeats.members();
    let both = members.wait_for(|members| known(members, "listed").len() == 2 && !known(members, "named").is_empty());
    let both = timeout(PATIENCE, both).await.expect("both are found").unwrap().clone();
    assert!(known(&both, "named").iter().all(|address| address.ends_with(":80")), "{both:?}");
    let host = |member: &&Member| *member.instance.backend == *"named";
    assert_eq!(&*both.iter().find(host).unwrap().host, "localhost:80");

    std::fs::write(&path, "127.0.0.3:81\nnonsense\n").unwrap();
    let told = async {
        while !faults.all().iter().any(|fault| fault.contains("line 2: `nonsense`")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("the mistake is told");
    assert_eq!(known(&members.borrow(), "listed"), ["127.0.0.1:81", "127.0.0.2:81"], "a bad file changes nothing");

    // As editors and deployments do it: another file in its place.
    std::fs::write(directory.path().join("new"), "127.0.0.3:81\n").unwrap();
    std::fs::rename(directory.path().join("new"), &path).unwrap();
    let other = members.wait_for(|members| known(members, "listed") == ["127.0.0.3:81"]);
    timeout(PATIENCE, other).await.expect("the file is read anew").unwrap();
    let well = async {
        while !faults.all().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, well).await.expect("all is well");
}

#[tokio::test]
async fn the_thread_ends_with_the_last_who_can_ask() {
    let (heartbeats, mut seen) = start();
    let clone = heartbeats.clone();
    drop(heartbeats);
    assert!(clone.views(now()).heartbeats.is_empty());
    let mut members = clone.members();
    drop(clone);
    let ended = timeout(PATIENCE, async { while members.changed().await.is_ok() {} }).await;
    ended.expect("the thread ends");
    assert!(seen.recv().await.is_none());
}
