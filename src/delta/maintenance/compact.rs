//! Compaction: replaces small files by larger ones that hold the same rows in the same order.
//!
//! The rows are read and written once, before the commit loop. After a lost race, the loop only checks whether the files
//! are still in the table, and leaves those that are not to the next pass. So compaction neither starves next to busy
//! writers nor makes them wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use delta_kernel::SnapshotRef;
use delta_kernel::scan::state::{DvInfo, ScanFile};

use super::MaintenanceOutcome;
use crate::delta::commit::{CommitAttempt, CommitKind, FileRows, Proposal, StagedFiles, commit, nothing_written};
use crate::delta::scan::{Scanner, oldest_first};
use crate::delta::schema;
use crate::delta::state::{FileBatch, TableState, select};
use crate::delta::types::Predicate;
use crate::error::Result;
use crate::runtime::environment;

/// TimeLimits on a new file, in bytes and rows. They also bound the memory that one commit needs.
const TARGET: i64 = 64 << 20;
const TARGET_ROWS: u64 = 1_000_000;

/// Limit on the files that one commit replaces, as the log entry names each of them.
const MOST_FILES: usize = 10_000;

/// A file is not rewritten together with files that are in total this many times smaller. So each row is rewritten a
/// logarithmic number of times, however often maintenance runs.
const MAX_SIZE_RATIO: i64 = 4;
/// A file of up to this size, in bytes, is rewritten all the same.
const CHEAP_FILE_SIZE: i64 = 1 << 20;

/// Limit on passes. A pass can compact the files that the pass before wrote.
const PASSES: usize = 6;

/// Up to this many commits are read one by one after a lost race. Beyond that, the files are listed again.
const MAX_COMMITS_READ_SINGLY: u64 = 32;

/// Files of one partition that become one file, oldest first, each with the index of its batch and its row there.
#[derive(Debug, Default)]
struct FileRun<'a> {
    files: Vec<(usize, usize, &'a ScanFile)>,
}

/// A run and its new file.
struct CompactedRun<'a> {
    run: FileRun<'a>,
    rows: u64,
    staged: StagedFiles,
}

/// Replaces small files until there is nothing to gain.
pub(super) fn compact(table: &Arc<TableState>, report: &mut MaintenanceOutcome) -> Result<()> {
    for _ in 0..PASSES {
        let snapshot = table.refresh()?;
        let scanner = Scanner::uncached(table, &snapshot, &Predicate::default(), None)?;
        let listing = scanner.files()?;
        let batches = &listing.batches;
        let compacted = report.files_compacted;
        for group in groups(runs(batches)) {
            replace(table, &snapshot, &scanner, batches, group, report)?;
        }
        if report.files_compacted == compacted {
            break;
        }
    }
    Ok(())
}

/// The files to compact. Only consecutive files become one, so that every row keeps its position in its partition.
fn runs(batches: &[FileBatch]) -> Vec<FileRun<'_>> {
    let mut partitions: BTreeMap<Vec<(&str, &str)>, Vec<_>> = BTreeMap::new();
    for found in oldest_first(batches) {
        let mut key: Vec<_> = found.2.partition_values.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        key.sort_unstable();
        partitions.entry(key).or_default().push(found);
    }
    let mut runs = Vec::new();
    for files in partitions.into_values() {
        let mut run = FileRun::default();
        for found in files {
            let file = found.2;
            let large = file.size > TARGET / 2 || rows(file) > TARGET_ROWS / 2;
            let full = run.size() + file.size > TARGET
                || run.rows() + rows(file) > TARGET_ROWS
                || run.files.len() == MOST_FILES;
            if large || full {
                runs.extend(std::mem::take(&mut run).end(Some(file)));
            }
            if !large {
                run.files.push(found);
            }
        }
        runs.extend(run.end(None));
    }
    runs
}

/// Rows in the file according to its statistics.
fn rows(file: &ScanFile) -> u64 {
    file.stats.as_ref().map_or(0, |stats| stats.num_records)
}

impl FileRun<'_> {
    fn size(&self) -> i64 {
        self.files.iter().map(|(.., file)| file.size).sum()
    }

    fn rows(&self) -> u64 {
        self.files.iter().map(|(.., file)| rows(file)).sum()
    }

    /// The run without files that are not worth rewriting, unless none are left. `next` is the file that follows it.
    fn end(mut self, next: Option<&ScanFile>) -> Option<Self> {
        // The new file gets the time of its last file. If the next file has the same time, it would come first.
        while let (Some((.., last)), Some(next)) = (self.files.last(), next)
            && last.modification_time == next.modification_time
        {
            self.files.pop();
        }
        let mut rest = self.size();
        let mut first = 0;
        for (.., file) in &self.files {
            rest -= file.size;
            if file.size <= CHEAP_FILE_SIZE.max(rest.saturating_mul(MAX_SIZE_RATIO)) {
                break;
            }
            first += 1;
        }
        self.files.drain(..first);
        (self.files.len() > 1).then_some(self)
    }
}

