//! The sides of a comparison: which compute context, how many jobs at a time, and how the next one is let in.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// How an arm lets its jobs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One job at a time.
    Sequential,
    /// Batches of `concurrent` jobs; the next batch begins when the whole batch has ended.
    #[default]
    Batch,
    /// All jobs at once.
    All,
    /// A constant number in flight: the next job begins as soon as one has ended.
    Window,
}

impl Mode {
    /// Every mode, as people write it.
    pub const NAMES: [&str; 4] = ["sequential", "batch", "all", "window"];

    /// `sequential`, `batch`, `all` or `window`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Batch => "batch",
            Self::All => "all",
            Self::Window => "window",
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "sequential" => Ok(Self::Sequential),
            "batch" => Ok(Self::Batch),
            "all" => Ok(Self::All),
            "window" => Ok(Self::Window),
            _ => Err(Error::invalid(format!("mode {text:?} is unknown: it is one of {}", Self::NAMES.join(", ")))),
        }
    }
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// What people call it; a word of letters, digits, `_` and `-`.
    pub name: String,
    /// The compute context its jobs run in.
    pub context: String,
    /// How its jobs are let in.
    pub mode: Mode,
    /// Jobs of a batch, or in flight; of no meaning for `sequential` and `all`.
    pub concurrent: usize,
}

impl Arm {
    /// An arm whose parts are checked.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name or context that cannot be one, and for a concurrency of 0.
    pub fn new(name: &str, context: &str, mode: Mode, concurrent: usize) -> Result<Self> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty()
            || name.len() > 60
            || !name.chars().all(word)
            || !name.contains(|c: char| c.is_alphanumeric())
        {
            return Err(Error::invalid(format!(
                "the arm name {name:?} cannot be one: give up to 60 letters, digits, _ and -, such as async_autoscaling"
            )));
        }
        if context.trim().is_empty() {
            return Err(Error::invalid(format!("arm {name} has no context: name a compute context")));
        }
        if concurrent == 0 {
            return Err(Error::invalid(format!("arm {name}: concurrent is 0, and at least one job must be in flight")));
        }
        Ok(Self { name: name.to_owned(), context: context.to_owned(), mode, concurrent })
    }

    /// How many of `jobs` are in flight at most.
    pub fn in_flight(&self, jobs: usize) -> usize {
        match self.mode {
            Mode::Sequential => 1,
            Mode::Batch | Mode::Window => self.concurrent.min(jobs.max(1)),
            Mode::All => jobs,
        }
    }

    /// The part of job names that tells people the arm: at most ten letters and digits, which other arms may have too.
    pub fn short(&self) -> String {
        // The names that every comparison has, as short as their users know them.
        match self.name.as_str() {
            "sequential" => "seq".to_owned(),
            "async_regular" => "asyncreg".to_owned(),
            "async_autoscaling" => "asyncauto".to_owned(),
            name => name.chars().filter(char::is_ascii_alphanumeric).take(10).collect::<String>().to_ascii_lowercase(),
        }
    }

    /// How its jobs run, in words.
    pub fn describe(&self) -> String {
        match self.mode {
            Mode::Sequential => "one job at a time".to_owned(),
            Mode::Batch => format!("batches of {}", self.concurrent),
            Mode::All => "all at once".to_owned(),
            Mode::Window => format!("{} in flight", self.concurrent),
        }
    }
}

/// Which arms a comparison has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Arms {
    /// `sequential` in the one context and `async` in the other. Parallelism and context cannot be told apart.
    #[default]
    Pair,
    /// `sequential` and `async_regular` in the one context, `async_autoscaling` in the other.
    ThreeWay,
    /// These.
    Given(Vec<Arm>),
}

/// Checks that a list of arms can be compared: at least one, each with a name of its own.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] with what is wrong.
pub fn check(arms: &[Arm]) -> Result<()> {
    if arms.is_empty() {
        return Err(Error::invalid("there are no arms: give one at least, or leave arms out for the two known ones"));
    }
    for (at, arm) in arms.iter().enumerate() {
        if arms[..at].iter().any(|other| other.name.eq_ignore_ascii_case(&arm.name)) {
            return Err(Error::invalid(format!("two arms are named {}: give each a name of its own", arm.name)));
        }
    }
    Ok(())
}

/// Reads arms from a file: a list of `{"name", "context", "mode", "concurrent"}`, or an object that has it as `arms`. JSON,
/// YAML or TOML, by its extension.
///
/// # Errors
/// [`ErrorKind::NotFound`] or [`ErrorKind::InvalidInput`] with the file and the place; no retry helps.
pub fn load(path: &Path) -> Result<Vec<Arm>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        name: String,
        context: String,
        #[serde(default)]
        mode: Mode,
        #[serde(default = "five")]
        concurrent: usize,
    }
    #[derive(Deserialize)]
    struct Wrapped {
        arms: Vec<Entry>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Document {
        List(Vec<Entry>),
        Wrapped(Wrapped),
    }
    fn five() -> usize {
        5
    }
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Storage };
        let text =
            format!("the arms cannot be read from {file}: give \"three_way\", or name a file that exists (arms)");
        Error::new(kind, text).with_source(e)
    })?;
    let refused = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::invalid(format!(
            "{file} is no list of arms: each has a name, a context, and perhaps mode ({}) and concurrent",
            Mode::NAMES.join(", ")
        ))
        .with_source(e)
    };
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let document: Document = match extension.to_ascii_lowercase().as_str() {
        "yaml" | "yml" => serde_saphyr::from_str(&text).map_err(|e| refused(e.into()))?,
        "toml" => Document::Wrapped(toml::from_str(&text).map_err(|e| refused(e.into()))?),
        _ => serde_json::from_str(&text).map_err(|e| refused(e.into()))?,
    };
    let (Document::List(entries) | Document::Wrapped(Wrapped { arms: entries })) = document;
    let arms: Vec<Arm> = entries
        .iter()
        .map(|entry| Arm::new(&entry.name, &entry.context, entry.mode, entry.concurrent))
        .collect::<Result<_>>()?;
    check(&arms)?;
    Ok(arms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(extension: &str, text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(extension).tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn arms_come_from_json_yaml_and_toml() {
        let expected =
            vec![Arm::new("fixed", "A", Mode::Window, 8).unwrap(), Arm::new("scaling", "B", Mode::Batch, 5).unwrap()];
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
        assert_eq!(arm(Mode::Sequential).in_flight(9), 1);
        assert_eq!((arm(Mode::Batch).in_flight(9), arm(Mode::Window).in_flight(3)), (5, 3));
        assert_eq!((arm(Mode::All).in_flight(9), arm(Mode::Batch).in_flight(0)), (9, 1));
    }
}
