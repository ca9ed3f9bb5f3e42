//! The real binary on a host of its own: an agent with its socket, state and pins in a directory of the test, and the
//! commands that talk to it.

pub use crate::binary::binary;
use crate::{attached, machine, netns::Namespace, pins::Pins};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use throttle_agent::api::wire::{Envelope, LimitView, Status};

/// How long anything may take that is awaited; far more than it does, also where an emulated CPU checks programs while others
/// want it too.
const PATIENCE: Duration = Duration::from_mins(5);

/// Where an agent lives: its host, and what it keeps while it is dead.
#[derive(Debug)]
pub struct Site<'a> {
    host: &'a Namespace,
    pins: Pins,
}

impl<'a> Site<'a> {
    /// On a host, with nothing kept yet.
    pub fn on(host: &'a Namespace) -> Result<Self> {
        Ok(Self { host, pins: Pins::new()? })
    }

    /// A file of the test's, beside what the agent keeps.
    pub fn file(&self, name: &str) -> PathBuf {
        self.pins.directory().join(name)
    }

    /// Where the agent pins.
    pub fn pin_dir(&self) -> PathBuf {
        self.pins.pin_dir()
    }

    /// The binary on this host, with the paths of this site.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Command> {
        Ok(self.command_of(binary()?, arguments))
    }

    fn command_of(&self, binary: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = self.host.command(binary);
        command
            .args(arguments)
            .env("THROTTLE_SOCKET", self.file("api.sock"))
            .env("THROTTLE_STATE_DIR", self.file("state"))
            .env("THROTTLE_PIN_DIR", self.pin_dir())
            // Whoever runs the tests over SSH is not the operator of this host.
            .env("SSH_CONNECTION", "");
        command
    }

    /// Starts an agent, and returns when it says that it is ready.
    pub fn start(&self, arguments: &[&str]) -> Result<Agent> {
        self.start_build(binary()?, arguments)
    }

    /// The same with another build of the binary.
    pub fn start_build(&self, binary: &Path, arguments: &[&str]) -> Result<Agent> {
        let mut agent = self.spawn_build(binary, arguments)?;
        match agent.ready()? {
            None => Ok(agent),
            Some(status) => bail!("the agent ended, {status}, before it was ready:\n{}", agent.log()),
        }
    }

    /// Starts an agent that has done nothing yet when this returns.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Agent> {
        self.spawn_build(binary()?, arguments)
    }

    /// Starts an agent that must refuse to run, and gives what it says.
    pub fn refusal(&self, arguments: &[&str]) -> Result<String> {
        self.refusal_of(binary()?, arguments)
    }

    /// The same with another build of the binary.
    pub fn refusal_of(&self, binary: &Path, arguments: &[&str]) -> Result<String> {
        let mut agent = self.spawn_build(binary, arguments)?;
        let status = agent.ready()?.context("the agent runs")?;
        ensure!(status.code() == Some(1), "the agent ended with {status}:\n{}", agent.log());
        Ok(agent.log())
    }

    fn spawn_build(&self, binary: &Path, arguments: &[&str]) -> Result<Agent> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (notify, log) = (self.file(&format!("notify-{number}")), self.file(&format!("agent-{number}.log")));
        let socket = UnixDatagram::bind(&notify).with_context(|| format!("bind {}", notify.display()))?;
        let (alive, readiness) = listen(socket)?;
        let mut command = self.command_of(binary, ["run"].iter().chain(arguments));
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&log)?).spawn().context("start the agent")?;
        Ok(Agent { child, log, readiness, _alive: alive })
    }

    /// Runs a command to its end, whatever that is.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.stdin(Stdio::null()).output().with_context(|| format!("run throttle {arguments:?}"))
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        machine::run(self.command(arguments)?.stdin(Stdio::null()))
    }

    /// Runs a read with `--json`; whether it is degraded is for the caller to see.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let output = self.run(&[arguments, &["--json"]].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(output.status.code(), Some(0 | 4)), "throttle {arguments:?}: {}: {said}", output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("throttle {arguments:?} printed no JSON"))
    }

    /// What this build says that it would do with what is in force, and the exit code with which it says so.
    pub fn check_upgrade(&self) -> Result<(serde_json::Value, Option<i32>)> {
        let output = self.run(&["upgrade", "--check", "--json"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout).with_context(|| format!("it printed no JSON: {said}"))?;
        Ok((report, output.status.code()))
    }

    /// What the agent says of itself.
    pub fn status(&self) -> Result<Status> {
        let status: Envelope<Status> = serde_json::from_value(self.json(&["status"])?)?;
        Ok(status.body)
    }

    /// What the agent says of a limit.
    pub fn limit(&self, name: &str) -> Result<LimitView> {
        let mut limits = self.status()?.limits.into_iter();
        limits.find(|view| view.limit.name == name).with_context(|| format!("no limit {name}"))
    }

    /// Frames that the program judged, of all reasons and outcomes, or of those that `which` picks.
    pub fn judged(&self, which: impl Fn(&str, &str) -> bool) -> Result<u64> {
        let reasons = self.status()?.reasons;
        Ok(reasons.iter().filter(|count| which(&count.reason, &count.outcome)).map(|count| count.packets).sum())
    }

    /// Puts a policy in force through the binary.
    pub fn apply(&self, policy: &str) -> Result<()> {
        let file = self.file("policy.toml");
        fs::write(&file, policy)?;
        self.ask(&["policy", "apply", &path(&file)]).map(drop)
    }

    /// Asks the API itself, without the binary; gives the HTTP status and the body.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let mut stream = UnixStream::connect(self.file("api.sock")).context("connect to the API's socket")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: throttle\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("{method} {path}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.with_context(|| head.to_owned())?, body.to_owned()))
    }

    /// The kernel's hash of the program that is attached; it needs no agent.
    pub fn program_tag(&self) -> Result<u64> {
        Ok(attached::info(&self.pin_dir())?.tag())
    }

    /// Returns once the status is as it should be; the agent is asked again as long as it is not.
    pub fn until(&self, what: &str, is: impl Fn(&Status) -> bool) -> Result<Status> {
        let start = Instant::now();
        loop {
            let status = self.status()?;
            if is(&status) {
                return Ok(status);
            }
            ensure!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}: {status:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A running agent; killed when it is dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
    readiness: mpsc::Receiver<()>,
    /// Whoever listens to the agent does so while this lives.
    _alive: Arc<()>,
}

/// How often what waits for one thing looks whether another has happened.
const GLANCE: Duration = Duration::from_millis(50);

/// Listens to an agent as a service manager does, from the first word to the last: an agent that nobody listens to waits
/// in `sendmsg` once a few messages are unread. Says when it is ready.
fn listen(socket: UnixDatagram) -> Result<(Arc<()>, mpsc::Receiver<()>)> {
    socket.set_read_timeout(Some(GLANCE))?;
    let alive = Arc::new(());
    let wanted = Arc::downgrade(&alive);
    let (ready, readiness) = mpsc::channel();
    std::thread::spawn(move || {
        let mut message = [0; 512];
        while wanted.strong_count() > 0 {
            // sd_notify(3). Nobody waits any more where nobody takes the news.
            if let Ok(length) = socket.recv(&mut message)
                && message[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
            {
                let _ = ready.send(());
            }
        }
    });
    Ok((alive, readiness))
}

impl Agent {
    /// Waits until it says that it is ready; gives how it ended, if it did so before.
    fn ready(&mut self) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        while self.readiness.recv_timeout(GLANCE).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            ensure!(start.elapsed() < PATIENCE, "the agent is not ready after {PATIENCE:?}:\n{}", self.log());
        }
        Ok(None)
    }

    /// Whether it has said since the last question that it is ready.
    pub fn is_ready(&mut self) -> bool {
        self.readiness.try_recv().is_ok()
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The file that it writes to, which outlives it.
    pub fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as nothing can resist: kill -9.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("kill the agent")?;
        self.child.wait().context("wait for the killed agent").map(drop)
    }

    /// Asks it to end, and waits until it did.
    pub fn stop(mut self) -> Result<ExitStatus> {
        machine::signal(self.child.id(), Signal::TERM).context("ask the agent to end")?;
        self.child.wait().context("wait for the agent")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path as an argument.
pub fn path(path: &Path) -> String {
    path.display().to_string()
}
