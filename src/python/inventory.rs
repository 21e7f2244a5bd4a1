//! `Inventory`: the VMs that can be selected.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict as _, PyDict, PyMapping};
use serde_json::json;

use super::callables::{self, Calls};
use super::convert;
use super::convert::arguments::{self, Names, Text};
use super::errors::{PyOutcome, refuse};
use super::wait::CallMode;
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
#[pyclass(module = "jobrota", name = "Inventory", frozen, eq, hash)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PyInventory {
    pub(super) inventory: Inventory,
}

/// Converts an inventory in any of the shapes that callers use.
pub(super) fn inventory(value: &Bound<'_, PyAny>) -> PyOutcome<Inventory> {
    if let Ok(inventory) = value.cast::<PyInventory>() {
        return Ok(inventory.get().inventory.clone());
    }
    if value.is_instance_of::<pyo3::types::PyString>() || value.hasattr("__fspath__")? {
        let file = arguments::named(value.py(), "inventory", arguments::location(value))?;
        return Ok(Inventory::from_file(file)?);
    }
    if value.is_none() {
        return refuse("no inventory is given: give the names of the VMs, a dict, a list of dicts or a file");
    }
    // Tuples, views of dicts and other iterables of names are lists in JSON.
    let plain = match value.try_iter() {
        Ok(items) if value.cast::<PyMapping>().is_err() => {
            items.collect::<PyResult<Vec<_>>>()?.into_pyobject(value.py())?
        }
        _ => value.clone(),
    };
    Ok(Inventory::from_value(convert::json_value("inventory", &plain)?)?)
}

fn vm_dicts(py: Python<'_>, inventory: &Inventory) -> PyOutcome {
    let vms = inventory.vms().iter().map(|vm| {
        let nic_name = vm.nic_name.as_deref().unwrap_or_default();
        json!({"name": vm.name, "ip_address": vm.ip_address, "nic_name": nic_name, "weight": vm.weight})
    });
    convert::record(py, &vms.collect::<Vec<_>>())
}

fn power(value: &Bound<'_, PyAny>) -> PyResult<Option<PowerFilter>> {
    let known = [("running", PowerFilter::Running), ("any", PowerFilter::Any)];
    arguments::given(value).map(|value| arguments::choice(value, &known)).transpose()
}

fn query(
    subscription_id: Text,
    resource_group: Option<Text>,
    vm_names: Option<Names>,
    backend_pool: Option<Text>,
    power: Option<PowerFilter>,
) -> PyOutcome<AzureQuery> {
    let members = match (vm_names, backend_pool) {
        (Some(_), Some(_)) => {
            return refuse("vm_names and backend_pool both say which VMs are listed: give one of them, not both");
        }
        (Some(names), None) => Members::Names(names.0),
        (None, Some(pool)) => Members::BackendPool(pool.0),
        (None, None) => Members::All,
    };
    let resource_group = resource_group.map(|group| group.0);
    let power = power.unwrap_or(PowerFilter::Running);
    Ok(AzureQuery { subscription_id: subscription_id.0, resource_group, members, power })
}

/// Lists VMs in the given mode. The durations are `max_age`, `max_stale` and `timeout` in seconds.
fn list(
    mode: CallMode<'_>,
    query: AzureQuery,
    credential: Option<&Bound<'_, PyAny>>,
    endpoint: Option<Text>,
    durations: [f64; 3],
) -> PyOutcome {
    let calls = Arc::<Calls>::default();
    let (credential, authority_host) = callables::azure_credential(credential, &calls)?;
    let [max_age, max_stale, timeout] = durations.map(Duration::from_secs_f64);
    let endpoint = endpoint.map(|endpoint| endpoint.0);
    let options =
        AzureOptions { credential, endpoint, authority_host, max_age, max_stale, timeout, ..AzureOptions::default() };
    mode.run_interruptible(&calls, async move { Inventory::from_azure(&query, &options).await }, listed)
}

