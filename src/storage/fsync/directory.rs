//! Creates directories whose names are on the disk, up to the root.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::SyncTracker;
use crate::runtime::lock;

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
