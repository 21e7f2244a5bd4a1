//! Where the lines of a journal are kept: one file that grows, or whole files in a folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, ErrorKind as IoKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// How a journal is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// One file where the folder can append to files, else whole files.
    #[default]
    Auto,
    /// One file.
    Appended,
    /// Whole files.
    Segments,
}

#[derive(Debug)]
pub(super) enum Store {
    /// The file is locked while the run goes on.
    Appended(File),
    Segments {
        folder: PathBuf,
        next: u64,
    },
}

impl Store {
    pub(super) fn create(folder: &Path, stem: &str, kind: Kind) -> std::io::Result<(PathBuf, Self)> {
        let segments = match kind {
            Kind::Appended => false,
            Kind::Segments => true,
            Kind::Auto => !can_append(folder),
        };
        for suffix in 1..10_000 {
            let stem = if suffix == 1 { stem.to_owned() } else { format!("{stem}_{suffix}") };
            let made = if segments {
                let path = folder.join(format!("{stem}.journal"));
                std::fs::create_dir(&path).map(|()| (path.clone(), Self::Segments { folder: path, next: 1 }))
            } else {
                let path = folder.join(format!("{stem}.journal.jsonl"));
                let file = OpenOptions::new().append(true).create_new(true).open(&path);
                file.and_then(|file| {
                    file.try_lock().or_else(|e| match e {
                        // A file system without locks: nobody else knows this new file.
                        TryLockError::Error(_) => Ok(()),
                        TryLockError::WouldBlock => Err(std::io::Error::from(IoKind::ResourceBusy)),
                    })?;
                    Ok((path, Self::Appended(file)))
                })
            };
            match made {
                Err(e) if e.kind() == IoKind::AlreadyExists => {}
                made => return made,
            }
        }
        Err(IoKind::AlreadyExists.into())
    }

    /// The line that a journal begins with.
    pub(super) fn first_line(path: &Path) -> Result<String> {
        let unread = |e| unread(path, e);
        let first =
            if path.is_dir() { segments(path).map_err(unread)?.into_iter().next() } else { Some(path.to_owned()) };
        let first = first.ok_or_else(|| unread(IoKind::NotFound.into()))?;
        let mut line = String::new();
        BufReader::new(File::open(first).map_err(unread)?).read_line(&mut line).map_err(unread)?;
        Ok(line)
    }

    pub(super) fn reopen(path: &Path) -> Result<(String, Self)> {
        let unread = |e| unread(path, e);
        if path.is_dir() {
            let names = segments(path).map_err(unread)?;
            let mut text = String::new();
            for name in &names {
                text.push_str(&String::from_utf8_lossy(&std::fs::read(name).map_err(unread)?));
                // A file that was cut off must not swallow the first line of the next.
                if !text.ends_with('\n') {
                    text.push('\n');
                }
            }
            let next = names.last().and_then(|name| number(name)).unwrap_or(0) + 1;
            return Ok((text, Self::Segments { folder: path.to_owned(), next }));
        }
        let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(unread)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("another process works with the journal {}: wait for it, or end it first", path.display()),
            ));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unread)?;
        // Whoever was killed while writing left half a line: what follows begins on a line of its own.
        if bytes.last().is_some_and(|byte| *byte != b'\n') {
            file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(b"\n")).map_err(unread)?;
        }
        Ok((String::from_utf8_lossy(&bytes).into_owned(), Self::Appended(file)))
    }

    /// Writes lines; what is to be written meanwhile queues up.
    pub(super) async fn write(&mut self, lines: &str) -> std::io::Result<()> {
        match self {
            // Into the system's cache, which outlives this process: a few microseconds.
            Self::Appended(file) => file.write_all(lines.as_bytes()),
            Self::Segments { folder, next } => {
                let (path, lines) = (folder.join(format!("{next:08}.jsonl")), lines.to_owned());
                *next += 1;
                let write = move || -> std::io::Result<()> {
                    // Another process that went on with the same run would have made this file.
                    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
                    file.write_all(lines.as_bytes())?;
                    file.sync_all()
                };
                tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other)?
            }
        }
    }
}

fn unread(path: &Path, e: std::io::Error) -> Error {
    let kind = if e.kind() == IoKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Storage };
    let text = format!(
        "the journal {} cannot be read: name the *.journal.jsonl file, or the *.journal folder, of the interrupted run",
        path.display()
    );
    Error::new(kind, text).with_source(e)
}

/// The files of a folder of whole files, in their order.
fn segments(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    names.retain(|name| number(name).is_some());
    names.sort_by_key(|name| number(name));
    Ok(names)
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".jsonl")?.parse().ok()
}

/// Whether files of the folder can be appended to. Databricks: volumes and workspace files cannot, and some fail only when
/// the file is closed.
fn can_append(folder: &Path) -> bool {
    if ["/Volumes", "/Workspace", "/dbfs"].iter().any(|root| folder.starts_with(root)) {
        return false;
    }
    let trial = folder.join(format!(".jobrota-{}.tmp", uuid::Uuid::new_v4().simple()));
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
