use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::{Inventory, Vm, duration_text};
use crate::error::ErrorKind;

fn refused(value: serde_json::Value, part: &str) {
    let error = Inventory::from_value(value.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{value}");
    assert!(!error.is_retryable());
    assert!(error.to_string().contains(part), "{value}: \"{error}\" does not say {part}");
}

fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn expected() -> Vec<Vm> {
    vec![
        Vm { name: "vm2".into(), ip_address: "10.0.0.5".into(), nic_name: Some("nic2".into()), weight: 1 },
        Vm { name: "vm1".into(), ip_address: "vm1".into(), nic_name: None, weight: 3 },
    ]
}

#[test]
fn every_shape_gives_the_same_vms_in_the_order_given() {
    let list = json!([
        {"name": "vm2", "ip_address": "10.0.0.5", "nic_name": "nic2"},
        {"name": " vm1 ", "ip_address": null, "nic_name": "", "weight": 3},
    ]);
    let mapping = json!({"vm2": {"nic_name": "nic2", "ip_address": "10.0.0.5", "weight": null}, "vm1": {"weight": 3}});
    for shape in [list, mapping] {
        assert_eq!(Inventory::from_value(shape.clone()).unwrap().vms(), expected());
        assert_eq!(Inventory::from_value(json!({ "vms": shape })).unwrap().vms(), expected());
    }
    for names in [json!(["b", "a"]), json!({"vms": ["b", "a"]}), json!({"b": null, "a": {}})] {
        assert_eq!(
            Inventory::from_value(names).unwrap(),
            Inventory::from_value(serde_json::json!(["b", "a"])).unwrap()
        );
    }
    assert_eq!(Inventory::from_value(serde_json::json!(["b"])).unwrap().get("b"), Some(&Vm::named("b")));
}

#[test]
fn bad_inventories_are_refused_and_the_error_says_where() {
    refused(json!([]), "empty");
    refused(json!({}), "empty");
    refused(json!({"vms": []}), "empty");
    refused(json!(null), "nothing");
    refused(json!("vm1"), "text");
    refused(json!(["vm1", "vm1"]), "\"vm1\" twice");
    refused(json!(["vm1", " vm1"]), "\"vm1\" twice");
    refused(json!(["vm1", "  "]), "VM number 2");
    refused(json!(["vm1", 7]), "VM number 2");
    refused(json!([{"ip_address": "10.0.0.1"}]), "no \"name\"");
    refused(json!([{"name": 5}]), "a number");
    refused(json!({"vm1": {"ip": "10.0.0.1"}}), "unknown key \"ip\"");
    refused(json!({"vm1": {"name": "other"}}), "unknown key \"name\"");
    refused(json!({"vm1": "10.0.0.1"}), "VM \"vm1\" is text");
    refused(json!({"vm1": {"ip_address": ""}}), "ip_address of VM \"vm1\" is empty");
    refused(json!({"vm1": {"ip_address": 10}}), "ip_address of VM \"vm1\" is a number");
    for weight in [json!(0), json!(-1), json!(1.5), json!("2"), json!(true), json!(1u64 << 33)] {
        refused(json!({"vm1": {"weight": weight}}), "weight of VM \"vm1\"");
    }
    refused(json!({"vms": ["a"], "region": "x"}), "unknown key \"region\"");
    refused(json!(["vm\n1"]), "control character");
    refused(json!(["v".repeat(2_000)]), "2000 bytes");
    let zero = Vm { weight: 0, ..Vm::named("vm1") };
    assert!(Inventory::new(vec![zero]).unwrap_err().to_string().contains("weight 0"));
}

#[test]
fn files_of_each_format_are_read() {
    let json = r#"{"vm2": {"ip_address": "10.0.0.5", "nic_name": "nic2"}, "vm1": {"weight": 3}}"#;
    let yaml = "vms:\n  vm2:\n    ip_address: 10.0.0.5\n    nic_name: nic2\n  vm1: {weight: 3}\n";
    let csv = "name,ip_address,nic_name,weight\r\nvm2, 10.0.0.5,nic2,\r\nvm1,,,3\r\n";
    let files = [("a.json", json.to_owned()), ("a.JSON", format!("\u{feff}{json}")), ("a.yaml", yaml.to_owned())];
    for (name, text) in files.into_iter().chain([("a.yml", yaml.to_owned()), ("a.csv", format!("\u{feff}{csv}"))]) {
        let (_dir, path) = written(name, &text);
        assert_eq!(Inventory::from_file(&path).unwrap().vms(), expected(), "{name}");
    }
    let (_dir, path) = written("names.csv", "name\nb\na\n");
    assert_eq!(Inventory::from_file(&path).unwrap(), Inventory::from_value(serde_json::json!(["b", "a"])).unwrap());
}

#[test]
fn bad_files_are_refused_with_their_name() {
    for (name, text, part) in [
        ("a.toml", "x = 1", "unknown format .toml"),
        ("inventory", "vm1", "no extension"),
        ("a.json", "{\"vm1\": ", "cannot be read as JSON"),
        ("a.json", "{\"vm1\": {}, \"vm1\": {}}", "\"vm1\" is given twice"),
        ("a.yaml", "vm1: {}\nvm1: {}\n", "cannot be read as YAML"),
        ("a.yaml", "- vm1\n- 7\n", "VM number 2"),
        ("a.json", " \n", "is empty"),
        ("a.csv", "vm1,10.0.0.1\n", "unknown column \"vm1\""),
        ("a.csv", "ip_address\n10.0.0.1\n", "column \"name\""),
        ("a.csv", "name,name\na,b\n", "occurs twice"),
        ("a.csv", "name,weight\na,-2\n", "weight of VM \"a\" is -2"),
        ("a.csv", "name,weight\na\n", "cannot be read as CSV"),
        ("a.csv", "name,weight\n", "empty"),
    ] {
        let (_dir, path) = written(name, text);
        let error = Inventory::from_file(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name} {text}");
        assert!(error.to_string().contains(part), "{name}: \"{error}\" does not say {part}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Inventory::from_file(dir.path().join("none.json")).unwrap_err().kind(), ErrorKind::NotFound);
    let folder = dir.path().join("folder.json");
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(Inventory::from_file(&folder).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn durations_are_readable() {
    let said = |seconds| duration_text(Duration::from_secs(seconds));
    assert_eq!([said(1), said(5), said(300), said(9_000)], ["1 second", "5 seconds", "5 minutes", "2.5 hours"]);
}
