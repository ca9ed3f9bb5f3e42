//! Directories and files that are nobody else's business: the store, the sessions, the socket's directory.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::Context as _;

/// Creates a directory with this mode, unless it exists.
pub fn private_directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(mode).create(path).with_context(|| {
        format!("cannot create the directory {}; name another one, on a file system that is writable", path.display())
    })
}

/// Opens a file for reading and writing, making it where it is absent, and keeps everybody else out of it: its mode is
/// 0600 from its first instant, and again if it was another one.
pub fn private_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o7777 != 0o600 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_private_whether_it_is_new_or_was_open_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
        private_file(&dir.path().join("new")).unwrap();
        fs::write(dir.path().join("old"), "kept").unwrap();
        fs::set_permissions(dir.path().join("old"), fs::Permissions::from_mode(0o644)).unwrap();
        private_file(&dir.path().join("old")).unwrap();
        assert_eq!((mode("new"), mode("old")), (0o600, 0o600));
        assert_eq!(fs::read_to_string(dir.path().join("old")).unwrap(), "kept");
    }
}
