//! A transport that sends nothing: to see what a ledger and its settings can do before AutoSys is told anything.

use std::time::Duration;

use async_trait::async_trait;

use super::{Delivery, Gate, Outcome, Sent, Transport};

/// Answers that everything was taken, after a set time, and sends nothing. Rows are acknowledged as if AutoSys had taken
/// them: for copies of a ledger only.
#[derive(Debug, Clone, Default)]
pub struct Rehearsal {
    answer_after: Duration,
}

impl Rehearsal {
    /// One that answers after so long.
    pub fn new(answer_after: Duration) -> Self {
        Self { answer_after }
    }
}

#[async_trait]
impl Transport for Rehearsal {
    fn name(&self) -> &str {
        "rehearsal"
    }

    async fn send(&self, _delivery: &Delivery, _gate: &Gate) -> Sent {
        if !self.answer_after.is_zero() {
            tokio::time::sleep(self.answer_after).await;
        }
        Outcome::Delivered { detail: None }.into()
    }
}
