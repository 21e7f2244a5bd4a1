//! The arguments of `sendevent` and `autostatus`, on whichever machine they run.

use std::ffi::OsStr;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

use super::Delivery;
use crate::autosys::event::{Event, JobName, Mapping};
use crate::error::{Error, Result};

/// The file of `program`: a path, or a name that is looked up in `path`, the value of PATH.
///
/// # Errors
/// A file that this user may not run, or none when there is no such file.
pub(crate) fn find_program(program: &Path, path: Option<&OsStr>) -> Result<PathBuf, Option<PathBuf>> {
    let is_path = program.components().count() > 1 || program.is_absolute();
    let files: Vec<PathBuf> = match path {
        _ if is_path => vec![program.to_owned()],
        Some(path) => std::env::split_paths(path).map(|directory| directory.join(program)).collect(),
        None => Vec::new(),
    };
    let files: Vec<PathBuf> = files.into_iter().filter(|file| file.is_file()).collect();
    let can_run = |file: &&PathBuf| rustix::fs::access(*file, rustix::fs::Access::EXEC_OK).is_ok();
    files.iter().find(can_run).cloned().ok_or_else(|| files.first().cloned())
}

/// Why a program could not be started, and what to do.
pub(super) fn not_started(program: &Path, error: &std::io::Error) -> String {
    let program = program.display();
    match error.kind() {
        IoErrorKind::NotFound => {
            format!("program {program} was not found: install the AutoSys client, put it in PATH or give its path")
        }
        IoErrorKind::PermissionDenied => format!("program {program} cannot be run: give this user execute permission"),
        _ => format!("program {program} could not be started: {error}"),
    }
}

/// The longest comment that `sendevent -C` takes, in characters (CA Workload Automation AE, command reference).
const MAX_COMMENT: usize = 255;

/// The arguments of `sendevent` for one delivery, or why it cannot be sent.
pub(super) fn arguments(mapping: &Mapping, comment: Option<&str>, delivery: &Delivery) -> Result<Vec<String>, String> {
    let job = job_argument(&delivery.job_id, "sendevent", "; not sent")?;
    let event = mapping.event(&delivery.status).map_err(|e| e.to_string())?;
    let mut arguments = vec!["-E".to_owned(), event.name().to_owned()];
    if let Event::ChangeStatus(status) = event {
        arguments.extend(["-s".to_owned(), status.clone()]);
    }
    arguments.extend(["-J".to_owned(), job]);
    if let Some(comment) = comment {
        arguments.extend(["-C".to_owned(), comment_text(comment, &delivery.file_name)]);
    }
    Ok(arguments)
}

/// The arguments of `autostatus` for a job, or why it cannot be asked for.
pub(super) fn status_arguments(job_id: &str) -> Result<Vec<String>, String> {
    Ok(vec!["-J".to_owned(), job_argument(job_id, "autostatus", "")?])
}

/// A job name as an argument. AutoSys allows names that start with `-`, but its option parser may not.
fn job_argument(job_id: &str, program: &str, result: &str) -> Result<String, String> {
    let job = JobName::parse(job_id).map_err(|e| e.to_string())?;
    match job.as_str().starts_with('-') {
        true => Err(format!("job name {job} starts with '-', which {program} could take for an option{result}")),
        false => Ok(job.as_str().to_owned()),
    }
}

/// `text` as one word in which the shell interprets nothing.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Checks that a comment cannot be read as an option.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for one that does not start with a letter or digit.
pub(super) fn check_comment(comment: Option<&str>) -> Result<()> {
    match comment {
        Some(comment) if !comment.starts_with(|c: char| c.is_ascii_alphanumeric()) => Err(Error::invalid(format!(
            "the comment {comment:?} for sendevent must start with a letter or digit, so that it is not read as an option"
        ))),
        _ => Ok(()),
    }
}

/// The comment for a file: `{file_name}` replaced, control characters as spaces, cut where `sendevent` would refuse it.
pub(super) fn comment_text(template: &str, file_name: &str) -> String {
    let text = template.replace("{file_name}", file_name);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_COMMENT).collect()
}
