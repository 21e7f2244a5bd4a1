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
        sync_file_system(path)
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

#[cfg(target_os = "linux")]
fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}

/// Other systems have no such call, so that this syncs only the files below the directory.
#[cfg(not(target_os = "linux"))]
fn sync_file_system(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_file_system(&entry.path())?;
        } else {
            match File::open(entry.path()) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                opened => opened?.sync_all()?,
            }
        }
    }
    File::open(path)?.sync_all()
}
