//! The token file on disk: reading it, replacing it in one rename with mode 0600, and one renewer at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind as IoKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// How long another process may hold the lock; a renewal takes one HTTP call, and where SASLogon is away a few.
const LOCK_WAIT: Duration = Duration::from_secs(120);

/// The JSON object in the token file.
pub(super) fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let (kind, why) = match e.kind() {
            IoKind::NotFound => (
                ErrorKind::NotFound,
                "does not exist: log in to SAS Viya and write the SASLogon response there, or name another file (tokens)",
            ),
            IoKind::InvalidData => (ErrorKind::InvalidInput, "is not text: it must be the JSON of a SASLogon response"),
            _ => (ErrorKind::Storage, "cannot be read: check its permissions"),
        };
        Error::new(kind, format!("the token file {} {why}", path.display())).with_source(e)
    })?;
    // Editors of Windows put a mark in front.
    serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| {
        // The parser's own words may quote the file, and with it a token.
        Error::invalid(format!(
            "the token file {} is not the JSON object of a SASLogon response (line {}, column {})",
            path.display(),
            e.line(),
            e.column()
        ))
    })
}

/// Where `path` really is, so that a rotation replaces the file and not a link to it, and a folder is known by its own name.
pub(super) fn real(path: &Path) -> PathBuf {
    let of_folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(std::fs::canonicalize(folder).ok()?.join(path.file_name()?))
    };
    let found = std::fs::canonicalize(path).ok().or_else(of_folder);
    found.or_else(|| std::path::absolute(path).ok()).unwrap_or_else(|| path.to_owned())
}

/// Whether renewed tokens may be stored at `path`.
///
/// # Errors
/// [`ErrorKind::Unsupported`] on Databricks volumes and workspace files: their rename is not atomic, and a rotation that
/// is lost there locks the user out.
pub(super) fn may_rotate(path: &Path) -> Result<()> {
    if ["/Volumes", "/Workspace", "/dbfs"].iter().any(|root| path.starts_with(root)) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "tokens are not kept in {}, as a renewed one is not safe there (a rotation that is lost would lock you out): name \
                 a file in a local folder such as /local_disk0 or your home, or use a secret scope (Credentials.tokens)",
                path.display()
            ),
        ));
    }
    Ok(())
}

/// Holds the lock while it lives; the operating system frees it when the process dies.
pub(super) struct Lock(#[allow(dead_code)] Option<File>);

/// Waits for the lock beside `path`. Where the file system has no locks, renewing goes on without.
///
/// # Errors
/// [`ErrorKind::Conflict`], retryable, when another process holds it for longer than a renewal takes: two who renew at once
/// could spend the same refresh token.
pub(super) async fn lock(path: &Path) -> Result<Lock> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let Ok(file) = private().create(true).truncate(false).write(true).open(PathBuf::from(beside)) else {
        return Ok(Lock(None));
    };
    let deadline = tokio::time::Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(Some(file))),
            Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(TryLockError::WouldBlock) => {
                let text = format!(
                    "another process has been renewing the token in {} for {} s: try again, or end that process",
                    path.display(),
                    LOCK_WAIT.as_secs()
                );
                return Err(Error::new(ErrorKind::Conflict, text).with_retryable(true));
            }
            Err(TryLockError::Error(_)) => return Ok(Lock(None)),
        }
    }
}

/// A file beside the token file that will take its place.
pub(super) struct Replacement {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    done: bool,
}

impl Replacement {
    /// Opens the file, so that a folder that refuses it is found out early.
    pub(super) fn prepare(target: &Path) -> Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = target.with_file_name(format!(".{name}.{}.tmp", uuid::Uuid::new_v4().simple()));
        let file = private().write(true).create_new(true).open(&temporary).map_err(|e| failed(target, e))?;
        Ok(Self { file, temporary, target: target.to_owned(), done: false })
    }

    /// Writes `tokens` and puts the file in place.
    pub(super) fn finish(mut self, tokens: &Map<String, Value>) -> Result<()> {
        let write = |replacement: &mut Self| -> std::io::Result<()> {
            serde_json::to_writer_pretty(&mut replacement.file, tokens)?;
            replacement.file.write_all(b"\n")?;
            replacement.file.sync_all()?;
            std::fs::rename(&replacement.temporary, &replacement.target)
        };
        write(&mut self).map_err(|e| failed(&self.target, e))?;
        self.done = true;
        // The rename itself must survive a power cut too; where folders cannot be synced it is done all the same.
        let _ = self.target.parent().map(|folder| File::open(folder).and_then(|folder| folder.sync_all()));
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn failed(target: &Path, e: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Storage,
        format!(
            "a renewed token cannot be stored at {}: make its folder writable, or copy the file elsewhere",
            target.display()
        ),
    )
    .with_source(e)
}

fn private() -> OpenOptions {
    #[allow(unused_mut)]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
