//! How long a server is forgiven that does not answer well.

use std::time::Instant;

use super::Following;
use crate::error::{Error, Result};

/// How long a server that cannot be reached, or fails, is tried again before a job is given up; seconds of the server.
pub(super) const PATIENCE: f64 = 900.0;
/// Seconds between two tries where the server does not answer well, at most.
const LONGEST_PAUSE: f64 = 30.0;

/// The tries for one job.
pub(super) struct Patience<'a> {
    following: &'a Following<'a>,
    began: Instant,
    pause: f64,
}

impl<'a> Patience<'a> {
    pub(super) fn new(following: &'a Following<'a>) -> Self {
        Self { following, began: Instant::now(), pause: 1.0 }
    }

    /// Waits for the next try; gives the error back where none would help, and when the run breaks off.
    pub(super) async fn after(&mut self, e: Error, job: &str) -> Result<()> {
        let Following { client, halt, .. } = self.following;
        if !e.may_pass() || halt.reached() {
            return Err(e);
        }
        if client.clock().since(self.began) >= PATIENCE {
            // Whatever ails the server for so long ails every job.
            halt.because(&e);
            return Err(e);
        }
        tracing::warn!("job {job} is tried again: {}", e.full_message());
        halt.pause(client.clock(), self.pause).await;
        self.pause = (self.pause * 2.0).min(LONGEST_PAUSE);
        Ok(())
    }
}
