//! A transport that sends nothing, to measure a ledger and its settings without AutoSys.

use std::time::Duration;

use async_trait::async_trait;

use super::{Delivery, Gate, SendOutcome, SendResult, Transport};

/// Reports every event as delivered, after a set time, and sends nothing. Rows are acknowledged as if AutoSys had accepted
/// them: use it with a copy of a ledger only.
#[derive(Debug, Clone, Default)]
pub struct Rehearsal {
    answer_after: Duration,
}

impl Rehearsal {
    /// A rehearsal that reports each event as delivered after `answer_after`.
    pub fn new(answer_after: Duration) -> Self {
        Self { answer_after }
    }
}

#[async_trait]
impl Transport for Rehearsal {
    fn name(&self) -> &str {
        "rehearsal"
    }

    async fn send(&self, _delivery: &Delivery, _gate: &Gate) -> SendResult {
        if !self.answer_after.is_zero() {
            tokio::time::sleep(self.answer_after).await;
        }
        SendOutcome::Delivered { detail: None }.into()
    }
}
