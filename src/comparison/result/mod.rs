//! The result of a run: its JSON document, and its file, which has a new name, is complete, and never replaces an older one.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::analysis::{Analysis, ComparisonWarning, RunData, analyse, from_table};
use super::job_configs::JobConfig;
use super::journal::JournalHeader;
use super::records::ArmRecord;
use super::{files, options};
use crate::error::{Error, ErrorKind, Result};

mod document;
mod execution;
mod load;

pub(super) use document::RunMetadata;
use document::{ResultDocument, json_error};

/// The code of the warning that the result is not in the requested folder.
const RESULT_MOVED: &str = "result_moved";

/// A comparison. All durations are seconds of the server. `metadata.speed` is how many of them pass in a real second.
#[derive(Debug, Clone)]
pub struct ComparisonResult {
    /// The result file; `None` while the result is not written.
    pub path: Option<PathBuf>,
    /// The figures and the verdict.
    pub analysis: Analysis,
    /// Where a conclusion would be unsafe.
    pub warnings: Vec<ComparisonWarning>,
    /// The jobs and arms.
    pub run: RunData,
    /// Identifies the run; `None` for a run that was recorded elsewhere.
    pub identity: Option<RunIdentity>,
    document: StoredDocument,
}

/// Identifies a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunIdentity {
    /// The id.
    pub run_id: String,
    /// When the run began.
    pub began: DateTime<Utc>,
    /// The server.
    pub base_url: String,
}

/// The JSON document. With thousands of jobs it has tens of megabytes, so a written document stays in its file.
#[derive(Debug, Clone)]
enum StoredDocument {
    File(PathBuf),
    Text(Arc<str>),
}

impl ComparisonResult {
    /// Builds the result and writes it.
    pub(super) fn build(
        metadata: RunMetadata,
        run: RunData,
        jobs: &[Arc<JobConfig>],
        records: &[ArmRecord],
        folder: &Path,
    ) -> Result<Self> {
        let (analysis, mut warnings) = analyse(&run);
        let document = ResultDocument {
            metadata: Some(&metadata),
            jobs,
            records,
            run: &run,
            analysis: &analysis,
            warnings: &warnings,
        };
        // The text is never in memory as a whole.
        let write = |sink: &mut dyn Write| Ok(serde_json::to_writer_pretty(sink, &document)?);
        let (path, moved) = write_result(folder, metadata.header.began, &write)?;
        let mut stored = StoredDocument::File(path.clone());
        if let Some(text) = moved {
            let mut extended = warnings.clone();
            extended.push(ComparisonWarning { code: RESULT_MOVED.into(), text });
            stored = StoredDocument::Text(ResultDocument { warnings: &extended, ..document }.to_json()?.into());
            warnings = extended;
        }
        let JournalHeader { run_id, began, base_url, .. } = metadata.header;
        let identity = Some(RunIdentity { run_id, began, base_url });
        Ok(Self { path: Some(path), analysis, warnings, run, identity, document: stored })
    }

    /// Analyses a run that was recorded elsewhere: [`from_table::read_run`] says what the table must have. `host_price` is
    /// the price of an hour of a host.
    ///
    /// # Errors
    /// Those of [`from_table::read_run`], and [`ErrorKind::InvalidInput`] for an invalid price.
    pub fn from_table(table: &RecordBatch, host_price: Option<f64>) -> Result<Self> {
        options::check_price(host_price)?;
        Self::of_run(RunData { host_price, ..from_table::read_run(table)? }, None)
    }

    /// Reads a result file, of this or of the first job execution client, and repeats the analysis.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::InvalidInput`] when it is not a result. Not retryable.
    pub fn load(path: &Path) -> Result<Self> {
        let (run, identity, document) = load::read(path)?;
        let mut result = Self::of_run(run, identity)?;
        result.path = Some(path.to_owned());
        if let Some(document) = document {
            result.update(document)?;
        }
        Ok(result)
    }

    fn of_run(run: RunData, identity: Option<RunIdentity>) -> Result<Self> {
        let (analysis, warnings) = analyse(&run);
        let text = ResultDocument::of_run(&run, &analysis, &warnings).to_json()?;
        Ok(Self { path: None, analysis, warnings, run, identity, document: StoredDocument::Text(text.into()) })
    }

