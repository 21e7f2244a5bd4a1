//! Reads inventories: values of the accepted shapes, and files of JSON, YAML and CSV, which become such values.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Inventory, Vm};
use crate::error::{Error, ErrorKind, Result};

const KEYS: &str = "name, ip_address, nic_name and weight";
const CSV_COLUMNS: [&str; 4] = ["name", "ip_address", "nic_name", "weight"];

/// The VMs that `value` lists, in its order and not yet checked against each other.
pub(super) fn vms(value: Value) -> Result<Vec<Vm>> {
    match unwrap_list(value)? {
        Value::Array(items) => (1..).zip(items).map(|(number, item)| parse_vm(number, item)).collect(),
        Value::Object(entries) => entries.into_iter().map(|(name, entry)| mapped(name, entry)).collect(),
        other => Err(Error::invalid(format!(
            "an inventory cannot be {}: give a list of names, a list of objects with {KEYS}, or a mapping of name to such an object",
            kind(&other)
        ))),
    }
}

/// Removes the wrapper `{"vms": …}`. Other keys beside `vms` are an error, because they would be ignored.
fn unwrap_list(value: Value) -> Result<Value> {
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

fn parse_vm(number: usize, item: Value) -> Result<Vm> {
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

type Parsed = std::result::Result<Value, Box<dyn std::error::Error + Send + Sync>>;

/// Reads the inventory file at `path`; its extension says the format.
pub(super) fn file(path: &Path) -> Result<Inventory> {
    let refused = |what: &str| Error::invalid(format!("the inventory file {} {what}", path.display()));
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let parse: fn(&str) -> Parsed = match extension.as_str() {
        "json" => |text| Ok(serde_json::from_str::<Unique>(text)?.0),
        "yaml" | "yml" => |text| Ok(serde_saphyr::from_str::<Unique>(text)?.0),
        "csv" => parse_csv,
        other => {
            let what = match other {
                "" => "has no extension".to_owned(),
                other => format!("is of the unknown format .{other}"),
            };
            return Err(refused(&format!("{what}: its name must end in .json, .yaml, .yml or .csv")));
        }
    };
    let bytes = std::fs::read(path).map_err(|e| {
        let (kind, what) = match e.kind() {
            std::io::ErrorKind::NotFound => (ErrorKind::NotFound, "does not exist"),
            std::io::ErrorKind::IsADirectory => (ErrorKind::InvalidInput, "is a directory"),
            std::io::ErrorKind::PermissionDenied => (ErrorKind::Storage, "may not be read by this user"),
            _ => (ErrorKind::Storage, "could not be read"),
        };
        Error::new(kind, format!("the inventory file {} {what}", path.display())).with_source(e)
    })?;
    let text = String::from_utf8(bytes).map_err(|e| refused("is not UTF-8 text").with_source(e))?;
    // Spreadsheet programs write a byte order mark, which JSON does not allow.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if text.trim().is_empty() {
        return Err(refused("is empty: name at least one VM"));
    }
    let value = parse(text).map_err(|e| {
        // The first line of a parser's message has line and column; that of YAML has an excerpt after it.
        let what = e.to_string().lines().next().unwrap_or_default().to_owned();
        refused(&format!("cannot be read as {}: {what}", extension.to_uppercase())).with_source(e)
    })?;
    let in_file = |e: Error| Error::new(e.kind(), format!("in the inventory file {}: {e}", path.display()));
    Inventory::from_value(value).map_err(in_file)
}

fn parse_csv(text: &str) -> Parsed {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    for (index, column) in header.iter().enumerate() {
        if !CSV_COLUMNS.contains(&column) {
            return Err(format!("unknown column \"{column}\", the columns are {}", CSV_COLUMNS.join(", ")).into());
        }
        if header.iter().take(index).any(|earlier| earlier == column) {
            return Err(format!("column \"{column}\" occurs twice").into());
        }
    }
    if !header.iter().any(|column| column == "name") {
        return Err(format!(
            "the first line has to be a header with a column \"name\" and any of {}",
            CSV_COLUMNS[1..].join(", ")
        )
        .into());
    }
    let mut vms = Vec::new();
    for record in reader.records() {
        let record = record?;
        let mut vm = Map::new();
        for (column, field) in header.iter().zip(record.iter()) {
            let value = match column {
                "name" => Value::from(field),
                _ if field.is_empty() => Value::Null,
                "weight" => field.parse::<i64>().map_or_else(|_| Value::from(field), Value::from),
                _ => Value::from(field),
            };
            vm.insert(column.to_owned(), value);
        }
        vms.push(Value::Object(vm));
    }
    Ok(Value::Array(vms))
}

/// A JSON value whose mappings have no duplicate key. Plain deserialization keeps the last one without an error, so that a
/// VM would be missing.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or mapping of VMs")
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("\"{key}\" is given twice")));
            }
            let Unique(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
