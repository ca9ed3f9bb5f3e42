//! The real binary on a host of its own: an agent with its socket, state and pins in a directory of the test, and the
//! commands that talk to it.

use crate::{machine, netns::Namespace, pins::Pins};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use throttle_agent::api::wire::{Envelope, LimitView, Status};

/// How long anything may take that is awaited; far more than it does.
const PATIENCE: Duration = Duration::from_mins(1);

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
        let mut command = self.host.command(binary()?);
        command
            .args(arguments)
            .env("THROTTLE_SOCKET", self.file("api.sock"))
            .env("THROTTLE_STATE_DIR", self.file("state"))
            .env("THROTTLE_PIN_DIR", self.pin_dir())
            // Whoever runs the tests over SSH is not the operator of this host.
            .env("SSH_CONNECTION", "");
        Ok(command)
    }

    /// Starts an agent, and returns when it says that it is ready.
    pub fn start(&self, arguments: &[&str]) -> Result<Agent> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (notify, log) = (self.file(&format!("notify-{number}")), self.file(&format!("agent-{number}.log")));
        let readiness = UnixDatagram::bind(&notify).with_context(|| format!("bind {}", notify.display()))?;
        readiness.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut command = self.command(["run"].iter().chain(arguments))?;
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&log)?).spawn().context("start the agent")?;
        let mut agent = Agent { child, log };
        let start = Instant::now();
        let mut message = [0; 512];
        loop {
            match readiness.recv(&mut message) {
                Ok(length) if message[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") => {
                    return Ok(agent);
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("wait for the agent"),
            }
            if let Some(status) = agent.child.try_wait()? {
                bail!("the agent ended, {status}, before it was ready:\n{}", agent.log());
            }
            ensure!(start.elapsed() < PATIENCE, "the agent is not ready after {PATIENCE:?}:\n{}", agent.log());
        }
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
}

impl Agent {
    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
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
        let process = Pid::from_child(&self.child);
        kill_process(process, Signal::TERM).context("ask the agent to end")?;
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

/// The binary as it is in the working tree: `THROTTLE_BIN`, or built on the first call.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(built) = BINARY.get() {
        return Ok(built);
    }
    let built = match std::env::var_os("THROTTLE_BIN") {
        Some(named) => named.into(),
        None => build()?,
    };
    Ok(BINARY.get_or_init(|| built))
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "throttle-agent", "--bin", "throttle", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let messages = machine::run(command.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    let built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut executables = built.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    executables.next_back().context("cargo built no binary")
}
