//! The calls that decide what survives a power cut. Tests replace them to record them, to let them fail and to simulate a
//! power cut.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// A disk. A power cut can undo all other operations, such as to write, read or delete a file.
pub(crate) trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Syncs the bytes of the open `file`, which is at `path`.
    fn sync_file(&self, _path: &Path, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Syncs the names in the directory `path`.
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Syncs the whole file system of the directory `path`. This is slow on a busy machine.
    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }

    /// Gives the file `from` another name `to`, unless that name exists.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    /// Renames the file `from` to `to`, and replaces a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
}

/// The disk of this machine.
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {}
