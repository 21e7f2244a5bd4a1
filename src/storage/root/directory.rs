//! Roots that are directories of this machine.
//!
//! The path is made absolute, and its symbolic links are resolved.

use std::path::{Component, Path, PathBuf};

use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

/// Mounts whose drivers do not create files atomically (no `link(2)`): two writers would overwrite each other's commits.
const MOUNTS_WITHOUT_ATOMIC_CREATE: [&str; 3] = ["dbfs", "Volumes", "Workspace"];

/// Resolves the directory of the `file:` URI `root`.
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
    resolve(&path)
}

/// Resolves the directory of the path `root`. `~` and `~/…` are in the home directory.
pub(super) fn from_path(root: &str) -> Result<PathBuf> {
    let Some(rest) = root.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        if is_table_name(root) && !Path::new(root).exists() {
            return Err(Error::invalid(format!(
                "'{root}' is the name of a table, where a directory or a URI is expected; for a new directory of this name give \
                 ./{root}"
            )));
        }
        return resolve(Path::new(root));
    };
    let home = runtime::home_directory().ok_or_else(|| {
        Error::invalid(format!(
            "'{root}' is in the home directory, and there is none: set HOME, or give the whole path"
        ))
    })?;
    resolve(&home.join(rest.trim_start_matches('/')))
}

/// Whether `root` looks like `schema.table` or `catalog.schema.table`.
fn is_table_name(root: &str) -> bool {
    let is_word = |part: &str| {
        !part.starts_with(|c: char| c.is_ascii_digit())
            && !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let parts: Vec<&str> = root.split('.').collect();
    (2..=3).contains(&parts.len()) && parts.into_iter().all(is_word)
}

fn resolve(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    let absolute = std::path::absolute(path).map_err(|e| {
        Error::invalid(format!(
            "the storage root '{shown}' is relative to the working directory, which cannot be found (was it deleted?): \
             change to another directory, or give the whole path"
        ))
        .with_source(e)
    })?;
    refuse_mounts(&absolute)?;
    let resolved = resolve_links(&absolute)?;
    refuse_mounts(&resolved)?;
    Ok(resolved)
}

fn refuse_mounts(path: &Path) -> Result<()> {
    let first =
        path.components().find_map(|part| if let Component::Normal(name) = part { name.to_str() } else { None });
    match first.is_some_and(|name| MOUNTS_WITHOUT_ATOMIC_CREATE.contains(&name)) {
        true => Err(no_atomic_create(path.display())),
        false => Ok(()),
    }
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

/// Resolves the links in the part of the path that exists, and appends the rest unchanged.
fn resolve_links(absolute: &Path) -> Result<PathBuf> {
    let root = absolute.display();
    let cannot = |e: std::io::Error| {
        Error::new(
            ErrorKind::Storage,
            format!("the storage root '{root}' cannot be accessed; check the permissions of this user"),
        )
        .with_source(e)
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