    /// Takes over a `document` that was read, with the new analysis in place of its own.
    fn update(&mut self, mut document: Value) -> Result<()> {
        let written = document.get("warnings").and_then(Value::as_array).into_iter().flatten();
        // Only writing the file can tell that it was moved.
        let written = written.filter_map(|warning| ComparisonWarning::deserialize(warning).ok());
        let moved = written.filter(|warning| warning.code == RESULT_MOVED);
        self.warnings.extend(moved);
        if document.get("arms").is_none() {
            // A result of the first client.
            document["arms"] = self.to_value()?["arms"].take();
        }
        document["analysis"] = document::analysis(&self.analysis).map_err(json_error)?;
        document["warnings"] = serde_json::to_value(&self.warnings).map_err(json_error)?;
        let text = serde_json::to_string_pretty(&document).map_err(json_error)?;
        self.document = StoredDocument::Text(text.into());
        Ok(())
    }

    /// The JSON document.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the result file does not exist any more.
    pub fn to_value(&self) -> Result<Value> {
        self.parsed()
    }

    /// As [`ComparisonResult::to_value`], as another type. A [`serde_json::value::RawValue`] is only checked to be JSON: with
    /// thousands of jobs, values are large.
    ///
    /// # Errors
    /// Those of [`ComparisonResult::to_value`].
    pub fn parsed<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.document()?).map_err(|e| {
            Error::new(ErrorKind::Storage, "the result file was changed: it is not JSON any more").with_source(e)
        })
    }

    /// The JSON document as text.
    fn document(&self) -> Result<Arc<str>> {
        match &self.document {
            StoredDocument::Text(text) => Ok(Arc::clone(text)),
            StoredDocument::File(path) => std::fs::read_to_string(path).map(Arc::from).map_err(|e| {
                let text = format!("the result file {} cannot be read any more", path.display());
                Error::new(ErrorKind::NotFound, text).with_source(e)
            }),
        }
    }

    /// The analysis and the jobs as JSON, without the result file.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] only.
    pub fn summary(&self) -> Result<Value> {
        let document = ResultDocument::of_run(&self.run, &self.analysis, &self.warnings);
        serde_json::to_value(document).map_err(json_error)
    }

    /// Writes the JSON document to `path`, in place of an existing file.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when it cannot be written; those of [`ComparisonResult::to_value`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let document = self.document()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = files::temporary(folder);
        let saved = std::fs::write(&temporary, document.as_bytes()).and_then(|()| std::fs::rename(&temporary, path));
        saved.map_err(|e| {
            // It may not have been created.
            _ = std::fs::remove_file(&temporary);
            Error::new(ErrorKind::Storage, format!("the result cannot be written to {}", path.display())).with_source(e)
        })
    }

    /// The number of jobs of all arms that did not complete.
    pub fn failed_jobs(&self) -> usize {
        self.analysis.arms.iter().map(|arm| arm.failed).sum()
    }
}

/// Writes a document. It is called again if the first folder fails.
type DocumentWriter<'a> = &'a dyn Fn(&mut dyn Write) -> std::io::Result<()>;

/// Creates the folder if needed, and tests that it accepts files, before hours of jobs depend on it.
pub(super) fn prepare_folder(folder: &Path) -> Result<()> {
    let attempt = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let trial = files::temporary(folder);
        File::create_new(&trial)?;
        std::fs::remove_file(&trial)
    };
    attempt().map_err(|e| write_error(folder, e))
}

/// Writes `document` to `folder`. If that refuses it, writes it to the temporary folder of the system, and says so in the
/// second value.
fn write_result(
    folder: &Path,
    began: DateTime<Utc>,
    document: DocumentWriter<'_>,
) -> Result<(PathBuf, Option<String>)> {
    let refused = match write_new(folder, began, document) {
        Ok(path) => return Ok((path, None)),
        Err(e) => e,
    };
    let path = write_new(&std::env::temp_dir(), began, document).map_err(|_| write_error(folder, refused))?;
    let text = format!("{} refused the result file: it is {}", folder.display(), path.display());
    Ok((path, Some(text)))
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
mod tests;
