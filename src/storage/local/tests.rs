use std::fs;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use proptest::prelude::*;

use super::listing::{read, without_gaps};
use super::*;
use crate::storage::file_names::entry_version;

async fn listed(store: &dyn ObjectStore, prefix: &Path, offset: &Path) -> Vec<(String, u64)> {
    let mut files: Vec<ObjectMeta> = store.list_with_offset(Some(prefix), offset).try_collect().await.expect("listed");
    files.sort_by(|one, other| one.location.cmp(&other.location));
    files.into_iter().map(|file| (file.location.to_string(), file.size)).collect()
}

fn stores() -> (tempfile::TempDir, LocalFileSystem, LocalStore, Path) {
    let dir = tempfile::tempdir().expect("directory");
    let root = Path::from_filesystem_path(dir.path()).expect("root");
    (dir, LocalFileSystem::new(), LocalStore::new(Arc::new(LocalFileSystem::new())), root)
}

const NAMES: [&str; 12] = [
    "00000000000000000000.json",
    "00000000000000000009.json",
    "00000000000000000010.checkpoint.parquet",
    "00000000000000000010.crc",
    "00000000000000000010.json",
    "00000000000000000011.json#1",
    "a#b",
    "a%20b",
    "_last_checkpoint",
    "_sidecars/one.parquet",
    "_staged_commits/00000000000000000010.x.json",
    "ünï 日本/00000000000000000003.json",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// For every set of files, prefix and offset, both listings return the same files.
    #[test]
    fn it_lists_what_the_store_lists(
        names in proptest::sample::subsequence(NAMES.to_vec(), 0..=NAMES.len()),
        below in prop_oneof![Just(""), Just("_delta_log"), Just("_delta_log/_sidecars"), Just("no_such_directory")],
        offset in prop_oneof![
            Just(None),
            proptest::sample::select(NAMES.to_vec()).prop_map(|name| Some(format!("_delta_log/{name}"))),
            Just(Some("_delta_log/00000000000000000005".to_owned())),
            Just(Some("_delta_log".to_owned())),
            Just(Some("_delta_log/zzz".to_owned())),
            Just(Some("a".to_owned())),
        ],
    ) {
        let (dir, plain, quick, root) = stores();
        for (at, name) in names.iter().enumerate() {
            let file = dir.path().join("_delta_log").join(name);
            fs::create_dir_all(file.parent().expect("parent")).expect("directory");
            fs::write(file, vec![b'x'; at]).expect("written");
        }
        let inside = |path: &str| Path::parse(format!("{root}/{path}")).expect("path");
        let prefix = if below.is_empty() { root.clone() } else { inside(below) };
        let offset = offset.map_or_else(|| prefix.clone(), |offset| inside(&offset));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let (expected, found) = runtime.block_on(async {
            let in_order: Vec<Path> = quick
                .list_with_offset(Some(&prefix), &offset)
                .map_ok(|file| file.location)
                .try_collect()
                .await
                .expect("listed");
            assert!(in_order.is_sorted(), "{in_order:?}");
            (listed(&plain, &prefix, &offset).await, listed(&quick, &prefix, &offset).await)
        });
        prop_assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn times_sizes_and_linked_files_are_those_of_the_files() {
    let (dir, plain, quick, root) = stores();
    fs::write(dir.path().join("a"), "four").expect("written");
    std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("b")).expect("link");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), dir.path().join("c")).expect("link");
    let files: Vec<ObjectMeta> = quick.list_with_offset(Some(&root), &root).try_collect().await.expect("listed");
    let expected: Vec<ObjectMeta> = {
        let mut files: Vec<ObjectMeta> =
            plain.list_with_offset(Some(&root), &root).try_collect().await.expect("listed");
        files.sort_by(|one, other| one.location.cmp(&other.location));
        files.into_iter().map(|file| ObjectMeta { e_tag: None, ..file }).collect()
    };
    assert_eq!(files, expected);
    assert_eq!(files.len(), 2);
}

#[tokio::test]
async fn a_linked_directory_is_followed() {
    let (dir, plain, quick, root) = stores();
    fs::create_dir_all(dir.path().join("elsewhere")).expect("directory");
    fs::write(dir.path().join("elsewhere/0.json"), "x").expect("written");
    fs::create_dir_all(dir.path().join("table")).expect("directory");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("table/_delta_log")).expect("link");
    for prefix in ["table", "table/_delta_log"] {
        let prefix = Path::parse(format!("{root}/{prefix}")).expect("path");
        let found = listed(&quick, &prefix, &prefix).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found, listed(&plain, &prefix, &prefix).await);
    }
}

