//! The VMs that a batch is tried on, one after another.

use crate::autosys::transport::Outcome;
use crate::selection::{RoundRobinSelector, Selection};

/// The VMs of a selector that did not run a batch, each with the reason.
pub(super) struct VmAttempts<'a> {
    selector: &'a RoundRobinSelector,
    failed: Vec<(String, String)>,
}

impl<'a> VmAttempts<'a> {
    pub(super) fn new(selector: &'a RoundRobinSelector) -> Self {
        Self { selector, failed: Vec::new() }
    }

    /// The next VM that was not tried.
    ///
    /// # Errors
    /// The outcome of the batch when there is none, with the VM that was tried last when all were tried.
    pub(super) async fn next(&self) -> Result<Selection, (Outcome, Option<String>)> {
        let tried: Vec<String> = self.failed.iter().map(|(vm, _)| vm.clone()).collect();
        let reasons = list(&self.failed);
        if tried.len() >= self.selector.inventory().vms().len() {
            return Err((Outcome::transient(format!("no VM could run the command: {reasons}")), tried.last().cloned()));
        }
        self.selector.select(&tried).await.map_err(|error| {
            let before = if reasons.is_empty() { String::new() } else { format!("{reasons}; ") };
            let more = match list(error.failures()) {
                more if more.is_empty() => more,
                more => format!(" ({more})"),
            };
            (Outcome::transient(format!("{before}{error}{more}")), None)
        })
    }

    /// Remembers that `vm` did not run the batch.
    pub(super) fn add_failure(&mut self, vm: String, reason: String) {
        tracing::warn!(vm, reason, "the VM did not run the command; the next one is tried");
        self.failed.push((vm, reason));
    }

    /// Reports to the selector whether `vm` works.
    pub(super) async fn report(&self, vm: &str, works: bool) {
        if let Err(error) = self.selector.report(vm, works).await {
            tracing::warn!(vm, %error, "the result of the VM could not be reported to the selector");
        }
    }
}

fn list(failures: &[(String, String)]) -> String {
    failures.iter().map(|(vm, why)| format!("{vm}: {why}")).collect::<Vec<_>>().join("; ")
}
