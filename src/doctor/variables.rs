//! The environment variables for the checks, and which of them are secrets.

use std::collections::BTreeMap;
use std::fmt;

/// A copy of the environment. Empty variables count as not set.
#[derive(Clone, Default)]
pub(super) struct EnvironmentVariables(BTreeMap<String, String>);

impl fmt::Debug for EnvironmentVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Parts of the names of variables that hold secrets, and the ends of names that do not in spite of such a part.
const SECRET: [&str; 8] = ["KEY", "SECRET", "TOKEN", "PASSWORD", "PASSWD", "SAS", "CREDENTIAL", "SIGNATURE"];
const NO_SECRET: [&str; 9] =
    ["_FILE", "_PATH", "_URI", "_URL", "_URL_S3", "_URL_STS", "_ID", "_NAME", "GOOGLE_APPLICATION_CREDENTIALS"];

impl EnvironmentVariables {
    pub(super) fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new(std::env::vars_os().filter_map(text))
    }

    pub(super) fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The first of `names` that is set.
    pub(super) fn first<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().copied().find(|name| self.has(name))
    }

    /// The values that must not be shown, and passwords in URLs. A word such as "true" is not a secret.
    pub(super) fn secrets(&self) -> impl Iterator<Item = String> {
        let mut found = Vec::new();
        for (name, value) in &self.0 {
            let upper = name.to_ascii_uppercase();
            let named = SECRET.iter().any(|part| upper.contains(part));
            let harmless = NO_SECRET.iter().any(|end| upper.ends_with(end) && upper != "AWS_ACCESS_KEY_ID");
            let is_path = value.starts_with('/') && std::path::Path::new(value).exists();
            if named && !harmless && !is_path && !matches!(value.as_str(), "true" | "false") {
                found.push(value.clone());
            }
            if let Ok(url) = url::Url::parse(value)
                && let Some(password) = url.password()
            {
                found.push(password.to_owned());
            }
        }
        found.into_iter()
    }
}

#[cfg(test)]
impl EnvironmentVariables {
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        Self::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_whether_a_value_is_a_secret() {
        let variables = EnvironmentVariables::of(&[
            ("AZURE_CLIENT_SECRET", "secret-1"),
            ("AWS_ACCESS_KEY_ID", "secret-2"),
            ("DATABASE_URL", "postgres://user:secret-3@host/x"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/a/file"),
            ("AZURE_CLIENT_ID", "a-client"),
            ("HOME", "/home/me"),
            ("EMPTY_SECRET", ""),
        ]);
        let mut secrets: Vec<_> = variables.secrets().collect();
        secrets.sort();
        assert_eq!(secrets, ["secret-1", "secret-2", "secret-3"]);
        assert!(!variables.has("EMPTY_SECRET"));
        assert!(!format!("{variables:?}").contains("secret-1"));
    }
}
