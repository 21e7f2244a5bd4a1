//! Checks what works on this machine, and says why the rest does not and what to do about it.
//!
//! | module | checks |
//! | --- | --- |
//! | [`environment`] | the system, the user, the clock, Databricks |
//! | [`probes`] | the kinds of probe, on this machine and on VMs |
//! | [`storage_root`], [`filesystem`], [`tables`] | the ledger's root and its tables |
//! | [`credentials`], [`files`] | the credentials that are found, without their values |
//! | [`settings`] | each setting and its source |
//!
//! The checks leave nothing behind. Without VMs and without permission to use the network, they send requests only to this
//! machine and to the ledger's store. Each area has a time limit, and all areas run at the same time.

mod credentials;
mod environment;
mod files;
mod filesystem;
mod probes;
mod report;
mod settings;
mod storage_root;
mod tables;

use std::future::Future;
use std::time::Duration;

use environment::EnvironmentVariables;
use report::Area;
pub use report::{Check, Report, Status};

use crate::error::Result;
use crate::inventory::Inventory;
use crate::runtime;
use crate::selection::Probe;
use crate::storage::StorageOptions;

/// The time limit of an area. Checks have shorter limits of their own, so that their results are kept.
const AREA_LIMIT: Duration = Duration::from_secs(9);

/// What to check. The default is this machine, with the settings from the environment and `jobrota.toml`.
#[derive(Debug, Clone, Default)]
pub struct DoctorOptions {
    /// The ledger's root, instead of the one in the settings.
    pub ledger: Option<String>,
    /// Options for the ledger's store. Never shown.
    pub storage_options: StorageOptions,
    /// The VMs to probe, if any.
    pub inventory: Option<Inventory>,
    /// Probes to try on each VM beside ICMP and TCP port 22, as the user wrote them.
    pub probes: Vec<String>,
    /// The time limit of each probe of a VM.
    pub timeout: Option<Duration>,
    /// Whether to send requests to addresses outside this machine, such as the one of Azure's managed identities.
    pub network: bool,
    /// The file with the tokens of SAS Viya.
    pub tokens: Option<String>,
    /// Settings of the program itself, by name.
    pub configured: Vec<(String, String)>,
    /// The runtime of the program, such as "Python 3.12.3".
    pub runtime: Option<String>,
}

/// Runs all checks at the same time. They take ten seconds at most, or longer with more VMs than can be probed at once.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for an unknown probe, [`crate::ErrorKind::Internal`] when the system refuses
/// threads. A failed check is not an error, but part of the report.
pub async fn examine(options: DoctorOptions) -> Result<Report> {
    let variables = EnvironmentVariables::of_process();
    let timeout = options.timeout.unwrap_or(Duration::from_secs(1));
    // The probes that are tried on each VM in any case.
    let mut vm_probes = vec![("icmp".to_owned(), Probe::Icmp), ("tcp:22".to_owned(), Probe::Tcp(22))];
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
    let DoctorOptions { inventory, storage_options, network, runtime, .. } = options;
    let waves = inventory.as_ref().map_or(1, |inventory| inventory.len().div_ceil(probes::CONCURRENT_VMS));
    let vm_limit = timeout * u32::try_from(waves).unwrap_or(u32::MAX) + AREA_LIMIT;
    let ledger = storage_root::examine(known.ledger.clone(), storage_options.clone());
    let environment = environment::examine(&variables, runtime.as_deref());
    let credentials = credentials::examine(variables.clone(), known, storage_options.clone(), network);
    let (probes, vms, ledger, credentials) = tokio::join!(
        with_limit(Area::PROBES, AREA_LIMIT, probes::examine())?,
        with_limit(Area::VMS, vm_limit, probes::examine_vms(inventory, vm_probes, timeout))?,
        with_limit(Area::LEDGER, AREA_LIMIT, ledger)?,
        with_limit(Area::CREDENTIALS, AREA_LIMIT, credentials)?,
    );
    let checks = [environment, probes, vms, ledger, credentials, settings_checks].concat();
    Ok(Report { checks }.without(variables.secrets().into_iter().chain(storage_options.fixed.into_values())))
}

/// Reads the settings with a time limit, because they are files on a disk that can hang.
async fn read_settings(
    options: &DoctorOptions,
    variables: &EnvironmentVariables,
) -> (Vec<Check>, settings::SettingValues) {
    let (options, variables) = (options.clone(), variables.clone());
    let reading = runtime::blocking(move || Ok(settings::examine(&options, &variables)));
    if let Ok(Ok(read)) = tokio::time::timeout(AREA_LIMIT, reading).await {
        return read;
    }
    let detail = "the settings could not be read in time";
    let check = Area::SETTINGS.failed("settings file", detail, "check whether their disk hangs");
    (vec![check.needed()], settings::SettingValues::default())
}

/// Runs the checks of an area as a task, and abandons the task after `limit`.
fn with_limit(
    area: Area,
    limit: Duration,
    checks: impl Future<Output = Vec<Check>> + Send + 'static,
) -> Result<impl Future<Output = Vec<Check>>> {
    let task = runtime::handle()?.spawn(checks);
    Ok(async move {
        match tokio::time::timeout(limit, task).await {
            Ok(Ok(checks)) => checks,
            Ok(Err(_)) => {
                vec![area.failed("checks", "the checks ended early", "report this as a defect of jobrota").needed()]
            }
            Err(_) => {
                let detail = format!("the checks did not end within {} s", limit.as_secs());
                let check = area.failed("checks", detail, "check whether a disk or server hangs, then try again");
                vec![Check { needed: area == Area::LEDGER, ..check }]
            }
        }
    })
}

#[cfg(test)]
mod tests;
