use super::*;

fn open(root: &str) -> Result<Storage> {
    Storage::open(root, &HashMap::new())
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
    for uri in ["abfss://c@a.dfs.core.windows.net/x", "s3://b/x", "gs://b/x", "az://c/x", "https://host/x"] {
        let error = open(uri).expect_err(uri);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{uri}");
        assert!(error.to_string().contains("local directories"), "{error}");
    }
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
    fn every_directory_name_survives_the_way_through_a_url(name in "[^/\\x00]{1,40}") {
        proptest::prop_assume!(name != "." && name != "..");
        let dir = tempfile::tempdir().expect("directory");
        let storage = open(dir.path().join(&name).to_str().expect("utf-8")).expect("opens");
        let found = storage.root().to_file_path().expect("path");
        proptest::prop_assert_eq!(found.file_name().and_then(|n| n.to_str()), Some(name.as_str()));
    }
}
