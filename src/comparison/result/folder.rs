//! The folder of result files. A file has a new name, is complete, and never replaces an older one.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::comparison::files;
use crate::error::{Error, ErrorKind, Result};

/// Writes a document. It is called again if the first folder fails.
pub(in crate::comparison) type DocumentWriter<'a> = &'a dyn Fn(&mut dyn Write) -> std::io::Result<()>;

/// A folder that was tested before hours of jobs depend on it.
#[derive(Debug)]
pub(in crate::comparison) struct ResultFolder {
    folder: PathBuf,
}

impl ResultFolder {
    /// Creates the folder if needed, and tests that it accepts files.
    pub(in crate::comparison) fn prepare(folder: &Path) -> Result<Self> {
        let attempt = || -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            let trial = files::temporary(folder);
            File::create_new(&trial)?;
            std::fs::remove_file(&trial)
        };
        attempt().map_err(|e| write_error(folder, e))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes `document`. If the folder refuses it, writes it to the temporary folder of the system, and says so in the
    /// second value.
    pub(in crate::comparison) fn write(
        &self,
        began: DateTime<Utc>,
        document: DocumentWriter<'_>,
    ) -> Result<(PathBuf, Option<String>)> {
        let refused = match write_new(&self.folder, began, document) {
            Ok(path) => return Ok((path, None)),
            Err(e) => e,
        };
        let path = write_new(&std::env::temp_dir(), began, document).map_err(|_| write_error(&self.folder, refused))?;
        let text = format!("{} refused the result file: it is {}", self.folder.display(), path.display());
        Ok((path, Some(text)))
    }
}

fn write_new(folder: &Path, began: DateTime<Utc>, document: DocumentWriter<'_>) -> std::io::Result<PathBuf> {
    let trial = files::temporary(folder);
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create_new(&trial)?);
        document(&mut file)?;
        file.write_all(b"\n")?;
        file.into_inner()?.sync_all()
    };
    let done = write().and_then(|()| {
        files::create_numbered(|suffix| {
            let path = folder.join(format!("{}{suffix}.json", files::stem(began)));
            // Claims the name first: a rename alone would replace the result of a run of the same second.
            File::create_new(&path)?;
            std::fs::rename(&trial, &path).map(|()| path)
        })
    });
    if done.is_err() {
        let _ = std::fs::remove_file(&trial);
    }
    done
}

fn write_error(folder: &Path, e: std::io::Error) -> Error {
    let text = format!("the folder {} refuses result files: name another one (results_dir)", folder.display());
    Error::new(ErrorKind::Storage, text).with_source(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_never_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let results = ResultFolder::prepare(&folder.path().join("a/b")).unwrap();
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
    fn a_file_in_place_of_the_folder_is_refused_first() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = ResultFolder::prepare(file.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert!(error.to_string().contains(&file.path().display().to_string()));
    }
}