/// The inventory for Python, with the warning that goes with it.
fn listed(py: Python<'_>, inventory: Inventory) -> PyOutcome<PyInventory> {
    if let Some(warning) = inventory.origin().and_then(|origin| origin.warning.as_deref()) {
        // A warning cannot hold a zero byte.
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
    /// A listing is cached in this process and in a file of the user's state directory, and reused while it is younger than
    /// `max_age`. While Resource Manager does not answer, it is reused up to `max_stale`, with a warning. VMs that are not
    /// running are not in the inventory, but in `left_out`.
    ///
    /// Args:
    ///     subscription_id: Id of the subscription.
    ///     resource_group: The VMs' resource group; None: the whole subscription.
    ///     vm_names: Only these VMs, in this order. One that does not exist is an error.
    ///     backend_pool: Only the members of this pool: `"load balancer/pool"`, or its resource id.
    ///     credential: None: a service principal or workload identity of the environment (`AZURE_TENANT_ID` and so on), else
    ///         this machine's managed identity. A dict of `tenant_id`, `client_id` and `client_secret`: that service
    ///         principal, with `authority_host` for another login service; of `client_id` alone: that user-assigned
    ///         managed identity. A callable that returns a token, or `(token, expires_on)`. An object with
    ///         `get_token(scope)`, as those of `azure.identity`.
    ///     endpoint: `"public"`, `"usgov"`, `"china"`, or the https:// address of a Resource Manager.
    ///     power_state: `"running"`, or `"any"`, which does not ask for power states.
    ///     max_age: How long a listing counts as current; 0 lists anew each time. Times are seconds, text such as `"15m"`,
    ///         or a timedelta.
    ///     max_stale: The largest age of a listing that is used while Resource Manager does not answer.
    ///     timeout: Time for all requests together, tries and waits included.
    ///
    /// Returns:
    ///     An `Inventory`. `source`, `listed_at`, `age` and `left_out` say how it was made.
    ///
    /// Raises:
    ///     AuthenticationError: Credentials are missing, refused, or not allowed to read VMs or network interfaces.
    ///     NotFoundError: A name does not exist, or there is no VM at all.
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
    fn from_azure(
        py: Python<'_>,
        subscription_id: Text,
        resource_group: Option<Text>,
        vm_names: Option<Names>,
        backend_pool: Option<Text>,
        credential: Option<&Bound<'_, PyAny>>,
        endpoint: Option<Text>,
        #[pyo3(from_py_with = power)] power_state: Option<PowerFilter>,
        #[pyo3(from_py_with = arguments::seconds)] max_age: f64,
        #[pyo3(from_py_with = arguments::seconds)] max_stale: f64,
        #[pyo3(from_py_with = arguments::seconds)] timeout: f64,
    ) -> PyOutcome {
        let query = query(subscription_id, resource_group, vm_names, backend_pool, power_state)?;
        list(CallMode::Wait(py), query, credential, endpoint, [max_age, max_stale, timeout])
    }

    /// Like `from_azure`, as a coroutine.
    #[staticmethod]
    #[pyo3(signature = (subscription_id, resource_group = None, vm_names = None, backend_pool = None, credential = None, *,
                        endpoint = None, power_state = None, max_age = 300.0, max_stale = 86400.0, timeout = 60.0))]
    fn from_azure_async(
        py: Python<'_>,
        subscription_id: Text,
        resource_group: Option<Text>,
        vm_names: Option<Names>,
        backend_pool: Option<Text>,
        credential: Option<&Bound<'_, PyAny>>,
        endpoint: Option<Text>,
        #[pyo3(from_py_with = power)] power_state: Option<PowerFilter>,
        #[pyo3(from_py_with = arguments::seconds)] max_age: f64,
        #[pyo3(from_py_with = arguments::seconds)] max_stale: f64,
        #[pyo3(from_py_with = arguments::seconds)] timeout: f64,
    ) -> PyOutcome {
        let query = query(subscription_id, resource_group, vm_names, backend_pool, power_state)?;
        list(CallMode::Coroutine(py), query, credential, endpoint, [max_age, max_stale, timeout])
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

    /// Whether it is a cached listing.
    #[getter]
    fn remembered(&self) -> bool {
        self.inventory.origin().is_some_and(|origin| origin.remembered)
    }

    /// VMs that were listed but are not in the inventory, each with the reason.
    #[getter]
    fn left_out<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let left_out = self.inventory.origin().map(|origin| origin.left_out.as_slice()).unwrap_or_default();
        left_out.into_py_dict(py)
    }

    /// The names in order.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.inventory.vms().iter().map(|vm| vm.name.clone()).collect()
    }

    /// One dict per VM: name, ip_address, nic_name, weight.
    #[getter]
    fn vms(&self, py: Python<'_>) -> PyOutcome {
        vm_dicts(py, &self.inventory)
    }

    fn __len__(&self) -> usize {
        self.inventory.vms().len()
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract::<String>().is_ok_and(|name| self.inventory.get(&name).is_some())
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

    fn _repr_html_(&self, py: Python<'_>) -> PyOutcome<String> {
        let vms = vm_dicts(py, &self.inventory)?;
        let Some(origin) = self.inventory.origin() else { return Ok(convert::repr_html(py, "inventory", vms)?) };
        let data = PyDict::new(py);
        data.set_item("source", &origin.source)?;
        data.set_item("listed", format!("{} ago", origin.age_in_words()))?;
        if let Some(warning) = &origin.warning {
            data.set_item("warning", warning)?;
        }
        data.set_item("vms", vms)?;
        if !origin.left_out.is_empty() {
            let rows =
                origin.left_out.iter().map(|(name, reason)| [("name", name), ("reason", reason)].into_py_dict(py));
            data.set_item("left_out", rows.collect::<PyResult<Vec<_>>>()?)?;
        }
        Ok(convert::repr_html(py, "inventory", data)?)
    }
}
