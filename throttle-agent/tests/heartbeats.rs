//! Heartbeats of real servers and over real networks, in namespaces of their own.

mod support;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::{Host, privileged};
use throttle_agent::{
    control::Faults,
    health::life::Sign,
    heartbeat::{Heartbeats, Instance, Seen, Target},
    policy::{Endpoint, Probe, Protocol},
};
use tokio::sync::mpsc::{Receiver, error::TryRecvError};

const PATIENCE: Duration = Duration::from_secs(20);

/// Whoever watches one backend, on a host.
struct Watcher {
    heartbeats: Heartbeats,
    seen: Receiver<Seen>,
    instance: Arc<Instance>,
}

impl Watcher {
    fn new(host: &Host, address: &'static str, probe: Probe, timeout: Duration) -> Self {
        // The thread of heartbeats lives where it is started.
        let (heartbeats, seen) = host.within(|| Heartbeats::start(Faults::default()).unwrap());
        let target = Target {
            service: "web".into(),
            backend: "web-1".into(),
            protocol: Protocol::Tcp,
            endpoint: Endpoint::Static(address.parse().unwrap()),
            probe,
            interval: Duration::from_millis(50),
            timeout,
        };
        heartbeats.set_targets(vec![target]);
        let members = heartbeats.members();
        support::wait_for("the member", || !members.borrow().is_empty());
        let instance = Arc::clone(&members.borrow()[0].instance);
        Self { heartbeats, seen, instance }
    }

    fn next(&mut self) -> Seen {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.seen.try_recv() {
                Ok(seen) => return seen,
                Err(TryRecvError::Empty) => assert!(Instant::now() < end, "nothing is seen"),
                Err(error) => panic!("{error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_for(&mut self, sign: Sign) -> Seen {
        loop {
            let seen = self.next();
            if seen.said.sign == sign {
                return seen;
            }
        }
    }

    fn view(&self) -> throttle_agent::api::wire::HeartbeatView {
        self.heartbeats.views(throttle_agent::heartbeat::now()).heartbeats.remove(0)
    }
}

/// A real server, killed in the end.
struct Server(Child);

impl Server {
    /// nginx as one process; `None` where there is none, which is said.
    fn nginx(host: &Host) -> Option<Self> {
        if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
            support::skip::skipped("needs nginx");
            return None;
        }
        let directory = host.dir.path().to_owned();
        std::fs::write(directory.join("nginx.conf"), configuration(&directory)).unwrap();
        let start = move || Command::new("nginx").arg("-c").arg(directory.join("nginx.conf")).spawn().unwrap();
        Some(Self(host.within(start)))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {directory}/{name};\n"))
        .concat();
    format!(
        "daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/nginx.log; events {{}}\n\
         http {{ access_log off; {paths} server {{ listen 8080; location / {{ return 200 well; }} }} }}\n"
    )
}

fn http() -> Probe {
    Probe::Http { path: "/healthz".to_owned() }
}

#[test]
fn heartbeats_tell_a_server_that_hangs_from_one_that_is_killed() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let Some(nginx) = Server::nginx(&host) else { return };
    let mut watcher = Watcher::new(&host, "127.0.0.1:8080", http(), Duration::from_millis(300));
    assert_eq!(watcher.wait_for(Sign::Answered).said.good, Some(true));
    assert!(watcher.wait_for(Sign::Answered).said.latency.is_some());
    // Before it listened it may have been asked.
    let refused = watcher.view().refused;

    nginx.signal(Signal::STOP);
    assert_eq!(watcher.wait_for(Sign::Mute).said.good, Some(false));
    watcher.heartbeats.confirm(&watcher.instance);
    watcher.wait_for(Sign::Packet);
    watcher.wait_for(Sign::Mute);
    assert_eq!(watcher.view().refused, refused);

    nginx.signal(Signal::CONT);
    watcher.wait_for(Sign::Answered);

    nginx.signal(Signal::KILL);
    watcher.wait_for(Sign::Refused);
    assert_eq!(watcher.view().last.as_deref(), Some("refused: connection refused"));
}

#[test]
fn heartbeats_of_a_host_that_takes_no_packet_stay_away_without_a_sign_of_life() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    host.run("ip link add here type veth peer name there");
    host.run("ip addr add 10.9.0.1/24 dev here");
    host.run("ip link set here up");
    host.run("ip link set there up");
    // It is known where to send the packets, and nobody is there to take them.
    host.run("ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:99 dev here");
    let mut watcher = Watcher::new(&host, "10.9.0.2:80", http(), Duration::from_millis(100));
    for _ in 0..3 {
        watcher.heartbeats.confirm(&watcher.instance);
        let seen = watcher.next();
        assert!(
            seen.said.sign == Sign::Unanswered && seen.said.good != Some(true) && seen.said.latency.is_none(),
            "{seen:?}"
        );
    }
    assert_eq!(watcher.view().last.as_deref(), Some("took no connection within 100ms"));

