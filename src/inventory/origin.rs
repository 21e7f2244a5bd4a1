//! Where an inventory came from, when it was listed somewhere and not written down by somebody.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// Where an inventory came from and how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What was listed, such as `Azure subscription …, resource group …`.
    pub source: String,
    /// When it was listed.
    pub listed_at: DateTime<Utc>,
    /// Whether it was remembered, and not asked for anew.
    pub remembered: bool,
    /// VMs that are not in the inventory, each with the reason, in order of their names.
    pub left_out: Vec<(String, String)>,
    /// What the user should know about it, such as its age when it had to be taken for want of a new one.
    pub warning: Option<String>,
}

impl Origin {
    /// How long ago it was listed.
    pub fn age(&self) -> Duration {
        (Utc::now() - self.listed_at).to_std().unwrap_or_default()
    }

    /// The age as people say it.
    pub fn age_in_words(&self) -> String {
        in_words(self.age())
    }
}

/// A time span as people say it.
pub(super) fn in_words(span: Duration) -> String {
    match span.as_secs() {
        1 => "1 second".to_owned(),
        seconds @ 0..=119 => format!("{seconds} seconds"),
        seconds @ 120..=7_199 => format!("{} minutes", seconds / 60),
        seconds => format!("{:.1} hours", seconds as f64 / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_as_people_say_them() {
        let said = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!([said(1), said(5), said(300), said(9_000)], ["1 second", "5 seconds", "5 minutes", "2.5 hours"]);
    }
}
