use std::sync::Mutex;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use object_store::PutMode;
use object_store::path::Path;

use super::super::root::{self, Root};
use super::*;

fn bucket(root: &str) -> Bucket {
    match root::parse(root).expect(root) {
        Root::Cloud(bucket) => bucket,
        Root::Local(directory) => panic!("{root} is the directory {}", directory.display()),
    }
}

fn open(root: &str, options: &[(&str, &str)]) -> Result<Arc<DynObjectStore>> {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    connect(&bucket(root), &options, std::iter::empty())
}

#[test]
fn each_cloud_connects_without_a_request() {
    let key = ("azure_storage_account_key", "a2V5");
    let aws = [("aws_access_key_id", "id"), ("aws_secret_access_key", "secret"), ("aws_region", "eu-west-1")];
    for (root, options, shown) in [
        ("abfss://c@acct.dfs.core.windows.net/x", vec![key], "the container 'c' of the storage account 'acct'"),
        ("az://c/x", vec![key, ("account_name", "acct")], "the container 'c' of the storage account 'acct'"),
        ("az://c/x", vec![("use_emulator", "true")], "the container 'c' of the storage account 'devstoreaccount1'"),
        ("s3://bucket/x", aws.to_vec(), "the bucket 'bucket'"),
        ("s3a://bucket/x", aws.to_vec(), "the bucket 'bucket'"),
        ("gs://bucket/x", vec![("google_skip_signature", "true")], "the bucket 'bucket'"),
        // The identity of the machine is asked for with the first request only.
        ("s3://bucket/x", vec![], "the bucket 'bucket'"),
        ("abfss://c@acct.dfs.core.windows.net/x", vec![], "the container 'c' of the storage account 'acct'"),
    ] {
        assert_eq!(open(root, &options).expect(root).to_string(), shown);
    }
}

#[test]
fn a_store_does_not_show_its_credentials() {
    let aws = [("aws_access_key_id", "id"), ("aws_secret_access_key", "S3cr3t"), ("aws_session_token", "S3cr3t")];
    let key = [("azure_storage_token", "S3cr3t")];
    for (root, options) in [("s3://bucket/x", &aws[..]), ("abfss://c@acct.dfs.core.windows.net/x", &key[..])] {
        let options: HashMap<_, _> =
            options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let storage = crate::storage::Storage::open(root, &options).expect(root);
        let shown = format!("{storage:?} {:?} {}", storage.store(), storage.store());
        assert!(!shown.contains("S3cr3t"), "{shown}");
        assert!(shown.contains("ErrorMappingStore"), "{shown}");
    }
}

#[test]
fn the_root_and_the_options_must_agree() {
    let refused = |root: &str, options: &[(&str, &str)]| open(root, options).expect_err(root).to_string();
    let abfss = "abfss://c@acct.dfs.core.windows.net/x";
    assert!(refused(abfss, &[("account_name", "other")]).contains("contradicts the root"));
    assert!(refused(abfss, &[("azure_container_name", "other")]).contains("contradicts the root"));
    assert!(refused("s3://bucket/x", &[("aws_bucket", "other")]).contains("contradicts the root"));
    assert!(refused("az://c/x", &[]).contains("AZURE_STORAGE_ACCOUNT_NAME"));
    // The root overrides the environment, which applies to every store.
    let environment = [("AZURE_STORAGE_ACCOUNT_NAME".to_owned(), "other".to_owned())];
    let store = connect(&bucket(abfss), &HashMap::new(), environment.into_iter()).expect("connects");
    assert!(store.to_string().contains("'acct'"), "{store}");
}

#[test]
fn keys_that_are_none_are_not_shown() {
    for (root, options) in [
        ("abfss://c@acct.dfs.core.windows.net/x", vec![("account_key", "S3cr3t!not base64")]),
        ("abfss://c@acct.dfs.core.windows.net/x", vec![("sas_token", "S3cr3t!no-pairs")]),
        ("gs://bucket/x", vec![("google_service_account_key", "\"S3cr3t!\"")]),
        ("s3://bucket/x", vec![("aws_secret_access_key", "S3cr3t!")]),
    ] {
        let error = open(root, &options).expect_err(root);
        let text = format!("{error} {error:?} {}", error.full_message());
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{text}");
        assert!(!text.contains("S3cr3t!"), "{text}");
    }
}

type ReceivedRequests = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Answers like Google Cloud Storage to the second attempt to create an object.
async fn answer(
    State(seen): State<ReceivedRequests>,
    request: Request,
) -> (StatusCode, [(&'static str, &'static str); 2]) {
    let header = request.headers().get("x-goog-if-generation-match");
    let header = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut seen = seen.lock().expect("lock");
    seen.push((format!("{} {}", request.method(), request.uri()), header));
    let status = if seen.len() > 1 { StatusCode::PRECONDITION_FAILED } else { StatusCode::OK };
    (status, [("etag", "\"1\""), ("x-goog-generation", "1")])
}

