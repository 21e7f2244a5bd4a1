//! The arms of a comparison: the compute context, the concurrency, and how jobs are submitted.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::{EnumString, IntoStaticStr, VariantNames};

use super::files;
use crate::error::{Error, Result};

/// How an arm submits its jobs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_mode)]
pub enum SubmissionMode {
    /// One job at a time.
    Sequential,
    /// Batches of `concurrent` jobs. The next batch starts when every job of the batch has ended.
    #[default]
    Batch,
    /// All jobs at once.
    All,
    /// A constant number in flight: the next job starts when one has ended.
    Window,
}

fn unknown_mode(text: &str) -> Error {
    Error::invalid(format!("mode {text:?} is unknown: give one of {}", SubmissionMode::VARIANTS.join(", ")))
}

/// One arm of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// The compute context that its jobs run in.
    pub context: String,
    /// How its jobs are submitted.
    #[serde(default)]
    pub mode: SubmissionMode,
    /// Jobs of a batch, or in flight. Not used by `sequential` and `all`.
    #[serde(default = "default_concurrency")]
    pub concurrent: usize,
}

fn default_concurrency() -> usize {
    5
}

impl Arm {
    /// An arm with checked parts.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for an invalid name or context, and for a concurrency of 0.
    pub fn new(name: &str, context: &str, mode: SubmissionMode, concurrent: usize) -> Result<Self> {
        let arm = Self { name: name.to_owned(), context: context.to_owned(), mode, concurrent };
        arm.check()?;
        Ok(arm)
    }

    fn check(&self) -> Result<()> {
        let name = &self.name;
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.len() > 60 || !name.chars().all(allowed) || !name.contains(char::is_alphanumeric) {
            return Err(Error::invalid(format!(
                "the arm name {name:?} is invalid: give up to 60 letters, digits, _ and -, such as async_autoscaling"
            )));
        }
        if self.context.trim().is_empty() {
            return Err(Error::invalid(format!("arm {name} has no context: name a compute context")));
        }
        if self.concurrent == 0 {
            return Err(Error::invalid(format!("arm {name}: concurrent is 0: give at least 1")));
        }
        Ok(())
    }

    /// The most jobs in flight, of `jobs` in all.
    pub fn in_flight(&self, jobs: usize) -> usize {
        match self.mode {
            SubmissionMode::Sequential => 1,
            SubmissionMode::Batch | SubmissionMode::Window => self.concurrent.min(jobs.max(1)),
            SubmissionMode::All => jobs,
        }
    }

    /// The part of job names that shows the arm: at most ten letters and digits. Other arms can have the same.
    pub fn short(&self) -> String {
        // The names that every comparison has, in the short form that users know.
        match self.name.as_str() {
            "sequential" => "seq".to_owned(),
            "async_regular" => "asyncreg".to_owned(),
            "async_autoscaling" => "asyncauto".to_owned(),
            name => name.chars().filter(char::is_ascii_alphanumeric).take(10).collect::<String>().to_ascii_lowercase(),
        }
    }

    /// The mode and the concurrency in words.
    pub fn describe(&self) -> String {
        match self.mode {
            SubmissionMode::Sequential => "one job at a time".to_owned(),
            SubmissionMode::Batch => format!("batches of {}", self.concurrent),
            SubmissionMode::All => "all at once".to_owned(),
            SubmissionMode::Window => format!("{} in flight", self.concurrent),
        }
    }
}

/// The arms of a comparison, as the caller chose them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Arms {
    /// `sequential` in one context and `async` in the other. Parallelism and context cannot be told apart.
    #[default]
    Pair,
    /// `sequential` and `async_regular` in one context, `async_autoscaling` in the other.
    ThreeWay,
    /// These.
    Given(Vec<Arm>),
}

