use std::time::Duration;

use super::keys::{IDENTITY_NAMES, KINDS, distance};
use super::*;
use crate::error::ErrorKind;

const SECRET: &str = "S3cr3t/Value+With==";

fn map(options: &[(&str, &str)]) -> HashMap<String, String> {
    options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with(kind: StoreKind, options: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<StoreOptions> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    read(kind, &map(options), environment)
}

fn refusal(kind: StoreKind, options: &[(&str, &str)]) -> String {
    let error = with(kind, options, &[]).err().unwrap_or_else(|| panic!("{options:?} is refused"));
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!error.is_retryable());
    let text = format!("{error} {error:?} {}", error.full_message());
    assert!(!text.contains(SECRET), "{text}");
    error.full_message()
}

#[test]
fn every_name_that_errors_suggest_is_understood() {
    for kind in CLOUDS {
        for name in names(kind) {
            let is_of_layers = name == super::super::counting::DELAY_OPTION;
            assert!(is_of_layers || RETRY_NAMES.contains(&name) || OptionKey::parse(kind, name).is_some(), "{name}");
        }
    }
}

#[test]
fn the_names_of_identities_and_kinds_are_main_names_of_options() {
    for name in KINDS.iter().map(|(_, names)| *names).chain([IDENTITY_NAMES]).flat_map(str::split_whitespace) {
        let is_main = |kind: &StoreKind| OptionKey::parse(*kind, name).is_some_and(|key| key.name() == name);
        assert!(CLOUDS.iter().any(is_main), "{name}");
    }
    let count = |names: &str| names.split_whitespace().count();
    assert_eq!((count(IDENTITY_NAMES), KINDS.map(|(_, names)| count(names))), (21, [21, 6, 5, 6, 1, 3, 1]));
}

#[test]
fn a_misspelt_key_is_refused_and_the_one_that_was_meant_is_named() {
    for (kind, wrong, meant) in [
        (StoreKind::Azure, "azure_storage_acount_key", "azure_storage_account_key"),
        (StoreKind::Azure, "AZURE_STORAGE_SAS_TOKN", "azure_storage_sas_token"),
        (StoreKind::Azure, "azure_clientid", "azure_client_id"),
        (StoreKind::S3, "aws_acess_key_id", "aws_access_key_id"),
        (StoreKind::S3, "aws_regoin", "aws_region"),
        (StoreKind::S3, "alow_http", "allow_http"),
        (StoreKind::Google, "google_service_acount", "google_service_account"),
    ] {
        let text = refusal(kind, &[(wrong, SECRET)]);
        assert!(text.contains(&format!("'{wrong}' is not a storage option")), "{text}");
        assert!(text.contains(&format!("'{meant}'")), "{text}");
    }
    assert!(refusal(StoreKind::S3, &[("zzzzzz", SECRET)]).contains("docs/storage.md"));
    // A secret that was taken for a key.
    assert!(refusal(StoreKind::S3, &[(SECRET, "x")]).contains("is not a name"));
}

#[test]
fn an_option_of_another_cloud_is_refused() {
    let text = refusal(StoreKind::Azure, &[("aws_region", "eu-west-1")]);
    assert!(text.contains("s3:// roots") && text.contains("abfss://"), "{text}");
    assert!(refusal(StoreKind::S3, &[("AWS_S3_LOCKING_PROVIDER", "dynamodb")]).contains("not needed"));
}

#[test]
fn keys_have_the_names_that_users_know_in_any_case() {
    let settings = with(
        StoreKind::Azure,
        &[("AZURE_STORAGE_ACCOUNT_NAME", "acct"), ("account_key", "a2V5"), ("timeout", "45"), ("max_retries", "2")],
        &[],
    )
    .expect("valid");
    assert_eq!(settings.values[&OptionKey::Azure(Azure::AccountName)], "acct");
    assert_eq!(settings.values[&OptionKey::Azure(Azure::AccessKey)], "a2V5");
    assert_eq!(settings.values[&OptionKey::Azure(Azure::Client(Client::Timeout))], "45000ms");
    assert_eq!(settings.retry.max_retries, 2);
    assert!(!settings.anonymous);
    assert!(!format!("{settings:?}").contains("a2V5"));
}

#[test]
fn two_names_of_one_option_must_agree() {
    with(StoreKind::Azure, &[("account_key", "a2V5"), ("azure_storage_access_key", "a2V5")], &[]).expect("same value");
    let text = refusal(StoreKind::Azure, &[("account_key", SECRET), ("azure_storage_access_key", "other")]);
    assert!(text.contains("'account_key' and 'azure_storage_access_key'"), "{text}");
}

#[test]
fn the_environment_fills_what_the_options_leave_open() {
    let environment = [
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "env-id"),
        ("AWS_SECRET_ACCESS_KEY", "env-secret"),
        ("AWS_SESSION_TOKEN", "env-token"),
        ("AWS_PROFILE", "default"),
        ("AWS_BUCKET", "another"),
        ("AWS_ALLOW_INVALID_CERTIFICATES", "true"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5"),
        ("HOME", "/root"),
        ("AWS_ENDPOINT_URL", ""),
    ];
    let settings = with(StoreKind::S3, &[], &environment).expect("valid");
    assert_eq!(settings.values.len(), 4, "{settings:?}");
    assert_eq!(settings.values[&OptionKey::S3(S3::Region)], "eu-west-1");
    assert!(!settings.anonymous);
    // Half an identity of the environment never meets half a one of the options.
    let options = [("aws_access_key_id", "id"), ("aws_secret_access_key", "secret")];
    let settings = with(StoreKind::S3, &options, &environment).expect("valid");
    assert_eq!(settings.values[&OptionKey::S3(S3::AccessKeyId)], "id");
    assert!(!settings.values.contains_key(&OptionKey::S3(S3::Token)));
    assert_eq!(settings.values[&OptionKey::S3(S3::Region)], "eu-west-1");
    assert!(with(StoreKind::S3, &[], &[("AWS_REGION", "x")]).expect("valid").anonymous);
}

