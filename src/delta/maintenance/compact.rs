//! Compaction: small files become larger ones that hold the same rows in the same order.
//!
//! The rows are read and written outside of the commit loop and once. Whoever wins a race meanwhile only makes the loop
//! look whether the files in question still stand; those that do not are left to the next pass. So compaction neither
//! starves next to busy writers nor keeps them waiting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use delta_kernel::SnapshotRef;
use delta_kernel::scan::state::{DvInfo, ScanFile};
use delta_kernel::transaction::UpdateTableOperation;

use super::Maintained;
use crate::delta::commit::{self, Attempt, Kind, Plan, Queue};
use crate::delta::log_entry;
use crate::delta::scan::{Listing, Scanner, no_such_row, oldest_first};
use crate::delta::schema;
use crate::delta::shared::Inner;
use crate::delta::stage::{Part, Staged};
use crate::delta::table::{Predicate, nothing_written};
use crate::error::Result;

/// Files grow up to this size, in bytes, or number of rows. Both bound the memory that one commit needs, too.
const TARGET: i64 = 64 << 20;
const TARGET_ROWS: u64 = 1_000_000;

/// So many files are replaced in one commit at most, as the log entry names each of them.
const MOST_FILES: usize = 10_000;

/// A file is not written anew for the sake of files that are together this many times smaller, unless it is smaller than
/// the second figure, in bytes: so each row is rewritten a logarithmic number of times, however often maintenance runs.
const UNEVEN: i64 = 4;
const CHEAP: i64 = 1 << 20;

/// What one pass makes can be compacted further by the next one.
const PASSES: usize = 6;

/// Up to so many commits are looked at one by one after a lost race; beyond that, the files are listed again.
const NEAR: u64 = 32;

/// Files of one partition that become one, oldest first, each with its listing and its place in there.
#[derive(Debug, Default)]
struct Run<'a> {
    files: Vec<(usize, usize, &'a ScanFile)>,
}

/// A run whose new file is written.
struct Written<'a> {
    run: Run<'a>,
    rows: u64,
    staged: Staged,
}

/// Replaces small files until nothing is gained any more.
pub(super) fn compact(table: &Arc<Inner>, report: &mut Maintained) -> Result<()> {
    for _ in 0..PASSES {
        let snapshot = table.newest()?;
        let scanner = Scanner::new(table.storage.engine()?, &snapshot, &Predicate::default())?;
        let listings = scanner.files()?;
        let compacted = report.files_compacted;
        for group in groups(runs(&listings)) {
            replace(table, &snapshot, &scanner, &listings, group, report)?;
        }
        if report.files_compacted == compacted {
            break;
        }
    }
    Ok(())
}

/// What is worth being compacted. Only files that follow each other are put together, so that every row keeps its place
/// in the order of its partition.
fn runs(listings: &[Listing]) -> Vec<Run<'_>> {
    let mut partitions: BTreeMap<Vec<(&str, &str)>, Vec<_>> = BTreeMap::new();
    for found in oldest_first(listings) {
        let mut key: Vec<_> = found.2.partition_values.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        key.sort_unstable();
        partitions.entry(key).or_default().push(found);
    }
    let mut runs = Vec::new();
    for files in partitions.into_values() {
        let mut run = Run::default();
        for found in files {
            let file = found.2;
            let large = file.size > TARGET / 2 || rows(file) > TARGET_ROWS / 2;
            let full = run.size() + file.size > TARGET
                || run.rows() + rows(file) > TARGET_ROWS
                || run.files.len() == MOST_FILES;
            if large || full {
                runs.extend(std::mem::take(&mut run).ended(Some(file)));
            }
            if !large {
                run.files.push(found);
            }
        }
        runs.extend(run.ended(None));
    }
    runs
}

/// Rows in the file as far as its statistics say.
fn rows(file: &ScanFile) -> u64 {
    file.stats.as_ref().map_or(0, |stats| stats.num_records)
}

impl Run<'_> {
    fn size(&self) -> i64 {
        self.files.iter().map(|(.., file)| file.size).sum()
    }

    fn rows(&self) -> u64 {
        self.files.iter().map(|(.., file)| rows(file)).sum()
    }

    fn paths(&self) -> impl Iterator<Item = &String> {
        self.files.iter().map(|(.., file)| &file.path)
    }

    /// Without what is not worth rewriting, if anything is; `next` is the file that follows.
    fn ended(mut self, next: Option<&ScanFile>) -> Option<Self> {
        // The new file gets the time of the last one in it: if what follows has the same, it would come first.
        while let (Some((.., last)), Some(next)) = (self.files.last(), next)
            && last.modification_time == next.modification_time
        {
            self.files.pop();
        }
        let mut rest = self.size();
        let mut first = 0;
        for (.., file) in &self.files {
            rest -= file.size;
            if file.size <= CHEAP.max(rest.saturating_mul(UNEVEN)) {
                break;
            }
            first += 1;
        }
        self.files.drain(..first);
        (self.files.len() > 1).then_some(self)
    }
}

