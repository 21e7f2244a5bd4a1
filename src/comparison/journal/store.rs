//! The storage of a journal: one file that grows, or a folder of files that are written once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, ErrorKind as IoKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::comparison::files;
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) enum JournalStore {
    /// Locked while the run continues.
    File(File),
    Segments {
        folder: PathBuf,
        next: u64,
    },
}

impl JournalStore {
    pub(super) fn create(folder: &Path, stem: &str, segments: bool) -> std::io::Result<(PathBuf, Self)> {
        let segments = segments || !can_append(folder);
        files::create_numbered(|suffix| {
            if segments {
                let path = folder.join(format!("{stem}{suffix}.journal"));
                std::fs::create_dir(&path)?;
                return Ok((path.clone(), Self::Segments { folder: path, next: 1 }));
            }
            let path = folder.join(format!("{stem}{suffix}.journal.jsonl"));
            let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            // Other errors mean a file system without locks. No other process knows the new file.
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Err(IoKind::ResourceBusy.into());
            }
            Ok((path, Self::File(file)))
        })
    }

    pub(super) fn reopen(path: &Path) -> Result<(String, Self)> {
        let unread = |e| read_error(path, e);
        if path.is_dir() {
            let names = segments(path).map_err(unread)?;
            let mut text = String::new();
            for name in &names {
                text.push_str(&String::from_utf8_lossy(&std::fs::read(name).map_err(unread)?));
                // A file that was cut off must not join its last line with the first line of the next file.
                if !text.ends_with('\n') {
                    text.push('\n');
                }
            }
            let next = names.last().and_then(|name| number(name)).unwrap_or(0) + 1;
            return Ok((text, Self::Segments { folder: path.to_owned(), next }));
        }
        let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(unread)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let text = format!("another process uses the journal {}: wait for it, or end it first", path.display());
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unread)?;
        // A process that was killed can leave a partial line: new events start on a line of their own.
        if bytes.last().is_some_and(|byte| *byte != b'\n') {
            file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(b"\n")).map_err(unread)?;
        }
        Ok((String::from_utf8_lossy(&bytes).into_owned(), Self::File(file)))
    }

    /// Writes complete lines.
    pub(super) async fn write(&mut self, lines: &str) -> std::io::Result<()> {
        match self {
            // Into the page cache, which outlives this process, within microseconds.
            Self::File(file) => file.write_all(lines.as_bytes()),
            Self::Segments { folder, next } => {
                let (path, lines) = (folder.join(format!("{next:08}.jsonl")), lines.to_owned());
                *next += 1;
                let write = move || -> std::io::Result<()> {
                    // The file exists already if another process continued the same run.
                    let mut file = File::create_new(path)?;
                    file.write_all(lines.as_bytes())?;
                    file.sync_all()
                };
                tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other)?
            }
        }
    }
}

/// The first line of the journal `path`.
pub(super) fn first_line(path: &Path) -> Result<String> {
    let read = || -> std::io::Result<String> {
        let first = if path.is_dir() { segments(path)?.into_iter().next() } else { Some(path.to_owned()) };
        let mut line = String::new();
        BufReader::new(File::open(first.ok_or(IoKind::NotFound)?)?).read_line(&mut line)?;
        Ok(line)
    };
    read().map_err(|e| read_error(path, e))
}

fn read_error(path: &Path, e: std::io::Error) -> Error {
    let kind = if e.kind() == IoKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Storage };
    let text = format!(
        "the journal {} cannot be read: name the *.journal.jsonl file, or the *.journal folder, of the interrupted run",
        path.display()
    );
    Error::new(kind, text).with_source(e)
}

/// The files of a folder, in their order.
fn segments(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    names.retain(|name| number(name).is_some());
    names.sort_by_key(|name| number(name));
    Ok(names)
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".jsonl")?.parse().ok()
}

/// Whether files of the folder can be appended to. Databricks: volumes and workspace files cannot, and some report that only
/// when the file is closed.
fn can_append(folder: &Path) -> bool {
    if ["/Volumes", "/Workspace", "/dbfs"].iter().any(|root| folder.starts_with(root)) {
        return false;
    }
    let trial = files::temporary(folder);
    let attempt = || -> std::io::Result<bool> {
        for _ in 0..2 {
            OpenOptions::new().append(true).create(true).open(&trial)?.write_all(b"x")?;
        }
        Ok(std::fs::read(&trial)? == b"xx")
    };
    let done = attempt();
    let _ = std::fs::remove_file(&trial);
    done.unwrap_or(false)
}
