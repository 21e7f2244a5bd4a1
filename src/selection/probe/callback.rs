//! Probes by a callback of the caller.

use std::sync::Arc;
use std::time::Instant;

use super::attempt::ProbeDeadline;
use super::{ProbeOutcome, ProbeResult, Target, log};
use crate::inventory::Vm;

/// A probe that the caller implements.
///
/// It returns the address that answered and the network interface behind it, where known; None when the VM is unreachable.
/// It is called from several threads at once, and may block. The probe ends at the deadline, but the call cannot be
/// interrupted, so it should have a time limit of its own.
///
/// # Errors
/// The reason why the VM is unreachable.
pub type ProbeCallback = dyn Fn(&Vm) -> Result<Option<(String, Option<String>)>, String> + Send + Sync;

/// Calls `callback` on a thread that may block.
pub(super) async fn call(callback: Arc<ProbeCallback>, target: &Target<'_>) -> ProbeResult {
    let start = Instant::now();
    let answer = outcome_of(callback, target).await;
    let (address, time) = match &answer {
        Ok(outcome) => (outcome.ip_address.as_str(), outcome.rtt),
        Err(_) => (target.vm.ip_address.as_str(), start.elapsed()),
    };
    log(target.vm, "callable", address, time, &answer);
    answer
}

async fn outcome_of(callback: Arc<ProbeCallback>, target: &Target<'_>) -> ProbeResult {
    let Target { vm, deadline, limits, .. } = target;
    let Some(Ok(permit)) = deadline.limit(limits.callables.clone().acquire_owned()).await else {
        return Err(format!("no thread was free for the probe callable within {deadline}: many calls do not return"));
    };
    // The VM did not cause the wait for a thread.
    let start = Instant::now();
    let deadline = ProbeDeadline::after(deadline.timeout);
    let probed = (*vm).clone();
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        callback(&probed)
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
        Some(Err(_)) => Err("the probe callable stopped with an error".to_owned()),
        None => Err(format!("the probe callable did not return within {deadline}")),
    }
}
