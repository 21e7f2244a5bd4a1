//! Refuses the use of an object in a forked child process.

use crate::error::{Error, ErrorKind, Result};

/// The process that made an object. The threads and locks of the object do not survive a fork.
#[derive(Debug, Clone, Copy)]
pub(super) struct ForkGuard(u32);

impl ForkGuard {
    /// A guard for an object that this process makes.
    pub(super) fn new() -> Self {
        Self(std::process::id())
    }

    /// Fails in a forked child, where the background threads of the object do not exist.
    pub(super) fn check(self, object: &str) -> Result<()> {
        if self.0 == std::process::id() {
            return Ok(());
        }
        let text = format!(
            "this {object} was made before the process forked, and its background threads do not exist in the child; make a \
             new one in the child process, or start processes with the 'spawn' method"
        );
        Err(Error::new(ErrorKind::Internal, text))
    }
}
