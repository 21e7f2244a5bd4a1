//! `RunCommand`: Azure Run Command on a selected VM as the way to AutoSys.

use std::sync::Arc;

use pyo3::prelude::*;

use super::arguments;
use super::azure_credential;
use super::convert;
use super::errors::PyOutcome;
use super::interrupt::Runs;
use super::selector::PyRoundRobinSelector;
use crate::autosys::{Mapping, RunCommand, RunCommandOptions, Transport};
use crate::error::Error;

/// Azure Run Command on a VM that a selector picks, as the way to AutoSys: one script per batch runs `sendevent` there.
///
/// Every value is quoted for the shell, so that no character of it is interpreted. Each event's exit code comes back on a
/// line of its own. A VM runs one command at a time: further ones wait for their turn. A VM that surely ran nothing (it is
/// stopped, not allowed, has no `sendevent`) hands the batch to the next one; a row about which the output says nothing is
/// unknown.
///
/// Args:
///     selector: The `RoundRobinSelector`; its VMs have the names that they have in Azure.
///     subscription_id: Id of the subscription.
///     resource_group: The VMs' resource group; None: Resource Manager is asked, once, where each VM is.
///     credential: As for `Inventory.from_azure`. It needs `Microsoft.Compute/virtualMachines/runCommand/action`.
///     endpoint: `"public"`, `"usgov"`, `"china"`, or the https:// address of a Resource Manager.
///     program: `sendevent` on the VM: a path, or a name that is in `PATH` there.
///     env_file: A file on the VM that is sourced once per script, such as `"/opt/autouser.ACE/autosys.sh.host"`.
///     autostatus: The program for `confirm=True`, such as `"autostatus"`; None: the status is not read, as each takes a
///         script of its own, of half a minute or so.
///     run_as: The user on the VM who runs it all, through `sudo -n`; None: root, as whom Run Command works.
///     comment: Text for `-C`; `{file_name}` becomes the row's file name. Starts with a letter or digit.
///     batch: Events per script, from 1 to 60. More leave less room for what each prints: 4,096 bytes are kept for all.
///     event_timeout: Seconds for one event; then `sendevent` is ended, and the outcome is unknown.
///     busy_timeout: Seconds to wait for the VM's turn while it runs somebody else's command.
///     timeout: Seconds to wait for the end of a script. Azure itself ends one after 90 minutes.
///
/// Raises:
///     InvalidInputError: An argument can never work.
///
/// Example:
///     >>> import tempfile
///     >>> from jobrota import AutosysUpdater, JobLedger, RoundRobinSelector, Sandbox
///     >>> from jobrota.autosys import RunCommand
///     >>> ledger = JobLedger(tempfile.mkdtemp())
///     >>> ledger.log_job_completion("ae.sas", "PROD.AE", "SUCCESS")
///     >>> with Sandbox(viya=False, vms=2, vms_down=0, azure=True) as sandbox:
///     ...     selector = RoundRobinSelector(sandbox.inventory, cursor="process", probe=sandbox.probe)
///     ...     transport = RunCommand(
///     ...         selector,
///     ...         subscription_id=sandbox.azure_subscription_id,
///     ...         resource_group=sandbox.azure_resource_group,
///     ...         credential=sandbox.azure_credential,
///     ...         endpoint=sandbox.azure_url,
///     ...     )
///     ...     AutosysUpdater(ledger, transport).run().delivered
///     1
#[pyclass(module = "jobrota", name = "RunCommand", frozen)]
pub(super) struct PyRunCommand {
    selector: Py<PyRoundRobinSelector>,
    credential: Option<Py<PyAny>>,
    options: RunCommandOptions,
}

impl PyRunCommand {
    /// The transport that sends what `mapping` says. An interrupt inside of the credential ends `runs`.
    pub(super) fn core(&self, py: Python<'_>, mapping: Mapping, runs: &Arc<Runs>) -> PyOutcome<Arc<dyn Transport>> {
        let given = self.credential.as_ref().map(|value| value.bind(py));
        let (credential, authority_host) = azure_credential::credential(given, runs)?;
        let selector = self.selector.get().core()?;
        let options = RunCommandOptions { credential, authority_host, mapping, ..self.options.clone() };
        Ok(Arc::new(RunCommand::new(selector.as_ref().clone(), options)?))
    }
}

#[pymethods]
impl PyRunCommand {
    #[new]
    #[pyo3(signature = (selector, *, subscription_id, resource_group = None, credential = None, endpoint = None,
                        program = "sendevent", env_file = None, autostatus = None, run_as = None, comment = None, batch = 20,
                        event_timeout = 60.0, busy_timeout = 600.0, timeout = 5400.0))]
    #[allow(clippy::too_many_arguments, reason = "one per keyword of the Python class")]
    fn new(
        py: Python<'_>,
        selector: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = arguments::text)] subscription_id: &str,
        #[pyo3(from_py_with = arguments::optional_text)] resource_group: Option<String>,
        credential: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_text)] endpoint: Option<String>,
        #[pyo3(from_py_with = arguments::text)] program: &str,
        #[pyo3(from_py_with = arguments::optional_text)] env_file: Option<String>,
        #[pyo3(from_py_with = arguments::optional_text)] autostatus: Option<String>,
        #[pyo3(from_py_with = arguments::optional_text)] run_as: Option<String>,
        #[pyo3(from_py_with = arguments::optional_text)] comment: Option<String>,
        #[pyo3(from_py_with = arguments::whole)] batch: usize,
        #[pyo3(from_py_with = arguments::number)] event_timeout: f64,
        #[pyo3(from_py_with = arguments::number)] busy_timeout: f64,
        #[pyo3(from_py_with = arguments::number)] timeout: f64,
    ) -> PyOutcome<Self> {
        let selector = selector.cast::<PyRoundRobinSelector>().map_err(|_| {
            let kind = selector.get_type().name().map(|name| name.to_string()).unwrap_or_default();
            Error::invalid(format!("selector must be a RoundRobinSelector, not {kind}"))
        })?;
        let options = RunCommandOptions {
            endpoint,
            program: program.to_owned(),
            env_file,
            autostatus,
            run_as,
            comment,
            batch,
            event_timeout: convert::seconds("event_timeout", event_timeout)?,
            busy_timeout: convert::seconds("busy_timeout", busy_timeout)?,
            timeout: convert::seconds("timeout", timeout)?,
            ..RunCommandOptions::new(subscription_id, resource_group)
        };
        let credential = credential.filter(|value| !value.is_none()).map(|value| value.clone().unbind());
        let made = Self { selector: selector.clone().unbind(), credential, options };
        // Made once here only to refuse bad options where they are given, not at the first delivery.
        made.core(py, Mapping::default(), &Arc::default())?;
        Ok(made)
    }

    /// Id of the subscription.
    #[getter]
    fn subscription_id(&self) -> &str {
        &self.options.subscription_id
    }

    fn __repr__(&self) -> String {
        let group = self.options.resource_group.as_deref().unwrap_or("any");
        format!("RunCommand(subscription_id={:?}, resource_group={group:?})", self.options.subscription_id)
    }
}
