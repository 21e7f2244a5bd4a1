//! What breaks a run off: somebody stops it, or what every job needs is gone.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::error::{Error, ErrorKind};
use crate::viya::Clock;

/// How long what is under way may take to come to an end once somebody stopped the run, seconds of the server: a server that
/// fails must not hold whoever wants to go.
pub(super) const GRACE: f64 = 20.0;

/// Why a run does not go on; shared by all its jobs.
#[derive(Debug)]
pub(super) struct Halt {
    reason: Mutex<Option<Error>>,
    stop: watch::Receiver<bool>,
}

impl Halt {
    pub(super) fn new(stop: watch::Receiver<bool>) -> Self {
        Self { reason: Mutex::new(None), stop }
    }

    /// Whether no further job may be submitted.
    pub(super) fn reached(&self) -> bool {
        self.stopped() || self.reason.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether somebody stopped the run.
    pub(super) fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Comes back when somebody stops the run.
    pub(super) async fn when_stopped(&self) {
        // Whoever could stop it is gone: then nobody will.
        if self.stop.clone().wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits `seconds` of the server, or until the run is stopped.
    pub(super) async fn pause(&self, clock: &Clock, seconds: f64) {
        tokio::select! { () = clock.sleep(seconds) => {}, () = self.when_stopped() => {} }
    }

    /// What `work` gives; none, and `work` is dropped, when it has not come to an end [`GRACE`] after the run was stopped.
    pub(super) async fn in_grace<T>(&self, clock: &Clock, work: impl Future<Output = T>) -> Option<T> {
        let late = async {
            self.when_stopped().await;
            clock.sleep(GRACE).await;
        };
        tokio::select! { biased; done = work => Some(done), () = late => None }
    }

    /// Why the run did not go on, if it did not.
    pub(super) fn reason(&self) -> Option<Error> {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reason.or_else(|| {
            self.stopped()
                .then(|| Error::new(ErrorKind::Conflict, "the run was stopped, and what was running canceled"))
        })
    }

    /// Breaks the run off; the first reason stays.
    pub(super) fn because(&self, error: &Error) {
        let reason = || Error::new(error.kind(), error.full_message()).with_retryable(error.is_retryable());
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(reason);
    }

    /// Notes what a failed call means for the run: refused credentials and a server that cannot be reached concern every
    /// job; what this user may not do with one job, such as run its definition, does not.
    pub(super) fn note(&self, error: &Error) {
        if matches!(error.kind(), ErrorKind::Authentication | ErrorKind::Unsupported | ErrorKind::Network) {
            self.because(error);
        }
    }
}
