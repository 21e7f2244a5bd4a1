//! `Inventory`: what VMs there are.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::arguments;
use super::azure_credential;
use super::convert;
use super::errors::PyOutcome;
use super::interrupt::{self, Runs};
use crate::error::Error;
use crate::inventory::azure::{AzureOptions, AzureQuery, Members, PowerFilter};
use crate::inventory::{Inventory, Origin};

/// The VMs that may be selected, in order.
///
/// Args:
///     vms: Names; or `{name: {"ip_address": …, "nic_name": …, "weight": …}}`; or a list of such dicts with `"name"`; or
///         the path of a `.json`, `.yaml` or `.csv` file with one of these.
///
/// Raises:
///     InvalidInputError: It is empty, names a VM twice, or has a key, shape or file format that is not known.
///     NotFoundError: There is no such file.
///
/// Example:
///     >>> from jobrota import Inventory
///     >>> Inventory({"vm1": {"ip_address": "10.0.0.4"}, "vm2": {"ip_address": "10.0.0.5"}}).names
///     ['vm1', 'vm2']
#[pyclass(module = "jobrota", name = "Inventory", frozen)]
#[derive(Clone)]
pub(super) struct PyInventory {
    pub(super) inventory: Inventory,
}

/// Any of the shapes that Python callers use for an inventory.
pub(super) fn inventory(value: &Bound<'_, PyAny>) -> PyOutcome<Inventory> {
    if let Ok(inventory) = value.cast::<PyInventory>() {
        return Ok(inventory.get().inventory.clone());
    }
    if value.is_instance_of::<pyo3::types::PyString>() || value.hasattr("__fspath__")? {
        let file = arguments::named_location("inventory", value)?;
        return Ok(Inventory::from_file(file)?);
    }
    if value.is_none() {
        return Err(Error::invalid(
            "there is no inventory: give the names of the VMs, a dict, a list of dicts or a file",
        )
        .into());
    }
    // Tuples, dict views and other iterables of names are lists to JSON.
    let plain = if value.is_instance_of::<PyDict>() || value.is_instance_of::<PyList>() {
        value.clone()
    } else {
        match value.try_iter() {
            Ok(items) => {
                let list = PyList::empty(value.py());
                for item in items {
                    list.append(item?)?;
                }
                list.into_any()
            }
            Err(_) => value.clone(),
        }
    };
    Ok(Inventory::from_value(convert::json_value("inventory", &plain)?)?)
}

fn vm_dicts<'py>(py: Python<'py>, inventory: &Inventory) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for vm in inventory.vms() {
        let dict = PyDict::new(py);
        dict.set_item("name", &vm.name)?;
        dict.set_item("ip_address", &vm.ip_address)?;
        dict.set_item("nic_name", vm.nic_name.as_deref().unwrap_or_default())?;
        dict.set_item("weight", vm.weight)?;
        list.append(dict)?;
    }
    Ok(list)
}

/// What the arguments of `from_azure` mean.
struct Listing {
    query: AzureQuery,
    options: AzureOptions,
    runs: Arc<Runs>,
}

impl Listing {
    #[allow(clippy::too_many_arguments, reason = "one per argument of the Python method")]
    fn new(
        subscription_id: &str,
        resource_group: Option<String>,
        vm_names: Option<Vec<String>>,
        backend_pool: Option<String>,
        credential: Option<&Bound<'_, PyAny>>,
        endpoint: Option<String>,
        power_state: Option<&Bound<'_, PyAny>>,
        times: [(&str, f64); 3],
    ) -> PyOutcome<Self> {
        let members = match (vm_names, backend_pool) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid(
                    "vm_names and backend_pool are two ways to say which VMs: give one of them",
                )
                .into());
            }
            (Some(names), None) => Members::Names(names),
            (None, Some(pool)) => Members::BackendPool(pool),
            (None, None) => Members::All,
        };
        let power =
            match power_state.map(|value| convert::choice("power_state", value, &["running", "any"])).transpose()? {
                Some("any") => PowerFilter::Any,
                _ => PowerFilter::Running,
            };
        let runs = Arc::new(Runs::default());
        let (credential, authority_host) = azure_credential::credential(credential, &runs)?;
        let [max_age, max_stale, timeout] = times.map(|(name, value)| convert::seconds(name, value));
        let query = AzureQuery { subscription_id: subscription_id.to_owned(), resource_group, members, power };
        let options = AzureOptions {
            credential,
            endpoint,
            authority_host,
            max_age: max_age?,
            max_stale: max_stale?,
            timeout: timeout?,
            ..AzureOptions::default()
        };
        Ok(Self { query, options, runs })
    }
}

