//! `Sandbox`: local stand-ins for SAS Viya, AutoSys and the VMs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict as _, PyDict, PyTuple};

use super::arguments::{self, Names, Text};
use super::errors::{ForkGuard, PyOutcome};
use super::inventory::PyInventory;
use super::wait::{self, CallMode};
use super::{convert, sandbox_viya};
use crate::error::{Error, Result};
use crate::runtime::lock;
use crate::sandbox::autosys::{AutosysOptions, AutosysSandbox};
use crate::sandbox::azure::{self, AzureOptions, AzureSandbox};
use crate::sandbox::viya::{ViyaOptions, ViyaSandbox, calibration};
use crate::sandbox::{Sandbox, SandboxOptions};

/// Local stand-ins for SAS Viya, AutoSys and the VMs, over real HTTP and real programs, on this machine's loopback only.
///
/// Use it as a context manager. Time in its SAS Viya is virtual: real time multiplied by `speed`.
///
/// Args:
///     viya: Whether there is a SAS Viya.
///     autosys: Whether there is an AutoSys.
///     vms: How many VMs there are, from 0 to 200.
///     vms_down: How many of them do not answer.
///     speed: Virtual seconds per real second.
///     refuse_first: AutoSys jobs whose first event is refused, once; the same event is accepted when it is sent again.
///     fail_jobs: SAS Viya jobs that end as failed.
///     token_lifetime: For how long an access token is valid, in real time.
///     azure: Whether there is an Azure with these VMs, and one more that is deallocated.
///     azure_throttle_first: How many requests Azure Resource Manager answers with 429 at first.
///     definitions: SAS Viya's job definitions instead of the example's: by name, how long the job runs alone on a host.
///     hosts: What SAS Viya's hosts are like: numbers by the names that `docs/sandbox.md` has, such as `fixed_hosts` and
///         `fixed_slots`.
///     long_poll: Whether SAS Viya waits with the state of a job when it is asked to.
///     list_filters: Whether SAS Viya takes filters in listings of jobs.
///     orchestrator: `normal`; `missing` or `forbidden`; `unnamed`, which does not pass on the names of jobs, as older
///         releases do.
///     fault_rate: The share of requests that SAS Viya answers with 429 or 503; some of these requests take effect.
///     reset_rate: The share of requests whose connection breaks off, before or after they took effect.
///     seed: Which requests these are.
///
/// Raises:
///     InvalidInputError: A number is out of range, or AutoSys would refuse a job's name.
///
/// Example:
///     >>> from jobrota import RoundRobinSelector, Sandbox
///     >>> with Sandbox(viya=False, autosys=False, vms=4, vms_down=1) as sandbox:
///     ...     selector = RoundRobinSelector(sandbox.inventory, cursor="process", probe=sandbox.probe)
///     ...     [selector.select().vm for _ in range(4)]
///     ['vm1', 'vm2', 'vm4', 'vm1']
#[pyclass(module = "jobrota", name = "Sandbox", frozen)]
pub(super) struct PySandbox {
    /// None once it is closed.
    sandbox: Arc<Mutex<Option<Sandbox>>>,
    /// Virtual seconds per real second.
    #[pyo3(get)]
    speed: f64,
    guard: ForkGuard,
}

impl PySandbox {
    fn with<T>(&self, ask: impl FnOnce(&Sandbox) -> Result<T>) -> PyOutcome<T> {
        self.guard.check("Sandbox")?;
        let sandbox = lock(&self.sandbox);
        let running = sandbox.as_ref().ok_or_else(|| Error::invalid("the sandbox is closed; start another one"))?;
        Ok(ask(running)?)
    }

    fn close_in(&self, mode: CallMode<'_>) -> PyOutcome {
        self.guard.check("Sandbox")?;
        let sandbox = Arc::clone(&self.sandbox);
        let close = move || {
            // Other callers must not wait for the servers to stop.
            let running = lock(&sandbox).take();
            drop(running);
            Ok(())
        };
        mode.run_blocking(close, |py, ()| Ok(py.None()))
    }

    fn with_viya<T>(&self, ask: impl FnOnce(&ViyaSandbox) -> Result<T>) -> PyOutcome<T> {
        self.with(|sandbox| ask(sandbox.viya.as_ref().ok_or_else(|| absent("SAS Viya", "viya"))?))
    }

    fn with_autosys<T>(&self, ask: impl FnOnce(&AutosysSandbox) -> Result<T>) -> PyOutcome<T> {
        self.with(|sandbox| ask(sandbox.autosys.as_ref().ok_or_else(|| absent("AutoSys", "autosys"))?))
    }

