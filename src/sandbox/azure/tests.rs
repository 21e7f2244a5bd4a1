use super::*;
use crate::runtime::block_on;

impl AzureSandbox {
    /// The token with which a workload identity identifies itself, generated for this sandbox.
    pub fn federated_token(&self) -> String {
        lock(&self.server.tokens).federated.clone()
    }

    /// Makes all issued tokens invalid.
    pub fn revoke_tokens(&self) {
        lock(&self.server.tokens).valid_until.clear();
    }

    /// How many tokens it has issued.
    pub fn tokens_issued(&self) -> usize {
        lock(&self.server.tokens).issued
    }

    /// Lets Resource Manager answer 503, or properly again.
    pub fn set_down(&self, down: bool) {
        *lock(&self.server.down) = down;
    }
}

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

/// Status, headers and body of a request for a command on `vm1`.
fn run(azure: &AzureSandbox, script: &[&str]) -> (u16, reqwest::header::HeaderMap, String) {
    let path = format!(
        "/subscriptions/{SUBSCRIPTION_ID}/resourceGroups/{RESOURCE_GROUP}/providers/Microsoft.Compute/virtualMachines/vm1/runCommand"
    );
    let request = reqwest::Client::builder().no_proxy().build().unwrap();
    let request =
        request.post(format!("{}{path}?api-version=2024-07-01", azure.url())).bearer_auth(azure.issue_token());
    let request = request.json(&serde_json::json!({ "commandId": "RunShellScript", "script": script }));
    block_on(async {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok((status, headers, answer.text().await.unwrap()))
    })
    .unwrap()
}

#[test]
fn a_vm_runs_one_command_at_a_time_and_tells_the_end_of_its_output() {
    let azure = azure();
    let dir = tempfile::tempdir().unwrap();
    let wait = dir.path().join("wait");
    assert!(std::process::Command::new("mkfifo").arg(&wait).status().unwrap().success());
    // It continues when the test writes into the pipe.
    let script = [format!("read line <'{}'", wait.display()), "echo \"$line\"; seq 1 5000; echo oops >&2".to_owned()];
    let script: Vec<&str> = script.iter().map(String::as_str).collect();
    let (status, headers, _) = run(&azure, &script);
    assert_eq!((status, headers["retry-after"].as_bytes()), (202, &b"0"[..]));
    let (status, _, text) = run(&azure, &["true"]);
    assert!(status == 409 && text.contains("Run command extension execution is in progress. Please wait"), "{text}");
    std::fs::write(&wait, "go\n").unwrap();

    let bearer = format!("Bearer {}", azure.issue_token());
    let ask = |link: &str| {
        let path = headers[link].to_str().unwrap().strip_prefix(&azure.url()).unwrap().to_owned();
        get(&azure, &path, &[("Authorization", &bearer)])
    };
    let ended = loop {
        let (status, body) = ask("azure-asyncoperation");
        assert_eq!(status, 200);
        match body["status"].as_str().unwrap() {
            "InProgress" => std::thread::yield_now(),
            "Succeeded" => break body,
            other => panic!("{other}"),
        }
    };
    let output = &ended["properties"]["output"];
    let message = output["value"][0]["message"].as_str().unwrap();
    let kept = message.strip_prefix("Enable succeeded: \n").unwrap();
    assert!(kept.len() == 4096 && kept.ends_with("4999\n5000\n\n[stderr]\noops\n") && !kept.contains("go"), "{kept}");
    assert_eq!(ask("location"), (200, output.clone()));
    assert_eq!(run(&azure, &["true"]).0, 202, "the next one may run");
    assert_eq!(azure.scripts().len(), 2);
}
