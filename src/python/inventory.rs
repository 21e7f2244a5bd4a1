//! `Inventory`: what VMs there are.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::arguments;
use super::convert;
use super::errors::PyOutcome;
use crate::error::Error;
use crate::inventory::Inventory;

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

#[pymethods]
impl PyInventory {
    #[new]
    fn new(vms: &Bound<'_, PyAny>) -> PyOutcome<Self> {
        Ok(Self { inventory: inventory(vms)? })
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
        format!("Inventory([{}])", self.names().iter().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", "))
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        convert::repr_html(py, "inventory", vm_dicts(py, &self.inventory)?)
    }
}