/// Groups of runs that share a commit.
fn groups(runs: Vec<FileRun<'_>>) -> Vec<Vec<FileRun<'_>>> {
    let mut groups: Vec<Vec<FileRun<'_>>> = Vec::new();
    let (mut size, mut count, mut files) = (0, 0, 0);
    for run in runs {
        size += run.size();
        count += run.rows();
        files += run.files.len();
        match groups.last_mut() {
            Some(group) if size <= TARGET && count <= TARGET_ROWS && files <= MOST_FILES => group.push(run),
            _ => {
                (size, count, files) = (run.size(), run.rows(), run.files.len());
                groups.push(vec![run]);
            }
        }
    }
    groups
}

/// Replaces the files of each run that are still in the table when the commit is made.
fn replace(
    table: &Arc<TableState>,
    snapshot: &SnapshotRef,
    scanner: &Scanner<'_>,
    batches: &[FileBatch],
    group: Vec<FileRun<'_>>,
    report: &mut MaintenanceOutcome,
) -> Result<()> {
    let kind = CommitKind::optimize(TARGET);
    let mut written = Vec::new();
    let ahead = CommitAttempt::new(table, &kind, snapshot);
    for run in group {
        match write(&ahead, scanner, run) {
            Ok(run) => written.push(run),
            // Other clients removed and vacuumed its files meanwhile.
            Err(error) if table.is_outdated(snapshot, &error) => {}
            Err(error) => {
                discard(table, written);
                return Err(error);
            }
        }
    }
    let mut version = snapshot.version();
    // The commits made meanwhile are read here, before this commit waits for the lock.
    let checked = table.refresh().and_then(|newest| drop_lost(table, &mut written, &mut version, &newest));
    let ended = checked.and_then(|()| {
        // Not as the files that the loop stages: of a proposal with other rows, or whose files fit no more, it writes all files anew,
        // under the table's lock. Compaction gives those runs up instead.
        commit(table, &kind, environment().instant(), None, &mut |attempt| {
            drop_lost(table, &mut written, &mut version, attempt.snapshot)?;
            discard(table, extract(&mut written, |run| Ok(!run.staged.fits(attempt)?))?);
            if written.is_empty() {
                return Ok(None);
            }
            let adds = written.iter().flat_map(|run| run.staged.adds.iter().cloned()).collect();
            let files = written.iter().flat_map(|run| &run.run.files).map(|(at, row, _)| (*at, *row));
            Ok(Some(Proposal { adds, removes: select(batches, files)?, ..Proposal::default() }))
        })
    });
    match ended {
        Ok(Some(_)) => {
            for run in written {
                report.files_compacted += run.run.files.len() as u64;
                report.files_written += run.staged.paths().len() as u64;
                report.rows_compacted += run.rows;
            }
            Ok(())
        }
        ended => {
            if nothing_written(&ended) {
                discard(table, written);
            }
            ended.map(drop)
        }
    }
}

fn write<'a>(ahead: &CommitAttempt<'_>, scanner: &Scanner<'_>, run: FileRun<'a>) -> Result<CompactedRun<'a>> {
    let batches = scanner.read_all(run.files.iter().map(|(.., file)| *file), Ok)?;
    let rows = schema::concat(&scanner.schema, &batches)?;
    let count = rows.num_rows() as u64;
    let rows = FileRows { rows, written_at: run.files.last().map(|(.., file)| file.modification_time) };
    Ok(CompactedRun { rows: count, staged: StagedFiles::write(ahead, vec![rows])?, run })
}

fn discard(table: &TableState, written: Vec<CompactedRun<'_>>) {
    for run in written {
        run.staged.discard(&table.storage);
    }
}

/// Gives up the runs of which another commit after `version` has removed a file, or has hidden rows of it.
fn drop_lost(
    table: &TableState,
    written: &mut Vec<CompactedRun<'_>>,
    version: &mut u64,
    newest: &SnapshotRef,
) -> Result<()> {
    let now = newest.version();
    if now == *version || written.is_empty() {
        return Ok(());
    }
    let lost = if now - *version <= MAX_COMMITS_READ_SINGLY {
        match table.removed_since(*version, now)? {
            Some(removed) => {
                extract(written, |run| Ok(run.run.files.iter().any(|(.., file)| removed.contains(&file.path))))?
            }
            None => std::mem::take(written),
        }
    } else {
        let listing = Scanner::new(table, newest, &Predicate::default())?.files()?;
        let files = listing.batches.iter().flat_map(|batch| &batch.files);
        let live: HashMap<&str, &DvInfo> = files.map(|(_, file)| (file.path.as_str(), &file.dv_info)).collect();
        let gone = |file: &ScanFile| live.get(file.path.as_str()) != Some(&&file.dv_info);
        extract(written, |run| Ok(run.run.files.iter().any(|(.., file)| gone(file))))?
    };
    discard(table, lost);
    *version = now;
    Ok(())
}

/// Takes the wanted elements out of `from`.
fn extract<T>(from: &mut Vec<T>, mut wanted: impl FnMut(&T) -> Result<bool>) -> Result<Vec<T>> {
    let chosen = from.iter().map(&mut wanted).collect::<Result<Vec<_>>>()?;
    let mut chosen = chosen.into_iter();
    Ok(from.extract_if(.., |_| chosen.next().unwrap_or(false)).collect())
}
