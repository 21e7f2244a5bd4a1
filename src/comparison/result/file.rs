//! The result file: a new name each time, complete or not there, and never in place of an older one.

use std::fs::OpenOptions;
use std::io::{BufWriter, ErrorKind as IoKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};

/// Writes a document; asked again where the first place refused it.
pub(in crate::comparison) type Writer<'a> = &'a dyn Fn(&mut dyn Write) -> std::io::Result<()>;

/// A folder that was seen to take files, before hours of jobs depend on it.
#[derive(Debug)]
pub(in crate::comparison) struct ResultFile {
    folder: PathBuf,
}

impl ResultFile {
    /// Creates the folder where needed and tries it.
    pub(in crate::comparison) fn prepare(folder: &Path) -> Result<Self> {
        let attempt = || -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            let trial = temporary(folder);
            OpenOptions::new().write(true).create_new(true).open(&trial)?;
            std::fs::remove_file(&trial)
        };
        attempt().map_err(|e| refused(folder, e))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes `document`; where the folder refuses it by now, into the system's temporary folder, saying so in the second
    /// value.
    pub(in crate::comparison) fn write(
        &self,
        began: DateTime<Utc>,
        document: Writer<'_>,
    ) -> Result<(PathBuf, Option<String>)> {
        match write_new(&self.folder, began, document) {
            Ok(path) => Ok((path, None)),
            Err(e) => {
                let elsewhere = std::env::temp_dir();
                let path = write_new(&elsewhere, began, document).map_err(|_| refused(&self.folder, e))?;
                let text = format!(
                    "{} did not take the result file any more: it is {}",
                    self.folder.display(),
                    path.display()
                );
                Ok((path, Some(text)))
            }
        }
    }
}

fn write_new(folder: &Path, began: DateTime<Utc>, document: Writer<'_>) -> std::io::Result<PathBuf> {
    let stem = format!("pooled_jobs_comparison_{}", began.format("%Y%m%d_%H%M%S"));
    let trial = temporary(folder);
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(&trial)?);
        document(&mut file)?;
        file.write_all(b"\n")?;
        file.into_inner()?.sync_all()
    };
    let done = write().and_then(|()| {
        for suffix in 1..10_000 {
            let name = if suffix == 1 { format!("{stem}.json") } else { format!("{stem}_{suffix}.json") };
            let path = folder.join(name);
            // The name is claimed first: a rename alone would replace the result of a run of the same second.
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => return std::fs::rename(&trial, &path).map(|()| path),
                Err(e) if e.kind() == IoKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(std::io::Error::new(IoKind::AlreadyExists, "ten thousand results of one second"))
    });
    if done.is_err() {
        let _ = std::fs::remove_file(&trial);
    }
    done
}

fn temporary(folder: &Path) -> PathBuf {
    folder.join(format!(".jobrota-{}.tmp", uuid::Uuid::new_v4().simple()))
}

fn refused(folder: &Path, e: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Storage,
        format!("the folder {} takes no result file: name another one (results_dir)", folder.display()),
    )
    .with_source(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_never_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let results = ResultFile::prepare(&folder.path().join("a/b")).unwrap();
        let began = "2025-09-10T04:46:22Z".parse().unwrap();
        let names: Vec<String> = (0..3)
            .map(|run| {
                let (path, moved) = results.write(began, &|sink| write!(sink, "{{\"run\": {run}}}")).unwrap();
                assert_eq!(moved, None);
                assert_eq!(
                    serde_json::from_slice::<serde_json::Value>(&std::fs::read(&path).unwrap()).unwrap()["run"],
                    run
                );
                path.file_name().unwrap().to_string_lossy().into_owned()
            })
            .collect();
        let stem = "pooled_jobs_comparison_20250910_044622";
        assert_eq!(names, [format!("{stem}.json"), format!("{stem}_2.json"), format!("{stem}_3.json")]);
        assert_eq!(std::fs::read_dir(folder.path().join("a/b")).unwrap().count(), 3);
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_found_out_first() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = ResultFile::prepare(file.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert!(error.to_string().contains(&file.path().display().to_string()));
    }
}
