//! Text that is not shown, and removing it from other text.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What takes the place of a secret.
const HIDDEN: &str = "…";

/// Shortest secret that is searched for in its encoded forms, in bytes.
const SHORTEST_ENCODED: usize = 4;

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
        f.write_str(HIDDEN)
    }
}

/// Removes secrets from texts, in case a server or a program repeats them. A secret is also found as JSON, as part of an address, on
/// a page and in base64. Cut or fold a text after this: part of a secret would not be found.
pub(crate) struct Scrubber(Vec<String>);

impl Scrubber {
    /// A scrubber of `secrets`. To make one costs more than to use it.
    pub(crate) fn new(secrets: &[&str]) -> Self {
        let mut spellings: Vec<String> = secrets.iter().flat_map(|secret| spellings(secret)).collect();
        // Longest first: a secret may contain another one.
        spellings.sort_by_key(|spelling| Reverse(spelling.len()));
        Self(spellings)
    }

    /// `text` without the secrets.
    pub(crate) fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.0.iter().fold(Cow::Borrowed(text), |text, spelling| match text.contains(spelling) {
            true => Cow::Owned(text.replace(spelling, HIDDEN)),
            false => text,
        })
    }

    /// `value` with every text in it scrubbed. A server may have written characters of a secret as `\u…`.
    pub(crate) fn scrub_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.scrub(text).into_owned(),
            Value::Array(items) => items.iter_mut().for_each(|item| self.scrub_json(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.scrub_json(field)),
            _ => {}
        }
    }
}

/// `secret` as it is, and as others may write it. The encoded forms of a very short one are too common in other text.
fn spellings(secret: &str) -> HashSet<String> {
    let mut spellings = HashSet::from([secret.to_owned()]);
    spellings.remove("");
    if secret.len() < SHORTEST_ENCODED {
        return spellings;
    }
    spellings.extend([STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)]);
    // Such as a JSON Web Token: nothing in it is ever escaped.
    if secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return spellings;
    }
    let json = Value::from(secret).to_string();
    let json = &json[1..json.len() - 1];
    spellings.extend([json.to_owned(), json.replace('/', "\\/")]);
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let address = form.replace('+', "%20").replace("%7E", "~");
    spellings.extend([lower_case_escapes(&form), lower_case_escapes(&address), form, address]);
    // As a browser leaves an address, and as a page or an ASCII JSON text has it.
    let kept = |c: &char| c.is_ascii_alphanumeric() || ";,/?:@&=+$-_.!~*'()#".contains(*c);
    let in_address = |c: char| match kept(&c) {
        true => c.to_string(),
        false => c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
    };
    let whole: String = secret.chars().map(in_address).collect();
    let page = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let ascii = |c: char| match c.is_ascii() {
        true => c.to_string(),
        false => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    let ascii: String = json.chars().map(ascii).collect();
    spellings.extend([lower_case_escapes(&whole), whole, ascii]);
    spellings.extend([page.replace('\'', "&#39;"), page.replace('\'', "&#x27;"), page]);
    spellings
}

/// `%2F` as `%2f`.
fn lower_case_escapes(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| match part.split_at_checked(2) {
        Some((escape, rest)) => format!("{text}%{}{rest}", escape.to_ascii_lowercase()),
        None => format!("{text}%{part}"),
    })
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
        assert_eq!(Scrubber::new(&["", "hunter", "hunter2"]).scrub("bad hunter2 given"), "bad … given");
        assert_eq!(one_line(" a\r\n b\u{7}c ", 9), "a b c");
        assert_eq!(one_line("äöü", 2), "äö…");
    }

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        let secret = "p\"ss/wörd +~=?";
        for written in [
            secret,
            r#"p\"ss/wörd +~=?"#,
            r#"p\"ss\/wörd +~=?"#,
            "p%22ss%2Fw%C3%B6rd+%2B%7E%3D%3F",
            "p%22ss%2Fw%C3%B6rd%20%2B~%3D%3F",
            "p%22ss%2fw%c3%b6rd%20%2b~%3d%3f",
            "p%22ss/w%C3%B6rd%20+~=?",
            "p&quot;ss/wörd +~=?",
            r#"p\"ss/w\u00f6rd +~=?"#,
            "cCJzcy93w7ZyZCArfj0/",
            "cCJzcy93w7ZyZCArfj0_",
        ] {
            assert_eq!(Scrubber::new(&[secret]).scrub(&format!("<{written}>")), "<…>", "{written}");
        }
        assert_eq!(Scrubber::new(&["ab"]).scrub("the IDs"), "the IDs");
        let mut body = serde_json::from_str(r#"{"a": ["t\u006fken-1", 2], "b": {"c": "token-1!"}}"#).unwrap();
        Scrubber::new(&["token-1"]).scrub_json(&mut body);
        assert_eq!(body, serde_json::json!({"a": ["…", 2], "b": {"c": "…!"}}));
    }
}
