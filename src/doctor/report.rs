//! What was found: checks by area, and whether everything that is needed works.

use std::fmt;

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    Environment,
    Probes,
    Vms,
    Ledger,
    Credentials,
    Settings,
}

impl Area {
    fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Probes => "probes",
            Self::Vms => "vms",
            Self::Ledger => "ledger",
            Self::Credentials => "credentials",
            Self::Settings => "settings",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It works, or is there.
    Ok,
    /// It is not there, and need not be.
    Note,
    /// It works, but something about it will make trouble; or something that is often wanted does not work.
    Warning,
    /// It does not work.
    Failed,
}

impl Status {
    /// "ok", "note", "warning" or "failed".
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that was looked at. Its texts hold no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// "environment", "probes", "vms", "ledger", "credentials" or "settings".
    pub area: &'static str,
    /// What was looked at.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do about it: there for every warning and failure.
    pub advice: Option<String>,
    /// Whether a failure means that jobrota cannot do its work here.
    pub needed: bool,
}

/// A check that found what it looked for.
pub(super) fn ok(area: Area, name: impl Into<String>, detail: impl Into<String>) -> Check {
    Check {
        area: area.name(),
        name: name.into(),
        status: Status::Ok,
        detail: detail.into(),
        advice: None,
        needed: false,
    }
}

/// A check of something that is not there and need not be.
pub(super) fn note(area: Area, name: impl Into<String>, detail: impl Into<String>) -> Check {
    Check { status: Status::Note, ..ok(area, name, detail) }
}

impl Check {
    /// The same check with this end.
    pub(super) fn warning(self, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Warning, detail: detail.into(), advice: Some(advice.into()), ..self }
    }

    /// The same check with this end.
    pub(super) fn failed(self, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Failed, detail: detail.into(), advice: Some(advice.into()), ..self }
    }

    /// With something to do that nobody has to.
    pub(super) fn hint(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// Without this nothing works.
    pub(super) fn needed(self) -> Self {
        self.needed_if(true)
    }

    pub(super) fn needed_if(self, needed: bool) -> Self {
        Self { needed, ..self }
    }
}

/// All checks, by area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    checks: Vec<Check>,
}

/// A secret shorter than this is no secret, and would make holes in every text.
const SHORTEST_SECRET: usize = 6;

impl Report {
    pub(super) fn new(checks: Vec<Check>) -> Self {
        Self { checks }
    }

    /// The checks in the order in which they are to be read.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether nothing failed that is needed.
    pub fn ok(&self) -> bool {
        !self.checks.iter().any(|check| check.needed && check.status == Status::Failed)
    }

    /// The report without these texts, wherever they might have got into an error message.
    pub(super) fn without(mut self, secrets: impl Iterator<Item = String>) -> Self {
        let mut secrets: Vec<String> = secrets.filter(|secret| secret.len() >= SHORTEST_SECRET).collect();
        // Of two where one is part of the other, the longer one first.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for check in &mut self.checks {
            for text in [&mut check.name, &mut check.detail].into_iter().chain(check.advice.as_mut()) {
                for secret in &secrets {
                    if text.contains(secret.as_str()) {
                        *text = text.replace(secret.as_str(), "…");
                    }
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_of_what_is_needed_counts() {
        let check = |check: Check| Report::new(vec![ok(Area::Probes, "a", ""), check]).ok();
        assert!(check(note(Area::Probes, "b", "")));
        assert!(check(ok(Area::Probes, "b", "").failed("broken", "mend it")));
        assert!(check(ok(Area::Ledger, "b", "").warning("slow", "wait").needed()));
        assert!(!check(ok(Area::Ledger, "b", "").failed("broken", "mend it").needed()));
    }

    #[test]
    fn secrets_are_taken_out_wherever_they_are() {
        let secrets = ["s3cret-part".to_owned(), "s3cret-part-and-more".to_owned(), "x".to_owned()];
        let checks = vec![ok(Area::Ledger, "x s3cret-part", "").failed("s3cret-part-and-more!", "not s3cret-part")];
        let report = Report::new(checks).without(secrets.into_iter());
        let check = &report.checks()[0];
        assert_eq!((check.name.as_str(), check.detail.as_str(), check.advice.as_deref()), ("x …", "…!", Some("not …")));
    }
}