/// The inventory for Python, with the warning that goes with it.
fn listed(py: Python<'_>, inventory: Inventory) -> PyOutcome<PyInventory> {
    if let Some(warning) = inventory.origin().and_then(|origin| origin.warning.as_deref()) {
        // A zero byte cannot be in a warning, and is in no text that could be meant.
        let text = std::ffi::CString::new(warning.replace('\0', " ")).unwrap_or_default();
        PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 1)?;
    }
    Ok(PyInventory { inventory })
}

#[pymethods]
impl PyInventory {
    #[new]
    fn new(vms: &Bound<'_, PyAny>) -> PyOutcome<Self> {
        Ok(Self { inventory: inventory(vms)? })
    }

    /// Lists VMs through Azure Resource Manager: VM name, name of its primary network interface, private IP address.
    ///
    /// A listing is remembered, in this process and in a file of the user's state directory, and taken again while it is
    /// younger than `max_age`; while Resource Manager does not answer also up to `max_stale`, with a warning. VMs that are
    /// not running are not in the inventory, but in `left_out`.
    ///
    /// Args:
    ///     subscription_id: Id of the subscription.
    ///     resource_group: The VMs' resource group; None: all of the subscription.
    ///     vm_names: Only these VMs, in this order. One that is not there is an error.
    ///     backend_pool: Only the members of this pool: `"load balancer/pool"`, or its resource id.
    ///     credential: None: a service principal or workload identity of the environment (`AZURE_TENANT_ID` and so on), else
    ///         this machine's managed identity. A dict of `tenant_id`, `client_id` and `client_secret`: that service
    ///         principal, with `authority_host` for another login service; of `client_id` alone: that user-assigned
    ///         managed identity. A callable that returns a token, or `(token, expires_on)`. An object with
    ///         `get_token(scope)`, as those of `azure.identity`.
    ///     endpoint: `"public"`, `"usgov"`, `"china"`, or the https:// address of a Resource Manager.
    ///     power_state: `"running"`, or `"any"`, which does not ask for power states.
    ///     max_age: Seconds for which a listing is taken for current; 0 lists anew each time.
    ///     max_stale: Seconds up to which an older one is taken while Resource Manager does not answer.
    ///     timeout: Seconds for all requests together, tries and waits included.
    ///
    /// Returns:
    ///     An `Inventory`, whose `source`, `listed_at`, `age` and `left_out` say where it came from.
    ///
    /// Raises:
    ///     AuthenticationError: Credentials are missing, refused, or not allowed to read VMs or network interfaces.
    ///     NotFoundError: A name is not there; or there is no VM at all.
    ///     NoReachableVmError: No VM is running; `.failures` has the power state of each.
    ///     NetworkError: Resource Manager or the login service did not answer.
    ///     ServerError: It answered with an error of its own, such as too many requests.
    ///
    /// Example:
    ///     >>> from jobrota import Inventory, Sandbox
    ///     >>> with Sandbox(viya=False, autosys=False, vms=2, vms_down=0, azure=True) as sandbox:
    ///     ...     inventory = Inventory.from_azure(
    ///     ...         sandbox.azure_subscription_id,
    ///     ...         sandbox.azure_resource_group,
    ///     ...         credential=sandbox.azure_credential,
    ///     ...         endpoint=sandbox.azure_url,
    ///     ...     )
    ///     >>> [(vm["name"], vm["nic_name"], vm["ip_address"]) for vm in inventory.vms]
    ///     [('vm1', 'vm1-nic', '127.0.0.11'), ('vm2', 'vm2-nic', '127.0.0.12')]
    ///     >>> inventory.left_out
    ///     {'vm-deallocated': 'is deallocated'}
    #[staticmethod]
    #[pyo3(signature = (subscription_id, resource_group = None, vm_names = None, backend_pool = None, credential = None, *,
                        endpoint = None, power_state = None, max_age = 300.0, max_stale = 86400.0, timeout = 60.0))]
    #[allow(clippy::too_many_arguments, reason = "one per argument of the Python method")]
    fn from_azure(
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::text)] subscription_id: &str,
        #[pyo3(from_py_with = arguments::optional_text)] resource_group: Option<String>,
        #[pyo3(from_py_with = arguments::optional_names)] vm_names: Option<Vec<String>>,
        #[pyo3(from_py_with = arguments::optional_text)] backend_pool: Option<String>,
        credential: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_text)] endpoint: Option<String>,
        power_state: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::number)] max_age: f64,
        #[pyo3(from_py_with = arguments::number)] max_stale: f64,
        #[pyo3(from_py_with = arguments::number)] timeout: f64,
    ) -> PyOutcome<Self> {
        let times = [("max_age", max_age), ("max_stale", max_stale), ("timeout", timeout)];
        let Listing { query, options, runs } = Listing::new(
            subscription_id,
            resource_group,
            vm_names,
            backend_pool,
            credential,
            endpoint,
            power_state,
            times,
        )?;
        let work = async move { Inventory::from_azure(&query, &options).await };
        listed(py, interrupt::future(py, &runs, work)?)
    }

    /// Like `from_azure`, as a coroutine.
    #[staticmethod]
    #[pyo3(signature = (subscription_id, resource_group = None, vm_names = None, backend_pool = None, credential = None, *,
                        endpoint = None, power_state = None, max_age = 300.0, max_stale = 86400.0, timeout = 60.0))]
    #[allow(clippy::too_many_arguments, reason = "one per argument of the Python method")]
    fn from_azure_async<'py>(
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::text)] subscription_id: &str,
        #[pyo3(from_py_with = arguments::optional_text)] resource_group: Option<String>,
        #[pyo3(from_py_with = arguments::optional_names)] vm_names: Option<Vec<String>>,
        #[pyo3(from_py_with = arguments::optional_text)] backend_pool: Option<String>,
        credential: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_text)] endpoint: Option<String>,
        power_state: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::number)] max_age: f64,
        #[pyo3(from_py_with = arguments::number)] max_stale: f64,
        #[pyo3(from_py_with = arguments::number)] timeout: f64,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let times = [("max_age", max_age), ("max_stale", max_stale), ("timeout", timeout)];
        let Listing { query, options, runs } = Listing::new(
            subscription_id,
            resource_group,
            vm_names,
            backend_pool,
            credential,
            endpoint,
            power_state,
            times,
        )?;
        let work = async move { Inventory::from_azure(&query, &options).await };
        interrupt::awaitable(py, &runs, work, listed)
    }

    /// What was listed, such as `Azure subscription …`; None when the VMs were given by the caller.
    #[getter]
    fn source(&self) -> Option<String> {
        self.inventory.origin().map(|origin| origin.source.clone())
    }

    /// When it was listed; None when the VMs were given by the caller.
    #[getter]
    fn listed_at(&self) -> Option<DateTime<Utc>> {
        self.inventory.origin().map(|origin| origin.listed_at)
    }

    /// How many seconds ago it was listed; None when the VMs were given by the caller.
    #[getter]
    fn age(&self) -> Option<f64> {
        self.inventory.origin().map(Origin::age).as_ref().map(Duration::as_secs_f64)
    }

    /// Whether it is a listing that was remembered, and not made anew.
    #[getter]
    fn remembered(&self) -> bool {
        self.inventory.origin().is_some_and(|origin| origin.remembered)
    }

    /// VMs that were listed but are not in the inventory, each with the reason.
    #[getter]
    fn left_out<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, reason) in self.inventory.origin().map(|origin| origin.left_out.as_slice()).unwrap_or_default() {
            dict.set_item(name, reason)?;
        }
        Ok(dict)
    }

    /// The names in order.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.inventory.vms().iter().map(|vm| vm.name.clone()).collect()
    }

    /// One dict per VM: name, ip_address, nic_name, weight.
    #[getter]
    fn vms<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        vm_dicts(py, &self.inventory)
    }

    fn __len__(&self) -> usize {
        self.inventory.vms().len()
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract::<String>().is_ok_and(|name| self.inventory.get(&name).is_some())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().inventory == self.inventory)
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        for vm in self.inventory.vms() {
            vm.name.hash(&mut hasher);
            vm.ip_address.hash(&mut hasher);
        }
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        let names = self.names().iter().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ");
        match self.inventory.origin() {
            None => format!("Inventory([{names}])"),
            Some(origin) => {
                let left_out = match origin.left_out.len() {
                    0 => String::new(),
                    count => format!(", {count} left out"),
                };
                format!("Inventory([{names}] from {}, listed {} ago{left_out})", origin.source, origin.age_in_words())
            }
        }
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let vms = vm_dicts(py, &self.inventory)?;
        let Some(origin) = self.inventory.origin() else { return convert::repr_html(py, "inventory", vms) };
        let data = PyDict::new(py);
        data.set_item("source", &origin.source)?;
        data.set_item("listed", format!("{} ago", origin.age_in_words()))?;
        if let Some(warning) = &origin.warning {
            data.set_item("warning", warning)?;
        }
        data.set_item("vms", vms)?;
        if !origin.left_out.is_empty() {
            let left_out = PyList::empty(py);
            for (name, reason) in &origin.left_out {
                let row = PyDict::new(py);
                row.set_item("name", name)?;
                row.set_item("reason", reason)?;
                left_out.append(row)?;
            }
            data.set_item("left_out", left_out)?;
        }
        convert::repr_html(py, "inventory", data)
    }
}
