//! One error for the whole crate: it says what happened, to what and what to do next, keeps its cause, and knows
//! whether trying again can help.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was. Each kind is one Python exception class of the same meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, file or setting that can never work as given; nothing was written.
    InvalidInput,
    /// Something named does not exist: a ledger, a file, a compute context.
    NotFound,
    /// Other writers won each try until the time limit.
    Conflict,
    /// Another process holds the lease, and the action must not run twice at the same time.
    LeaseHeld,
    /// The table, path or platform has something that this version cannot work with.
    Unsupported,
    /// The store failed: disk full, permission denied, object store unavailable.
    Storage,
    /// A server could not be reached or closed the connection.
    Network,
    /// Credentials are missing, expired or refused.
    Authentication,
    /// The user is known, and not allowed to do this. In Python it is an `AuthenticationError` as well.
    Forbidden,
    /// A server answered with an error of its own.
    Server,
    /// No VM of the inventory answered; [`Error::failures`] has the reason per VM.
    NoReachableVm,
    /// AutoSys, or the way to it, refused an event.
    Delivery,
    /// A defect of this crate, or of the machine it runs on.
    Internal,
}

/// The crate's error. Cheap to clone, as one failed commit is reported to everyone whose rows were in it.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    retryable: bool,
    outcome_is_unknown: bool,
    failures: Vec<(String, String)>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what happened, to what, and what to do next. Not retryable until said so.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retryable: false,
            outcome_is_unknown: false,
            failures: Vec::new(),
            source: None,
        }
    }

    /// Shorthand for the most frequent kind: bad input, refused before anything was written.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// Keeps what caused this error.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// Says whether the same call can succeed later without any change by the caller.
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Says that the write can have taken effect or not. Repeating the same call could write twice.
    pub fn with_unknown_outcome(mut self) -> Self {
        self.outcome_is_unknown = true;
        self
    }

    /// Whether the write can have taken effect or not.
    pub(crate) fn is_outcome_unknown(&self) -> bool {
        self.outcome_is_unknown
    }

    /// Adds the reason per VM (name, reason), in inventory order.
    pub fn with_failures(mut self, failures: Vec<(String, String)>) -> Self {
        self.failures = failures;
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call can succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Whether the same call can succeed later, though that is not certain: a network that failed can be back.
    pub fn can_recover(&self) -> bool {
        self.retryable || self.kind == ErrorKind::Network
    }

    /// Whether work that reads the tables anew each time, such as a delivery cycle, can continue after this error: a store that
    /// is read-only or gone now can be back.
    pub fn next_cycle_can_run(&self) -> bool {
        self.can_recover() || self.outcome_is_unknown || self.kind == ErrorKind::Storage
    }

    /// The reason per VM, for [`ErrorKind::NoReachableVm`]; empty otherwise.
    pub fn failures(&self) -> &[(String, String)] {
        &self.failures
    }

    /// The message with the messages of all causes behind it, each once. It can contain text of servers: control characters,
    /// which could change a terminal, are replaced.
    pub fn full_message(&self) -> String {
        let mut text = self.message.clone();
        for cause in self.source().into_iter().flat_map(chain) {
            let part = cause.to_string();
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
        }
        text.replace(|c: char| c.is_control() && !matches!(c, '\n' | '\t'), "\u{fffd}")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}

/// `error` and its causes, from the outermost to the innermost.
pub(crate) fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_server_cannot_change_a_terminal() {
        let error =
            Error::new(ErrorKind::Server, "it said: \u{1b}[2Jgone\u{9b}31m\r\nnext\tline").with_source("\u{7}bell");
        assert_eq!(error.full_message(), "it said: \u{fffd}[2Jgone\u{fffd}31m\u{fffd}\nnext\tline: \u{fffd}bell");
    }
}
