//! Writes files that are too large for one call, such as checkpoints of large tables.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::{SyncTracker, blocking, failed};

/// Begins a file at `path`. The file gets its name when it is complete.
pub(super) fn begin(state: Arc<SyncTracker>, path: PathBuf) -> Result<Box<dyn MultipartUpload>> {
    let (file, temporary) = state.begin(&path)?;
    Ok(Box::new(FsyncUpload { state, path, file: Arc::new(file), temporary: Some(temporary), length: 0 }))
}

#[derive(Debug)]
struct FsyncUpload {
    state: Arc<SyncTracker>,
    path: PathBuf,
    file: Arc<File>,
    /// None once the upload is completed or aborted.
    temporary: Option<PathBuf>,
    length: u64,
}

impl FsyncUpload {
    fn take_temporary(&mut self) -> Result<PathBuf> {
        let ended = || failed("writing", &self.path, std::io::Error::other("the upload has already ended"));
        self.temporary.take().ok_or_else(ended)
    }
}

#[async_trait]
impl MultipartUpload for FsyncUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, path, mut at) = (Arc::clone(&self.file), self.path.clone(), self.length);
        self.length += data.content_length() as u64;
        blocking(move || {
            for chunk in data.iter() {
                file.write_all_at(chunk, at).map_err(|e| failed("writing", &path, e))?;
                at += chunk.len() as u64;
            }
            Ok(())
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let temporary = self.take_temporary()?;
        let (state, path, file) = (Arc::clone(&self.state), self.path.clone(), Arc::clone(&self.file));
        blocking(move || {
            let synced = state.disk.sync_file(&temporary, &file).map_err(|e| failed("syncing", &path, e));
            let put = synced.and_then(|()| state.publish(&path, &temporary, false));
            if put.is_err() {
                _ = fs::remove_file(&temporary);
            }
            put
        })
        .await
    }

    async fn abort(&mut self) -> Result<()> {
        let (temporary, path) = (self.take_temporary()?, self.path.clone());
        blocking(move || fs::remove_file(&temporary).map_err(|e| failed("aborting the upload of", &path, e))).await
    }
}

impl Drop for FsyncUpload {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            _ = fs::remove_file(temporary);
        }
    }
}
