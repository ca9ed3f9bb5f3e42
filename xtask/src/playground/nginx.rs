//! A real web server, and its own account of whom it served: the witness that owes the throttle nothing.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::{Namespace, PATIENCE};
use crate::process::{self, Background};

/// One answered request.
#[derive(Debug, PartialEq)]
pub(crate) struct Served {
    pub(crate) source: IpAddr,
    /// Seconds of wall time since 1970, in milliseconds' steps.
    pub(crate) at: f64,
}

/// Starts nginx on port 80 of a namespace and waits until it answers; its files lie in `folder`.
pub(super) fn start(namespace: &Namespace, folder: &Path) -> Result<Background> {
    let configuration = folder.join("nginx.conf");
    fs::write(&configuration, self::configuration(folder))?;
    let log = folder.join("nginx.log");
    let nginx = process::spawn(
        namespace.command("nginx").arg("-e").arg(&log).arg("-c").arg(&configuration).stdin(Stdio::null()),
    )?;
    let nginx = Background(nginx);
    let answers = || namespace.enter(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, 80))?)).is_ok();
    process::wait_until("nginx", PATIENCE, answers).with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    Ok(nginx)
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
         pid {folder}/nginx.pid;
         worker_processes 2;
         events {{ worker_connections 4096; }}
         http {{
             log_format served '$msec $remote_addr';
             access_log {folder}/served.log served;
             client_body_temp_path {folder}/body;
             proxy_temp_path {folder}/proxy;
             fastcgi_temp_path {folder}/fastcgi;
             uwsgi_temp_path {folder}/uwsgi;
             scgi_temp_path {folder}/scgi;
             server {{
                 listen 80 backlog=4096;
                 listen [::]:80 backlog=4096;
                 location / {{ return 200 'served\\n'; }}
             }}
         }}
"
    )
}

/// Reads what nginx has answered so far.
pub(super) fn served(folder: &Path) -> Result<Vec<Served>> {
    match fs::read_to_string(folder.join("served.log")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        log => log?.lines().map(parse).collect(),
    }
}

fn parse(line: &str) -> Result<Served> {
    let parsed = line
        .split_once(' ')
        .and_then(|(at, source)| Some(Served { source: source.parse().ok()?, at: at.parse().ok()? }));
    parsed.with_context(|| format!("nginx's log has a line that is no `TIME SOURCE`: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_says_who_was_served_and_when() {
        let served = parse("1795460000.125 fd77::13").unwrap();
        assert_eq!(served, Served { source: "fd77::13".parse().unwrap(), at: 1_795_460_000.125 });
        assert!(parse("nonsense").unwrap_err().to_string().contains("nonsense"));
    }
}
