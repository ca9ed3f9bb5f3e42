//! The archive that a kernel unpacks as its first root file system: cpio in its "newc" form.
//!
//! The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Archives that follow each
//! other are unpacked one over the other, so that one part serves several machines.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Component, Path};

/// File types of `st_mode` (stat(2)).
const FOLDER: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
/// How the last entry is called.
const TRAILER: &str = "TRAILER!!!";

/// An archive in the making; what is added appears in the root file system under its absolute path.
pub(super) struct Archive<W> {
    out: W,
    /// Bytes so far: names and contents are aligned to four of the archive.
    written: usize,
    folders: BTreeSet<String>,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, written: 0, folders: BTreeSet::new(), entries: 0 }
    }

    /// A folder, and those that it lies in.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        let names = Path::new(path).components().filter_map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let mut folder = String::new();
        for name in names {
            folder = format!("{folder}/{name}");
            if self.folders.insert(folder.clone()) {
                self.entry(&folder, FOLDER | 0o755, [0, 0], &[])?;
            }
        }
        Ok(())
    }

    /// A file that may be executed, and the folders that it lies in.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, REGULAR | 0o755, [0, 0], bytes)
    }

    /// A character device, and the folders that it lies in.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, CHARACTER_DEVICE | 0o600, [major, minor], &[])
    }

    /// Writes the end.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(TRAILER, 0, [0, 0], &[])?;
        Ok(self.out)
    }

    fn parent(&mut self, path: &str) -> io::Result<()> {
        Path::new(path).parent().and_then(Path::to_str).map_or(Ok(()), |parent| self.folder(parent))
    }

    fn entry(&mut self, path: &str, mode: u32, [major, minor]: [u32; 2], bytes: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        let size = u32::try_from(bytes.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, format!("{path} is larger than 4 GiB")))?;
        let name_size = name.len() as u32 + 1;
        self.entries += 1;
        // Number, mode, owner, group, links, time, size, two device numbers, name's length with its end, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        let mut head = String::from("070701");
        for field in fields {
            let _ = write!(head, "{field:08x}");
        }
        self.write(head.as_bytes())?;
        self.write(name.as_bytes())?;
        self.write(&[0])?;
        self.align()?;
        self.write(bytes)?;
        self.align()
    }

    fn align(&mut self) -> io::Result<()> {
        let padding = self.written.next_multiple_of(4) - self.written;
        self.write(&[0; 3][..padding])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive as the kernel does: name, mode, device, content.
    fn read(mut archive: &[u8]) -> Vec<(String, u32, [u32; 2], Vec<u8>)> {
        let mut entries = Vec::new();
        while !archive.is_empty() {
            assert_eq!(&archive[..6], b"070701");
            let field = |number: usize| {
                let digits = std::str::from_utf8(&archive[6 + 8 * number..][..8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (name, size) = (110 + field(11) as usize, field(6) as usize);
            assert_eq!(archive[name - 1], 0);
            let content = name.next_multiple_of(4);
            let text = String::from_utf8(archive[110..name - 1].to_vec()).unwrap();
            let bytes = archive[content..content + size].to_vec();
            entries.push((text, field(1), [field(9), field(10)], bytes));
            archive = &archive[(content + size).next_multiple_of(4)..];
        }
        entries
    }

    #[test]
    fn what_is_added_is_there_with_its_folders_before_it() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/init", b"#!/bin/sh\n").unwrap();
        archive.file("/lib/a/one", b"1").unwrap();
        archive.file("/lib/a/three", b"333").unwrap();
        archive.device("/dev/console", 5, 1).unwrap();
        let entries = read(&archive.finish().unwrap());
        let expected = [
            ("init", 0o100_755, [0, 0], &b"#!/bin/sh\n"[..]),
            ("lib", 0o040_755, [0, 0], b""),
            ("lib/a", 0o040_755, [0, 0], b""),
            ("lib/a/one", 0o100_755, [0, 0], b"1"),
            ("lib/a/three", 0o100_755, [0, 0], b"333"),
            ("dev", 0o040_755, [0, 0], b""),
            ("dev/console", 0o020_600, [5, 1], b""),
            ("TRAILER!!!", 0, [0, 0], b""),
        ];
        let expected = expected.map(|(name, mode, device, bytes)| (name.to_owned(), mode, device, bytes.to_vec()));
        assert_eq!(entries, expected);
    }

    #[test]
    fn archives_that_follow_each_other_stay_aligned() {
        for length in 0..8 {
            let mut archive = Archive::new(Vec::new());
            archive.file("/f", &vec![7; length]).unwrap();
            let bytes = archive.finish().unwrap();
            assert_eq!(bytes.len() % 4, 0);
            assert_eq!(read(&[bytes.clone(), bytes].concat()).len(), 4);
        }
    }
}
