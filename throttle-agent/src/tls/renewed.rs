//! What is made of files, and anew when they change.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::file::{File, FileFault};

/// What is made of files. Where new ones are wrong, what was made of those before stays.
#[derive(Debug)]
pub struct Renewed<T> {
    files: Vec<PathBuf>,
    make: fn(&[File]) -> Result<T, FileFault>,
    /// What was read last of files that were right.
    read: Mutex<Vec<u8>>,
    made: watch::Sender<Arc<T>>,
}

impl<T> Renewed<T> {
    /// Makes it for the first time.
    pub(super) fn new(files: Vec<PathBuf>, make: fn(&[File]) -> Result<T, FileFault>) -> Result<Self, FileFault> {
        let (read, contents) = read(&files)?;
        let first = watch::Sender::new(Arc::new(make(&contents)?));
        Ok(Self { files, make, read: Mutex::new(read), made: first })
    }

    /// What comes of no file, and so never changes.
    pub(super) fn fixed(value: T) -> Self {
        let made = watch::Sender::new(Arc::new(value));
        Self { files: Vec::new(), make: |_| unreachable!("no file changes"), read: Mutex::default(), made }
    }

    /// The latest; changes when there is a later one.
    pub fn subscribe(&self) -> watch::Receiver<Arc<T>> {
        self.made.subscribe()
    }

    /// The latest.
    pub fn latest(&self) -> Arc<T> {
        Arc::clone(&self.made.borrow())
    }

    /// Reads the files, and gives whether they had changed. It may wait for the disk.
    pub fn look(&self) -> Result<bool, FileFault> {
        let (read, contents) = read(&self.files)?;
        let mut before = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if *before == read {
            return Ok(false);
        }
        self.made.send_replace(Arc::new((self.make)(&contents)?));
        *before = read;
        Ok(true)
    }
}

/// The files, and a digest by which to tell whether one has changed.
fn read(files: &[PathBuf]) -> Result<(Vec<u8>, Vec<File>), FileFault> {
    let contents = files.iter().map(|file| File::read(file)).collect::<Result<Vec<_>, _>>()?;
    let digest = contents.iter().flat_map(|file| Sha256::digest(&file.bytes)).collect();
    Ok((digest, contents))
}
