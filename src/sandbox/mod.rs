//! Local stand-ins for SAS Viya, AutoSys, Azure and VMs, for the demo and the tests.
//!
//! Everything is on loopback, in one process, and stops when the [`Sandbox`] value is dropped. Its times are simulated from one
//! recorded run (`examples/data/README.md`). They say nothing about real servers.
//!
//! | file | what it does |
//! | --- | --- |
//! | `mod.rs` | [`Sandbox`]: starts and stops the stand-ins, and writes the files that name them |
//! | `viya/` | SAS Viya: login, job definitions, compute contexts, jobs, workload orchestrator |
//! | `autosys.rs`, `autosys/` | AutoSys: `sendevent`, `autostatus` and the web services, over one event log |
//! | `azure.rs`, `azure/` | Azure: login service, metadata service and Resource Manager |
//! | `vms.rs` | VMs of which some do not answer |
//! | `local_server.rs` | an HTTP server on a port of 127.0.0.1 |

pub mod autosys;
pub mod azure;
mod local_server;
#[cfg(test)]
mod tests;
pub mod viya;
mod vms;

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Local;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::error::{Error, ErrorKind, Result};
use crate::inventory::{Inventory, Vm};
use autosys::{AutosysOptions, AutosysSandbox};
use azure::{AzureOptions, AzureSandbox};
use viya::{ViyaOptions, ViyaSandbox};
use vms::Vms;

/// Times in token files are local and without a zone, as the first client wrote them.
const TOKEN_FILE_TIME: &str = "%Y-%m-%dT%H:%M:%S%.6f";

/// The parts of a sandbox.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// SAS Viya; `None`: there is none.
    pub viya: Option<ViyaOptions>,
    /// AutoSys; `None`: there is none.
    pub autosys: Option<AutosysOptions>,
    /// An Azure, to which the VMs of the sandbox are added; `None`: there is none.
    pub azure: Option<AzureOptions>,
    /// How many VMs the inventory has; at most 200.
    pub vms: usize,
    /// How many of them do not answer.
    pub vms_down: usize,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        let (viya, autosys) = (Some(ViyaOptions::default()), Some(AutosysOptions::default()));
        Self { viya, autosys, azure: None, vms: 4, vms_down: 1 }
    }
}

/// A running sandbox. Dropping it stops everything, and removes its files.
#[derive(Debug)]
pub struct Sandbox {
    /// The simulated SAS Viya.
    pub viya: Option<ViyaSandbox>,
    /// The simulated AutoSys: its programs, credentials and events.
    pub autosys: Option<AutosysSandbox>,
    /// The simulated Azure, whose VMs are those of the sandbox and one more that is deallocated.
    pub azure: Option<AzureSandbox>,
    /// The listeners of the VMs, and which VMs are down.
    pub vms: Vms,
    /// The VMs; `None` when there are none.
    pub inventory: Option<Inventory>,
    // Last, so that the files are removed after everything that uses them has stopped.
    dir: TempDir,
}

impl Sandbox {
    /// Starts the parts on ports that the system chooses.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for numbers that cannot work (speed, VMs) or job names that AutoSys would refuse;
    /// [`ErrorKind::Storage`] when the temporary directory cannot be written; [`ErrorKind::Network`], retryable, when the system
    /// gives no port.
    pub fn start(options: SandboxOptions) -> Result<Self> {
        let made = tempfile::Builder::new().prefix("jobrota-sandbox-").tempdir();
        let temporary = made.map_err(|e| storage("create a directory in", &std::env::temp_dir(), e))?;
        let dir = temporary.path();
        let vms = Vms::start(options.vms, options.vms_down)?;
        let inventory = inventory(&vms)?;
        let start_viya = |options: ViyaOptions| {
            let lifetime = options.token_lifetime;
            let viya = ViyaSandbox::start(options)?;
            write(&dir.join("job_configs.json"), &job_configs(&viya)?, 0o644)?;
            write(&dir.join("sas_tokens.json"), &token_file(viya.issue_tokens(), lifetime), 0o600)?;
            Ok::<_, Error>(viya)
        };
        let viya = options.viya.map(start_viya).transpose()?;
        let start_autosys = |options| AutosysSandbox::start(&dir.join("autosys"), options);
        let autosys = options.autosys.map(start_autosys).transpose()?;
        let start_azure = |mut options: AzureOptions| {
            // The VMs have the AutoSys client, as the real ones do.
            let bin = autosys.as_ref().map(|autosys| autosys.bin.clone());
            options.run_command.path.extend(bin);
            AzureSandbox::start(options.with_vms(&vms.all))
        };
        let azure = options.azure.map(start_azure).transpose()?;
        Ok(Self { viya, autosys, azure, vms, inventory, dir: temporary })
    }

    /// A token file for SAS Viya (mode 0600), with a refresh token. It exists only with SAS Viya.
    pub fn tokens(&self) -> PathBuf {
        self.dir.path().join("sas_tokens.json")
    }

    /// The job configurations for SAS Viya. They exist only with SAS Viya.
    pub fn jobs(&self) -> PathBuf {
        self.dir.path().join("job_configs.json")
    }
}

fn inventory(vms: &Vms) -> Result<Option<Inventory>> {
    let vm = |(name, address): &(String, IpAddr)| {
        let nic_name = Some(format!("{name}-nic"));
        Vm { name: name.clone(), ip_address: address.to_string(), nic_name, weight: 1 }
    };
    let all: Vec<Vm> = vms.all.iter().map(vm).collect();
    if all.is_empty() { Ok(None) } else { Inventory::new(all).map(Some) }
}

/// The example's job configurations, or one entry per definition where others were given.
fn job_configs(viya: &ViyaSandbox) -> Result<String> {
    let example: Value = serde_json::from_str(viya::workload::JOB_CONFIGS).map_err(|e| {
        Error::new(ErrorKind::Internal, "the example jobs built into jobrota cannot be read").with_source(e)
    })?;
    let job = |definition: &viya::JobDefinition| {
        json!({
            "definition_id": definition.id, "name": definition.name, "description": definition.description, "arguments": {},
            "context_name": "Autoscaling POC Context", "enabled": true,
        })
    };
    let jobs: Vec<Value> = viya.definitions().iter().map(job).collect();
    let count = jobs.len();
    let configs = json!({
        "jobs": jobs,
        "settings": {"max_concurrent_jobs": example["settings"]["max_concurrent_jobs"], "base_url": viya.url()},
        "metadata": {
            "generated_at": Local::now().naive_local().format(TOKEN_FILE_TIME).to_string(), "discovery_pattern": "*",
            "total_jobs_found": count, "enabled_jobs": count, "disabled_jobs": 0,
        },
    });
    Ok(format!("{configs:#}\n"))
}

/// SASLogon's response with the time that the first client added.
fn token_file(mut pair: Value, lifetime: Duration) -> String {
    pair["expires_at"] = json!((Local::now() + lifetime).naive_local().format(TOKEN_FILE_TIME).to_string());
    format!("{pair:#}\n")
}

/// Writes a new file.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| storage("write", path, e))
}

fn storage(verb: &str, path: &Path, cause: std::io::Error) -> Error {
    let text =
        format!("the sandbox could not {verb} {}; set TMPDIR to a directory that can be written to", path.display());
    Error::new(ErrorKind::Storage, text).with_source(cause)
}
