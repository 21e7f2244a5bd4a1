//! The files of a folder: which of them are candidates, how to know one again, and reading one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use url::Url;

use crate::error::{Error, Result};

/// Endings of the files that are looked at, in any case.
const ENDINGS: [&str; 3] = ["json", "jsonl", "ndjson"];

/// A file is read whole, so that this and a few times as much for its records is the memory that an import needs.
pub(super) const MAX_FILE_BYTES: u64 = 64 << 20;

/// A file that was written so shortly before it was read may be written again within the same tick of its clock, unseen:
/// its stamp is not trusted. Seconds; clocks of file servers may be off by some.
const TOO_FRESH: i64 = 10;

/// The candidates of a folder.
#[derive(Debug)]
pub(super) struct Listing {
    /// The folder, with links in its own path resolved.
    pub(super) folder: PathBuf,
    /// In the order of their names.
    pub(super) files: Vec<PathBuf>,
    /// How many entries are no candidates, by the reason.
    pub(super) ignored: BTreeMap<&'static str, u64>,
}

/// Lists `folder`, but not the folders in it: legacy scripts move what they have processed into one.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] when it is not a local folder that can be listed.
pub(super) fn list(folder: &Path) -> Result<Listing> {
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
    let mut listing = Listing { folder, files: Vec::new(), ignored: BTreeMap::new() };
    for entry in listing.folder.read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let reason = match entry.file_type() {
            Ok(kind) if kind.is_dir() => Some("folder"),
            // A link to a file of the folder would import it twice, and one out of the folder something unforeseen.
            Ok(kind) if kind.is_symlink() => Some("symbolic link"),
            Ok(kind) if !kind.is_file() => Some("not a regular file"),
            _ if entry.file_name().as_bytes().starts_with(b".") => Some("hidden"),
            _ if !is_json(&entry.file_name()) => Some("not .json, .jsonl or .ndjson"),
            _ => None,
        };
        match reason {
            Some(reason) => *listing.ignored.entry(reason).or_default() += 1,
            None => listing.files.push(entry.path()),
        }
    }
    listing.files.sort();
    Ok(listing)
}

fn is_json(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| ENDINGS.iter().any(|ending| extension.eq_ignore_ascii_case(ending)))
}

/// What a file is known by: its absolute path as a file URL, which can hold any name.
pub(super) fn key(path: &Path) -> std::result::Result<String, String> {
    Url::from_file_path(path).map(String::from).map_err(|()| "has a path that is not absolute".to_owned())
}

/// A file's size and times: as long as they are the same, so is the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) text: String,
    /// The later one of its times, in seconds since 1970.
    changed: i64,
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            text: format!(
                "{} {}.{:09} {}.{:09}",
                file.len(),
                file.mtime(),
                file.mtime_nsec(),
                file.ctime(),
                file.ctime_nsec()
            ),
            changed: file.mtime().max(file.ctime()),
        }
    }

    /// Whether a later change would show in the stamp, if the file was read at `now`.
    pub(super) fn is_trusted(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(now).is_ok_and(|now| self.changed < now - TOO_FRESH)
    }
}

/// The file's stamp, without opening it. None: it is gone.
pub(super) fn stamp(path: &Path) -> std::result::Result<Option<Stamp>, String> {
    match path.symlink_metadata() {
        Ok(file) => Ok(Some(Stamp::of(&file))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("cannot be looked at: {e}")),
    }
}

/// The file's bytes, and its stamp from before they were read. None: it is gone.
pub(super) fn read(path: &Path) -> std::result::Result<Option<(Vec<u8>, Stamp)>, String> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Ok(None),
        _ => Err(format!("cannot be read: {e}")),
    };
    let listed = match path.symlink_metadata() {
        Ok(listed) => listed,
        Err(e) => return failed(e),
    };
    if !listed.is_file() {
        return Err("is not a regular file any more".to_owned());
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) => return failed(e),
    };
    let opened = match file.metadata() {
        Ok(opened) => opened,
        Err(e) => return failed(e),
    };
    if (opened.dev(), opened.ino()) != (listed.dev(), listed.ino()) {
        return Err("was replaced while it was opened; the next import takes it".to_owned());
    }
    let mut bytes = Vec::new();
    match file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => Err(format!(
            "has {} bytes, more than the {MAX_FILE_BYTES} that are read at once; split it into several files",
            opened.len()
        )),
        Ok(_) => Ok(Some((bytes, Stamp::of(&opened)))),
        Err(e) => failed(e),
    }
}
