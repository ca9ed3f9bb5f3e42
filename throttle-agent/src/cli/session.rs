//! Who is at the keyboard: the address from which the operator's SSH session comes.
//!
//! A policy that would refuse that address locks its author out, so every change carries it and the agent refuses,
//! unless forced, what would hit it. `sudo` drops `SSH_CONNECTION`, therefore the parents' environments are asked too.

use std::{fs, net::IpAddr, os::unix::ffi::OsStrExt as _};

/// How far up to look: a shell in sudo in a shell in tmux is six.
const PARENTS: usize = 16;

/// The client's address of the SSH session that this process belongs to, if it belongs to one.
pub(crate) fn address() -> Option<IpAddr> {
    if let Some(own) = std::env::var_os("SSH_CONNECTION") {
        return client(own.as_bytes());
    }
    let mut process = std::os::unix::process::parent_id();
    for _ in 0..PARENTS {
        if process <= 1 {
            return None;
        }
        if let Ok(environment) = fs::read(format!("/proc/{process}/environ"))
            && let Some(address) = in_environment(&environment)
        {
            return Some(address);
        }
        process = parent(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?;
    }
    None
}

/// The first word of `SSH_CONNECTION`: "client port server port".
fn client(connection: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(connection).ok()?.split_whitespace().next()?;
    let address: IpAddr = text.split('%').next()?.parse().ok()?;
    Some(address.to_canonical())
}

fn in_environment(environment: &[u8]) -> Option<IpAddr> {
    environment.split(|&byte| byte == 0).find_map(|entry| client(entry.strip_prefix(b"SSH_CONNECTION=")?))
}

/// The fourth field of `/proc/PID/stat`; the second, the name, may hold spaces and parentheses.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_first_word() {
        assert_eq!(client(b"192.0.2.7 50022 192.0.2.1 22"), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(client(b"fe80::1%eth0 50022 fe80::2 22"), Some("fe80::1".parse().unwrap()));
        assert_eq!(client(b"::ffff:192.0.2.7 1 :: 22"), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(client(b""), None);
        assert_eq!(client(b"nobody 1 2 3"), None);
    }

    #[test]
    fn a_parents_environment_is_searched_by_whole_names() {
        let environment = b"HOME=/root\0X_SSH_CONNECTION=192.0.2.9 1 2 3\0SSH_CONNECTION=2001:db8::5 1 2 3\0TERM=x\0";
        assert_eq!(in_environment(environment), Some("2001:db8::5".parse().unwrap()));
        assert_eq!(in_environment(b"HOME=/root\0"), None);
    }

    #[test]
    fn the_parent_follows_the_last_parenthesis() {
        assert_eq!(parent("42 (a) b) S 7 42 42 0 -1"), Some(7));
        assert_eq!(parent(""), None);
    }
}
