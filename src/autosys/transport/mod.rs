//! The way to AutoSys: what a transport is given, and what it answers.

use async_trait::async_trait;

pub mod callable;
pub mod sendevent;

/// One status that AutoSys is to be told, verbatim from its ledger row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// The row's file name; empty for a NULL that another writer left.
    pub file_name: String,
    /// The AutoSys job, already checked with [`crate::autosys::JobName::parse`].
    pub job_id: String,
    /// The row's status; the transport says what it means.
    pub status: String,
}

/// What became of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// AutoSys took the event.
    Delivered {
        /// What AutoSys said, if anything.
        detail: Option<String>,
    },
    /// AutoSys did not take the event.
    Failed {
        /// Why, in words that an operator can act on; never a secret.
        detail: String,
        /// Whether sending the same event again is of no use.
        permanent: bool,
    },
    /// The event may or may not have arrived: the answer was lost or cut off.
    Unknown {
        /// What is known; never a secret.
        detail: String,
    },
}

impl Outcome {
    /// A failure that may be over at the next cycle.
    pub fn transient(detail: impl Into<String>) -> Self {
        Self::Failed { detail: detail.into(), permanent: false }
    }

    /// A failure that sending again cannot mend.
    pub fn permanent(detail: impl Into<String>) -> Self {
        Self::Failed { detail: detail.into(), permanent: true }
    }

    /// The answer to the event was lost.
    pub fn unknown(detail: impl Into<String>) -> Self {
        Self::Unknown { detail: detail.into() }
    }
}

/// A way to AutoSys. It is called for several deliveries at a time; one that must not be keeps the order itself.
#[async_trait]
pub trait Transport: Send + Sync {
    /// A short name for the attempts table, such as `sendevent`.
    fn name(&self) -> &str;

    /// Why this delivery can never be sent this way (a status with no mapping, say), found without sending anything.
    ///
    /// # Errors
    /// The reason; the row is then parked and not sent.
    fn check(&self, _delivery: &Delivery) -> Result<(), String> {
        Ok(())
    }

    /// What [`Transport::send`] would do, in one line, for a dry run.
    fn describe(&self, delivery: &Delivery) -> String {
        format!("{} {} {}", self.name(), delivery.job_id, delivery.status)
    }

    /// How many deliveries it can have under way at a time; more would only wait for their turn.
    fn at_once(&self) -> usize {
        usize::MAX
    }

    /// Sends one event and waits for the answer. Never tries twice: the next cycle is the retry.
    async fn send(&self, delivery: &Delivery) -> Outcome;
}
