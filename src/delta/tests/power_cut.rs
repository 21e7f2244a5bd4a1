//! A disk whose plug can be pulled: what was not synced is gone.

use std::collections::{BTreeMap, HashMap as Map};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use object_store::local::LocalFileSystem;
use url::Url;

use super::*;
use crate::storage::tests::{Disk, FsyncStore};

/// What a directory holds.
#[derive(Debug, Clone)]
enum Node {
    /// The number of the file's bytes.
    File(u64),
    Directory,
}

type Names = BTreeMap<PathBuf, BTreeMap<std::ffi::OsString, Node>>;

/// A moment at which the power may fail.
#[derive(Clone)]
struct Moment {
    /// Bytes that were synced, by number.
    bytes: Map<u64, Arc<Vec<u8>>>,
    /// The names that were synced, by directory.
    synced: Names,
    /// The names that processes see.
    visible: Names,
    /// Rows whose call had returned.
    returned: Vec<String>,
}

/// Does what a real disk does, and remembers what a power cut would leave of it, at every moment.
struct Plug {
    root: PathBuf,
    bytes: Mutex<Map<u64, Arc<Vec<u8>>>>,
    names: Mutex<Names>,
    returned: Mutex<Vec<String>>,
    moments: Mutex<Vec<Moment>>,
}

impl std::fmt::Debug for Plug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plug")
    }
}

fn names_in(directory: &Path) -> BTreeMap<std::ffi::OsString, Node> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let node = |entry: &fs::DirEntry| {
        let found = entry.metadata().ok()?;
        Some(if found.is_dir() { Node::Directory } else { Node::File(found.ino()) })
    };
    entries.filter_map(|entry| Some((entry.file_name(), node(&entry)?))).collect()
}

fn everything_in(directory: &Path, into: &mut Names) {
    let names = names_in(directory);
    for (name, node) in &names {
        if matches!(node, Node::Directory) {
            everything_in(&directory.join(name), into);
        }
    }
    into.insert(directory.to_owned(), names);
}

impl Plug {
    fn moment(&self) {
        // Before anything is read: checkpoints run beside the calls, and a row that returns just now is not expected yet.
        let returned = self.returned.lock().expect("returned").clone();
        let mut visible = Names::new();
        everything_in(&self.root, &mut visible);
        let (bytes, synced) = (self.bytes.lock().expect("bytes").clone(), self.names.lock().expect("names").clone());
        self.moments.lock().expect("moments").push(Moment { bytes, synced, visible, returned });
    }
}

impl Disk for Plug {
    fn sync_file(&self, path: &Path, file: &File) -> io::Result<()> {
        self.moment();
        let number = file.metadata()?.ino();
        self.bytes.lock().expect("bytes").insert(number, Arc::new(fs::read(path)?));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.moment();
        if path.starts_with(&self.root) {
            self.names.lock().expect("names").insert(path.to_owned(), names_in(path));
        }
        Ok(())
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        for (directory, names) in {
            let mut all = Names::new();
            everything_in(path, &mut all);
            all
        } {
            for (name, node) in &names {
                if matches!(node, Node::File(_)) {
                    let file = directory.join(name);
                    self.sync_file(&file, &File::open(&file)?)?;
                }
            }
            self.sync_directory(&directory)?;
        }
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.moment();
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.moment();
        fs::rename(from, to)
    }
}

impl Moment {
    /// The content of the disk after the power cut: files whose bytes were not synced are empty.
    fn restore(&self, names: &Names, from: &Path, to: &Path) {
        for (name, node) in names.get(from).into_iter().flatten() {
            let (inside, target) = (from.join(name), to.join(name));
            match node {
                Node::Directory => {
                    fs::create_dir(&target).expect("directory");
                    self.restore(names, &inside, &target);
                }
                Node::File(number) => {
                    let bytes = self.bytes.get(number).map(|bytes| bytes.as_slice()).unwrap_or_default();
                    fs::write(target, bytes).expect("file");
                }
            }
        }
    }

    /// With only the names that were synced, and with all: a disk may write more than it was asked to. Where the table
    /// is not `ours`, those who made it without syncing may have broken it before it held a row of ours.
    fn check(&self, root: &Path, ours: bool) {
        for (which, names) in [("synced", &self.synced), ("visible", &self.visible)] {
            let dir = tempfile::tempdir().expect("directory");
            self.restore(names, root, dir.path());
            let ledger = dir.path().join("some/ledger");
            let storage = Storage::open(ledger.to_str().expect("utf-8"), &HashMap::new()).expect("storage");
            let table = match Table::open(&storage, "events") {
                Ok(table) => table,
                Err(error) if self.returned.is_empty() && (!ours || error.kind() == ErrorKind::NotFound) => continue,
                Err(error) => panic!("{which} names, {:?}: {}", self.returned.last(), error.full_message()),
            };
            let found = match table.scan(&Predicate::default()) {
                Ok(found) => rows(&found),
                Err(_) if self.returned.is_empty() && !ours => continue,
                Err(error) => panic!("{which} names, {:?}: {}", self.returned, error.full_message()),
            };
            for name in &self.returned {
                let count = found.iter().filter(|row| row.0.as_ref() == Some(name)).count();
                assert_eq!(count, 1, "{which} names: {name} of {:?}", self.returned);
            }
            table.append(&batch(&[row("after", 0, "NO")])).expect("the table can be written on");
        }
    }
}

