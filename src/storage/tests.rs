pub(crate) mod fault_injecting;

pub(crate) use super::fsync::{Disk, FsyncStore};
use std::collections::HashMap;

use super::*;

impl Storage {
    /// Opens a storage whose files are in `store`, below `root`.
    pub(crate) fn over(store: Arc<DynObjectStore>, root: Url) -> Result<Self> {
        Self::on(layers::around(store, std::time::Duration::ZERO, false), root)
    }

    /// Like [`Storage::over`], but the thread that waits for a request also runs it.
    pub(crate) fn in_place(store: Arc<DynObjectStore>, root: Url) -> Result<Self> {
        let remote = layers::around(store, std::time::Duration::ZERO, false);
        Self::on(Layers { is_immediate: true, ..remote }, root)
    }
}

fn open(root: &str) -> Result<Storage> {
    Storage::open(root, &HashMap::new())
}

/// With what a root in a cloud needs to be opened; no request is sent.
fn open_with(root: &str) -> Result<Storage> {
    let cloud = ["az", "abfs"].iter().any(|scheme| root.to_ascii_lowercase().starts_with(scheme));
    let options = if cloud && !root.contains('@') { vec![("account_name", "acct")] } else { vec![] };
    let options: HashMap<_, _> = options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Storage::open(root, &options)
}

fn kind(root: &str) -> ErrorKind {
    open(root).expect_err(root).kind()
}

#[test]
fn roots_that_can_never_work_are_refused_before_anything_is_written() {
    assert_eq!(kind(""), ErrorKind::InvalidInput);
    assert_eq!(kind("  "), ErrorKind::InvalidInput);
    assert_eq!(kind("a\0b"), ErrorKind::InvalidInput);
    for mount in [
        "/dbfs/ledger",
        "/dbfs",
        "dbfs:/ledger",
        "/Volumes/a/b/c",
        "/Workspace/Users/x",
        "file:///dbfs/x",
        "/tmp/../dbfs/x",
        "file:///Volumes/a",
    ] {
        let error = open(mount).expect_err(mount);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{mount}");
        assert!(error.to_string().contains("abfss://"), "{error}");
    }
    for uri in ["https://host/x", "hdfs://host/x", "wasbs://c@a.blob.core.windows.net/x"] {
        let error = open(uri).expect_err(uri);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{uri}");
        assert!(error.to_string().contains("abfss://container@account"), "{error}");
    }
}

#[test]
fn roots_in_clouds_have_one_form() {
    for (root, expected) in [
        ("abfss://c@acct.dfs.core.windows.net", "abfss://c@acct.dfs.core.windows.net/"),
        ("ABFSS://c@Acct.dfs.core.windows.net/a/b/", "abfss://c@Acct.dfs.core.windows.net/a/b/"),
        ("abfs://c@acct.blob.core.windows.net//a//b", "abfs://c@acct.blob.core.windows.net/a/b/"),
        ("az://c@acct.dfs.core.chinacloudapi.cn/a", "az://c@acct.dfs.core.chinacloudapi.cn/a/"),
        ("abfss://c@acct.z07.dfs.storage.azure.net/a", "abfss://c@acct.z07.dfs.storage.azure.net/a/"),
        (
            "abfss://My Space@onelake.dfs.fabric.microsoft.com/a",
            "abfss://My%20Space@onelake.dfs.fabric.microsoft.com/a/",
        ),
        ("s3://bucket", "s3://bucket/"),
        ("s3a://my.bucket-1/a b/100%/c%25/x=1", "s3a://my.bucket-1/a%20b/100%25/c%25/x=1/"),
        ("gs://bucket/a?".trim_end_matches('?'), "gs://bucket/a/"),
    ] {
        assert_eq!(open_with(root).expect(root).root().as_str(), expected);
        assert_eq!(open_with(expected).expect(expected).root().as_str(), expected);
    }
}

#[test]
fn roots_that_are_no_places_in_a_cloud_are_refused() {
    for root in [
        "s3:/bucket/x",
        "s3:bucket",
        "abfss:/c@a.dfs.core.windows.net/x",
        "s3://",
        "s3:///x",
        "s3://bucket:9000/x",
        "s3://bucket/a%2F..%2Fb",
        "s3://bucket/%FF",
        "s3://bu cket/x",
        "s3://bucket/a\nb",
        "az://acct.blob.core.windows.net/c/x",
        "abfss://c@acct.example.com/x",
        "abfss://c@dfs.core.windows.net/x",
        "abfss://c@.dfs.core.windows.net/x",
        "abfss://c/d@acct.dfs.core.windows.net/x/../../..?",
    ] {
        assert_eq!(open_with(root).expect_err(root).kind(), ErrorKind::InvalidInput, "{root}");
    }
}

