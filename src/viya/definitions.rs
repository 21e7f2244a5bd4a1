//! Job definitions, found by a pattern for their names.

use serde::Serialize;
use serde_json::Value;
use wildmatch::WildMatch;

use super::client::{COLLECTION, ViyaClient, ViyaRequest, is_filter_refused, quoted};
use super::json::text;
use crate::error::{Error, Result};

/// Definitions per page.
const PAGE: usize = 200;

/// A job definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its description, often empty.
    pub description: String,
    /// Its type, such as `Compute`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The definitions whose names match `pattern`, by name. In a pattern `*` stands for any text and `?` for one character; case
/// matters.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for an empty pattern; those of any call to the server.
pub async fn find(client: &ViyaClient, pattern: &str) -> Result<Vec<Definition>> {
    if pattern.trim().is_empty() {
        return Err(Error::invalid(
            "the pattern is empty: give one such as \"*_pooled\", or \"*\" for all definitions",
        ));
    }
    let all = ViyaRequest::get("/jobDefinitions/definitions", COLLECTION)
        .query("limit", PAGE.to_string())
        .query("sortBy", "name");
    // The server returns the names that contain the longest part of the pattern. They are compared with the pattern here.
    let part = pattern.split(['*', '?']).max_by_key(|part| part.len()).unwrap_or_default();
    let narrow = all.clone().query("filter", format!("contains(name,{})", quoted(part)));
    let items = match client.items(if part.is_empty() { all.clone() } else { narrow }).await {
        Err(e) if is_filter_refused(&e) => client.items(all).await?,
        items => items?,
    };
    let pattern = WildMatch::new(pattern);
    let mut found: Vec<Definition> =
        items.iter().filter_map(parse).filter(|item| pattern.matches(&item.name)).collect();
    found.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
    found.dedup_by(|one, other| one.id == other.id);
    Ok(found)
}

fn parse(item: &Value) -> Option<Definition> {
    let optional = |key: &str| text(item, key).unwrap_or_default().to_owned();
    let (id, name) = (text(item, "id")?.to_owned(), text(item, "name")?.to_owned());
    Some(Definition { id, name, description: optional("description"), kind: optional("type") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*_pooled", "cm_pooled", true),
            ("*_pooled", "cm_pooled_old", false),
            ("cm*", "cm_pooled", true),
            ("c?_p*d", "cm_pooled", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("ä?", "äö", true),
            ("*", "", true),
            ("?", "", false),
            ("[a]", "a", false),
        ] {
            assert_eq!(WildMatch::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }
}
