use object_store::ObjectStoreExt as _;

use super::super::local::LocalStore;
use super::*;
use crate::storage::file_names::is_temporary;

/// Records the calls in order, and can refuse to sync directories.
#[derive(Debug, Default)]
struct RecordingDisk {
    seen: Mutex<Vec<String>>,
    refusing: Mutex<Option<io::ErrorKind>>,
}

fn short(path: &FilePath) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_temporary(&name) { "temporary".to_owned() } else { name.into_owned() }
}

impl RecordingDisk {
    fn saw(&self, what: &str, path: &FilePath) {
        self.seen.lock().unwrap().push(format!("{what} {}", short(path)));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Disk for RecordingDisk {
    fn sync_file(&self, path: &FilePath, file: &File) -> io::Result<()> {
        self.saw("file", path);
        file.sync_all()
    }

    fn sync_directory(&self, path: &FilePath) -> io::Result<()> {
        self.saw("directory", path);
        match *self.refusing.lock().unwrap() {
            Some(kind) => Err(kind.into()),
            None => File::open(path)?.sync_all(),
        }
    }

    fn sync_file_system(&self, path: &FilePath) -> io::Result<()> {
        self.saw("file system of", path);
        match *self.refusing.lock().unwrap() {
            Some(kind) => Err(kind.into()),
            None => RealDisk.sync_file_system(path),
        }
    }

    fn link(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        self.saw("link", to);
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        self.saw("rename", to);
        fs::rename(from, to)
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    disk: Arc<RecordingDisk>,
    store: FsyncStore,
    root: Path,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("directory");
    let (disk, files) = (Arc::new(RecordingDisk::default()), Arc::new(LocalFileSystem::new()));
    let inner = Arc::new(LocalStore::new(Arc::clone(&files)));
    let store = FsyncStore::with_disk(inner, files, Arc::clone(&disk) as _);
    let root = Path::from_filesystem_path(dir.path()).expect("root");
    Fixture { dir, disk, store, root }
}

impl Fixture {
    fn path(&self, below: &str) -> Path {
        Path::parse(format!("{}/{below}", self.root)).expect("path")
    }

    async fn commit(&self, version: u64) -> Result<PutResult> {
        let path = self.path(&format!("t/_delta_log/{version:020}.json"));
        self.store.put_opts(&path, "{}\n".into(), PutMode::Create.into()).await
    }

    /// What was synced, without the directories above the table, which are synced once.
    fn seen(&self) -> Vec<String> {
        let above = short(self.dir.path());
        let mut seen = self.disk.take();
        if let Some(at) = seen.iter().position(|line| *line == format!("directory {above}")) {
            seen.drain(..=at);
        }
        seen
    }

    fn plain_commit(&self, version: u64, add: Option<&str>) {
        let log = self.dir.path().join("t/_delta_log");
        fs::create_dir_all(&log).expect("log");
        let text = add.map_or_else(|| "{}\n".to_owned(), |path| format!("{{\"add\":{{\"path\":\"{path}\"}}}}\n"));
        fs::write(log.join(format!("{version:020}.json")), text).expect("entry");
    }

    fn left_over(&self) -> Vec<String> {
        let names = |below: &str| fs::read_dir(self.dir.path().join(below)).into_iter().flatten().flatten();
        let names =
            names("t").chain(names("t/_delta_log")).map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| is_temporary(name)).collect()
    }
}

const ENTRY_0: &str = "00000000000000000000.json";
const ENTRY_1: &str = "00000000000000000001.json";

#[tokio::test]
async fn bytes_are_synced_before_the_name_and_the_name_before_the_call_returns() {
    let fixture = fixture();
    fixture.commit(0).await.unwrap();
    let first = fixture.disk.take();
    // The directories were made: each name is synced in the directory above, from the root down.
    let above =
        first.iter().position(|line| *line == format!("directory {}", short(fixture.dir.path()))).expect("root");
    assert_eq!(
        first[above..],
        [
            &format!("directory {}", short(fixture.dir.path())),
            "directory t",
            "file temporary",
            &format!("link {ENTRY_0}"),
            "directory _delta_log"
        ]
    );
    fixture.commit(1).await.unwrap();
    assert_eq!(fixture.disk.take(), ["file temporary", &format!("link {ENTRY_1}"), "directory _delta_log"]);
    fixture.store.put(&fixture.path("t/x.parquet"), "rows".into()).await.unwrap();
    assert_eq!(fixture.disk.take(), ["file temporary", "rename x.parquet", "directory t"]);
    assert_eq!(fixture.left_over(), Vec::<String>::new());
    let read = fixture.store.get(&fixture.path("t/x.parquet")).await.unwrap().bytes().await.unwrap();
    assert_eq!(read, "rows");
}

#[tokio::test]
async fn an_existing_file_is_not_replaced() {
    let fixture = fixture();
    fixture.commit(0).await.unwrap();
    fixture.disk.take();
    assert!(matches!(fixture.commit(0).await, Err(Error::AlreadyExists { .. })));
    assert_eq!(fixture.disk.take(), Vec::<String>::new(), "a lost race costs no sync");
    assert_eq!(fixture.left_over(), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_whose_name_was_not_synced_is_synced_before_it_is_read() {
    let fixture = fixture();
    fixture.commit(0).await.unwrap();
    *fixture.disk.refusing.lock().unwrap() = Some(io::ErrorKind::Other);
    let error = fixture.commit(1).await.unwrap_err();
    assert!(matches!(error, Error::Generic { .. }), "{error}");
    assert!(error.to_string().contains(ENTRY_1), "{error}");
    let path = fixture.path(&format!("t/_delta_log/{ENTRY_1}"));
    // The name is there, but a power cut could take it.
    assert!(fixture.dir.path().join("t/_delta_log").join(ENTRY_1).exists());
    fixture.store.get(&path).await.unwrap_err();
    *fixture.disk.refusing.lock().unwrap() = None;
    fixture.disk.take();
    fixture.store.get(&path).await.unwrap();
    assert_eq!(fixture.disk.take(), [&format!("file {ENTRY_1}"), "directory _delta_log"]);
    fixture.store.get(&path).await.unwrap();
    assert_eq!(fixture.disk.take(), Vec::<String>::new(), "once is enough");
}

#[tokio::test]
async fn entries_of_writers_that_do_not_sync_are_synced_below_ours() {
    let fixture = fixture();
    fixture.plain_commit(0, None);
    fixture.commit(1).await.unwrap();
    // Nothing is known of what there was before.
    assert_eq!(
        fixture.seen().last_chunk(),
        Some(&["file system of t", &format!("link {ENTRY_1}"), "directory _delta_log"].map(str::to_owned))
    );
    for (version, file) in ["a%20b.parquet", "flag=NO/c.parquet", "gone.parquet"].into_iter().enumerate() {
        fixture.plain_commit(version as u64 + 2, Some(file));
    }
    fs::create_dir(fixture.dir.path().join("t/flag=NO")).unwrap();
    fs::write(fixture.dir.path().join("t/a b.parquet"), "rows").unwrap();
    fs::write(fixture.dir.path().join("t/flag=NO/c.parquet"), "rows").unwrap();
    fixture.commit(5).await.unwrap();
    let seen = fixture.disk.take();
    let at = |line: &str| seen.iter().rposition(|seen| seen == line).unwrap_or_else(|| panic!("{line}: {seen:?}"));
    let entries =
        ["file 00000000000000000002.json", "file 00000000000000000003.json", "file 00000000000000000004.json"];
    // The rows, their names, the entries that name them, and then ours.
    for file in ["file a b.parquet", "file c.parquet"] {
        for directory in ["directory flag=NO", "directory t"] {
            assert!(at(file) < at(directory), "{seen:?}");
            for entry in entries {
                assert!(at(directory) < at(entry) && at(entry) < at("link 00000000000000000005.json"), "{seen:?}");
            }
        }
    }
    // What was synced once is not synced again, what came in between is.
    fixture.plain_commit(6, None);
    fixture.commit(7).await.unwrap();
    assert_eq!(
        fixture.disk.take(),
        ["file temporary", "file 00000000000000000006.json", "link 00000000000000000007.json", "directory _delta_log"]
    );
    fixture.commit(8).await.unwrap();
    assert_eq!(fixture.disk.take(), ["file temporary", "link 00000000000000000008.json", "directory _delta_log"]);
}

#[tokio::test]
async fn entries_below_a_lost_race_are_synced_once() {
    let fixture = fixture();
    fixture.commit(0).await.unwrap();
    fixture.plain_commit(1, None);
    let path = fixture.dir.path().join("t/_delta_log/00000000000000000002.json");
    // Taken after the look whether it is: the name is refused by the disk itself.
    let entry = log::LogFile::of(&path).expect("an entry");
    fixture.store.state.sync_below(&entry, true).unwrap();
    fixture.plain_commit(2, None);
    fixture.disk.take();
    fixture.commit(3).await.unwrap();
    assert_eq!(
        fixture.disk.take(),
        ["file temporary", "file 00000000000000000002.json", "link 00000000000000000003.json", "directory _delta_log"]
    );
}

#[tokio::test]
async fn checkpoints_of_others_are_synced_as_they_come() {
    let fixture = fixture();
    fixture.commit(0).await.unwrap();
    let log = fixture.dir.path().join("t/_delta_log");
    for version in 1..30 {
        fixture.plain_commit(version, None);
    }
    for name in ["00000000000000000010.checkpoint.parquet", "00000000000000000020.checkpoint.parquet"] {
        fs::write(log.join(name), "checkpoint").unwrap();
    }
    fs::write(log.join("_last_checkpoint"), "{\"version\":20}").unwrap();
    fs::create_dir(log.join("_sidecars")).unwrap();
    fs::write(log.join("_sidecars/one.parquet"), "sidecar").unwrap();
    fixture.commit(30).await.unwrap();
    let seen = fixture.seen();
    for line in [
        "file 00000000000000000020.checkpoint.parquet",
        "file 00000000000000000001.json",
        "file 00000000000000000029.json",
        "file one.parquet",
        "directory _sidecars",
    ] {
        assert!(seen.contains(&line.to_owned()), "{line}: {seen:?}");
    }
    assert!(
        !seen.iter().any(|line| line.contains("0000010.checkpoint") || line.contains("_last_checkpoint")),
        "{seen:?}"
    );
    // Another one, though no entry came in between.
    fs::write(log.join("00000000000000000030.checkpoint.parquet"), "checkpoint").unwrap();
    fs::write(log.join("_last_checkpoint"), "{\"version\":30 }").unwrap();
    fixture.commit(31).await.unwrap();
    assert!(fixture.seen().contains(&"file 00000000000000000030.checkpoint.parquet".to_owned()));
    // Our own is synced as it is written.
    fixture.store.put(&fixture.path("t/_delta_log/00000000000000000031.checkpoint.parquet"), "x".into()).await.unwrap();
    fixture.store.put(&fixture.path("t/_delta_log/_last_checkpoint"), "{\"version\":31}".into()).await.unwrap();
    fixture.disk.take();
    fixture.commit(32).await.unwrap();
    assert_eq!(fixture.disk.take(), ["file temporary", "link 00000000000000000032.json", "directory _delta_log"]);
}

#[tokio::test]
async fn a_log_file_is_deleted_only_when_its_checkpoint_is_on_the_disk() {
    let fixture = fixture();
    for version in 0..3 {
        fixture.plain_commit(version, None);
    }
    *fixture.disk.refusing.lock().unwrap() = Some(io::ErrorKind::Other);
    fixture.store.delete(&fixture.path(&format!("t/_delta_log/{ENTRY_1}"))).await.unwrap_err();
    assert!(fixture.dir.path().join("t/_delta_log").join(ENTRY_1).exists());
    *fixture.disk.refusing.lock().unwrap() = None;
    fixture.disk.take();
    let both = [ENTRY_0, ENTRY_1].map(|name| Ok(fixture.path(&format!("t/_delta_log/{name}"))));
    let deleted: Vec<_> = fixture.store.delete_stream(futures::stream::iter(both).boxed()).collect().await;
    assert!(deleted.into_iter().all(|deleted| deleted.is_ok()));
    assert_eq!(fixture.disk.take(), ["file system of t"], "once for all that are deleted together");
}

#[tokio::test]
async fn large_files_and_copies_are_synced_as_well() {
    let fixture = fixture();
    let (path, copy) = (fixture.path("t/x.parquet"), fixture.path("t/y.parquet"));
    let mut upload = fixture.store.put_multipart(&path).await.unwrap();
    let (first, second) = (upload.put_part("one,".into()), upload.put_part("two".into()));
    second.await.unwrap();
    first.await.unwrap();
    fixture.disk.take();
    upload.complete().await.unwrap();
    assert_eq!(fixture.disk.take(), ["file temporary", "rename x.parquet", "directory t"]);
    assert_eq!(fixture.store.get(&path).await.unwrap().bytes().await.unwrap(), "one,two");
    upload.complete().await.unwrap_err();
    fixture.store.copy(&path, &copy).await.unwrap();
    assert_eq!(fixture.disk.take(), ["file x.parquet", "directory t"]);
    assert_eq!(fixture.store.get(&copy).await.unwrap().bytes().await.unwrap(), "one,two");
    let mut given_up = fixture.store.put_multipart(&path).await.unwrap();
    given_up.put_part("three".into()).await.unwrap();
    given_up.abort().await.unwrap();
    drop(fixture.store.put_multipart(&path).await.unwrap());
    assert_eq!(fixture.left_over(), Vec::<String>::new());
}

#[tokio::test]
async fn a_directory_that_was_deleted_and_made_again_is_synced_again() {
    let fixture = fixture();
    fixture.commit(0).await.unwrap();
    fs::rename(fixture.dir.path().join("t"), fixture.dir.path().join("old")).unwrap();
    fixture.disk.take();
    fixture.commit(0).await.unwrap();
    let seen = fixture.disk.take();
    assert!(seen.contains(&"directory t".to_owned()), "{seen:?}");
    assert!(seen.contains(&format!("directory {}", short(fixture.dir.path()))), "{seen:?}");
}

const STAGED: &str = "8e5f4a3c-6b3a-4a8f-9d3e-000000000000.parquet";

impl Fixture {
    async fn stage(&self) {
        self.store.put(&self.path(&format!("t/flag=NO/{STAGED}")), "rows".into()).await.unwrap();
    }

    async fn commit_staged(&self, version: u64) -> Result<PutResult> {
        let path = self.path(&format!("t/_delta_log/{version:020}.json"));
        let entry = format!("{{\"add\":{{\"path\":\"flag=NO/{STAGED}\"}}}}\n");
        self.store.put_opts(&path, entry.into(), PutMode::Create.into()).await
    }
}

#[tokio::test]
async fn a_data_file_is_synced_with_the_first_entry_that_names_it_and_before_its_name() {
    let fixture = fixture();
    fixture.commit(0).await.unwrap();
    fs::create_dir(fixture.dir.path().join("t/flag=NO")).unwrap();
    fixture.commit(1).await.unwrap();
    fixture.disk.take();
    fixture.stage().await;
    assert_eq!(fixture.disk.take(), ["directory t", &format!("rename {STAGED}")]);
    fixture.commit(2).await.unwrap();
    assert_eq!(fixture.disk.take().len(), 3, "the entry does not name it");
    fixture.commit_staged(3).await.unwrap();
    let mut seen = fixture.disk.take();
    assert_eq!(seen.split_off(3), ["link 00000000000000000003.json", "directory _delta_log"]);
    seen.sort();
    assert_eq!(seen, ["directory flag=NO", &format!("file {STAGED}"), "file temporary"]);
    fixture.commit_staged(4).await.unwrap();
    assert_eq!(fixture.disk.take().len(), 3, "once is enough");
}

#[tokio::test]
async fn no_entry_names_a_data_file_whose_sync_failed() {
    let fixture = fixture();
    fixture.commit(0).await.unwrap();
    fixture.stage().await;
    *fixture.disk.refusing.lock().unwrap() = Some(io::ErrorKind::Other);
    let error = fixture.commit_staged(1).await.unwrap_err();
    assert!(error.to_string().contains("flag=NO"), "{error}");
    *fixture.disk.refusing.lock().unwrap() = None;
    // A second sync can succeed although the first one lost the bytes.
    let error = fixture.commit_staged(1).await.unwrap_err();
    assert!(error.to_string().contains(STAGED), "{error}");
    assert!(!fixture.dir.path().join("t/_delta_log").join(ENTRY_1).exists());
    assert_eq!(fixture.left_over(), Vec::<String>::new());
    // The same rows in a file that is written again.
    fixture.stage().await;
    fixture.commit_staged(1).await.unwrap();
}
