//! Directories that stay: each one's name is on the disk, up to the root.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;

use super::State;

/// Which directory it is: one that was deleted and made again has another number.
pub(super) type Identity = (u64, u64);

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

/// Elsewhere it is told by its time of creation.
#[cfg(not(unix))]
fn identity(metadata: &fs::Metadata) -> Identity {
    let created = metadata.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    (0, created.map_or(0, |since| since.as_nanos() as u64))
}

impl State {
    /// Makes `directory` if it is not there, and sees to it that a power cut does not take it, nor one above it. That it
    /// is there already says nothing: another process may just have made it, without syncing.
    pub(super) fn keep_directory(&self, directory: &Path) -> io::Result<()> {
        let made = match fs::metadata(directory) {
            Ok(found) => {
                let known = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
                if known.get(directory) == Some(&identity(&found)) {
                    return Ok(());
                }
                false
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(e),
        };
        if let Some(above) = directory.parent() {
            self.keep_directory(above)?;
            if made {
                match fs::create_dir(directory) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                    _ => {}
                }
            }
            match self.disk.sync_directory(above) {
                // Those above, which are not ours, need not be ours to read either; they were there before.
                Err(e) if !made && is_closed_to_us(&e) => {}
                synced => synced?,
            }
        }
        let found = identity(&fs::metadata(directory)?);
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.to_owned(), found);
        Ok(())
    }
}

fn is_closed_to_us(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
    )
}
