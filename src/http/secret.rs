//! Text that is not shown, and removing it from other text.

use std::fmt;

/// A text that `Debug` does not show, such as a password or a token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// `text` without any of `secrets`, in case a server repeats them.
pub(crate) fn scrub(text: String, secrets: &[&str]) -> String {
    // Longest first: a secret may contain another one.
    let mut secrets: Vec<&&str> = secrets.iter().filter(|secret| !secret.is_empty()).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text, |text, secret| text.replace(secret, "…"))
}

/// `text` on one line without control characters, cut after `longest` characters.
pub(crate) fn one_line(text: &str, longest: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, " ");
    match line.char_indices().nth(longest) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_neither_shown_nor_repeated() {
        assert_eq!(format!("{:?}", Some(Secret::from("hunter2"))), "Some(…)");
        assert_eq!(scrub("bad hunter2 given".to_owned(), &["", "hunter", "hunter2"]), "bad … given");
        assert_eq!(one_line(" a\r\n b\u{7}c ", 9), "a b c");
        assert_eq!(one_line("äöü", 2), "äö…");
    }
}