/// Checks that a list of arms can be compared: at least one arm, each with a different name.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] with the arm.
pub fn check(arms: &[Arm]) -> Result<()> {
    if arms.is_empty() {
        return Err(Error::invalid("there are no arms: give at least one, or leave arms out for the two default arms"));
    }
    for (at, arm) in arms.iter().enumerate() {
        arm.check()?;
        if arms[..at].iter().any(|other| other.name.eq_ignore_ascii_case(&arm.name)) {
            return Err(Error::invalid(format!("two arms are named {}: give each a different name", arm.name)));
        }
    }
    Ok(())
}

/// Reads arms from a file: a list of `{"name", "context", "mode", "concurrent"}`, or an object with this list as `arms`.
/// The extension says whether it is JSON, YAML or TOML.
///
/// # Errors
/// [`crate::ErrorKind::NotFound`] or [`crate::ErrorKind::InvalidInput`] with the file and the position. Not retryable.
pub fn load(path: &Path) -> Result<Vec<Arm>> {
    let file = path.display();
    let text = files::read_text(
        path,
        format!("the arms cannot be read from {file}: give \"three_way\", or name a file that exists (arms)"),
    )?;
    let refused = |e: Box<dyn std::error::Error + Send + Sync>| {
        let names = SubmissionMode::VARIANTS.join(", ");
        Error::invalid(format!(
            "{file} is not a list of arms: an arm has a name, a context, and optionally mode ({names}) and concurrent"
        ))
        .with_source(e)
    };
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let value: Value = match extension.to_ascii_lowercase().as_str() {
        "yaml" | "yml" => serde_saphyr::from_str(&text).map_err(|e| refused(e.into()))?,
        "toml" => toml::from_str(&text).map_err(|e| refused(e.into()))?,
        _ => serde_json::from_str(&text).map_err(|e| refused(e.into()))?,
    };
    let arms = Vec::<Arm>::deserialize(value.get("arms").unwrap_or(&value)).map_err(|e| refused(e.into()))?;
    check(&arms)?;
    Ok(arms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn file(extension: &str, text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(extension).tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn arms_come_from_json_yaml_and_toml() {
        let expected = vec![
            Arm::new("fixed", "A", SubmissionMode::Window, 8).unwrap(),
            Arm::new("scaling", "B", SubmissionMode::Batch, 5).unwrap(),
        ];
        for (extension, text) in [
            (
                ".json",
                r#"[{"name":"fixed","context":"A","mode":"window","concurrent":8},{"name":"scaling","context":"B"}]"#,
            ),
            (
                ".yaml",
                "arms:\n- {name: fixed, context: A, mode: window, concurrent: 8}\n- name: scaling\n  context: B\n",
            ),
            (
                ".toml",
                "[[arms]]\nname='fixed'\ncontext='A'\nmode='window'\nconcurrent=8\n[[arms]]\nname='scaling'\ncontext='B'\n",
            ),
        ] {
            assert_eq!(load(file(extension, text).path()).unwrap(), expected, "{extension}");
        }
    }

    #[test]
    fn arms_that_cannot_be_are_refused() {
        for text in [
            "[]",
            "{}",
            r#"[{"name":"a b","context":"A"}]"#,
            r#"[{"name":"a","context":" "}]"#,
            r#"[{"name":"a","context":"A","concurrent":0}]"#,
            r#"[{"name":"a","context":"A","mode":"wild"}]"#,
            r#"[{"name":"a","context":"A","contxt":1}]"#,
            r#"[{"name":"a","context":"A"},{"name":"A","context":"B"}]"#,
        ] {
            assert_eq!(load(file(".json", text).path()).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
        }
        assert_eq!(load(Path::new("/nowhere/arms.json")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn in_flight_is_never_more_than_there_are_jobs() {
        let arm = |mode| Arm::new("a", "A", mode, 5).unwrap();
        assert_eq!(arm(SubmissionMode::Sequential).in_flight(9), 1);
        assert_eq!((arm(SubmissionMode::Batch).in_flight(9), arm(SubmissionMode::Window).in_flight(3)), (5, 3));
        assert_eq!((arm(SubmissionMode::All).in_flight(9), arm(SubmissionMode::Batch).in_flight(0)), (9, 1));
    }
}
