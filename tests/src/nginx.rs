//! Real web servers: nginx, with one page, or passing requests on.

use crate::{clients::HTTP, groups::Group, machine, netns::Namespace};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What one serves at any path.
const PAGE: &str = "return 200 'hello\\n';";
/// Files of one that passes requests on: how long they took, and what it shows clients that speak TLS.
const TIMES: &str = "times.log";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
/// The port of a server beside another one.
pub const BESIDE: u16 = 8081;
/// The ports at which a server listens that passes requests on: of both it speaks TLS at the second.
pub const PASSED_ON: [u16; 2] = [8080, 8443];

/// A real nginx: with one page that it serves at any path, or one that passes requests on to port [`HTTP`] of its own host.
#[derive(Debug)]
pub struct Server {
    nginx: Child,
    directory: TempDir,
}

impl Server {
    /// Starts it on a host; it listens on port [`HTTP`] of both families when this returns.
    pub fn on(host: &Namespace) -> Result<Self> {
        Self::start(host, host.command("nginx"), HTTP, |_| Ok(silent(HTTP, PAGE)))
    }

    /// The same in a control group.
    pub fn within(group: &Group, host: &Namespace) -> Result<Self> {
        Self::start(host, group.command(host, "nginx"), HTTP, |_| Ok(silent(HTTP, PAGE)))
    }

    /// The same, ahead of ordinary processes: no latency is the time for which it waits for a compiler.
    pub fn ahead_on(host: &Namespace) -> Result<Self> {
        Self::start(host, first(host), HTTP, |_| Ok(silent(HTTP, PAGE)))
    }

    /// The same at port [`BESIDE`].
    pub fn beside_on(host: &Namespace) -> Result<Self> {
        Self::start(host, first(host), BESIDE, |_| Ok(silent(BESIDE, PAGE)))
    }

    /// One that serves a request a minute, and answers all others with 429.
    pub fn limiting_on(host: &Namespace) -> Result<Self> {
        Self::start(host, host.command("nginx"), HTTP, |root| {
            // What is returned outright is never limited: a file is.
            fs::write(root.join("index.html"), "hello\n")?;
            let zone =
                "limit_req_zone $server_port zone=all:1m rate=1r/m; limit_req_status 429; limit_req_log_level info;";
            let page = format!("root {}; location / {{ limit_req zone=all; }}", root.display());
            Ok(format!("{zone} {}", silent(HTTP, &page)))
        })
    }

    /// Starts one that passes requests on, ahead of ordinary processes, over connections that clients may keep.
    pub fn passing_on(host: &Namespace) -> Result<Self> {
        let [http, tls] = PASSED_ON;
        Self::start(host, first(host), http, |root| {
            make_certificate(root)?;
            let root = root.display();
            Ok(format!(
                "log_format times '$msec $request_time $status'; access_log {root}/{TIMES} times buffer=64k flush=100ms;\n\
                 keepalive_requests 1000000; ssl_certificate {root}/{CERTIFICATE}; ssl_certificate_key {root}/{KEY};\n\
                 server {{ listen {http} backlog=4096; listen {tls} ssl backlog=4096;\n\
                 location / {{ proxy_pass http://127.0.0.1:{HTTP}; }} }}"
            ))
        })
    }

    /// Its processes.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let master = self.nginx.id();
        let path = format!("/proc/{master}/task/{master}/children");
        let workers = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let workers = workers.split_whitespace().map(|number| number.parse().context("the number of a process"));
        std::iter::once(Ok(master)).chain(workers).collect()
    }

    /// Of each request that was passed on and answered: when that was, in seconds since 1970, how many seconds it took, and
    /// with which status.
    pub fn times(&self) -> Result<Vec<(f64, f64, u16)>> {
        let text = fs::read_to_string(self.directory.path().join(TIMES)).context("read what nginx has logged")?;
        let line = |line: &str| {
            let mut words = line.split(' ');
            let mut number = || words.next()?.parse::<f64>().ok();
            Some((number()?, number()?, words.next()?.parse().ok()?))
        };
        // The last one may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|text| line(text).with_context(|| format!("nginx's log: {text}"))).collect()
    }

    /// One on a host, in a control group, that passes each request on to the next of these, whatever became of the one
    /// before, from an address of its own; where one cannot be reached it tries the others.
    pub fn proxy_on(host: &Namespace, group: &Group, from: &str, to: &[SocketAddr]) -> Result<Self> {
        let servers: Vec<_> = to.iter().map(|to| format!("server {to} max_fails=0;")).collect();
        let servers = servers.join(" ");
        let passes = format!("location / {{ proxy_pass http://others; proxy_bind {from}; proxy_connect_timeout 2s; }}");
        let configuration = format!("{} upstream others {{ {servers} }}", silent(HTTP, &passes));
        Self::start(host, group.command(host, "nginx"), HTTP, |_| Ok(configuration))
    }

    fn start(
        host: &Namespace,
        mut command: Command,
        port: u16,
        configure: impl FnOnce(&Path) -> Result<String>,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("throttle-tests-nginx-").tempdir()?;
        let root = directory.path().display();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {root}/{kind};"))
            .concat();
        let configuration = format!(
            "daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 1; user root;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ {paths}\n{} }}\n",
            configure(directory.path())?
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration)?;
        command.arg("-c").arg(&file).arg("-e").arg(directory.path().join("error.log")).arg("-p").arg(directory.path());
        let nginx = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = Self { nginx: nginx.context("start nginx; is it installed?")?, directory };
        let start = Instant::now();
        let listens = || host.enter(|| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok());
        while !listens()? {
            if let Some(status) = server.nginx.try_wait()? {
                anyhow::bail!("nginx ended, {status}");
            }
            ensure!(start.elapsed() < Duration::from_secs(20), "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The master takes its workers along when it is asked to end, not when it is killed.
        let asked = machine::run(Command::new("kill").arg(self.nginx.id().to_string()));
        if asked.is_err() || self.nginx.wait().is_err() {
            machine::print("left behind: an nginx");
        }
    }
}

/// A server at a port of both families that does this at any path, and writes nothing down.
fn silent(port: u16, does: &str) -> String {
    format!("access_log off; server {{ listen {port} backlog=4096; listen [::]:{port} backlog=4096; {does} }}")
}

/// nginx, ahead of ordinary processes.
fn first(host: &Namespace) -> Command {
    let mut command = host.command("chrt");
    command.args(["--fifo", "2", "nginx"]);
    command
}

/// A certificate that nobody vouches for, and its key.
fn make_certificate(directory: &Path) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(directory).args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-nodes", "-days", "1", "-subj", "/CN=web", "-keyout", KEY, "-out", CERTIFICATE]);
    machine::run(&mut openssl).context("make a certificate; is openssl installed?").map(drop)
}
