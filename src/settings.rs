//! Reads settings: from the argument, else from the environment (`JOBROTA_…`), else from `jobrota.toml`.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::error::{Error, Result};

/// The names of all settings.
pub const NAMES: [&str; 7] = ["ledger", "inventory", "probe", "transport", "mapping", "source", "base_url"];

/// The settings file in the current directory. `JOBROTA_CONFIG` names another file.
const FILE: &str = "jobrota.toml";

/// The source of a setting's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The caller.
    Argument,
    /// This environment variable.
    Variable(String),
    /// This settings file.
    File(PathBuf),
}

/// The value of the setting `name` (lower case, such as `ledger`): `argument`, else the environment variable
/// `JOBROTA_<NAME>` unless it is empty, else the key of that name in `jobrota.toml`; None when it is not set.
///
/// The table `[transport]` is JSON text.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] when the file cannot be read or parsed, or has something else than text there.
pub fn lookup(name: &str, argument: Option<&str>) -> Result<Option<String>> {
    Ok(find(name, argument)?.map(|(value, _)| value))
}

/// As [`lookup`], with the source of the value.
///
/// # Errors
/// Those of [`lookup`].
pub fn find(name: &str, argument: Option<&str>) -> Result<Option<(String, Source)>> {
    if let Some(argument) = argument {
        return Ok(Some((argument.to_owned(), Source::Argument)));
    }
    let variable = variable(name);
    if let Some(value) = environment(&[&variable]) {
        return Ok(Some((value, Source::Variable(variable))));
    }
    let Some(path) = file() else { return Ok(None) };
    Ok(from_file(name, &path)?.map(|value| (value, Source::File(path))))
}

/// Whether this machine belongs to a Databricks cluster. Its local disk is lost with it. Databricks sets this variable on every
/// cluster, and on serverless compute.
pub fn is_on_databricks() -> bool {
    std::env::var_os("DATABRICKS_RUNTIME_VERSION").is_some_and(|version| !version.is_empty())
}

/// The settings file: the one that `JOBROTA_CONFIG` names, else `jobrota.toml` in the working directory, if it exists.
pub fn file() -> Option<PathBuf> {
    match std::env::var_os("JOBROTA_CONFIG").filter(|path| !path.is_empty()) {
        Some(path) => Some(PathBuf::from(path)),
        None => Path::new(FILE).is_file().then(|| PathBuf::from(FILE)),
    }
}

/// The directory where programs of this user keep state: `$XDG_STATE_HOME` if it is an absolute path, else `~/.local/state`; none
/// without a home directory (<https://specifications.freedesktop.org/basedir-spec/latest/>).
pub fn state_dir() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(crate::runtime::home_directory()?.join(".local").join("state")))
}

/// The first of these environment variables that is set and not empty.
pub fn environment(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn variable(name: &str) -> String {
    format!("JOBROTA_{}", name.to_uppercase())
}

/// The keys and sections of a settings file that are not settings, in the order of the file.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] when the file cannot be read or parsed.
pub fn unknown_keys(path: &Path) -> Result<Vec<String>> {
    Ok(parse(path)?.into_iter().map(|(key, _)| key).filter(|key| !NAMES.contains(&key.as_str())).collect())
}

/// The error for a setting that is needed and not set. `ways` says what is missing, and how to give it.
pub fn missing(name: &str, ways: &str) -> Error {
    let mut text = format!("{ways}, or set {}, or write {name} = \"…\" into {FILE}", variable(name));
    if let Some(path) = file() {
        text.push_str(&format!("; the settings file {} has no {name}", path.display()));
        let unknown = unknown_keys(&path).unwrap_or_default();
        if !unknown.is_empty() {
            text.push_str(&format!(", and these keys of it are no settings: {}", unknown.join(", ")));
        }
    }
    Error::invalid(text)
}

fn from_file(name: &str, path: &Path) -> Result<Option<String>> {
    match parse(path)?.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone())),
        Some(table @ Value::Table(_)) if name == "transport" => Ok(serde_json::to_string(table).ok()),
        Some(_) => Err(Error::invalid(format!("{name} in {} must be text in quotes", path.display()))),
    }
}

fn parse(path: &Path) -> Result<Table> {
    // A pipe or a device has no end.
    let read = || match std::fs::metadata(path)? {
        file if file.is_file() && file.len() <= 1 << 20 || path == "/dev/null" => std::fs::read_to_string(path),
        _ => Err(std::io::Error::other("it is not a file of at most 1 MiB")),
    };
    let text = read()
        .map_err(|e| Error::invalid(format!("the settings file {} cannot be read", path.display())).with_source(e))?;
    text.parse().map_err(|e: toml::de::Error| {
        // The parser's own text quotes the line, which can hold a password.
        let line = text[..e.span().map_or(0, |span| span.start).min(text.len())].lines().count().max(1);
        Error::invalid(format!("the settings file {} is not TOML: line {line}: {}", path.display(), e.message()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_argument_comes_first() {
        assert_eq!(lookup("ledger", Some("/here")).unwrap().as_deref(), Some("/here"));
    }

    #[test]
    fn a_file_gives_text() {
        let file =
            file("ledger = \"/data/ledger\"\nsource = 5\nprobe = [\"icmp\"]\n[transport]\nkind = \"ssh\"\nport = 22\n");
        let value = |name| from_file(name, file.path());
        assert_eq!(value("ledger").unwrap().as_deref(), Some("/data/ledger"));
        assert_eq!(value("absent").unwrap(), None);
        assert_eq!(value("transport").unwrap().as_deref(), Some("{\"kind\":\"ssh\",\"port\":22}"));
        for name in ["source", "probe"] {
            assert!(value(name).unwrap_err().to_string().contains("must be text in quotes"));
        }
    }

    #[test]
    fn keys_and_sections_that_are_not_settings_are_found() {
        let file = file("ledgr = \"/data\"\nprobe = \"icmp\"\n[viya]\nbase_url = \"https://viya\"\n");
        assert_eq!(unknown_keys(file.path()).unwrap(), ["ledgr", "viya"]);
    }

    #[test]
    fn a_file_without_an_end_is_not_read() {
        for endless in ["/dev/zero", "/dev"] {
            let text = from_file("ledger", Path::new(endless)).unwrap_err().full_message();
            assert!(text.contains(endless) && text.contains("cannot be read"), "{text}");
        }
        assert_eq!(from_file("ledger", Path::new("/dev/null")).unwrap(), None, "as programs name an empty file");
    }

    #[test]
    fn a_broken_file_is_named_with_the_line() {
        let file = file("ledger = \"/data\"\nhttps://u:secret@viya\n");
        let text = from_file("ledger", file.path()).unwrap_err().to_string();
        assert!(text.contains(file.path().to_str().unwrap()) && text.contains("line 2"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
