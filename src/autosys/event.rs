//! AutoSys events, the mapping from ledger statuses to events, and the job names that AutoSys accepts.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// The statuses that `sendevent -E CHANGE_STATUS -s` accepts (CA Workload Automation AE, command reference of `sendevent`).
pub const CHANGE_STATUS_VALUES: [&str; 11] = [
    "ACTIVATED",
    "FAILURE",
    "INACTIVE",
    "ON_HOLD",
    "ON_ICE",
    "QUE_WAIT",
    "RESTART",
    "RUNNING",
    "STARTING",
    "SUCCESS",
    "TERMINATED",
];

/// The statuses that can be reported without side effects on the scheduling states of AutoSys.
const REPORTED: [&str; 5] = ["SUCCESS", "FAILURE", "TERMINATED", "RUNNING", "INACTIVE"];

/// The statuses of a job that was started, until it is started again (AAI 12.3 REST reference, appendix B).
const STARTED: [&str; 8] =
    ["ACTIVATED", "FAILURE", "QUE_WAIT", "RESTART", "RUNNING", "STARTING", "SUCCESS", "TERMINATED"];

/// The statuses that AutoSys gives a job by itself, before and while the job runs.
const SET_BY_AUTOSYS: [&str; 6] = ["ACTIVATED", "INACTIVE", "QUE_WAIT", "RESTART", "RUNNING", "STARTING"];

/// The longest job name of AutoSys 11.x and later, in characters.
const MAX_AUTOSYS_JOB_NAME: usize = 64;

/// An event that is sent to AutoSys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// `STARTJOB`: starts the job if its conditions allow it.
    StartJob,
    /// `FORCE_STARTJOB`: starts the job regardless of its conditions.
    ForceStartJob,
    /// `CHANGE_STATUS` to one of [`CHANGE_STATUS_VALUES`]: changes the recorded status, and starts or stops no process.
    ChangeStatus(String),
}

impl Event {
    /// A `CHANGE_STATUS` event.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a status that AutoSys does not know; statuses are upper case.
    fn change_status(status: &str) -> Result<Self> {
        if CHANGE_STATUS_VALUES.contains(&status) {
            return Ok(Self::ChangeStatus(status.to_owned()));
        }
        Err(Error::invalid(format!(
            "AutoSys has no status {status:?} for CHANGE_STATUS; it has {}",
            CHANGE_STATUS_VALUES.join(", ")
        )))
    }

    /// The event's name, as after `sendevent -E`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::StartJob => "STARTJOB",
            Self::ForceStartJob => "FORCE_STARTJOB",
            Self::ChangeStatus(_) => "CHANGE_STATUS",
        }
    }

    /// Whether this event leads to a `status` that AutoSys shows: for `CHANGE_STATUS` to the same status, for a start event to
    /// any status of a started job. AutoSys shows `SUCCESS/ON_NOEXEC` for a job with a mode.
    pub fn shown_by(&self, status: &str) -> bool {
        let status = without_mode(status);
        match self {
            Self::ChangeStatus(to) => status == to,
            Self::StartJob | Self::ForceStartJob => STARTED.contains(&status),
        }
    }

    /// The status of `CHANGE_STATUS`; None for other events.
    pub fn status(&self) -> Option<&str> {
        match self {
            Self::ChangeStatus(status) => Some(status),
            Self::StartJob | Self::ForceStartJob => None,
        }
    }
}

/// Whether AutoSys gives a job the `status` that it shows by itself, before or while the job runs.
pub fn is_set_by_autosys(status: &str) -> bool {
    SET_BY_AUTOSYS.contains(&without_mode(status))
}

fn without_mode(status: &str) -> &str {
    status.split('/').next().unwrap_or(status).trim()
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.status().map_or(Ok(()), |status| write!(f, " {status}"))
    }
}

/// The event of each ledger status. Case matters: `success` is not `SUCCESS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    events: BTreeMap<String, Event>,
}