    fn with_azure<T>(&self, ask: impl FnOnce(&AzureSandbox) -> Result<T>) -> PyOutcome<T> {
        self.with(|sandbox| ask(sandbox.azure.as_ref().ok_or_else(|| absent("Azure", "azure"))?))
    }
}

fn absent(what: &str, argument: &str) -> Error {
    Error::invalid(format!("this sandbox has no {what}: start it with {argument}=True"))
}

#[pymethods]
impl PySandbox {
    #[new]
    #[pyo3(signature = (viya = true, autosys = true, vms = 4, vms_down = 1, speed = 1.0, *, refuse_first = None,
                        fail_jobs = None, token_lifetime = 3600.0, azure = false, azure_throttle_first = 0,
                        definitions = None, hosts = None, long_poll = true, list_filters = true,
                        orchestrator = "normal", fault_rate = 0.0, reset_rate = 0.0, seed = 1))]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::flag)] viya: bool,
        #[pyo3(from_py_with = arguments::flag)] autosys: bool,
        #[pyo3(from_py_with = arguments::whole)] vms: usize,
        #[pyo3(from_py_with = arguments::whole)] vms_down: usize,
        #[pyo3(from_py_with = arguments::number)] speed: f64,
        refuse_first: Option<Names>,
        fail_jobs: Option<Names>,
        #[pyo3(from_py_with = arguments::seconds)] token_lifetime: f64,
        #[pyo3(from_py_with = arguments::flag)] azure: bool,
        #[pyo3(from_py_with = arguments::whole)] azure_throttle_first: u32,
        #[pyo3(from_py_with = arguments::optional_dict)] definitions: Option<Bound<'_, PyDict>>,
        #[pyo3(from_py_with = arguments::optional_dict)] hosts: Option<Bound<'_, PyDict>>,
        #[pyo3(from_py_with = arguments::flag)] long_poll: bool,
        #[pyo3(from_py_with = arguments::flag)] list_filters: bool,
        #[pyo3(from_py_with = arguments::text)] orchestrator: &str,
        #[pyo3(from_py_with = arguments::number)] fault_rate: f64,
        #[pyo3(from_py_with = arguments::number)] reset_rate: f64,
        #[pyo3(from_py_with = arguments::whole)] seed: u32,
    ) -> PyOutcome<Self> {
        let refuse_first = refuse_first.map(|jobs| jobs.0).unwrap_or_default();
        let token_lifetime = Duration::from_secs_f64(token_lifetime).max(Duration::from_millis(1));
        let viya_options = ViyaOptions {
            speed,
            token_lifetime,
            fail_jobs: fail_jobs.map(|jobs| jobs.0).unwrap_or_default(),
            definitions: sandbox_viya::definitions(definitions)?,
            hosts: sandbox_viya::hosts(hosts)?,
            long_poll,
            list_filters,
            orchestrator: sandbox_viya::orchestrator(orchestrator)?,
            fault_rate: sandbox_viya::share("fault_rate", fault_rate)?,
            reset_rate: sandbox_viya::share("reset_rate", reset_rate)?,
            seed: seed.into(),
            ..ViyaOptions::default()
        };
        let azure_options = AzureOptions {
            // A listing is cached by its subscription, also for a later sandbox that gets the same port.
            subscription_id: uuid::Uuid::new_v4().to_string(),
            throttle_first: azure_throttle_first,
            token_lifetime,
            ..AzureOptions::default()
        };
        let options = SandboxOptions {
            viya: viya.then_some(viya_options),
            autosys: autosys.then(|| AutosysOptions { refuse_first, ..AutosysOptions::default() }),
            azure: azure.then_some(azure_options),
            vms,
            vms_down,
        };
        let sandbox = wait::blocking(py, || Sandbox::start(options))?;
        Ok(Self { sandbox: Arc::new(Mutex::new(Some(sandbox))), speed, guard: ForkGuard::new() })
    }

    /// Base URL of the SAS Viya.
    #[getter]
    fn viya_url(&self) -> PyOutcome<String> {
        self.with_viya(|viya| Ok(viya.url()))
    }

    /// URL of AutoSys's web services.
    #[getter]
    fn autosys_url(&self) -> PyOutcome<String> {
        self.with_autosys(|autosys| Ok(autosys.url().to_owned()))
    }

    /// User and password of AutoSys's web services, generated for this sandbox.
    #[getter]
    fn autosys_credentials(&self) -> PyOutcome<(String, String)> {
        self.with_autosys(|autosys| {
            let (user, password) = autosys.credentials();
            Ok((user.to_owned(), password.to_owned()))
        })
    }

    /// Address of Azure: Resource Manager, the login service and a VM's metadata service in one.
    #[getter]
    fn azure_url(&self) -> PyOutcome<String> {
        self.with_azure(|azure| Ok(azure.url()))
    }

    /// Id of Azure's only subscription, generated for this sandbox.
    #[getter]
    fn azure_subscription_id(&self) -> PyOutcome<String> {
        self.with_azure(|azure| Ok(azure.subscription_id().to_owned()))
    }

    /// The resource group of the VMs. Its load balancer `sandbox-lb` has the backend pools `by-nic` and `by-address`.
    #[getter]
    fn azure_resource_group(&self) -> PyOutcome<&'static str> {
        self.with_azure(|_| Ok(azure::RESOURCE_GROUP))
    }

    /// The service principal for `Inventory.from_azure`, generated for this sandbox: tenant_id, client_id, client_secret and
    /// authority_host.
    #[getter]
    fn azure_credential<'py>(&self, py: Python<'py>) -> PyOutcome<Bound<'py, PyDict>> {
        let (secret, url) = self.with_azure(|azure| Ok((azure.client_secret(), azure.url())))?;
        let ids = [("tenant_id", azure::TENANT_ID), ("client_id", azure::CLIENT_ID)];
        Ok(ids.into_iter().chain([("client_secret", &*secret), ("authority_host", &*url)]).into_py_dict(py)?)
    }

    /// A token for Azure Resource Manager, as its login service issues it.
    fn azure_token(&self) -> PyOutcome<String> {
        self.with_azure(|azure| Ok(azure.issue_token()))
    }

    /// Method and path of every request to Azure Resource Manager, in order.
    fn azure_requests(&self) -> PyOutcome<Vec<String>> {
        self.with_azure(|azure| Ok(azure.requests()))
    }

    /// Puts a VM of Azure into a power state. Whether it answers probes does not change.
    ///
    /// Args:
    ///     vm: Name of the VM.
    ///     state: Such as `running`, `stopped` or `deallocated`.
    fn set_azure_power(&self, vm: Text, state: Text) -> PyOutcome<()> {
        self.with_azure(|azure| azure.set_power(&vm.0, &state.0))
    }

    /// Says what Run Command does on a VM of Azure from now on.
    ///
    /// Args:
    ///     vm: Name of the VM.
    ///     mode: `normal`; `busy`, as if another command were running; `forbidden`, `agent_down` or `throttled`, which
    ///         run nothing; `fails_afterwards`, `output_lost` or `forgotten`, which run the script and lose what became of
    ///         it; `operation_fails`, which runs nothing and says so only at the end.
    fn set_azure_run_command(&self, vm: Text, mode: Text) -> PyOutcome<()> {
        let Text(mode) = mode;
        let known: azure::RunCommandMode = mode.parse().map_err(|_| {
            Error::invalid(format!("mode {mode:?} is none of Run Command: see help(Sandbox.set_azure_run_command)"))
        })?;
        self.with_azure(|azure| {
            azure.set_run_command(&vm.0, known);
            Ok(())
        })
    }

    /// Sets how many of the last bytes of Run Command's output are kept from now on. Azure keeps 4,096.
    fn set_azure_output_limit(&self, #[pyo3(from_py_with = arguments::whole)] limit: usize) -> PyOutcome<()> {
        self.with_azure(|azure| {
            azure.set_output_limit(limit);
            Ok(())
        })
    }

    /// Sets the address in Azure's links, for a proxy that adds TLS.
    fn set_azure_public_url(&self, #[pyo3(from_py_with = arguments::text)] url: &str) -> PyOutcome<()> {
        self.with_azure(|azure| {
            azure.set_public_url(url);
            Ok(())
        })
    }

    /// The scripts that Run Command ran: VM and script, in order.
    fn azure_scripts(&self) -> PyOutcome<Vec<(String, String)>> {
        self.with_azure(|azure| Ok(azure.scripts()))
    }

    /// The VMs, with their addresses.
    #[getter]
    fn inventory(&self) -> PyOutcome<PyInventory> {
        self.with(|sandbox| {
            let inventory = sandbox.inventory.clone().ok_or_else(|| absent("VM", "vms"))?;
            Ok(PyInventory { inventory })
        })
    }

    /// How many requests came to each route of SAS Viya, such as `GET /jobExecution/jobs/{id}/state`.
    fn viya_requests(&self) -> PyOutcome<BTreeMap<String, u64>> {
        self.with_viya(|viya| Ok(viya.requests()))
    }

    /// Every job that was ever submitted to SAS Viya, in order: dicts of id, name, state, created and ended; moments are its
    /// seconds since the start.
    fn viya_jobs(&self, py: Python<'_>) -> PyOutcome {
        convert::record(py, &self.with_viya(|viya| Ok(viya.jobs()))?)
    }

    /// Names of the VMs that do not answer.
    #[getter]
    fn vms_down(&self) -> PyOutcome<Vec<String>> {
        self.with(|sandbox| Ok(sandbox.vms.down.clone()))
    }

    /// A probe that only the live VMs answer. The system itself answers ICMP for all of 127.0.0.0/8.
    #[getter]
    fn probe(&self) -> PyOutcome<String> {
        self.with(|sandbox| Ok(sandbox.vms.probe()))
    }

    /// The token file for `viya_url`.
    #[getter]
    fn tokens(&self) -> PyOutcome<PathBuf> {
        self.with(|sandbox| Ok(sandbox.tokens()))
    }

    /// The job configuration file, with the 54 jobs of the recorded run.
    #[getter]
    fn jobs(&self) -> PyOutcome<PathBuf> {
        self.with(|sandbox| Ok(sandbox.jobs()))
    }

    /// The `sendevent` program.
    #[getter]
    fn sendevent(&self) -> PyOutcome<PathBuf> {
        self.with_autosys(|autosys| Ok(autosys.sendevent()))
    }

    /// The `autostatus` program.
    #[getter]
    fn autostatus(&self) -> PyOutcome<PathBuf> {
        self.with_autosys(|autosys| Ok(autosys.autostatus()))
    }

    /// Lets AutoSys refuse the next event of each of these jobs, once; the same event is accepted when it is sent again.
    ///
    /// Args:
    ///     jobs: Names of AutoSys jobs.
    fn refuse_once(&self, jobs: Names) -> PyOutcome<()> {
        self.with_autosys(|autosys| autosys.refuse_once(&jobs.0))
    }

    /// The events that AutoSys took, in order: dicts of at, via, event, job, status and comment.
    fn autosys_events<'py>(&self, py: Python<'py>) -> PyOutcome<Vec<Bound<'py, PyAny>>> {
        let events = self.with_autosys(AutosysSandbox::events)?;
        let dicts = events.into_iter().map(|event| {
            let dict = convert::record(py, &event)?.into_bound(py);
            // JSON has no times.
            dict.set_item("at", event.at)?;
            Ok(dict)
        });
        dicts.collect()
    }

    /// Stops everything and removes its files. A second call has no effect.
    fn close(&self, py: Python<'_>) -> PyOutcome {
        self.close_in(CallMode::Wait(py))
    }

    /// Like `close`, as a coroutine.
    fn close_async(&self, py: Python<'_>) -> PyOutcome {
        self.close_in(CallMode::Coroutine(py))
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_exception), text_signature = "($self, exc_type, exc, traceback, /)")]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyOutcome {
        self.close_in(CallMode::Wait(py))
    }

    fn __aenter__(this: Py<Self>, py: Python<'_>) -> PyOutcome {
        CallMode::Coroutine(py).run(async { Ok(()) }, move |_, ()| Ok(this))
    }

    #[pyo3(signature = (*_exception), text_signature = "($self, exc_type, exc, traceback, /)")]
    fn __aexit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyOutcome {
        self.close_in(CallMode::Coroutine(py))
    }

    fn __repr__(&self) -> String {
        match self.with(|sandbox| Ok(sandbox.viya.as_ref().map(ViyaSandbox::url))) {
            Ok(Some(url)) => format!("Sandbox(viya_url='{url}', speed={})", self.speed),
            Ok(None) => format!("Sandbox(speed={})", self.speed),
            Err(_) => "Sandbox(closed)".to_owned(),
        }
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let data = PyDict::new(py);
        data.set_item("speed", self.speed)?;
        let running = self.with(|sandbox| {
            let azure = sandbox.azure.as_ref().map(AzureSandbox::url);
            let viya = sandbox.viya.as_ref().map(ViyaSandbox::url);
            let autosys = sandbox.autosys.as_ref().map(|autosys| autosys.url().to_owned());
            Ok((viya, autosys, azure, sandbox.vms.down.join(", ")))
        });
        match running {
            Ok((viya, autosys, azure, down)) => {
                data.set_item("viya_url", viya)?;
                data.set_item("autosys_url", autosys)?;
                if azure.is_some() {
                    data.set_item("azure_url", azure)?;
                }
                data.set_item("vms_down", down)?;
            }
            Err(_) => data.set_item("state", "closed")?,
        }
        convert::repr_html(py, "sandbox", data)
    }
}

/// The sandbox's host model against the recorded run: dicts of arm, measure, recorded, sandbox and error_percent.
///
/// Returns:
///     One dict per measure of each arm; seconds, but for counts.
#[pyfunction]
pub(super) fn sandbox_calibration(py: Python<'_>) -> PyOutcome {
    convert::record(py, &wait::blocking(py, calibration)?)
}