/// Runs that share a commit.
fn groups(runs: Vec<Run<'_>>) -> Vec<Vec<Run<'_>>> {
    let mut groups: Vec<Vec<Run<'_>>> = Vec::new();
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

/// Replaces the files of each run that still stand when the commit is made.
fn replace(
    table: &Arc<Inner>,
    snapshot: &SnapshotRef,
    scanner: &Scanner,
    listings: &[Listing],
    group: Vec<Run<'_>>,
    report: &mut Maintained,
) -> Result<()> {
    let kind = Kind {
        operation: UpdateTableOperation::Optimize,
        blind: false,
        data_change: false,
        parameters: vec![("predicate", "[]".to_owned()), ("targetSize", TARGET.to_string())],
    };
    let mut written = Vec::new();
    let ahead = Attempt::ahead(table, &kind, snapshot);
    for run in group {
        match write(table, &ahead, scanner, run) {
            Ok(run) => written.push(run),
            // Removed and vacuumed by others in the meantime.
            Err(error) if table.moved_on(snapshot, &error) => {}
            Err(error) => {
                discard(table, written);
                return Err(error);
            }
        }
    }
    let mut version = snapshot.version();
    // However much was committed meanwhile is looked at here, before it is this commit's turn.
    let stands = table.newest().and_then(|newest| keep_standing(table, &mut written, &mut version, &newest));
    let ended = stands.and_then(|()| {
        commit::commit(table, &kind, Queue::AfterLosing, Instant::now(), &mut |attempt| {
            keep_standing(table, &mut written, &mut version, attempt.snapshot)?;
            for lost in extract(&mut written, |run| Ok(!run.staged.fits(attempt)?))? {
                lost.staged.discard(&table.storage);
            }
            if written.is_empty() {
                return Ok(None);
            }
            let adds = written.iter().flat_map(|run| run.staged.adds.iter().cloned()).collect();
            Ok(Some(Plan { adds, removes: removes(listings, &written)?, transactions: Vec::new() }))
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

fn write<'a>(table: &Inner, ahead: &Attempt<'_>, scanner: &Scanner, run: Run<'a>) -> Result<Written<'a>> {
    let batches = scanner.read_all(run.files.iter().map(|(.., file)| *file), |_, rows| Ok(rows))?;
    let rows = schema::concat(scanner.schema(), &batches)?;
    let count = rows.num_rows() as u64;
    let part = Part { rows, written_at: run.files.last().map(|(.., file)| file.modification_time) };
    Ok(Written { rows: count, staged: Staged::write(&table.storage, ahead, vec![part])?, run })
}

fn discard(table: &Inner, written: Vec<Written<'_>>) {
    for run in written {
        run.staged.discard(&table.storage);
    }
}

/// Scan metadata with the files of these runs selected.
fn removes(listings: &[Listing], written: &[Written<'_>]) -> Result<Vec<(arrow::array::RecordBatch, Vec<bool>)>> {
    let mut selected: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    for (listing, row, _) in written.iter().flat_map(|run| &run.run.files) {
        let length = listings.get(*listing).ok_or_else(no_such_row)?.metadata.num_rows();
        let rows = selected.entry(*listing).or_insert_with(|| vec![false; length]);
        *rows.get_mut(*row).ok_or_else(no_such_row)? = true;
    }
    selected
        .into_iter()
        .map(|(at, rows)| Ok((listings.get(at).ok_or_else(no_such_row)?.metadata.clone(), rows)))
        .collect()
}

/// Gives up the runs of which another commit has removed a file, or hidden rows of it, after `version`.
fn keep_standing(table: &Inner, written: &mut Vec<Written<'_>>, version: &mut u64, newest: &SnapshotRef) -> Result<()> {
    let now = newest.version();
    if now == *version || written.is_empty() {
        return Ok(());
    }
    let lost = if now - *version <= NEAR {
        match log_entry::removed_since(table, *version, now)? {
            Some(removed) => extract(written, |run| Ok(run.run.paths().any(|path| removed.contains(path))))?,
            None => std::mem::take(written),
        }
    } else {
        let listings = Scanner::new(table.storage.engine()?, newest, &Predicate::default())?.files()?;
        let files = listings.iter().flat_map(|listing| &listing.rows);
        let live: HashMap<&str, &DvInfo> = files.map(|(_, file)| (file.path.as_str(), &file.dv_info)).collect();
        let gone = |file: &ScanFile| live.get(file.path.as_str()) != Some(&&file.dv_info);
        extract(written, |run| Ok(run.run.files.iter().any(|(.., file)| gone(file))))?
    };
    discard(table, lost);
    *version = now;
    Ok(())
}

/// Takes out of `from` what `wanted` says.
fn extract<T>(from: &mut Vec<T>, mut wanted: impl FnMut(&T) -> Result<bool>) -> Result<Vec<T>> {
    let chosen = from.iter().map(&mut wanted).collect::<Result<Vec<_>>>()?;
    let mut chosen = chosen.into_iter();
    Ok(from.extract_if(.., |_| chosen.next().unwrap_or(false)).collect())
}
