//! The token file: reads it, replaces it in one rename with mode 0600, and locks it while a token is renewed.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind as IoKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use crate::error::{Error, ErrorKind, Result};

/// How long another process may hold the lock. A renewal takes one HTTP call, or a few while SASLogon is not available.
const LOCK_WAIT: Duration = Duration::from_secs(120);

/// The JSON object in the token file.
pub(super) fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let (kind, why) = match e.kind() {
            IoKind::NotFound => (
                ErrorKind::NotFound,
                "does not exist: log in with jobrota viya login, which writes it, or name another file (tokens)",
            ),
            IoKind::InvalidData => (ErrorKind::InvalidInput, "is not text: it must be the JSON of a SASLogon response"),
            _ => (ErrorKind::Storage, "cannot be read: check its permissions"),
        };
        Error::new(kind, format!("the token file {} {why}", path.display())).with_source(e)
    })?;
    // Editors on Windows write a byte order mark.
    serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| {
        // The parser's text may quote the file, and with it a token.
        Error::invalid(format!(
            "the token file {} is not the JSON object of a SASLogon response (line {}, column {})",
            path.display(),
            e.line(),
            e.column()
        ))
    })
}

/// `path` without links, so that a rotation replaces the file and not a link to it.
pub(super) fn resolve(path: &Path) -> PathBuf {
    let of_folder = || Some(std::fs::canonicalize(folder_of(path)).ok()?.join(path.file_name()?));
    let found = std::fs::canonicalize(path).ok().or_else(of_folder);
    found.or_else(|| std::path::absolute(path).ok()).unwrap_or_else(|| path.to_owned())
}

/// Checks that renewed tokens may be stored at `path`.
///
/// # Errors
/// [`ErrorKind::Unsupported`] on Databricks volumes and workspace files. Their rename is not atomic, and a lost rotation
/// locks the user out.
pub(super) fn check_rotation(path: &Path) -> Result<()> {
    if ["/Volumes", "/Workspace", "/dbfs"].iter().any(|root| path.starts_with(root)) {
        let text = format!(
            "tokens are not stored in {}, because a renewed one is not safe there (a lost rotation would lock you out): name \
             a file in a local folder such as /local_disk0 or your home, or use a secret scope (Credentials.tokens)",
            path.display()
        );
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    Ok(())
}

/// What is locked while a token is renewed. Dropping it unlocks it, also if a child process that was forked meanwhile has it open.
pub(super) struct TokenLocks(pub(super) Vec<File>);

impl Drop for TokenLocks {
    fn drop(&mut self) {
        self.0.iter().for_each(|file| drop(file.unlock()));
    }
}

/// Opens what is locked: the file beside `path`, which every user of it may open. Where some cannot, also the folder, which they lock. On a
/// local disk, opening it for reading is enough.
///
/// # Errors
/// Neither can be opened.
fn open_locks(path: &Path) -> std::io::Result<TokenLocks> {
    let folder = || File::open(folder_of(path));
    let (file, is_new) = match open_lock_file(path) {
        Ok(opened) => opened,
        Err(error) => return folder().map(|folder| TokenLocks(vec![folder])).map_err(|_| error),
    };
    let is_open_to_all = file.metadata().is_ok_and(|found| found.permissions().mode() & 0o004 != 0);
    let folder = if is_open_to_all && !is_new { None } else { folder().ok() };
    Ok(TokenLocks([file].into_iter().chain(folder).collect()))
}

/// The lock file, and whether this call created it: until it got its mode, other users could not open it.
fn open_lock_file(path: &Path) -> std::io::Result<(File, bool)> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    // A link could lead to a file of another user, and a pipe would be waited for.
    let open = |options: &mut OpenOptions| options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&beside);
    if let Ok(created) = open(OpenOptions::new().create_new(true).write(true)) {
        // A run as root must not leave what the owner of the tokens cannot open. Only the owner of the file may do this.
        let _ = created.set_permissions(Permissions::from_mode(0o644));
        let _ = std::fs::metadata(path).and_then(|tokens| fchown(&created, Some(tokens.uid()), Some(tokens.gid())));
        return Ok((created, true));
    }
    let existing = open(OpenOptions::new().write(true)).or_else(|_| open(OpenOptions::new().read(true)));
    existing.map(|file| (file, false))
}

