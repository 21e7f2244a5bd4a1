//! The way to AutoSys: what a transport is given, and what it answers.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

pub mod callable;
mod command;
pub mod rehearsal;
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
    /// Nothing was sent, for a reason that is not the row's: it counts as no attempt.
    NotTried {
        /// Why; never a secret.
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

    /// Nothing was sent.
    pub fn not_tried(detail: impl Into<String>) -> Self {
        Self::NotTried { detail: detail.into() }
    }
}

/// What became of one delivery, and the way that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// What became of it.
    pub outcome: Outcome,
    /// The VM that it went over, if any.
    pub vm: Option<String>,
}

impl From<Outcome> for Sent {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, vm: None }
    }
}

/// Says whether anything may be sent at this moment: not when the right to deliver has gone to somebody else, and not after
/// a request to stop. Clones are the same gate.
#[derive(Clone)]
pub struct Gate(Arc<dyn Fn() -> bool + Send + Sync>);

impl Gate {
    /// A gate that is open whenever `may_send` says so.
    pub fn new(may_send: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(may_send))
    }

    /// A gate that is always open.
    pub fn open() -> Self {
        Self::new(|| true)
    }

    /// Whether it is open right now.
    pub fn is_open(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("open", &self.is_open()).finish()
    }
}

/// A way to AutoSys. It is called for several batches at a time; one that must not be keeps the order itself.
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

    /// How many batches it can have under way at a time; more would only wait for their turn.
    fn at_once(&self) -> usize {
        usize::MAX
    }

    /// How many deliveries, each of another job, it likes to have in one call of [`Transport::send_batch`].
    fn batch(&self) -> usize {
        1
    }

    /// Sends one event and waits for the answer. Never tries twice what may have arrived: the next cycle is the retry. One
    /// that waits before it sends asks `gate` again afterwards, and answers [`Outcome::NotTried`] where it is closed.
    async fn send(&self, delivery: &Delivery, gate: &Gate) -> Sent;

    /// Sends several events, each of another job; gives an answer for each, in their order. Like [`Transport::send`] for
    /// each of them, and by default just that.
    async fn send_batch(&self, deliveries: &[Delivery], gate: &Gate) -> Vec<Sent> {
        let mut answers = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            answers.push(match gate.is_open() {
                true => self.send(delivery, gate).await,
                false => Outcome::not_tried("the delivery was stopped before its turn").into(),
            });
        }
        answers
    }

    /// Whether [`Transport::status`] can tell a job's status.
    fn reads_status(&self) -> bool {
        false
    }

    /// The status that AutoSys shows for a job, as a word such as `SUCCESS`.
    ///
    /// # Errors
    /// Why it cannot be told; never a secret.
    async fn status(&self, _job_id: &str) -> Result<String, String> {
        Err(format!("{} cannot read the status of a job", self.name()))
    }

    /// Whether `status`, as AutoSys shows it, is what the event of `delivery` leads to.
    fn shows(&self, delivery: &Delivery, status: &str) -> bool {
        delivery.status == status
    }
}
