//! Compares paths in the log with files in the store. A mistake here deletes live data, so paths are not resolved but
//! reduced: all spellings that a client may use for one file reduce to the same key. Some spellings of different files do
//! so too, and then a file is kept that could be deleted.

use std::collections::HashSet;

use percent_encoding::percent_decode;

/// Files to keep.
#[derive(Debug)]
pub(super) struct PathSet {
    /// The table's own path, reduced.
    root: Vec<u8>,
    /// Reduced paths below the table.
    paths: HashSet<Vec<u8>>,
    /// Names of files with absolute paths outside the table: through a link, or another name of the same directory.
    names: HashSet<Vec<u8>>,
}

impl PathSet {
    /// No files yet, of the table at this URL.
    pub(super) fn of(url: &url::Url) -> Self {
        Self { root: reduce(url.path()).unwrap_or_default(), paths: HashSet::new(), names: HashSet::new() }
    }

    /// Adds a path as a log spells it: relative or absolute, percent-encoded or (by some clients) not.
    pub(super) fn insert(&mut self, path: &str) {
        if let Some(relative) = reduce(path) {
            self.paths.insert(relative);
        }
        let Some(absolute) = absolute(path) else { return };
        let key = reduce(absolute);
        let inside = key.as_deref().and_then(|key| key.strip_prefix(&*self.root)?.strip_prefix(b"/"));
        match inside {
            Some(relative) if !self.root.is_empty() => _ = self.paths.insert(relative.to_vec()),
            _ => _ = self.names.insert(name(&key.unwrap_or_else(|| decoded(path)))),
        }
    }

    /// Whether to keep the file with this path below the table, as the store spells it.
    pub(super) fn contains(&self, path: &str) -> bool {
        match reduce(path) {
            Some(key) => self.paths.contains(&key) || self.names.contains(&name(&key)),
            None => true,
        }
    }
}

/// The common form of all spellings of a path: percent-decoded until nothing changes (partition values are encoded twice in
/// the log), without `.`, `..`, empty parts and the blanks that URL parsers drop. `None` if the path leads out of its
/// directory.
pub(super) fn reduce(path: &str) -> Option<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for part in decoded(path).split(|&byte| matches!(byte, b'/' | b'\\')) {
        match part.iter().copied().filter(|byte| *byte > b' ').collect::<Vec<u8>>() {
            part if part.is_empty() || part == b"." => {}
            part if part == b".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

fn decoded(path: &str) -> Vec<u8> {
    let mut text = path.as_bytes().to_vec();
    loop {
        // Every valid escape makes the text shorter.
        let next: Vec<u8> = percent_decode(&text).collect();
        if next.len() == text.len() {
            return next;
        }
        text = next;
    }
}

/// The path of an absolute URI or path, without scheme and authority.
fn absolute(path: &str) -> Option<&str> {
    let path = path.trim();
    if path.starts_with(['/', '\\']) {
        return Some(path);
    }
    let (scheme, rest) = path.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    if !valid || !rest.starts_with(['/', '\\']) {
        return None;
    }
    match rest.strip_prefix("//") {
        Some(rest) => Some(rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("")),
        None => Some(rest),
    }
}

fn name(key: &[u8]) -> Vec<u8> {
    key.rsplit(|&byte| byte == b'/').next().unwrap_or(key).to_vec()
}