    host.run("ip link set here down");
    support::wait_for("the fault of this host", || watcher.view().unsent > 0);
    let last = watcher.view().last.unwrap();
    assert!(last.starts_with("could not be asked, for a fault of this host"), "{last}");
    assert_eq!(watcher.view().refused, 0, "nobody dies of this host's own fault");
}

#[test]
fn heartbeats_take_no_routers_word_that_a_host_is_unreachable_for_its_refusal() {
    if !privileged() {
        return;
    }
    let (host, router) = (Host::new(), Host::new());
    let thread = router.within(|| rustix::thread::gettid().as_raw_nonzero());
    host.run("ip link add near type veth peer name far");
    host.within(move || support::run(&format!("ip link set far netns {thread}")));
    host.run("ip addr add 10.9.0.1/24 dev near");
    host.run("ip link set near up");
    host.run("ip route add 10.8.0.0/16 via 10.9.0.2");
    router.run("ip addr add 10.9.0.2/24 dev far");
    router.run("ip link set far up");
    router.run("ip route add unreachable 10.8.0.0/16");
    router.within(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    let mut watcher = Watcher::new(&host, "10.8.0.1:80", Probe::Tcp, Duration::from_secs(1));
    watcher.wait_for(Sign::Unanswered);
    assert_eq!(watcher.view().last.as_deref(), Some("cannot be reached: host unreachable"));
    assert_eq!(watcher.view().refused, 0);
}

#[test]
fn heartbeats_are_pushed_and_shown_over_the_api() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let beat = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut beat = json!({
            "backend": "web-1", "node": "node-1", "boot_id": "01234567-89ab-cdef-0123-456789abcdef",
            "generation": 1, "sequence": 7, "time": "2026-01-01T00:00:00Z", "load": 0.5, "metadata": {"zone": "a"},
        });
        change(&mut beat);
        beat
    };
    agent.post("/v1/heartbeats", &beat(&|_| ())).problem(404, "not-found");
    let toml = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\nhealth = { control = \"fixed\" }\n\
                [[backend]]\nname = \"web-1\"\nservice = \"web\"\naddress = \"127.0.0.1:80\"\nprobe = \"push\"\n";
    agent.post("/v1/policy/apply", &json!({"toml": toml})).ok();
    support::wait_for("the backend", || agent.get("/v1/heartbeats").ok()["heartbeats"] != json!([]));
    let taken = agent.post("/v1/heartbeats", &beat(&|_| ())).ok();
    assert_eq!((&taken["service"], &taken["fresh"]), (&json!("web"), &json!(true)));
    assert_eq!(agent.post("/v1/heartbeats", &beat(&|_| ())).ok()["fresh"], false);
    agent.post("/v1/heartbeats", &beat(&|it| it["sequence"] = json!(6))).problem(409, "conflict");
    agent.post("/v1/heartbeats", &beat(&|it| it["boot_id"] = json!("soon"))).problem(400, "malformed");
    agent.post("/v1/heartbeats", &beat(&|it| it["colour"] = json!(1))).problem(400, "malformed");
    agent.post("/v1/heartbeats", &beat(&|it| it["metadata"]["k"] = json!("v".repeat(1024)))).problem(400, "malformed");
    let shown = &agent.get("/v1/heartbeats").ok()["heartbeats"][0];
    assert_eq!((&shown["backend"], &shown["address"]), (&json!("web-1"), &json!("127.0.0.1:80")));
    assert_eq!((&shown["beats"], &shown["last"]), (&json!(1), &json!("beat")));
    assert_eq!((&shown["pushed"]["sequence"], &shown["pushed"]["metadata"]["zone"]), (&json!(7), &json!("a")));
    let figures = agent.get("/metrics").body;
    let counted = "throttle_heartbeats_total{service=\"web\",backend=\"web-1\",result=\"pushed\"} 1";
    assert!(figures.contains(counted), "{figures}");
    assert!(figures.contains("throttle_backend_instances{service=\"web\",backend=\"web-1\"} 1"), "{figures}");
}
