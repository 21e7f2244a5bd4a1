//! The files of a folder: listing, reading, and recognizing unchanged files.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use url::Url;

use super::ImportReport;
use crate::error::Error;

/// Extensions of the files that are imported, in any case.
const ENDINGS: [&str; 3] = ["json", "jsonl", "ndjson"];

/// The maximum size of a file. An import needs a few times as much memory, because it reads files as a whole.
pub(super) const MAX_FILE_BYTES: u64 = 64 << 20;

/// Seconds. A stamp is not reliable if the file changed so shortly before it was read: a second change within the same tick
/// of the file server's clock would not show. Clocks of file servers can differ.
const MIN_STAMP_AGE: i64 = 10;

/// The files to import of `folder`, in the order of their names. Leaves its subfolders out, because legacy scripts move
/// processed files into one. Reports the folder, and how many other entries it has.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] when it is not a local folder that can be listed.
pub(super) fn list(folder: &Path, report: &mut ImportReport) -> crate::error::Result<Vec<PathBuf>> {
    if folder.as_os_str().is_empty() {
        return Err(Error::invalid("the folder to import is an empty path; give the folder that holds the JSON files"));
    }
    let shown = folder.display();
    if folder.to_str().is_some_and(|text| text.contains("://")) {
        return Err(Error::invalid(format!(
            "{shown} is a URI; JSON files are imported from a local or mounted folder, such as /dbfs/… or /Volumes/…"
        )));
    }
    let failed =
        |e| Error::invalid(format!("the folder {shown} cannot be listed; nothing was imported")).with_source(e);
    let folder = folder.canonicalize().map_err(failed)?;
    if !folder.is_dir() {
        return Err(Error::invalid(format!("{shown} is not a folder; give the folder that holds the JSON files")));
    }
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let reason = match entry.file_type() {
            Ok(kind) if kind.is_dir() => Some("folder"),
            // A link can lead to a file of the same folder, which would be imported twice, or out of the folder.
            Ok(kind) if kind.is_symlink() => Some("symbolic link"),
            Ok(kind) if !kind.is_file() => Some("not a regular file"),
            _ if entry.file_name().as_bytes().starts_with(b".") => Some("hidden"),
            _ if !is_json(&entry.file_name()) => Some("not .json, .jsonl or .ndjson"),
            _ => None,
        };
        match reason {
            Some(reason) => *report.ignored.entry(reason).or_default() += 1,
            None => files.push(entry.path()),
        }
    }
    files.sort();
    report.folder = folder;
    Ok(files)
}

fn is_json(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| ENDINGS.iter().any(|ending| extension.eq_ignore_ascii_case(ending)))
}

/// The key of a file: its absolute path as a file URL, which can represent any name.
pub(super) fn key(path: &Path) -> Result<String, String> {
    Url::from_file_path(path).map(String::from).map_err(|()| "has a path that is not absolute".to_owned())
}

/// A file's size and times. While they do not change, the file does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileStamp {
    pub(super) text: String,
    /// The later of its times, in seconds since 1970.
    changed: i64,
}

impl FileStamp {
    fn of(file: &Metadata) -> Self {
        let time = |seconds: i64, nanoseconds: i64| format!("{seconds}.{nanoseconds:09}");
        let (modified, changed) = (time(file.mtime(), file.mtime_nsec()), time(file.ctime(), file.ctime_nsec()));
        Self { text: format!("{} {modified} {changed}", file.len()), changed: file.mtime().max(file.ctime()) }
    }

    /// Whether a change after `now`, when the file was read, shows in the stamp.
    pub(super) fn is_reliable(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(now).is_ok_and(|now| self.changed < now - MIN_STAMP_AGE)
    }
}

/// The result of an operation on a file; None if the file does not exist.
fn if_exists<T>(result: io::Result<T>) -> Result<Option<T>, String> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(|e| format!("cannot be read: {e}")),
    }
}

/// The file's stamp, without opening the file. None if it does not exist.
pub(super) fn stamp(path: &Path) -> Result<Option<FileStamp>, String> {
    Ok(if_exists(path.symlink_metadata())?.map(|file| FileStamp::of(&file)))
}

/// The file's bytes, and its stamp from before they were read. None if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<(Vec<u8>, FileStamp)>, String> {
    let Some(listed) = if_exists(path.symlink_metadata())? else { return Ok(None) };
    if !listed.is_file() {
        return Err("is not a regular file any more".to_owned());
    }
    let Some(file) = if_exists(File::open(path))? else { return Ok(None) };
    let Some(opened) = if_exists(file.metadata())? else { return Ok(None) };
    if (opened.dev(), opened.ino()) != (listed.dev(), listed.ino()) {
        return Err("was replaced while it was opened; the next import reads it".to_owned());
    }
    let mut bytes = Vec::new();
    let Some(_) = if_exists(file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))? else { return Ok(None) };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!(
            "has {} bytes, more than the {MAX_FILE_BYTES} that are read at once; split it into several files",
            opened.len()
        ));
    }
    Ok(Some((bytes, FileStamp::of(&opened))))
}
