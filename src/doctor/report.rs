//! The report: checks by area, and whether everything that is needed works.

use crate::http::secret::Scrubber;

/// The subject of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area(&'static str);

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Status {
    /// It works, or is present.
    Ok,
    /// It is absent, and need not be present.
    Note,
    /// It works, but will cause trouble, or something that many users need does not work.
    Warning,
    /// It does not work.
    Failed,
}

/// One check. Its texts contain no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// "environment", "probes", "vms", "ledger", "credentials" or "settings".
    pub area: &'static str,
    /// The subject of the check.
    pub name: String,
    /// The result.
    pub status: Status,
    /// What the check found.
    pub detail: String,
    /// What to do. Every warning and failure has it.
    pub advice: Option<String>,
    /// Whether jobrota cannot work here if the check fails.
    pub needed: bool,
}

impl Area {
    pub(super) const ENVIRONMENT: Self = Self("environment");
    pub(super) const PROBES: Self = Self("probes");
    pub(super) const VMS: Self = Self("vms");
    pub(super) const LEDGER: Self = Self("ledger");
    pub(super) const CREDENTIALS: Self = Self("credentials");
    pub(super) const SETTINGS: Self = Self("settings");

    /// A check that found what it looked for.
    pub(super) fn ok(self, name: impl Into<String>, detail: impl Into<String>) -> Check {
        let (name, detail) = (name.into(), detail.into());
        Check { area: self.0, name, status: Status::Ok, detail, advice: None, needed: false }
    }

    /// A check of something that is absent and need not be present.
    pub(super) fn note(self, name: impl Into<String>, detail: impl Into<String>) -> Check {
        Check { status: Status::Note, ..self.ok(name, detail) }
    }

    /// A check that found something that will cause trouble.
    pub(super) fn warning(self, name: impl Into<String>, detail: impl Into<String>, advice: &str) -> Check {
        self.ok(name, detail).warn(advice)
    }

    /// A check of something that does not work.
    pub(super) fn failed(self, name: impl Into<String>, detail: impl Into<String>, advice: &str) -> Check {
        Check { status: Status::Failed, ..self.ok(name, detail).advise(advice) }
    }
}

impl Check {
    /// Makes it a warning.
    pub(super) fn warn(self, advice: &str) -> Self {
        Self { status: Status::Warning, ..self.advise(advice) }
    }

    pub(super) fn advise(self, advice: &str) -> Self {
        Self { advice: Some(advice.to_owned()), ..self }
    }

    /// Marks a check without which jobrota cannot work.
    pub(super) fn needed(self) -> Self {
        Self { needed: true, ..self }
    }
}

/// All checks, by area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The checks in the order of display.
    pub checks: Vec<Check>,
}

/// Shorter texts are not secrets. To remove them would damage every text.
const SHORTEST_SECRET: usize = 6;

impl Report {
    /// Whether every needed check succeeded.
    pub fn ok(&self) -> bool {
        !self.checks.iter().any(|check| check.needed && check.status == Status::Failed)
    }

    /// Removes these texts from the report. An error message could contain one.
    pub(super) fn without(mut self, secrets: impl Iterator<Item = String>) -> Self {
        let secrets: Vec<String> = secrets.filter(|secret| secret.len() >= SHORTEST_SECRET).collect();
        let scrubber = Scrubber::new(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        for check in &mut self.checks {
            for text in [&mut check.name, &mut check.detail].into_iter().chain(check.advice.as_mut()) {
                *text = scrubber.scrub(text).into_owned();
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
        let check = |check: Check| Report { checks: vec![Area::PROBES.ok("a", ""), check] }.ok();
        assert!(check(Area::PROBES.note("b", "")));
        assert!(check(Area::PROBES.failed("b", "broken", "mend it")));
        assert!(check(Area::LEDGER.warning("b", "slow", "wait").needed()));
        assert!(!check(Area::LEDGER.failed("b", "broken", "mend it").needed()));
    }

    #[test]
    fn secrets_are_removed_from_every_text() {
        let secrets = ["s3cret-part".to_owned(), "s3cret-part-and-more".to_owned(), "x".to_owned()];
        let checks = vec![Area::LEDGER.failed("x s3cret-part", "s3cret-part-and-more!", "not s3cret-part")];
        let report = Report { checks }.without(secrets.into_iter());
        let check = &report.checks[0];
        assert_eq!((check.name.as_str(), check.detail.as_str(), check.advice.as_deref()), ("x …", "…!", Some("not …")));
    }
}
