use std::os::unix::fs::PermissionsExt as _;

use std::collections::HashMap;

use super::*;

/// Every variable that holds a secret, with one.
const SECRETS: [(&str, &str); 9] = [
    ("AZURE_STORAGE_ACCOUNT_KEY", "secret-1"),
    ("AZURE_STORAGE_SAS_TOKEN", "secret-2"),
    ("AZURE_STORAGE_TOKEN", "secret-3"),
    ("AZURE_CLIENT_SECRET", "secret-4"),
    ("AWS_ACCESS_KEY_ID", "secret-5"),
    ("AWS_SECRET_ACCESS_KEY", "secret-6"),
    ("AWS_SESSION_TOKEN", "secret-7"),
    ("GOOGLE_SERVICE_ACCOUNT_KEY", "secret-8"),
    ("SAS_CLIENT_SECRET", "secret-9"),
];

fn of<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name} in {checks:?}"))
}

#[test]
fn credentials_are_named_and_never_shown() {
    let mut all = SECRETS.to_vec();
    all.extend([("AZURE_CLIENT_ID", "client"), ("AZURE_TENANT_ID", "tenant")]);
    let options = (&HashMap::from([("aws_secret_access_key".to_owned(), "secret-10".to_owned())])).into();
    let checks = local(&EnvironmentVariables::of(&all), &SettingValues::default(), &options, None);
    assert!(!format!("{checks:?}").contains("secret-"), "{checks:?}");
    let azure = of(&checks, "Azure storage");
    assert_eq!(azure.status, Status::Ok);
    for what in ["account key", "SAS", "bearer token", "service principal (AZURE_CLIENT_SECRET"] {
        assert!(azure.detail.contains(what), "{}", azure.detail);
    }
    for name in ["Azure Resource Manager", "AWS", "Google", "storage options", "SAS OAuth client"] {
        assert_eq!(of(&checks, name).status, Status::Ok, "{name}");
    }
}

#[test]
fn without_anything_everything_is_a_note() {
    let checks = local(&EnvironmentVariables::default(), &SettingValues::default(), &StorageOptions::default(), None);
    assert!(checks.iter().all(|check| check.status == Status::Note), "{checks:?}");
    assert!(checks.iter().any(|check| check.name == "home"));
}

#[test]
fn an_incomplete_identity_is_a_warning_that_names_what_is_missing() {
    let check = aws(&EnvironmentVariables::of(&[("AWS_ACCESS_KEY_ID", "x")]), None);
    assert_eq!(check.status, Status::Warning);
    assert!(check.detail.contains("without AWS_SECRET_ACCESS_KEY"), "{}", check.detail);
    let check =
        azure_resource_manager(&EnvironmentVariables::of(&[("AZURE_CLIENT_SECRET", "x"), ("AZURE_CLIENT_ID", "y")]));
    assert!(check.detail.contains("without AZURE_TENANT_ID"), "{}", check.detail);
    // A client id alone may be that of a managed identity.
    assert_eq!(azure_resource_manager(&EnvironmentVariables::of(&[("AZURE_CLIENT_ID", "y")])).status, Status::Note);
}

#[test]
fn a_missing_token_file_is_named() {
    let check = azure_storage(&EnvironmentVariables::of(&[("AZURE_FEDERATED_TOKEN_FILE", "/nowhere/token")]));
    assert!(check.status == Status::Warning && check.detail.contains("/nowhere/token"));
    let check = google(&EnvironmentVariables::of(&[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")]), None);
    assert!(check.status == Status::Warning && check.detail.contains("/nowhere/key.json"));
}

#[test]
fn aws_profiles_are_told_apart_from_what_is_read() {
    let check = aws(&EnvironmentVariables::of(&[("AWS_PROFILE", "x")]), None);
    assert_eq!(check.status, Status::Note);
    assert!(check.advice.unwrap().contains("not read"));
}

#[test]
fn sendevent_is_searched_in_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("sendevent");
    let path = directory.path().to_str().unwrap();
    let of = |pairs: &[(&str, &str)]| sendevent(&EnvironmentVariables::of(pairs), &SettingValues::default());
    assert_eq!(of(&[("PATH", path)]).status, Status::Note);
    std::fs::write(&program, "").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(of(&[("PATH", path)]).detail.contains("is not executable"));
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(of(&[("PATH", path)]).detail.contains("AUTOSERV is not set"));
    let found = of(&[("PATH", path), ("AUTOSERV", "ACE"), ("AUTOUSER", "/x")]);
    assert_eq!(found.status, Status::Ok);
    assert!(found.detail.ends_with("AUTOSERV, AUTOUSER set"), "{}", found.detail);
    let configured = SettingValues { transport: Some("/nowhere/sendevent".to_owned()), ..SettingValues::default() };
    assert_eq!(sendevent(&EnvironmentVariables::of(&[("PATH", path)]), &configured).status, Status::Warning);
}

#[test]
fn ssh_keys_that_others_can_read_are_a_warning() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    let key = home.path().join(".ssh/id_ed25519");
    std::fs::write(&key, "secret").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(home.path().join(".ssh/known_hosts"), "# x\nhost ssh-ed25519 AAAA\n\n").unwrap();
    let checks = ssh(&EnvironmentVariables::of(&[("SSH_AUTH_SOCK", "/nowhere/agent")]), Some(home.path()));
    assert_eq!(of(&checks, "SSH agent").status, Status::Warning);
    assert_eq!(of(&checks, "SSH keys").status, Status::Warning);
    assert!(of(&checks, "SSH known hosts").detail.starts_with("1 in "));
}

#[tokio::test]
async fn the_metadata_service_is_recognised() {
    let app = axum::Router::new().route(
        "/metadata",
        axum::routing::get(|headers: axum::http::HeaderMap| async move {
            match headers.get("Metadata").is_some_and(|value| value == "true") {
                true => axum::http::StatusCode::OK,
                false => axum::http::StatusCode::BAD_REQUEST,
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    assert_eq!(managed_identity(&format!("http://{address}/metadata")).await.status, Status::Ok);
    let other = managed_identity(&format!("http://{address}/other")).await;
    assert!(other.status == Status::Note && other.detail.contains("404"), "{}", other.detail);
    server.abort();
    _ = server.await;
    assert_eq!(managed_identity(&format!("http://{address}/metadata")).await.status, Status::Note);
}