impl Mapping {
    /// SUCCESS, FAILURE, TERMINATED, RUNNING and INACTIVE change the job's status to the same word. This is the default.
    pub fn change_status() -> Self {
        Self { events: REPORTED.map(|status| (status.to_owned(), Event::ChangeStatus(status.to_owned()))).into() }
    }

    /// SUCCESS starts the job, and FAILURE changes its status to FAILURE. Other statuses are not mapped. For installations
    /// in which the job of the row is to run after the reported work.
    pub fn start_job() -> Self {
        let failure = Event::ChangeStatus("FAILURE".to_owned());
        Self { events: [("SUCCESS".to_owned(), Event::StartJob), ("FAILURE".to_owned(), failure)].into() }
    }

    /// A mapping from pairs of ledger status and event: `STARTJOB`, `FORCE_STARTJOB`, `CHANGE_STATUS` (to the ledger's status)
    /// or `CHANGE_STATUS SUCCESS`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there are no pairs, a status is empty or occurs twice, or AutoSys does not have the
    /// event or the status.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut events = BTreeMap::new();
        for (status, text) in pairs {
            if status.is_empty() {
                return Err(Error::invalid("the event mapping has an empty status; leave it out"));
            }
            let event = match text.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["STARTJOB"] => Event::StartJob,
                ["FORCE_STARTJOB"] => Event::ForceStartJob,
                ["CHANGE_STATUS"] => Event::change_status(status)?,
                ["CHANGE_STATUS", to] => Event::change_status(to)?,
                _ => {
                    return Err(Error::invalid(format!(
                        "status {status:?} cannot be mapped to {text:?}; use STARTJOB, FORCE_STARTJOB, CHANGE_STATUS or \
                         CHANGE_STATUS and a status (event names are upper case)"
                    )));
                }
            };
            if let Some(before) = events.insert(status.to_owned(), event) {
                return Err(Error::invalid(format!(
                    "the event mapping has status {status:?} twice, the first time as {before}; keep one"
                )));
            }
        }
        if events.is_empty() {
            let text = "the event mapping is empty, so that nothing could be sent; map at least one status";
            return Err(Error::invalid(text));
        }
        Ok(Self { events })
    }

    /// The event for a ledger status.
    ///
    /// # Errors
    /// [`ErrorKind::Delivery`] when the status is not mapped. Sending the row again does not help.
    pub fn event(&self, status: &str) -> Result<&Event> {
        self.events.get(status).ok_or_else(|| {
            let known: Vec<&str> = self.events.keys().map(String::as_str).collect();
            Error::new(
                ErrorKind::Delivery,
                format!(
                    "no AutoSys event is mapped to status {status:?} (the mapping has {}, and case matters); add it to the mapping",
                    known.join(", ")
                ),
            )
        })
    }

    /// Whether the event of a ledger `status` leads to `shown`, a job's status in AutoSys.
    pub fn confirms(&self, status: &str, shown: &str) -> bool {
        self.events.get(status).is_some_and(|event| event.shown_by(shown))
    }
}

/// A job name that AutoSys accepts: 1 to 64 of `A-Z a-z 0-9 . _ # -` (CA Workload Automation AE, job naming rules). This
/// excludes the wildcards `%` and `*`, which `sendevent` expands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobName(String);

