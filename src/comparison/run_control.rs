//! Whether a run continues: it ends early when it is stopped, or when an error concerns every job.

use std::sync::Mutex;

use crate::error::{Error, ErrorKind};
use crate::runtime::lock;
use crate::stop::Stop;
use crate::viya::Clock;

/// How long calls that are under way may take after the run was stopped, in seconds of the server.
pub(super) const GRACE: f64 = 20.0;

/// Shared by all jobs of a run.
#[derive(Debug)]
pub(super) struct RunControl {
    error: Mutex<Option<Error>>,
    /// The request to end the run.
    pub(super) stop: Stop,
    clock: Clock,
}

impl RunControl {
    pub(super) fn new(stop: &Stop, clock: &Clock) -> Self {
        Self { error: Mutex::default(), stop: stop.clone(), clock: *clock }
    }

    /// Whether no further job may be submitted.
    pub(super) fn is_ending(&self) -> bool {
        self.stop.is_stopped() || lock(&self.error).is_some()
    }

    /// Waits `seconds` of the server, or until the run is stopped.
    pub(super) async fn sleep(&self, seconds: f64) {
        let _ = self.stop.unless(self.clock.sleep(seconds)).await;
    }

    /// The output of `work`; `None`, with `work` dropped, when it has not ended [`GRACE`] seconds after the run was stopped.
    pub(super) async fn with_grace<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let late = async {
            self.stop.stopped().await;
            self.clock.sleep(GRACE).await;
        };
        tokio::select! { biased; done = work => Some(done), () = late => None }
    }

    /// Why the run ended early, if it did.
    pub(super) fn reason(&self) -> Option<Error> {
        let error = lock(&self.error).clone();
        let stopped = || Error::new(ErrorKind::Conflict, "the run was stopped, and its running jobs were canceled");
        error.or_else(|| self.stop.is_stopped().then(stopped))
    }

    /// Ends the run early. The first error stays.
    pub(super) fn abort(&self, error: &Error) {
        let reason = || Error::new(error.kind(), error.full_message()).with_retryable(error.is_retryable());
        lock(&self.error).get_or_insert_with(reason);
    }

    /// Ends the run early if `error` concerns every job, such as refused credentials or a server that cannot be reached.
    /// A permission that is missing for one job does not.
    pub(super) fn abort_if_fatal(&self, error: &Error) {
        if matches!(error.kind(), ErrorKind::Authentication | ErrorKind::Unsupported | ErrorKind::Network) {
            self.abort(error);
        }
    }
}
