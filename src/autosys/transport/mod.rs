//! Transports: how an event gets to AutoSys, and what each of them returns.
//!
//! | module | transport |
//! | --- | --- |
//! | [`sendevent`] | the local `sendevent` program |
//! | `ssh` | `sendevent` on a VM, through SSH (Cargo feature `ssh`) |
//! | [`run_command`] | `sendevent` on a VM, through Azure Run Command |
//! | [`web_services`] | AutoSys's web services |
//! | [`callable`] | a function of the user |
//! | [`rehearsal`] | sends nothing |
//!
//! `command`, `output` and `vms` are what several of them share.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub mod callable;
mod command;
mod output;
pub mod rehearsal;
pub mod run_command;
pub mod sendevent;
#[cfg(feature = "ssh")]
pub mod ssh;
mod vms;
pub mod web_services;

pub(crate) use callable::CALLABLE;
pub(crate) use command::find_program;
pub use vms::{VmCommand, VmTransport};

/// One status to report to AutoSys, unchanged from its ledger row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// The row's file name; empty for a NULL of another writer.
    pub file_name: String,
    /// The AutoSys job, checked with [`crate::autosys::JobName::parse`].
    pub job_id: String,
    /// The row's status; the transport maps it to an event.
    pub status: String,
}

/// The result of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// AutoSys accepted the event.
    Delivered {
        /// The text of AutoSys, if there was one.
        detail: Option<String>,
    },
    /// AutoSys did not accept the event.
    Failed {
        /// Why, with what an operator can do; never a secret.
        detail: String,
        /// Whether sending the same event again cannot help.
        permanent: bool,
    },
    /// The event may or may not have arrived: the response was lost or cut off.
    Unknown {
        /// What is known; never a secret.
        detail: String,
    },
    /// Nothing was sent, because the delivery was stopped before its turn. It does not count as an attempt.
    NotTried,
}

impl SendOutcome {
    /// A failure that may not occur in the next cycle.
    pub fn transient(detail: impl Into<String>) -> Self {
        Self::Failed { detail: detail.into(), permanent: false }
    }

    /// A failure that sending again cannot fix.
    pub fn permanent(detail: impl Into<String>) -> Self {
        Self::Failed { detail: detail.into(), permanent: true }
    }

    /// The response to the event was lost.
    pub fn unknown(detail: impl Into<String>) -> Self {
        Self::Unknown { detail: detail.into() }
    }
}

/// The result of one delivery, and the VM that it used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendResult {
    /// The result.
    pub outcome: SendOutcome,
    /// The VM that it used, if any.
    pub vm: Option<String>,
}

impl From<SendOutcome> for SendResult {
    fn from(outcome: SendOutcome) -> Self {
        Self { outcome, vm: None }
    }
}

/// Tells whether anything may be sent now: not after another process got the lease, and not after a request to stop. Clones
/// are the same gate.
#[derive(Clone)]
pub struct Gate(Arc<dyn Fn() -> bool + Send + Sync>);

impl Gate {
    /// A gate that is open while `may_send` returns true.
    pub fn new(may_send: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(may_send))
    }

    /// A gate that is always open.
    pub fn open() -> Self {
        Self::new(|| true)
    }

    /// Whether it is open now.
    pub fn is_open(&self) -> bool {
        (self.0)()
    }
}

/// Sends events to AutoSys. It is called for several batches at a time; a transport that cannot work so has to wait itself.
#[async_trait]
pub trait Transport: Send + Sync {
    /// A short name for the attempts table, such as `sendevent`.
    fn name(&self) -> &str;

    /// One line that says what [`Transport::send`] would do. Sends nothing.
    ///
    /// # Errors
    /// Why this delivery cannot be sent at all, such as a status without a mapping. The row is then parked and not sent.
    fn describe(&self, delivery: &Delivery) -> Result<String, String> {
        Ok(format!("{} {} {}", self.name(), delivery.job_id, delivery.status))
    }

    /// Checks, before the first event of a cycle, what every event needs. Sends nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Delivery`] when no event can be sent at all, such as without a program. It is retryable if time can
    /// help.
    async fn check(&self) -> crate::error::Result<()> {
        Ok(())
    }

    /// How long a send can take after the gate was open, if there is a limit. After a crash, another process waits for so long before
    /// it sends the row again. What waits for its turn does not count.
    fn time_limit(&self) -> Option<Duration> {
        None
    }

    /// How many batches it can send at a time; more would only wait.
    fn max_batches(&self) -> usize {
        usize::MAX
    }

    /// How many deliveries, each of another job, one call of [`Transport::send_batch`] should get.
    fn batch_size(&self) -> usize {
        1
    }

    /// Sends one event and waits for the response. It never repeats what may have arrived: the next cycle is the retry. A
    /// transport that waits before it sends asks `gate` again afterwards, and returns [`SendOutcome::NotTried`] when it is closed.
    async fn send(&self, delivery: &Delivery, gate: &Gate) -> SendResult;

    /// Sends several events, each of another job, and returns a result for each, in their order. The default calls
    /// [`Transport::send`] for each of them.
    async fn send_batch(&self, deliveries: &[Delivery], gate: &Gate) -> Vec<SendResult> {
        let mut results = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            results.push(match gate.is_open() {
                true => self.send(delivery, gate).await,
                false => SendOutcome::NotTried.into(),
            });
        }
        results
    }

    /// Whether [`Transport::status`] can read the status of a job.
    fn reads_status(&self) -> bool {
        false
    }

    /// The status that AutoSys shows for a job, as a word such as `SUCCESS`.
    ///
    /// # Errors
    /// Why it cannot be read; never a secret.
    async fn status(&self, _job_id: &str) -> Result<String, String> {
        Err(format!("{} cannot read the status of a job", self.name()))
    }

    /// Whether `status`, as AutoSys shows it, is the result of the event of `delivery`.
    fn confirms(&self, delivery: &Delivery, status: &str) -> bool {
        delivery.status == status
    }
}