/// Waits for the locks of the tokens at `path`. The operating system releases them when the process ends. On a file system without locks, the token is renewed without one.
///
/// # Errors
/// [`ErrorKind::Conflict`], retryable, when another process holds it for longer than a renewal takes, and
/// [`ErrorKind::Storage`] when there is nothing that can be locked. Two renewals at once could spend the same refresh token.
pub(super) async fn lock(path: &Path) -> Result<TokenLocks> {
    let locks = open_locks(path).map_err(|e| {
        let text = format!(
            "the token in {} cannot be renewed, because {}.lock cannot be opened: make it readable for this user, or delete it",
            path.display(),
            path.display()
        );
        Error::new(ErrorKind::Storage, text).with_source(e)
    })?;
    let deadline = tokio::time::Instant::now() + LOCK_WAIT;
    // All processes lock the file first.
    for file in &locks.0 {
        while let Err(TryLockError::WouldBlock) = file.try_lock() {
            if tokio::time::Instant::now() >= deadline {
                let text = format!(
                    "another process has been renewing the token in {} for {} s: try again, or end that process",
                    path.display(),
                    LOCK_WAIT.as_secs()
                );
                return Err(Error::new(ErrorKind::Conflict, text).with_retryable(true));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(locks)
}

/// A file beside the token file that will replace it, with mode 0600. It is deleted if it is not needed.
pub(super) struct Replacement {
    file: NamedTempFile,
    target: PathBuf,
}

impl Replacement {
    /// Opens the file, so that a folder that cannot be written to fails early.
    pub(super) fn prepare(target: &Path) -> Result<Self> {
        let prefix = format!(".{}.", target.file_name().unwrap_or_default().to_string_lossy());
        let file = tempfile::Builder::new().prefix(&prefix).suffix(".tmp").tempfile_in(folder_of(target));
        let file = file.map_err(|e| not_stored(target, NOT_WRITABLE, e))?;
        keep_owner(target, file.as_file())?;
        Ok(Self { file, target: target.to_owned() })
    }

    /// Writes `tokens` and puts the file in place.
    pub(super) fn finish(self, tokens: &Map<String, Value>) -> Result<()> {
        let Self { mut file, target } = self;
        let written = serde_json::to_writer_pretty(&mut file, tokens).map_err(std::io::Error::from);
        let written = written.and_then(|()| file.write_all(b"\n")).and_then(|()| file.as_file().sync_all());
        let replaced = written.and_then(|()| file.persist(&target).map_err(|e| e.error));
        replaced.map_err(|e| not_stored(&target, NOT_WRITABLE, e))?;
        // Makes the rename durable. Folders that cannot be synced are no error.
        let _ = target.parent().map(|folder| File::open(folder).and_then(|folder| folder.sync_all()));
        Ok(())
    }
}

/// Gives `file`, which replaces `target`, the owner of `target`. Only its owner can read a file of mode 0600: a run as root must
/// not lock the user out.
fn keep_owner(target: &Path, file: &File) -> Result<()> {
    let (Ok(old), Ok(new)) = (std::fs::metadata(target), file.metadata()) else { return Ok(()) };
    if old.uid() == new.uid() {
        return Ok(());
    }
    fchown(file, Some(old.uid()), Some(old.gid())).map_err(|e| {
        let why = format!(
            ", because the file belongs to user {} and could not be read by that user any more: run this as its owner, or copy \
             the file",
            old.uid()
        );
        not_stored(target, &why, e)
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

const NOT_WRITABLE: &str = ": make its folder writable, or copy the file elsewhere";

fn not_stored(target: &Path, why: &str, e: std::io::Error) -> Error {
    let text = format!("a renewed token cannot be stored at {}{why}", target.display());
    Error::new(ErrorKind::Storage, text).with_source(e)
}
