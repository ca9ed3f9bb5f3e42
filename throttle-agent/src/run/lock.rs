//! One agent for each state directory, pin directory and socket.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tokio::net::UnixListener;

use super::private::private_directory;
use crate::datapath::{LINGER, lock};

/// Keeps a second agent away from a path while it lives; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks a directory, which must exist.
    pub fn directory(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        Self::take(file, path)
    }

    fn take(file: File, path: &Path) -> anyhow::Result<Self> {
        if !lock(&file, LINGER).with_context(|| format!("lock {}", path.display()))? {
            bail!(
                "{} is in use by another agent; stop it (`systemctl stop throttle`), or give this one directories and a \
                 socket of its own (--state-dir, --pin-dir, --socket)",
                path.display()
            );
        }
        Ok(Self { _file: file })
    }
}

/// The API's socket, which goes when the agent ends in order.
#[derive(Debug)]
pub struct Socket {
    /// Where peers are accepted.
    pub listener: std::os::unix::net::UnixListener,
    path: PathBuf,
    _lock: Lock,
}

impl Socket {
    /// Binds the socket: 0660 in a directory of 0750, both given to `group` where there is one. A directory with other
    /// things in it is not ours, and stays as it is.
    pub fn bind(path: &Path, group: Option<u32>) -> anyhow::Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        left_behind(path)?;
        private_directory(directory, 0o750)?;
        if let Some(group) = group {
            let_in(directory, path, group)?;
        }
        let beside = beside(path);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&beside);
        let lock = Lock::take(file.with_context(|| format!("open {}", beside.display()))?, path)?;
        // The lock is ours: whatever lies here was left behind by an agent that was killed.
        if left_behind(path)? {
            fs::remove_file(path).with_context(|| format!("remove the old socket {}", path.display()))?;
        }
        let listener = std::os::unix::net::UnixListener::bind(path)
            .with_context(|| format!("bind the API's socket {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))
            .with_context(|| format!("set the mode of {}", path.display()))?;
        if let Some(group) = group {
            give(path, group)?;
        }
        listener.set_nonblocking(true).context("make the socket non-blocking")?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    /// A listener for the event loop.
    pub fn listener(&self) -> anyhow::Result<UnixListener> {
        let listener = self.listener.try_clone().context("share the API's socket")?;
        UnixListener::from_std(listener).context("watch the API's socket")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a socket lies at a path. What is no socket is somebody's, and not for us to remove.
fn left_behind(path: &Path) -> anyhow::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(true),
        Ok(_) => bail!(
            "--socket {}: something is there that is no socket, and stays; choose another path, or move it away",
            path.display()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look at the socket {}", path.display())),
    }
}

/// Opens the socket's directory to a group: one that was made for it alone, by us or by the service manager.
fn let_in(directory: &Path, socket: &Path, group: u32) -> anyhow::Result<()> {
    let failed = || format!("open the directory {} to group {group}", directory.display());
    let metadata = fs::metadata(directory).with_context(failed)?;
    let (mode, enter) = (metadata.permissions().mode(), 0o010);
    if mode & 0o001 != 0 || (metadata.gid() == group && mode & enter != 0) {
        return Ok(());
    }
    let entries = fs::read_dir(directory).with_context(failed)?;
    let names = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().with_context(failed)?;
    if let Some(other) = names.iter().find(|&name| name != socket && *name != beside(socket)) {
        bail!(
            "group {group} cannot enter {}, which holds {} too and so stays as it is; choose a --socket in a directory \
             of its own, or let the group in",
            directory.display(),
            other.display()
        );
    }
    give(directory, group)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o750)).with_context(failed)
}

/// The lock of a socket.
fn beside(socket: &Path) -> PathBuf {
    socket.with_added_extension("lock")
}

fn give(path: &Path, group: u32) -> anyhow::Result<()> {
    std::os::unix::fs::chown(path, None, Some(group)).with_context(|| {
        format!(
            "give {} to group {group}: without CAP_CHOWN the agent's own groups must include it \
             (systemd: SupplementaryGroups=)",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_on_the_same_paths_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::directory(dir.path()).unwrap();
        let refusal = Lock::directory(dir.path()).unwrap_err().to_string();
        assert!(refusal.contains("in use by another agent"), "{refusal}");
        drop(first);
        Lock::directory(dir.path()).unwrap();
    }

    #[test]
    fn an_agent_that_is_about_to_be_gone_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::directory(dir.path()).unwrap();
        let gone = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(60));
            drop(first);
        });
        Lock::directory(dir.path()).unwrap();
        gone.join().unwrap();
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/api.sock");
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("stale")).unwrap());
        let live = Socket::bind(&path, None).unwrap();
        assert!(Socket::bind(&path, None).unwrap_err().to_string().contains("in use by another agent"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o750);
        drop(live);
        assert!(!path.exists());
        fs::rename(dir.path().join("stale"), &path).unwrap();
        Socket::bind(&path, None).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let (letter, link) = (dir.path().join("letter"), dir.path().join("link"));
        fs::write(&letter, "private").unwrap();
        std::os::unix::fs::symlink(&letter, &link).unwrap();
        for path in [&letter, &link] {
            let refusal = Socket::bind(path, None).unwrap_err().to_string();
            assert!(refusal.contains(&path.display().to_string()) && refusal.contains("no socket"), "{refusal}");
        }
        assert_eq!(fs::read_to_string(&link).unwrap(), "private");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing was left beside it");
    }

    #[test]
    fn a_group_is_let_into_a_directory_of_the_sockets_own_and_into_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let group = 54_321;
        let of = |path: &Path| {
            let metadata = fs::metadata(path).unwrap();
            (metadata.gid(), metadata.permissions().mode() & 0o777)
        };
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: giving away to a group needs root");
            return;
        }
        // As the service manager makes it, and with the lock of an earlier agent in it.
        let run = dir.path().join("run");
        private_directory(&run, 0o700).unwrap();
        let socket = run.join("api.sock");
        drop(Socket::bind(&socket, None).unwrap());
        let _bound = Socket::bind(&socket, Some(group)).unwrap();
        assert_eq!((of(&run), of(&socket)), ((group, 0o750), (group, 0o660)));

        let home = dir.path().join("home");
        private_directory(&home, 0o700).unwrap();
        fs::write(home.join("letter"), "private").unwrap();
        let refusal = Socket::bind(&home.join("api.sock"), Some(group)).unwrap_err().to_string();
        assert!(refusal.contains("letter") && refusal.contains("cannot enter"), "{refusal}");
        assert_eq!(of(&home).1, 0o700);
    }
}