#[test]
fn secrets_in_a_uri_are_refused_and_not_repeated() {
    for root in [
        "s3://user:S3cr3t@bucket/x",
        "s3://S3cr3t@bucket/x",
        "s3://user:S3cr3t/y@bucket/x",
        "s3:user:S3cr3t@bucket/x",
        "gs://user:S3cr3t@bucket/x",
        "gs://bucket/x?access_token=S3cr3t",
        "az://c/x?sv=1&sig=S3cr3t",
        "az://c/x#S3cr3t",
        "abfss://c:S3cr3t@acct.dfs.core.windows.net/x",
        "abfss://c@S3cr3t@acct.dfs.core.windows.net/x",
        "abfss://c@acct.dfs.core.windows.net/x?sig=S3cr3t",
        "https://acct.blob.core.windows.net/c?sig=S3cr3t",
        "https://user:S3cr3t@host/x",
        "file://user:S3cr3t@host/x",
        "file:///x?sig=S3cr3t",
        "dbfs://user:S3cr3t@host/x",
        "s3://[S3cr3t/x",
    ] {
        let error = open_with(root).expect_err(root);
        let text = format!("{error} {error:?} {}", error.full_message());
        assert!(!text.contains("S3cr3t"), "{root}: {text}");
    }
}

#[test]
fn a_tilde_is_the_home_directory() {
    let home = std::fs::canonicalize(std::env::home_dir().expect("home")).expect("exists");
    let path = |root: &str| open(root).expect(root).root().to_file_path().expect("path");
    assert_eq!(path("~/some/ledger"), home.join("some/ledger"));
    assert_eq!(path("~"), home);
    assert_eq!(path("~user").file_name().expect("name"), "~user");
}

#[test]
fn a_file_is_no_root_and_opening_creates_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("file");
    assert_eq!(kind(file.to_str().expect("utf-8")), ErrorKind::InvalidInput);
    assert_eq!(kind(file.join("below").to_str().expect("utf-8")), ErrorKind::InvalidInput);
    let missing = dir.path().join("not/yet/there");
    open(missing.to_str().expect("utf-8")).expect("opens");
    assert!(!dir.path().join("not").exists());
}

#[test]
fn paths_and_uris_name_the_same_directory() {
    let dir = tempfile::tempdir().expect("directory");
    for name in ["plain", "with space", "prozent%20x", "ünïcødé 日本", "a:b", "q?x#y", "~", "quote'\"", "100%"] {
        let path = dir.path().join(name);
        let storage = open(path.to_str().expect("utf-8")).expect(name);
        assert_eq!(
            storage.root().to_file_path().expect("path"),
            std::fs::canonicalize(dir.path()).expect("exists").join(name)
        );
        assert!(storage.root().as_str().ends_with('/'));
        assert_eq!(open(storage.root().as_str()).expect("uri").root(), storage.root());
    }
    assert!(open("relative/dir").expect("relative").root().to_file_path().expect("path").is_absolute());
}

#[test]
fn a_forked_child_gets_an_error_and_no_hang() {
    let dir = tempfile::tempdir().expect("directory");
    let mut storage = open(dir.path().to_str().expect("utf-8")).expect("opens");
    storage.engine().expect("same process");
    // What a forked child sees: its parent's storage under another process id.
    storage.pid += 1;
    for error in [storage.engine().err(), storage.block_on(async {}).err()] {
        let error = error.expect("refused");
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("opened before fork(); open it again in the child"), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn every_name_in_a_bucket_survives_the_way_through_a_url(name in "[^/\\x00-\\x1f\\x7f]{1,40}") {
        proptest::prop_assume!(name != "." && name != ".." && !name.chars().any(char::is_control) && name.trim() == name);
        // As users write it: only what has a meaning in URIs is escaped.
        let written = name.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        proptest::prop_assume!(written != "%2E" && written != "%2e");
        let storage = Storage::open(&format!("s3://bucket/{written}/x"), &HashMap::new()).expect("opens");
        let path = object_store::path::Path::from_url_path(storage.root().path()).expect("path");
        proptest::prop_assert_eq!(path.as_ref(), format!("{name}/x"));
    }

    #[test]
    fn every_directory_name_survives_the_way_through_a_url(name in "[^/\\x00]{1,40}") {
        proptest::prop_assume!(name != "." && name != "..");
        let dir = tempfile::tempdir().expect("directory");
        let storage = open(dir.path().join(&name).to_str().expect("utf-8")).expect("opens");
        let found = storage.root().to_file_path().expect("path");
        proptest::prop_assert_eq!(found.file_name().and_then(|n| n.to_str()), Some(name.as_str()));
    }
}

#[test]
fn a_table_at_or_above_the_root_is_found_in_a_remote_store() {
    let store: Arc<DynObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let over =
        |path: &str| Storage::over(Arc::clone(&store), Url::parse(&format!("memory:///{path}/")).unwrap()).unwrap();
    let log = Path::from("data/events/_delta_log/00000000000000000000.json");
    let put = Arc::clone(&store);
    over("x").block_on(async move { put.put_opts(&log, "{}".into(), Default::default()).await }).unwrap().unwrap();
    for (path, found) in [
        ("data/events", Some("memory:///data/events")),
        ("data/events/ledger/new", Some("memory:///data/events")),
        ("data/events2", None),
        ("data", None),
    ] {
        assert_eq!(over(path).enclosing_table().unwrap().as_deref(), found, "{path}");
    }
}
