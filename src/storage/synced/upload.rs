//! Files too large to be written in one call, such as the checkpoints of large tables.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use object_store::{Error, MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::{State, blocking, failed};

/// Begins a file at `path`, which is there when it is complete.
pub(super) fn begin(state: Arc<State>, path: PathBuf) -> Result<Box<dyn MultipartUpload>> {
    let (file, unfinished) = state.begin(&path)?;
    Ok(Box::new(Upload { state, path, file: Arc::new(file), unfinished: Some(unfinished), length: 0 }))
}

#[derive(Debug)]
struct Upload {
    state: Arc<State>,
    path: PathBuf,
    file: Arc<File>,
    /// None once the file has its name, or is given up.
    unfinished: Option<PathBuf>,
    length: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, path, mut at) = (Arc::clone(&self.file), self.path.clone(), self.length);
        self.length += data.content_length() as u64;
        blocking(move || {
            for chunk in data.iter() {
                write_at(&file, chunk, at).map_err(|e| failed("writing", &path, e))?;
                at += chunk.len() as u64;
            }
            Ok(())
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let unfinished = self.unfinished.take().ok_or_else(|| given_up(&self.path))?;
        let (state, path, file) = (Arc::clone(&self.state), self.path.clone(), Arc::clone(&self.file));
        blocking(move || {
            let put = state.finish(&path, &file, &unfinished, false);
            if put.is_err() {
                _ = fs::remove_file(&unfinished);
            }
            put
        })
        .await
    }

    async fn abort(&mut self) -> Result<()> {
        let unfinished = self.unfinished.take().ok_or_else(|| given_up(&self.path))?;
        let path = self.path.clone();
        blocking(move || fs::remove_file(&unfinished).map_err(|e| failed("giving up", &path, e))).await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(unfinished) = self.unfinished.take() {
            _ = fs::remove_file(unfinished);
        }
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

/// Elsewhere parts must come one after the other, as the kernel's come.
#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    use std::io::{Seek as _, Write as _};
    file.seek(std::io::SeekFrom::Start(at))?;
    file.write_all(bytes)
}

fn given_up(path: &std::path::Path) -> Error {
    failed("writing", path, std::io::Error::other("the upload has ended already"))
}
