//! The file of a stamp's keys: nobody else's business, read anew when it changes.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::key::Keys;
use crate::{policy::Fault, tls::FileFault};

/// Bytes of a file, at most.
const LONGEST: u64 = 64 << 10;

/// Reads the keys of a file that only its owner may read: this process's user, or root.
pub fn read(path: &Path) -> Result<Keys, FileFault> {
    let wrong = |reason: String, remedy: &str| FileFault { file: path.to_owned(), fault: Fault::new(reason, remedy) };
    let unread = |error: io::Error| {
        let remedy =
            "name a file that is there and that the agent's user owns; `throttle stamp key new FILE` makes one";
        wrong(format!("it cannot be read: {error}"), remedy)
    };
    let name = path.display();
    // A pipe in the file's place must not be waited for.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unread)?;
    let held = file.metadata().map_err(unread)?;
    let mode = held.permissions().mode() & 0o777;
    if !held.is_file() {
        return Err(wrong("it is no file".to_owned(), "`throttle stamp key new FILE` makes one"));
    }
    if mode & 0o077 != 0 {
        return Err(wrong(
            format!("others than its owner may use it (mode {mode:04o})"),
            &format!("`chmod 600 {name}`"),
        ));
    }
    let user = rustix::process::geteuid().as_raw();
    if held.uid() != user && held.uid() != 0 {
        return Err(wrong(format!("it belongs to user {}", held.uid()), &format!("`chown {user} {name}`")));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(unread)?;
    Keys::parse(&text).map_err(|reason| {
        wrong(reason, "copy the file from another host of the stamp, or let `throttle stamp key new FILE` make one")
    })
}

/// Writes the keys to a file that nobody else may read: a new one, or, where that is meant, one in place of the one there.
/// At no time is there a part of it.
pub fn write(path: &Path, keys: &Keys, replaces: bool) -> io::Result<()> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    let new = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let made = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(keys.to_text().as_bytes())?;
        file.sync_all()?;
        // A link, unlike a renaming, does not take the place of what is there.
        if replaces { fs::rename(&new, path) } else { fs::hard_link(&new, path) }
    })();
    if made.is_err() || !replaces {
        // It is gone where it was renamed, and was never there where it could not be made.
        _ = fs::remove_file(&new);
    }
    made?;
    File::open(directory)?.sync_all()
}

/// The keys of a file, as they are now.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    held: Mutex<Arc<Keys>>,
}

impl KeyFile {
    /// Reads it for the first time.
    pub fn open(path: &Path) -> Result<Self, FileFault> {
        Ok(Self { path: path.to_owned(), held: Mutex::new(Arc::new(read(path)?)) })
    }

    /// The keys that were read last.
    pub(super) fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads it anew, and gives whether it had changed; where it is wrong, what was read before stays. It may wait for the
    /// disk.
    pub(super) fn look(&self) -> Result<bool, FileFault> {
        let keys = read(&self.path)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = **held != keys;
        if changed {
            *held = Arc::new(keys);
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::key::Key, *};

    #[test]
    fn a_file_is_made_once_private_and_read_anew_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = Keys::one(Key::of(1));
        write(&path, &first, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let refused = write(&path, &Keys::one(Key::of(2)), false).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        let file = KeyFile::open(&path).unwrap();
        assert!(!file.look().unwrap());
        let both = first.with(Key::of(2)).unwrap();
        write(&path, &both, true).unwrap();
        assert!(file.look().unwrap());
        assert_eq!(*file.keys(), both);
        fs::write(&path, "rubbish").unwrap();
        assert!(file.look().unwrap_err().to_string().contains("line 1"));
        assert_eq!(*file.keys(), both, "what was read before stays");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path, &Keys::one(Key::of(1)), false).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let told = read(&path).unwrap_err().to_string();
            assert!(told.contains(&format!("{mode:04o}")) && told.contains("chmod 600"), "{told}");
        }
        let told = read(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(told.contains("stamp key new"), "{told}");
        assert!(read(dir.path()).unwrap_err().to_string().contains("no file"));
    }
}
