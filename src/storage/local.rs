//! Roots that are directories of this machine.

use std::path::{Component, Path, PathBuf};

use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// Mounts that look like directories, but whose drivers create files non-atomically (no `link(2)`): two writers would
/// overwrite each other's commits there.
const MOUNTS_WITHOUT_ATOMIC_CREATE: [&str; 3] = ["dbfs", "Volumes", "Workspace"];

/// The absolute directory that the `file:` URI `root` names.
pub(super) fn from_uri(root: &str) -> Result<PathBuf> {
    let path = Url::parse(root)
        .ok()
        .filter(|url| url.query().is_none() && url.fragment().is_none())
        .and_then(|url| url.to_file_path().ok())
        .ok_or_else(|| {
            Error::invalid(
                "the file: root is not a URI of a local directory; write it as file:///path/to/directory, with %3F for \
                 '?' and %23 for '#'",
            )
        })?;
    resolved(&path)
}

/// The absolute directory that the path `root` names, with symbolic links resolved as far as it exists. `~` and what
/// begins with `~/` is in the home directory.
pub(super) fn directory(root: &str) -> Result<PathBuf> {
    let home = match root.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Some(rest.trim_start_matches('/')),
        _ => None,
    };
    match home {
        None => resolved(Path::new(root)),
        Some(rest) => {
            let home = std::env::home_dir().ok_or_else(|| {
                Error::invalid(format!(
                    "'{root}' is in the home directory, and there is none: set HOME, or give the whole path"
                ))
            })?;
            resolved(&home.join(rest))
        }
    }
}

fn resolved(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    let absolute = std::path::absolute(path).map_err(|e| {
        Error::invalid(format!(
            "the storage root '{shown}' is relative to the working directory, which cannot be found (was it deleted?): \
             change into another directory, or give the whole path"
        ))
        .with_source(e)
    })?;
    refuse_mounts(&absolute)?;
    let resolved = resolve(&absolute)?;
    refuse_mounts(&resolved)?;
    Ok(resolved)
}

fn refuse_mounts(path: &Path) -> Result<()> {
    let first =
        path.components().find_map(|part| if let Component::Normal(name) = part { name.to_str() } else { None });
    if first.is_some_and(|name| MOUNTS_WITHOUT_ATOMIC_CREATE.contains(&name)) {
        return Err(no_atomic_create(path.display()));
    }
    Ok(())
}

pub(super) fn no_atomic_create(root: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "'{root}' is a Databricks mount, where files cannot be created atomically, so that concurrent writers would lose rows; \
             use the storage account itself, abfss://container@account.dfs.core.windows.net/path, or a directory on a local disk"
        ),
    )
}

/// Resolves links of the part that exists; what follows (and is created later) is appended as it is.
fn resolve(absolute: &Path) -> Result<PathBuf> {
    let root = absolute.display();
    let cannot = |e: std::io::Error| {
        Error::new(ErrorKind::Storage, format!("the storage root '{root}' cannot be looked at")).with_source(e)
    };
    for ancestor in absolute.ancestors() {
        match std::fs::metadata(ancestor) {
            Ok(found) if found.is_dir() => {
                let mut resolved = std::fs::canonicalize(ancestor).map_err(cannot)?;
                for part in absolute.strip_prefix(ancestor).unwrap_or(Path::new("")).components() {
                    match part {
                        Component::ParentDir => _ = resolved.pop(),
                        part => resolved.push(part),
                    }
                }
                return Ok(resolved);
            }
            Ok(_) => {
                let file = ancestor.display();
                return Err(Error::invalid(format!(
                    "the storage root '{root}' needs '{file}' to be a directory, but it is a file; give a directory"
                )));
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(cannot(e)),
        }
    }
    Err(Error::invalid(format!("the storage root '{root}' cannot be resolved")))
}
