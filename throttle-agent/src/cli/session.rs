//! Who is at the keyboard: where the operator's SSH session comes from, and which port of this host it goes to.
//!
//! A policy that would refuse that session locks its author out, so every change carries it and the agent keeps it allowed,
//! unless told not to, where a rule would hit it. `sudo` drops `SSH_CONNECTION`, therefore the parents' environments are
//! asked too.

use std::{fs, net::IpAddr, os::unix::ffi::OsStrExt as _};

use throttle_agent::api::wire::Write;

/// How far up to look: a shell in sudo in a shell in tmux is six.
const PARENTS: usize = 16;

/// An SSH session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    address: IpAddr,
    port: Option<u16>,
}

impl Session {
    /// A change that must not lock this session out.
    pub(crate) fn writing(session: Option<Self>) -> Write {
        Write {
            session: session.map(|session| session.address),
            session_port: session.and_then(|session| session.port),
            ..Write::default()
        }
    }
}

/// The SSH session that this process belongs to, if it belongs to one.
pub(crate) fn own() -> Option<Session> {
    if let Some(own) = std::env::var_os("SSH_CONNECTION") {
        return session(own.as_bytes());
    }
    let mut process = std::os::unix::process::parent_id();
    for _ in 0..PARENTS {
        if process <= 1 {
            return None;
        }
        if let Ok(environment) = fs::read(format!("/proc/{process}/environ"))
            && let Some(session) = in_environment(&environment)
        {
            return Some(session);
        }
        process = parent(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?;
    }
    None
}

/// What `SSH_CONNECTION` says: "client port server port".
fn session(connection: &[u8]) -> Option<Session> {
    let mut words = std::str::from_utf8(connection).ok()?.split_whitespace();
    let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
    Some(Session { address: address.to_canonical(), port: words.nth(2).and_then(|port| port.parse().ok()) })
}

fn in_environment(environment: &[u8]) -> Option<Session> {
    environment.split(|&byte| byte == 0).find_map(|entry| session(entry.strip_prefix(b"SSH_CONNECTION=")?))
}

/// The fourth field of `/proc/PID/stat`; the second, the name, may hold spaces and parentheses.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str, port: Option<u16>) -> Session {
        Session { address: address.parse().unwrap(), port }
    }

    #[test]
    fn the_client_is_the_first_word_and_the_port_of_this_host_the_last() {
        assert_eq!(session(b"192.0.2.7 50022 192.0.2.1 2222"), Some(from("192.0.2.7", Some(2222))));
        assert_eq!(session(b"fe80::1%eth0 50022 fe80::2 22"), Some(from("fe80::1", Some(22))));
        assert_eq!(session(b"::ffff:192.0.2.7 1 ::"), Some(from("192.0.2.7", None)));
        assert_eq!(session(b""), None);
        assert_eq!(session(b"nobody 1 2 3"), None);
    }

    #[test]
    fn a_parents_environment_is_searched_by_whole_names() {
        let environment = b"HOME=/root\0X_SSH_CONNECTION=192.0.2.9 1 2 3\0SSH_CONNECTION=2001:db8::5 1 2 3\0TERM=x\0";
        assert_eq!(in_environment(environment), Some(from("2001:db8::5", Some(3))));
        assert_eq!(in_environment(b"HOME=/root\0"), None);
    }

    #[test]
    fn the_parent_follows_the_last_parenthesis() {
        assert_eq!(parent("42 (a) b) S 7 42 42 0 -1"), Some(7));
        assert_eq!(parent(""), None);
    }
}