impl JobName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ErrorKind::Delivery`] for a name that AutoSys refuses. Sending it again does not help.
    pub fn parse(name: &str) -> Result<Self> {
        let refused = |why: String| {
            let shown: String = name.chars().take(MAX_AUTOSYS_JOB_NAME).collect();
            Error::new(
                ErrorKind::Delivery,
                format!(
                    "name AutoSys refuses: {shown:?} {why}; job names are 1 to {MAX_AUTOSYS_JOB_NAME} of A-Z a-z 0-9 . _ # -"
                ),
            )
        };
        if name.is_empty() {
            return Err(refused("is empty".to_owned()));
        }
        if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._#-".contains(*c))) {
            return Err(refused(format!("has the character {bad:?}")));
        }
        if name.len() > MAX_AUTOSYS_JOB_NAME {
            return Err(refused(format!("(shortened here) is {} characters long", name.len())));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_mapping_reports_the_same_word() {
        let mapping = Mapping::change_status();
        for status in REPORTED {
            assert_eq!(mapping.event(status).unwrap(), &Event::ChangeStatus(status.to_owned()));
        }
        assert_eq!(mapping.events.len(), 5);
    }

    #[test]
    fn case_matters_and_an_unmapped_status_is_a_delivery_failure() {
        let error = Mapping::change_status().event("success").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Delivery);
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("\"success\""), "{error}");
    }

    #[test]
    fn start_job_maps_success_and_failure_only() {
        let mapping = Mapping::start_job();
        assert_eq!(mapping.event("SUCCESS").unwrap().to_string(), "STARTJOB");
        assert_eq!(mapping.event("FAILURE").unwrap().to_string(), "CHANGE_STATUS FAILURE");
        assert!(mapping.event("RUNNING").is_err());
    }

    #[test]
    fn a_mapping_in_words() {
        let mapping = Mapping::parse([
            ("done", "FORCE_STARTJOB"),
            ("failed", "CHANGE_STATUS FAILURE"),
            ("ON_ICE", "CHANGE_STATUS"),
        ])
        .unwrap();
        assert_eq!(mapping.event("done").unwrap(), &Event::ForceStartJob);
        assert_eq!(mapping.event("failed").unwrap().status(), Some("FAILURE"));
        assert_eq!(mapping.event("ON_ICE").unwrap().status(), Some("ON_ICE"));
    }

    #[test]
    fn what_autosys_shows_after_an_event() {
        let mapping = Mapping::parse([("done", "STARTJOB"), ("FAILURE", "CHANGE_STATUS")]).unwrap();
        assert!(mapping.confirms("FAILURE", "FAILURE") && mapping.confirms("FAILURE", "FAILURE/ON_NOEXEC"));
        assert!(!mapping.confirms("FAILURE", "SUCCESS") && !mapping.confirms("other", "other"));
        assert!(mapping.confirms("done", "RUNNING") && mapping.confirms("done", "SUCCESS"));
        assert!(!mapping.confirms("done", "INACTIVE") && !mapping.confirms("done", "ON_HOLD"));
    }

    #[test]
    fn bad_mappings_are_refused() {
        for pairs in [
            vec![],
            vec![("", "STARTJOB")],
            vec![("a", "startjob")],
            vec![("a", "KILLJOB")],
            vec![("a", "CHANGE_STATUS")],
            vec![("a", "CHANGE_STATUS success")],
            vec![("a", "STARTJOB"), ("a", "STARTJOB")],
        ] {
            assert_eq!(Mapping::parse(pairs.clone()).unwrap_err().kind(), ErrorKind::InvalidInput, "{pairs:?}");
        }
    }

    #[test]
    fn a_long_name_is_shortened_in_the_error() {
        let error = JobName::parse(&"x".repeat(1024)).unwrap_err();
        assert!(error.to_string().starts_with("name AutoSys refuses") && error.to_string().len() < 300, "{error}");
    }

    proptest! {
        #[test]
        fn every_name_of_the_alphabet_is_taken(name in "[A-Za-z0-9._#-]{1,64}") {
            prop_assert_eq!(JobName::parse(&name).unwrap().to_string(), name);
        }

        #[test]
        fn any_other_character_is_refused(left in "[A-Za-z0-9._#-]{0,20}", bad in "[^A-Za-z0-9._#-]", right in "[A-Za-z0-9._#-]{0,20}") {
            let error = JobName::parse(&format!("{left}{bad}{right}")).unwrap_err();
            prop_assert_eq!(error.kind(), ErrorKind::Delivery);
        }

        #[test]
        fn every_longer_name_is_refused(name in "[A-Za-z0-9._#-]{65,200}") {
            prop_assert!(JobName::parse(&name).is_err());
        }

        #[test]
        fn only_mapped_words_have_an_event(status in "\\PC{0,12}") {
            prop_assert_eq!(Mapping::change_status().event(&status).is_ok(), REPORTED.contains(&status.as_str()));
        }
    }
}
