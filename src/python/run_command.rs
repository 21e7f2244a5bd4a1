//! `RunCommand`: the transport that runs `sendevent` on a selected VM through Azure Run Command.

use std::sync::Arc;
use std::time::Duration;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::callables::{self, Calls};
use super::convert::arguments::{self, Text};
use super::errors::PyOutcome;
use super::selector::{PyRoundRobinSelector, selector_argument};
use crate::autosys::{Mapping, RunCommand, RunCommandOptions, Transport};

/// The transport that runs `sendevent` through Azure Run Command on a VM that a selector selects, with one script per batch.
///
/// Every value is quoted for the shell, so no character of it is interpreted. The output has a line with the exit code of each
/// event. A VM runs one command at a time, and further ones wait. If a VM certainly ran nothing (it is stopped, not allowed, has
/// no `sendevent`), the batch goes to the next one. The outcome of a row without a line in the output is unknown.
///
/// Args:
///     selector: The `RoundRobinSelector`; its VMs have the names that they have in Azure.
///     subscription_id: Id of the subscription.
///     resource_group: The VMs' resource group; None: one request to Resource Manager per VM finds it.
///     credential: As for `Inventory.from_azure`. It needs `Microsoft.Compute/virtualMachines/runCommand/action`.
///     endpoint: `"public"`, `"usgov"`, `"china"`, or the https:// address of a Resource Manager.
///     program: `sendevent` on the VM: a path, or a name that is in `PATH` there.
///     env_file: A file on the VM that is sourced once per script, such as `"/opt/autouser.ACE/autosys.sh.host"`.
///     autostatus: The program for `confirm=True`, such as `"autostatus"`; None: the status is not read, because each
///         read takes a script of about half a minute.
///     run_as: The user on the VM who runs the script, through `sudo -n`; None: root, the user of Run Command.
///     comment: Text for `-C`; `{file_name}` becomes the row's file name. Starts with a letter or digit.
///     batch: Events per script, from 1 to 60. With more events, less output of each fits into the 4,096 bytes that are kept.
///     event_timeout: Time for one event; then `sendevent` is ended, and the outcome is unknown. Times are seconds, text such
///         as `"15m"`, or a timedelta.
///     busy_timeout: Time to wait while the VM runs another command.
///     timeout: Time to wait for the end of a script. Azure itself ends one after 90 minutes.
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
    /// The transport that sends events by `mapping`. An exception such as KeyboardInterrupt in the credential ends `calls`.
    pub(super) fn core(&self, py: Python<'_>, mapping: Mapping, calls: &Arc<Calls>) -> PyOutcome<Arc<dyn Transport>> {
        let given = self.credential.as_ref().map(|value| value.bind(py));
        let (credential, authority_host) = callables::azure_credential(given, calls)?;
        let selector = self.selector.get().core()?;
        let mut options = RunCommandOptions { credential, authority_host, ..self.options.clone() };
        options.command.mapping = mapping;
        Ok(Arc::new(RunCommand::new(selector.as_ref().clone(), options)?))
    }
}

#[pymethods]
impl PyRunCommand {
    #[new]
    #[pyo3(signature = (selector, *, subscription_id, resource_group = None, credential = None, endpoint = None,
                        program = "sendevent", env_file = None, autostatus = None, run_as = None, comment = None, batch = 20,
                        event_timeout = 60.0, busy_timeout = 600.0, timeout = 5400.0))]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = selector_argument)] selector: Py<PyRoundRobinSelector>,
        subscription_id: Text,
        resource_group: Option<Text>,
        credential: Option<Py<PyAny>>,
        endpoint: Option<Text>,
        #[pyo3(from_py_with = arguments::text)] program: &str,
        env_file: Option<Text>,
        autostatus: Option<Text>,
        run_as: Option<Text>,
        comment: Option<Text>,
        #[pyo3(from_py_with = arguments::whole)] batch: usize,
        #[pyo3(from_py_with = arguments::seconds)] event_timeout: f64,
        #[pyo3(from_py_with = arguments::seconds)] busy_timeout: f64,
        #[pyo3(from_py_with = arguments::seconds)] timeout: f64,
    ) -> PyOutcome<Self> {
        let mut options = RunCommandOptions {
            endpoint: endpoint.map(|endpoint| endpoint.0),
            event_timeout: Duration::from_secs_f64(event_timeout),
            busy_timeout: Duration::from_secs_f64(busy_timeout),
            timeout: Duration::from_secs_f64(timeout),
            ..RunCommandOptions::new(&subscription_id.0, resource_group.map(|group| group.0))
        };
        options.command.program = program.to_owned();
        options.command.env_file = env_file.map(|file| file.0);
        options.command.autostatus = autostatus.map(|program| program.0);
        options.command.run_as = run_as.map(|user| user.0);
        options.command.comment = comment.map(|comment| comment.0);
        options.command.batch = batch;
        let made = Self { selector, credential, options };
        // Refuses bad options here, and not at the first delivery.
        made.core(py, Mapping::change_status(), &Arc::default())?;
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

    // Whatever can be part of a circle through these clears itself.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.selector)?;
        visit.call(&self.credential)
    }
}
