//! A host of its own for a test: a network namespace and a BPF file system that vanish with it, agents on it, and a
//! client that speaks to them as anybody would.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod skip;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};
use serde_json::Value;
use tempfile::TempDir;
use throttle_agent::{
    agent::{Agent, Options},
    datapath::Mode,
};
use tokio_util::sync::CancellationToken;

type Job = Box<dyn FnOnce() + Send>;

/// A thread in namespaces of its own.
pub(crate) struct Host {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) dir: TempDir,
}

/// Whether this process may make namespaces and load programs; says so where it may not.
pub(crate) fn privileged() -> bool {
    let privileged = throttle_agent::run::privileges::require().is_ok() && rustix::process::geteuid().is_root();
    if !privileged {
        skip::skipped("needs root");
    }
    privileged
}

impl Host {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bpffs = dir.path().join("bpf");
        std::fs::create_dir(&bpffs).unwrap();
        let (jobs, waiting) = channel::<Job>();
        let thread = thread::spawn(move || {
            // SAFETY: nothing is shared with other threads that these flags make private, file descriptors included.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }.unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            mount("bpf", &bpffs, "bpf", MountFlags::empty(), None).unwrap();
            run("ip link set lo up");
            for job in waiting {
                job();
            }
        });
        Self { jobs: Some(jobs), thread: Some(thread), dir }
    }

    /// Runs something on this host.
    pub(crate) fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = channel();
        let job = Box::new(move || drop(reply.send(work())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        answer.recv().expect("the work on the host panicked")
    }

    pub(crate) fn run(&self, command: &'static str) {
        self.within(move || run(command));
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            interfaces: vec!["lo".to_owned()],
            mode: Mode::Generic,
            table_sets: 1 << 14,
            socket: self.dir.path().join("run/api.sock"),
            socket_group: None,
            state_dir: self.dir.path().join("state"),
            pin_dir: self.dir.path().join("bpf/throttle"),
            policy: None,
            cgroup: None,
            metrics: None,
            heartbeats: None,
            webhooks: Vec::new(),
            webhook_authority: None,
            stamp: None,
            debug: false,
            drop_privileges: false,
        }
    }

    pub(crate) fn agent(&self) -> Running {
        self.agent_with(self.options())
    }

    pub(crate) fn agent_with(&self, options: Options) -> Running {
        self.start(options).unwrap()
    }

    pub(crate) fn start(&self, options: Options) -> anyhow::Result<Running> {
        let socket = options.socket.clone();
        let end = CancellationToken::new();
        let ended = end.clone();
        let (agent, thread) = self.within(move || {
            let (started, ready) = channel();
            let thread = thread::spawn(move || match Agent::start(&options) {
                Ok(agent) => {
                    started.send(Ok(())).unwrap();
                    agent.serve(&ended, false).unwrap();
                }
                Err(error) => started.send(Err(error)).unwrap(),
            });
            (ready.recv().unwrap(), thread)
        });
        agent.map(|()| Running { socket, end, thread: Some(thread) })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.thread.take().unwrap().join();
    }
}

/// An agent that serves.
pub(crate) struct Running {
    pub(crate) socket: PathBuf,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Ends it in order.
    pub(crate) fn stop(mut self) {
        self.end.cancel();
        self.thread.take().unwrap().join().unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, Some(body))
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, Some(body))
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map_or(String::new(), Value::to_string);
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: throttle\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    pub(crate) fn raw(&self, request: &str) -> Answer {
        raw(&self.socket, request)
    }

    /// The lines of the event stream.
    pub(crate) fn events(&self, query: &str) -> impl Iterator<Item = Value> + use<> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET /v1/events{query} HTTP/1.1\r\nhost: throttle\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        reader
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str(&line).ok())
            .filter(Value::is_object)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What an agent answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads an answer of HTTP, if it is one.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head: head.to_lowercase(), body: body.to_owned() })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }

    /// The problem of a refusal.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{kind}"));
        assert_eq!(problem["status"], status);
        problem
    }
}

/// Sends a request as it stands and reads until the agent closes.
pub(crate) fn raw(socket: &Path, request: &str) -> Answer {
    let mut stream = UnixStream::connect(socket).unwrap();
    // The agent may answer and close before it has read everything.
    let _ = stream.write_all(request.as_bytes());
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    Answer::read(&text).unwrap_or_else(|| panic!("no answer: {text}"))
}

/// Waits for something that must come within ten seconds.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}
