use super::*;
use crate::runtime::block_on;

/// Status and body of a request to the stand-in itself.
fn get(azure: &AzureSandbox, path: &str, headers: &[(&str, &str)]) -> (u16, serde_json::Value) {
    let mut request = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{}{path}", azure.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    block_on(async {
        let answer = request.send().await.unwrap();
        Ok((answer.status().as_u16(), answer.json().await.unwrap()))
    })
    .unwrap()
}

fn azure() -> AzureSandbox {
    let vms = [("vm1".to_owned(), IpAddr::from([127, 0, 0, 11])), ("vm2".to_owned(), IpAddr::from([127, 0, 0, 12]))];
    AzureSandbox::start(AzureOptions::default().with_vms(&vms)).unwrap()
}

#[test]
fn resource_manager_wants_a_token_and_a_version() {
    let azure = azure();
    let path = format!("/subscriptions/{SUBSCRIPTION_ID}/providers/Microsoft.Compute/virtualMachines");
    let bearer = format!("Bearer {}", azure.issue_token());
    let authorized = [("Authorization", bearer.as_str())];
    let with_version = format!("{path}?api-version=2024-07-01");
    assert_eq!(get(&azure, &with_version, &[]).0, 401);
    assert_eq!(get(&azure, &with_version, &[("Authorization", "Bearer x")]).0, 401);
    let (status, body) = get(&azure, &path, &authorized);
    assert_eq!((status, body["error"]["code"].as_str()), (400, Some("MissingApiVersionParameter")));
    let (status, page) = get(&azure, &with_version, &authorized);
    assert_eq!((status, page["value"].as_array().map(Vec::len)), (200, Some(2)));
    let next = page["nextLink"].as_str().unwrap().strip_prefix(&azure.url()).unwrap();
    let (status, page) = get(&azure, next, &authorized);
    assert_eq!((status, page["value"].as_array().map(Vec::len), page.get("nextLink")), (200, Some(1), None));
    azure.revoke_tokens();
    assert_eq!(get(&azure, &with_version, &authorized).0, 401);
}

#[test]
fn the_metadata_service_wants_its_header_and_no_proxy() {
    let azure = azure();
    let path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com/";
    assert_eq!(get(&azure, path, &[]).0, 400);
    assert_eq!(get(&azure, path, &[("Metadata", "true"), ("X-Forwarded-For", "10.0.0.1")]).0, 400);
    let (status, body) = get(&azure, path, &[("Metadata", "true")]);
    assert_eq!((status, body["expires_on"].is_string()), (200, true));
    assert_eq!(get(&azure, &format!("{path}&client_id={IDENTITY_CLIENT_ID}"), &[("Metadata", "true")]).0, 200);
    assert_eq!(get(&azure, &format!("{path}&client_id=other"), &[("Metadata", "true")]).0, 400);
}

#[test]
fn power_states_are_in_the_instance_view() {
    let azure = azure();
    let bearer = format!("Bearer {}", azure.issue_token());
    let vm = format!(
        "/subscriptions/{SUBSCRIPTION_ID}/resourceGroups/{RESOURCE_GROUP}/providers/Microsoft.Compute/virtualMachines/VM2"
    );
    azure.set_power("vm2", "stopped").unwrap();
    let (status, view) = get(&azure, &format!("{vm}/instanceView?api-version=1"), &[("Authorization", &bearer)]);
    assert_eq!((status, view["statuses"][1]["code"].as_str()), (200, Some("PowerState/stopped")));
    let (_, with_view) =
        get(&azure, &format!("{vm}?api-version=1&$expand=instanceView"), &[("Authorization", &bearer)]);
    assert_eq!(with_view["properties"]["instanceView"], view);
    assert_eq!(azure.set_power("vm9", "stopped").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(azure.set_power("vm1", "asleep").unwrap_err().kind(), ErrorKind::InvalidInput);
}