#[test]
fn app_service_and_workload_identities_come_from_the_environment() {
    let token = tempfile::NamedTempFile::new().expect("file");
    let file = token.path().to_str().expect("utf-8");
    let environment = [
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_FEDERATED_TOKEN_FILE", file),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
        ("IDENTITY_ENDPOINT", "http://127.0.0.1:41/msi/token"),
    ];
    let settings = with(StoreKind::Azure, &[], &environment).expect("valid");
    // object_store appends a slash of its own.
    assert_eq!(settings.values[&OptionKey::Azure(Azure::AuthorityHost)], "https://login.microsoftonline.com");
    assert_eq!(settings.values[&OptionKey::Azure(Azure::MsiEndpoint)], "http://127.0.0.1:41/msi/token");
    assert!(!settings.anonymous);
}

#[test]
fn plain_http_needs_consent() {
    for (kind, name) in [
        (StoreKind::Azure, "azure_storage_endpoint"),
        (StoreKind::S3, "aws_endpoint"),
        (StoreKind::S3, "aws_endpoint_url_s3"),
        (StoreKind::Google, "google_base_url"),
    ] {
        assert!(refusal(kind, &[(name, "http://127.0.0.1:1")]).contains("allow_http"));
        assert!(refusal(kind, &[(name, "http://127.0.0.1:1"), ("allow_http", "false")]).contains("allow_http"));
        with(kind, &[(name, "http://127.0.0.1:1"), ("allow_http", "TRUE")], &[]).expect(name);
        with(kind, &[(name, "https://127.0.0.1:1")], &[]).expect(name);
    }
    // What an environment variable says is held to the same.
    let error = with(StoreKind::S3, &[], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]).expect_err("refused");
    assert!(error.to_string().contains("allow_http"), "{error}");
    assert!(
        refusal(StoreKind::S3, &[("aws_endpoint_url_sts", "http://h"), ("allow_http", "true")]).contains("https://")
    );
}

#[test]
fn values_that_can_never_work_are_refused_without_being_shown() {
    for (kind, options, expected) in [
        (StoreKind::S3, vec![("allow_invalid_certificates", "true")], "SSL_CERT_FILE"),
        (StoreKind::S3, vec![("aws_conditional_put", "disabled")], "conditional writes"),
        (StoreKind::S3, vec![("allow_http", SECRET)], "'true' or 'false'"),
        (StoreKind::S3, vec![("timeout", SECRET)], "a time"),
        (StoreKind::S3, vec![("max_retries", SECRET)], "a whole number"),
        (StoreKind::S3, vec![("backoff_config.base", "1")], "above 1"),
        (StoreKind::S3, vec![("aws_endpoint", SECRET)], "must be a URL"),
        (StoreKind::S3, vec![("aws_endpoint", "https://user:S3cr3t/Value+With==@host")], "must"),
        (StoreKind::S3, vec![("aws_endpoint", "https://S3cr3t@host")], "user or password"),
        (StoreKind::Azure, vec![("azure_storage_endpoint", "https://host/?sig=S3cr3t/Value+With==")], "a query"),
        (StoreKind::Azure, vec![("azure_federated_token_file", SECRET)], "cannot be opened"),
        (
            StoreKind::Google,
            vec![("google_service_account", "{\"private_key\":\"S3cr3t/Value+With==\"}")],
            "holds a key",
        ),
        (StoreKind::Google, vec![("google_service_account", SECRET)], "cannot be opened"),
    ] {
        let text = refusal(kind, &options);
        assert!(text.contains(expected), "{options:?}: {text}");
    }
}

#[test]
fn retries_never_wait_in_an_empty_interval() {
    let settings = with(
        StoreKind::S3,
        &[("backoff_config.init_backoff", "2s"), ("backoff_config.max_backoff", "10ms"), ("retry_timeout", "1m")],
        &[],
    )
    .expect("valid");
    assert_eq!(settings.retry.backoff.max_backoff, Duration::from_secs(2));
    assert_eq!(settings.retry.retry_timeout, Duration::from_secs(60));
}

#[test]
fn a_local_directory_ignores_known_options_only() {
    let missing = ("google_application_credentials", "/no/such/file");
    check_unused(&map(&[("aws_region", "x"), ("azure_storage_account_key", "x"), ("max_retries", "3"), missing]))
        .expect("known");
    for name in ["timeout", "max_retries", "allow_http"] {
        let error = check_unused(&map(&[(name, SECRET)])).expect_err("refused");
        assert!(error.to_string().contains(name) && !error.to_string().contains(SECRET), "{error}");
    }
    let error = check_unused(&map(&[("azure_storage_acount_key", SECRET)])).expect_err("refused");
    assert!(error.to_string().contains("'azure_storage_account_key'"), "{error}");
}

#[test]
fn distances_count_edits() {
    for (a, b, expected) in
        [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "ab", 1), ("", "abc", 3), ("kitten", "sitting", 3)]
    {
        assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
    }
}