#[tokio::test]
async fn names_that_are_no_text_do_not_break_a_log() {
    use std::os::unix::ffi::OsStrExt as _;
    let (dir, _, quick, root) = stores();
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.json")), "x").expect("written");
    fs::write(dir.path().join("line\nbreak"), "x").expect("written");
    fs::write(dir.path().join(".00000000000000000001.json.77-1.tmp"), "x").expect("written");
    fs::write(dir.path().join("00000000000000000001.json"), "x").expect("written");
    let files = listed(&quick, &root, &root).await;
    assert_eq!(files, vec![(format!("{root}/00000000000000000001.json"), 1)]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_is_an_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, _, quick, root) = stores();
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).expect("directory");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).expect("locked");
    let listed: Result<Vec<ObjectMeta>> = quick.list_with_offset(Some(&root), &root).try_collect().await;
    // Root reads everything.
    if fs::read_dir(&locked).is_err() {
        assert!(matches!(listed, Err(Error::PermissionDenied { .. })), "{listed:?}");
    }
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).expect("unlocked");
}

#[test]
fn commits_that_reading_the_directory_passed_over_are_looked_for() {
    let entry =
        |name: &str| (Path::from(format!("t/_delta_log/{name}")), PathBuf::from(format!("/t/_delta_log/{name}")));
    let commit = |number: u64| entry(&format!("{number:020}.json"));
    let found =
        vec![commit(7), entry("00000000000000000008.checkpoint.parquet"), commit(10), entry("_last_checkpoint")];
    let expected = vec![
        commit(7),
        entry("00000000000000000008.checkpoint.parquet"),
        commit(8),
        commit(9),
        commit(10),
        entry("_last_checkpoint"),
    ];
    assert_eq!(without_gaps(found), expected);
    let broken = vec![commit(0), commit(u64::MAX)];
    assert_eq!(without_gaps(broken).len(), 1_002, "a long gap is filled only up to its end");
}

/// While a writer makes one commit after the other, each listing has all commits before the last one that it has.
#[test]
fn no_listing_has_a_gap_while_commits_are_made() {
    let dir = tempfile::tempdir().expect("directory");
    let log = dir.path().join("_delta_log");
    fs::create_dir(&log).expect("log");
    let prefix = Path::from_filesystem_path(&log).expect("prefix");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..4_000 {
                fs::write(log.join(format!("{number:020}.json")), "x").expect("written");
            }
        });
        while !writer.is_finished() {
            let files =
                read(log.clone(), prefix.clone(), &prefix.clone().join("0")).expect("listed").expect("no links");
            let version = |file: &ObjectMeta| entry_version(file.location.filename()?);
            let numbers: Vec<u64> = files.iter().filter_map(version).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        }
    });
}

/// A reader at the end of a long log. The test prints the time it takes (`--nocapture`, with an optimised build).
#[tokio::test]
async fn the_end_of_a_long_log_is_listed_in_order() {
    for length in [5_000, 20_000] {
        let (dir, plain, quick, root) = stores();
        for version in 0..length {
            fs::write(dir.path().join(format!("{version:020}.json")), "x").expect("written");
        }
        let offset = root.clone().join(format!("{:020}", length - 20));
        let expected: Vec<(String, u64)> =
            (length - 20..length).map(|version| (format!("{root}/{version:020}.json"), 1)).collect();
        let mut fastest = [Duration::MAX; 2];
        for _ in 0..5 {
            for (store, fastest) in [&plain as &dyn ObjectStore, &quick].into_iter().zip(&mut fastest) {
                let begun = Instant::now();
                assert_eq!(listed(store, &root, &offset).await, expected);
                *fastest = begun.elapsed().min(*fastest);
            }
        }
        let [before, now] = fastest;
        let ratio = before.as_secs_f64() / now.as_secs_f64();
        println!("the last 20 of {length} log files: {before:?} object_store's, {now:?} ours, {ratio:.1} times");
    }
}

#[test]
fn an_empty_or_missing_checkpoint_makes_the_file_useless() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("_last_checkpoint");
    let is_useless = || is_checkpoint_missing(&path);
    assert!(!is_useless());
    let write = |text: &str| fs::write(&path, text).unwrap();
    write("{\"version\":20,\"size\":3}");
    assert!(is_useless());
    write(
        "{\"version\":20,\"size\":3,\"v2Checkpoint\":{\"path\":\"00000000000000000020.checkpoint.80a083e8.parquet\"}}",
    );
    assert!(!is_useless(), "it has another name");
    write("{\"version\":20,\"size\":3}");
    let checkpoint = dir.path().join("00000000000000000020.checkpoint.parquet");
    fs::write(&checkpoint, "").unwrap();
    assert!(is_useless());
    write("not JSON");
    assert!(!is_useless(), "readers handle it");
    write("{\"version\":20,\"size\":3}");
    fs::write(&checkpoint, "checkpoint").unwrap();
    assert!(!is_useless());
}
