//! What works on this machine and why the rest does not: where it is, probes, ledger root, credentials, settings.
//!
//! Looks, and leaves nothing behind. Without VMs to look at and without consent to use the network, nothing but this
//! machine and the ledger's store is asked. Every area has a time limit, and all run at once.

mod credentials;
mod environment;
mod files;
mod filesystem;
mod probes;
mod report;
mod settings;
mod storage_root;
mod tables;
mod variables;
mod viya;
mod vms;

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use report::{Area, ok};
pub use report::{Check, Report, Status};
use variables::Variables;

use crate::error::Result;
use crate::inventory::Inventory;
use crate::runtime;
use crate::selection::Probe;

/// After this an area is given up. Checks have shorter limits of their own, so that what they found is kept.
const AREA_LIMIT: Duration = Duration::from_secs(9);

/// What to look at. The default is this machine, with the settings from the environment and `jobrota.toml`.
#[derive(Debug, Clone, Default)]
pub struct DoctorOptions {
    /// The ledger's root, in place of the one in the settings.
    pub ledger: Option<String>,
    /// Options for the ledger's store; never shown.
    pub storage_options: HashMap<String, String>,
    /// VMs to probe; none: no VM is probed.
    pub inventory: Option<Inventory>,
    /// Probes to try on each VM, as they were written, beside ICMP and TCP port 22.
    pub probes: Vec<String>,
    /// How long each probe of a VM may take.
    pub timeout: Option<Duration>,
    /// Whether addresses outside this machine may be asked, such as that of Azure's managed identities.
    pub network: bool,
    /// The file with the tokens of SAS Viya.
    pub tokens: Option<String>,
    /// Settings that the program itself has made, by name.
    pub configured: Vec<(String, String)>,
    /// What runs the program, such as "Python 3.12.3".
    pub runtime: Option<String>,
}

/// Looks at everything at once, and takes ten seconds at most (longer only with more VMs than can be probed at once).
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for a probe that is not known, [`crate::ErrorKind::Internal`] when threads are
/// refused. What does not work here is not an error, but in the report.
pub async fn examine(options: DoctorOptions) -> Result<Report> {
    let variables = Variables::of_process();
    let timeout = options.timeout.unwrap_or(Duration::from_secs(1));
    let mut vm_probes = vms::usual_probes();
    for text in &options.probes {
        vm_probes.push((settings::shown(text), text.parse::<Probe>()?));
    }
    let (settings_checks, known) = read_settings(&options, &variables).await;
    if let Some(text) = &known.probe
        && let Ok(probe) = text.parse::<Probe>()
        && !matches!(probe, Probe::Auto)
    {
        vm_probes.push((settings::shown(text), probe));
    }
    let inventory = options.inventory.clone();
    let waves = inventory.as_ref().map_or(1, |inventory| inventory.len().div_ceil(vms::AT_ONCE));
    let vm_limit = timeout * u32::try_from(waves).unwrap_or(u32::MAX) + AREA_LIMIT;
    let root = known.ledger.clone();
    let storage_options = options.storage_options.clone();
    let here = environment::examine(&variables, options.runtime.as_deref());
    let credentials = credentials::examine(variables.clone(), known, options.storage_options.clone(), options.network);
    let (probes, vms, ledger, credentials) = tokio::join!(
        limited(Area::Probes, AREA_LIMIT, probes::examine())?,
        limited(Area::Vms, vm_limit, vms::examine(inventory, vm_probes, timeout))?,
        limited(Area::Ledger, AREA_LIMIT, storage_root::examine(root, storage_options))?,
        limited(Area::Credentials, AREA_LIMIT, credentials)?,
    );
    let checks = [here, probes, vms, ledger, credentials, settings_checks].concat();
    let secrets = variables.secrets().chain(options.storage_options.values().cloned());
    Ok(Report::new(checks).without(secrets))
}

/// The settings, which are files that may be on a disk that hangs.
async fn read_settings(options: &DoctorOptions, variables: &Variables) -> (Vec<Check>, settings::Known) {
    let (options, variables) = (options.clone(), variables.clone());
    let reading = runtime::blocking(move || Ok(settings::examine(&options, &variables)));
    match tokio::time::timeout(AREA_LIMIT, reading).await {
        Ok(Ok(read)) => read,
        _ => {
            let check = ok(Area::Settings, "settings file", "")
                .failed("the settings could not be read in time", "look whether the disk they are on hangs")
                .needed();
            (vec![check], settings::Known::default())
        }
    }
}

/// Runs the checks of an area as a task of their own: what hangs there is left behind.
fn limited(
    area: Area,
    limit: Duration,
    checks: impl Future<Output = Vec<Check>> + Send + 'static,
) -> Result<impl Future<Output = Vec<Check>>> {
    let task = runtime::handle()?.spawn(checks);
    Ok(async move {
        match tokio::time::timeout(limit, task).await {
            Ok(Ok(checks)) => checks,
            Ok(Err(_)) => vec![
                ok(area, "checks", "").failed("the checks broke off", "report this as a defect of jobrota").needed(),
            ],
            Err(_) => vec![
                ok(area, "checks", "")
                    .failed(
                        format!("the checks did not end within {} s", limit.as_secs()),
                        "look whether a disk or server hangs, then try again",
                    )
                    .needed_if(area == Area::Ledger),
            ],
        }
    })
}

#[cfg(test)]
mod tests;