struct Bench {
    dir: tempfile::TempDir,
    plug: Arc<Plug>,
    storage: Storage,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let root = fs::canonicalize(dir.path()).expect("root");
        let plug = Arc::new(Plug {
            root: root.clone(),
            bytes: Mutex::default(),
            names: Mutex::default(),
            returned: Mutex::default(),
            moments: Mutex::default(),
        });
        let files = Arc::new(LocalFileSystem::new());
        let synced = FsyncStore::with_disk(Arc::clone(&files) as _, files, Arc::clone(&plug) as _);
        let root = Url::from_directory_path(root.join("some/ledger")).expect("url");
        let storage = Storage::over(Arc::new(synced), root).expect("storage");
        Self { dir, plug, storage }
    }

    fn returned(&self, name: &str) {
        self.plug.returned.lock().expect("returned").push(name.to_owned());
        self.plug.moment();
    }

    fn append(&self, table: &Table, name: &str) {
        table.append(&batch(&[row(name, 1, "NO")])).expect("appended");
        self.returned(name);
    }

    /// Pulls the plug at every moment there was.
    fn check(self, ours: bool) {
        drop(self.storage);
        let moments = std::mem::take(&mut *self.plug.moments.lock().expect("moments"));
        println!("{} moments", moments.len());
        std::thread::scope(|scope| {
            for moments in moments.chunks(moments.len().div_ceil(4)) {
                let plug = &self.plug;
                scope.spawn(move || moments.iter().for_each(|moment| moment.check(&plug.root, ours)));
            }
        });
    }

    /// A handle whose writes are not synced, as another process's.
    fn plain(&self) -> Storage {
        let ledger = self.dir.path().join("some/ledger");
        Storage::open(ledger.to_str().expect("utf-8"), &HashMap::new()).expect("storage")
    }
}

#[test]
fn every_row_that_returned_survives_a_power_cut_at_any_moment() {
    let bench = Bench::new();
    let table = Table::open_or_create(&bench.storage, &spec()).expect("created");
    for at in 0..21 {
        bench.append(&table, &format!("{at:02}"));
        if at % 6 == 5 {
            flip(&table, &|_| true).expect("flipped");
        }
    }
    bench.check(true);
}

#[test]
fn rows_survive_a_power_cut_among_writers_that_do_not_sync() {
    let bench = Bench::new();
    let plain = Table::open_or_create(&bench.plain(), &spec()).expect("created");
    plain.append(&batch(&[row("theirs", 1, "NO")])).expect("appended");
    let table = Table::open(&bench.storage, "events").expect("opened");
    for at in 0..21 {
        bench.append(&table, &format!("{at:02}"));
        if at % 3 == 0 {
            plain.append(&batch(&[row(format!("theirs {at}"), 1, "YES")])).expect("appended");
        }
    }
    bench.check(false);
}

#[test]
fn a_disk_without_syncing_would_lose_rows() {
    let bench = Bench::new();
    let plain = Table::open_or_create(&bench.plain(), &spec()).expect("created");
    plain.append(&batch(&[row("lost", 1, "NO")])).expect("appended");
    bench.returned("lost");
    let moment = bench.plug.moments.lock().expect("moments").pop().expect("one");
    let lost = std::panic::catch_unwind(|| moment.check(&bench.plug.root, true));
    assert!(lost.is_err(), "or these tests could not fail");
}

/// What a power cut leaves of a checkpoint that was not synced.
#[test]
fn a_table_whose_last_checkpoint_is_empty_is_read_without_it() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    let log = dir.path().join("events/_delta_log");
    let checkpoint = log.join("00000000000000000020.checkpoint.parquet");
    for at in 0..22 {
        table.append(&batch(&[row(format!("{at:02}"), at, "NO")])).expect("appended");
    }
    let begun = std::time::Instant::now();
    while !fs::read_to_string(log.join("_last_checkpoint")).is_ok_and(|hint| hint.contains("\"version\":20")) {
        assert!(begun.elapsed().as_secs() < 30, "no checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    fs::write(&checkpoint, "").expect("emptied");
    let again = Table::open(&storage(&dir), "events").expect("opened");
    assert_eq!(all(&again).len(), 22);
    again.append(&batch(&[row("after", 1, "NO")])).expect("appended");
    assert_eq!(all(&again).len(), 23);
}
