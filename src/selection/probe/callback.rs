//! The caller's own probe.

use std::sync::Arc;
use std::time::Instant;

use super::deadline::Deadline;
use super::{ProbeOutcome, ProbeResult, Target, log};
use crate::inventory::Vm;

/// A check of the caller's own.
pub trait ProbeCallback: Send + Sync {
    /// The address that answered and the network interface behind it, where known; None when the VM is unreachable.
    /// Is called from several threads at once, and may block: it is not waited for beyond the deadline (but cannot be
    /// broken off, so it should have a time limit of its own).
    ///
    /// # Errors
    /// The reason why the VM is unreachable.
    fn probe(&self, vm: &Vm) -> Result<Option<(String, Option<String>)>, String>;
}

/// Asks `callback` about `vm`, on a thread where it may block.
pub(super) async fn call(callback: Arc<dyn ProbeCallback>, target: &Target<'_>) -> ProbeResult {
    let start = Instant::now();
    let answer = asked(callback, target).await;
    let (address, time) = match &answer {
        Ok(outcome) => (outcome.ip_address.as_str(), outcome.rtt),
        Err(_) => (target.vm.ip_address.as_str(), start.elapsed()),
    };
    log(target.vm, "callable", address, time, &answer);
    answer
}

async fn asked(callback: Arc<dyn ProbeCallback>, target: &Target<'_>) -> ProbeResult {
    let Target { vm, deadline, shared, .. } = target;
    let Some(Ok(place)) = deadline.limit(shared.callables.clone().acquire_owned()).await else {
        return Err(format!("no thread was free for the probe callable within {deadline}: many calls do not return"));
    };
    // The wait for a thread was not the VM's fault.
    let start = Instant::now();
    let deadline = Deadline::after(deadline.timeout());
    let asked = (*vm).clone();
    let work = tokio::task::spawn_blocking(move || {
        let _place = place;
        callback.probe(&asked)
    });
    match deadline.limit(work).await {
        Some(Ok(Ok(Some((ip_address, _))))) if ip_address.trim().is_empty() => {
            Err("the probe callable returned an empty IP address".to_owned())
        }
        Some(Ok(Ok(Some((ip_address, nic_name))))) => Ok(ProbeOutcome {
            kind: "callable".to_owned(),
            rtt: start.elapsed(),
            ip_address,
            nic_name: nic_name.filter(|nic| !nic.is_empty()).or_else(|| vm.nic_name.clone()),
        }),
        Some(Ok(Ok(None))) => Err("the probe callable says that it is unreachable".to_owned()),
        Some(Ok(Err(reason))) => Err(reason),
        Some(Err(_)) => Err("the probe callable broke off".to_owned()),
        None => Err(format!("the probe callable did not return within {deadline}")),
    }
}
