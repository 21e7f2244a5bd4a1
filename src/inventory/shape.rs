//! The shapes that a value may have to be an inventory.

use serde_json::{Map, Value};

use super::Vm;
use crate::error::{Error, Result};

const KEYS: &str = "name, ip_address, nic_name and weight";

/// The VMs that `value` lists, in its order and not yet checked against each other.
pub(super) fn vms(value: Value) -> Result<Vec<Vm>> {
    match unwrapped(value)? {
        Value::Array(items) => (1..).zip(items).map(|(number, item)| listed(number, item)).collect(),
        Value::Object(entries) => entries.into_iter().map(|(name, entry)| mapped(name, entry)).collect(),
        other => Err(Error::invalid(format!(
            "an inventory cannot be {}: give a list of names, a list of objects with {KEYS}, or a mapping of name to such an object",
            kind(&other)
        ))),
    }
}

/// Removes the wrapper `{"vms": …}`. Other keys beside `vms` are an error, because they would be ignored.
fn unwrapped(value: Value) -> Result<Value> {
    let Value::Object(mut entries) = value else { return Ok(value) };
    if !entries.contains_key("vms") {
        return Ok(Value::Object(entries));
    }
    if let Some(other) = entries.keys().find(|key| *key != "vms") {
        return Err(Error::invalid(format!(
            "the inventory has the unknown key \"{other}\" beside \"vms\": take it out"
        )));
    }
    Ok(entries.shift_remove("vms").unwrap_or_default())
}

fn listed(number: usize, item: Value) -> Result<Vm> {
    match item {
        Value::String(name) => Ok(Vm::named(name)),
        Value::Object(mut fields) => match fields.shift_remove("name") {
            Some(Value::String(name)) => with_fields(name, fields),
            Some(other) => Err(Error::invalid(format!(
                "the name of VM number {number} of the inventory is {}: give text, in quotes where it looks like a number",
                kind(&other)
            ))),
            None => {
                let text = format!("VM number {number} of the inventory has no \"name\": the keys are {KEYS}");
                Err(Error::invalid(text))
            }
        },
        other => Err(Error::invalid(format!(
            "VM number {number} of the inventory is {}: give its name as text (in quotes where it looks like a number) or an object with {KEYS}",
            kind(&other)
        ))),
    }
}

fn mapped(name: String, entry: Value) -> Result<Vm> {
    match entry {
        Value::Object(fields) => with_fields(name, fields),
        Value::Null => Ok(Vm::named(name)),
        other => Err(Error::invalid(format!(
            "the entry of VM \"{name}\" is {}: give an object with ip_address, nic_name and weight, each as needed",
            kind(&other)
        ))),
    }
}

fn with_fields(name: String, fields: Map<String, Value>) -> Result<Vm> {
    let mut vm = Vm::named(name);
    for (key, value) in fields {
        match key.as_str() {
            "ip_address" => {
                if let Some(text) = text(&vm.name, "ip_address", value)? {
                    vm.ip_address = text;
                }
            }
            "nic_name" => vm.nic_name = text(&vm.name, "nic_name", value)?,
            "weight" => vm.weight = weight(&vm.name, &value)?,
            _ => {
                return Err(Error::invalid(format!(
                    "VM \"{}\" has the unknown key \"{key}\": the keys are {KEYS}",
                    vm.name
                )));
            }
        }
    }
    Ok(vm)
}

/// Text, or null, which is the same as no key.
fn text(name: &str, key: &str, value: Value) -> Result<Option<String>> {
    match value {
        Value::String(text) => Ok(Some(text)),
        Value::Null => Ok(None),
        other => Err(Error::invalid(format!("the {key} of VM \"{name}\" is {}: give text", kind(&other)))),
    }
}

fn weight(name: &str, value: &Value) -> Result<u32> {
    if value.is_null() {
        return Ok(1);
    }
    value.as_u64().and_then(|weight| u32::try_from(weight).ok()).filter(|weight| *weight > 0).ok_or_else(|| {
        Error::invalid(format!("the weight of VM \"{name}\" is {value}: give a whole number from 1 to {}", u32::MAX))
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing (null)",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
