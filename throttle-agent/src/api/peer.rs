//! Who is at the other end of the socket, as the kernel says, before a byte of the request is read.

use std::{fs, io, mem::size_of, os::fd::AsRawFd as _, sync::Arc};

use anyhow::Context as _;
use tokio::net::UnixStream;

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// The user's name, or `uid N` where there is none: the author of what this peer writes.
    pub name: Arc<str>,
}

/// Who may use the socket: root, the agent's own user, and the members of a group if one is named.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// The agent's own user.
    pub uid: u32,
    /// The group of the socket.
    pub group: Option<u32>,
}

impl Admission {
    /// The peer of a connection if it may use the socket, otherwise its user.
    pub fn admit(&self, stream: &UnixStream) -> io::Result<Result<Peer, u32>> {
        let cred = stream.peer_cred()?;
        let uid = cred.uid();
        let member = |group| -> io::Result<bool> { Ok(cred.gid() == group || groups(stream)?.contains(&group)) };
        if uid == 0 || uid == self.uid || self.group.map_or(Ok(false), member)? {
            Ok(Ok(Peer { uid, name: user_name(uid).into() }))
        } else {
            Ok(Err(uid))
        }
    }
}

/// The supplementary groups that the peer had when it connected.
fn groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    // NGROUPS_MAX of Linux is 65 536; a peer in more groups than this is asked for its first ones only by refusal.
    let mut groups = vec![0u32; 65_536];
    let mut bytes = (groups.len() * size_of::<u32>()) as libc::socklen_t;
    // SAFETY: `groups` has `bytes` writable bytes, and the kernel writes at most so many; `bytes` is a valid length.
    let code = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(bytes as usize / size_of::<u32>());
    Ok(groups)
}

/// The number of a group that is named or numbered.
pub fn group_number(group: &str) -> anyhow::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string("/etc/group").context("read /etc/group to find the socket's group")?;
    field(&text, 0, group, 2)
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("--socket-group {group}: there is no such group; create it with `groupadd {group}`"))
}

/// The name of a user. `/etc/passwd` alone is read: a name service may wait on the network, and this is for the record.
fn user_name(uid: u32) -> String {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    field(&text, 2, &uid.to_string(), 0).map_or_else(|| format!("uid {uid}"), str::to_owned)
}

/// Of the first line whose field `key` is `value`, the field `wanted`.
fn field<'t>(text: &'t str, key: usize, value: &str, wanted: usize) -> Option<&'t str> {
    text.lines().find(|line| line.split(':').nth(key) == Some(value))?.split(':').nth(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_names_and_numbers() {
        let text = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\n";
        assert_eq!(field(text, 2, "1000", 0), Some("alice"));
        assert_eq!(field(text, 0, "root", 2), Some("0"));
        assert_eq!(field(text, 2, "100", 0), None);
    }

    #[tokio::test]
    async fn admits_its_own_user_and_names_it() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let admission = Admission { uid, group: None };
        assert_eq!(admission.admit(&ours).unwrap().unwrap().uid, uid);
        assert!(groups(&ours).is_ok());
    }
}