#[test]
fn on_google_creation_is_conditional() {
    let seen = ReceivedRequests::default();
    let state = Arc::clone(&seen);
    let result = crate::runtime::runtime().expect("runtime").block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let server =
            tokio::spawn(axum::serve(listener, Router::new().fallback(answer).with_state(state)).into_future());
        let key = r#"{"private_key":"k","private_key_id":"i","client_email":"e","disable_oauth":true}"#;
        let options = [("google_base_url", url.as_str()), ("google_service_account_key", key), ("allow_http", "true")];
        let store = open("gs://bucket/a b", &options).expect("connects");
        let path = Path::parse("a b/100%/x=1.json").expect("path");
        let first = store.put_opts(&path, "1".into(), PutMode::Create.into()).await;
        let second = store.put_opts(&path, "2".into(), PutMode::Create.into()).await;
        server.abort();
        first.expect("created");
        second.expect_err("taken")
    });
    assert!(matches!(result, object_store::Error::AlreadyExists { .. }), "{result}");
    let created = ("PUT /bucket/a%20b%2F100%25%2Fx%3D1%2Ejson".to_owned(), Some("0".to_owned()));
    assert_eq!(*seen.lock().expect("lock"), [created.clone(), created]);
}

/// What Microsoft's token services were asked for, and with which token the store was.
type Asked = Arc<Mutex<Vec<String>>>;

/// Gives a new token to each request for one, which lives for as long as the test says, and has no blobs.
async fn entra(State((asked, lives)): State<(Asked, u64)>, request: Request) -> (StatusCode, String) {
    let uri = request.uri().clone();
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = axum::body::to_bytes(request.into_body(), 10_000).await.expect("body");
    let mut asked = asked.lock().expect("lock");
    if !uri.path().contains("token") {
        asked.push(header.unwrap_or_default());
        return (StatusCode::NOT_FOUND, String::new());
    }
    let body = String::from_utf8_lossy(&body);
    asked.push(format!(
        "{} {}",
        uri.path(),
        body.split('&').find(|part| part.starts_with("client_assertion=")).unwrap_or("")
    ));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("time").as_secs();
    let number = asked.len();
    (StatusCode::OK, format!(r#"{{"access_token":"t{number}","expires_in":{lives},"expires_on":"{}"}}"#, now + lives))
}

/// Two requests to a store whose tokens live for `lives` seconds; between them `file` is written anew.
fn two_requests(lives: u64, file: &std::path::Path, identity: &[(&str, &str)]) -> Vec<String> {
    let asked = Asked::default();
    let state = (Arc::clone(&asked), lives);
    crate::runtime::runtime().expect("runtime").block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let server = tokio::spawn(axum::serve(listener, Router::new().fallback(entra).with_state(state)).into_future());
        let msi = format!("{url}/msi/token");
        let mut options = identity.to_vec();
        options.extend([
            ("azure_endpoint", url.as_str()),
            ("azure_authority_host", &url),
            ("azure_msi_endpoint", &msi),
        ]);
        options.push(("allow_http", "true"));
        let store = open("abfss://c@acct.dfs.core.windows.net/x", &options).expect("connects");
        for number in 1..=2 {
            std::fs::write(file, format!("assertion{number}")).expect("written");
            let error = store.get_opts(&Path::from("x"), object_store::GetOptions::default()).await.expect_err("none");
            assert!(matches!(error, object_store::Error::NotFound { .. }), "{error}");
        }
        server.abort();
    });
    asked.lock().expect("lock").clone()
}

#[test]
fn tokens_that_expired_are_fetched_anew_and_others_are_kept() {
    let file = tempfile::NamedTempFile::new().expect("file");
    let path = file.path().to_str().expect("utf-8");
    let principal = [("azure_client_id", "id"), ("azure_tenant_id", "tenant"), ("azure_client_secret", "secret")];
    let workload = [("azure_client_id", "id"), ("azure_tenant_id", "tenant"), ("azure_federated_token_file", path)];
    let token = "/tenant/oauth2/v2.0/token ";
    for (identity, first, second) in [
        (&principal[..], token.to_owned(), token.to_owned()),
        // The file is read anew as well: Kubernetes replaces it.
        (&workload[..], format!("{token}client_assertion=assertion1"), format!("{token}client_assertion=assertion2")),
        (&[][..], "/msi/token ".to_owned(), "/msi/token ".to_owned()),
    ] {
        let expected = [first.as_str(), "Bearer t1", second.as_str(), "Bearer t3"];
        assert_eq!(two_requests(0, file.path(), identity), expected);
        assert_eq!(two_requests(3600, file.path(), identity), [first.as_str(), "Bearer t1", "Bearer t1"]);
    }
}
