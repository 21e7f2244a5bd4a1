//! The calls that decide what survives a power cut. Tests replace them to record them, to let them fail and to simulate a
//! power cut. And directories whose names are on the disk, up to the root.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::SyncTracker;
use crate::runtime::lock;

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
pub(crate) struct RealDisk;

impl Disk for RealDisk {}

/// Distinguishes a directory from another one that is created later under its name.
pub(super) type Identity = (u64, u64);

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

impl SyncTracker {
    /// Creates `directory` if it does not exist, and syncs its name and the names of the directories above. A directory
    /// that exists needs this too: another process may just have created it without a sync.
    pub(super) fn create_directory(&self, directory: &Path) -> io::Result<()> {
        let is_new = match fs::metadata(directory) {
            Ok(found) if lock(&self.directories).get(directory) == Some(&identity(&found)) => return Ok(()),
            Ok(_) => false,
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(e),
        };
        if let Some(above) = directory.parent() {
            self.create_directory(above)?;
            if is_new
                && let Err(e) = fs::create_dir(directory)
                && e.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(e);
            }
            match self.disk.sync_directory(above) {
                // This process need not have access to the directories above its own. They existed before.
                Err(e) if !is_new && is_refused(&e) => {}
                synced => synced?,
            }
        }
        let created = identity(&fs::metadata(directory)?);
        lock(&self.directories).insert(directory.to_owned(), created);
        Ok(())
    }
}

fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported)
}
