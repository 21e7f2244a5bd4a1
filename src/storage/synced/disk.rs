//! The calls that decide what survives a power cut, apart, so that tests can watch them, fail them and pull the plug.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// A disk. What is not called here (writing, reading, deleting) may be undone by a power cut.
pub(crate) trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Brings the bytes of the open `file`, which is at `path`, to the disk.
    fn sync_file(&self, _path: &Path, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Brings the names in the directory `path` to the disk.
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Brings everything that the file system of the directory `path` holds now to the disk. Slow on a busy machine.
    fn sync_everything(&self, path: &Path) -> io::Result<()> {
        everything(path)
    }

    /// Gives the file `from` the further name `to`, unless something has it.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    /// Gives the file `from` the name `to` instead, whatever had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
}

/// The disk of this machine.
#[derive(Debug)]
pub(super) struct Real;

impl Disk for Real {}

#[cfg(target_os = "linux")]
fn everything(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}

/// Elsewhere only what is in the directory itself, which is what it is for.
#[cfg(not(target_os = "linux"))]
fn everything(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            everything(&entry.path())?;
        } else {
            match File::open(entry.path()) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                opened => opened?.sync_all()?,
            }
        }
    }
    File::open(path)?.sync_all()
}
