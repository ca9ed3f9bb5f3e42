//! Looks at a file: whether it is another than before, and what it lists.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::{
    book::{Found, Known},
    listed,
};

/// Bytes of a file.
const MOST: u64 = 1 << 20;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Signature {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino(), size: file.size(), changed: (file.ctime(), file.ctime_nsec()) }
    }
}

#[cfg(test)]
impl Signature {
    pub(super) fn for_test(inode: u64) -> Self {
        Self { inode, ..Self::default() }
    }
}

/// Looks at a file of which that is known. One that is being written is left until it has rested from one look to the
/// next; where no address is known yet, it is read at once.
pub(super) fn look(path: &Path, known: Known) -> Found {
    match try_look(path, known) {
        Ok(found) => found,
        Err(error) => Found::Addresses(Err(error.to_string())),
    }
}

fn try_look(path: &Path, known: Known) -> io::Result<Found> {
    // A pipe in the file's place must not be waited for.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let signature = Signature::of(&metadata);
    if known.read == Some(signature) {
        return Ok(Found::Same);
    }
    if !metadata.is_file() {
        return Ok(Found::Addresses(Err("it is no file".to_owned())));
    }
    if !known.is_urgent && known.resting != Some(signature) {
        return Ok(Found::Changing(signature));
    }
    let mut bytes = Vec::new();
    (&mut file).take(MOST + 1).read_to_end(&mut bytes)?;
    if Signature::of(&file.metadata()?) != signature {
        return Ok(Found::Changing(signature));
    }
    if bytes.len() as u64 > MOST {
        return Ok(Found::Listed(signature, Err(format!("it has more than {MOST} bytes"))));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned());
    Ok(Found::Listed(signature, text.and_then(|text| listed::parse(&text))))
}
