//! The cursor in a Delta table, shared by all who name the same directory.
//!
//! A step is one commit. It has a row for each turn, and a transaction id for each value of the state that changes. The first
//! process to commit has the turn; the others read the new state and decide again. The values are part of the table's
//! snapshot, so that finding whose turn it is does not read the history.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use arrow::array::{AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};

use super::{Decide, SELECTED_AT, Step, TurnCount, now, upkeep};
use crate::columns::{number, text, time};
use crate::delta::{ConditionalWrite, Predicate, SnapshotView, Table, TableSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::lock;
use crate::selection::state::{SelectionState, StateKey};
use crate::storage::Storage;

/// The table's directory below the root.
const TABLE: &str = "vm_selections";

static SPEC: LazyLock<TableSpec> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let schema = Schema::new(vec![
        text("vm"),
        text("ip_address"),
        text("nic_name"),
        text("probe"),
        Field::new("rtt_ms", DataType::Float64, true),
        Field::new(SELECTED_AT, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        text("selected_by"),
    ]);
    // Every turn is a commit, and old versions of a table that only grows are of no use.
    TableSpec { name: TABLE, schema: Arc::new(schema), partition_by: &[], log_retention: "interval 1 days" }
});

/// A handle on the shared cursor. The table is opened at the first use, and again in a forked child.
pub(in crate::selection) struct SharedCursor {
    root: String,
    options: HashMap<String, String>,
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    pid: u32,
    table: Table,
    /// The version of the table that `state` is of, and which table that was; None before the first read.
    version: Option<Version>,
    state: SelectionState,
}

/// The table's incarnation and version.
type Version = (u64, u64);

fn version_of(view: &SnapshotView<'_>) -> Version {
    (view.incarnation(), view.version())
}

impl SharedCursor {
    pub(super) fn new(root: &str, options: &HashMap<String, String>) -> Self {
        Self { root: root.to_owned(), options: options.clone(), opened: Mutex::new(None) }
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&SelectionState) -> T) -> Result<T> {
        let mut opened = self.lock();
        let opened = self.open(&mut opened)?;
        if opened.version.is_none() {
            opened.refresh()?;
        }
        Ok(read(&opened.state))
    }

    pub(super) fn read_newest<T>(&self, read: impl FnOnce(&SelectionState) -> T) -> Result<T> {
        if self.existing()?.is_none() {
            return Ok(read(&SelectionState::default()));
        }
        let mut opened = self.lock();
        let opened = self.open(&mut opened)?;
        opened.refresh()?;
        Ok(read(&opened.state))
    }

    pub(super) fn advance<T>(&self, decide: &mut impl Decide<T>) -> Result<T> {
        // Locked while committing: threads of one process would only conflict with each other.
        let mut opened = self.lock();
        let Opened { table, version, state, .. } = self.open(&mut opened)?;
        let mut decided: Option<(Version, Step, T)> = None;
        let committed = table.append_conditionally(&mut |view| {
            read(view, version, state)?;
            let (step, value) = decide(state);
            let guard = (!step.is_empty()).then(|| guard(&step)).transpose();
            decided = Some((version_of(view), step, value));
            guard
        })?;
        let ((incarnation, decided_on), step, value) = decided
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the shared cursor was advanced without a decision"))?;
        if let Some(committed) = committed {
            if committed == decided_on + 1 {
                state.apply(step.changes);
                *version = Some((incarnation, committed));
            }
            upkeep::when_due(table, committed);
        }
        Ok(value)
    }

    pub(super) fn counts(&self, since: Option<i64>) -> Result<HashMap<String, TurnCount>> {
        let Some(table) = self.existing()? else { return Ok(HashMap::new()) };
        let time = since.map(|since| (SELECTED_AT.to_owned(), Some(since), None));
        let rows = table.scan(&Predicate { time, ..Predicate::default() })?;
        let (vms, times) = columns(&rows).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the table {TABLE} at {} has other columns than jobrota's: name another directory as the cursor",
                    self.root
                ),
            )
        })?;
        let mut counts: HashMap<String, TurnCount> = HashMap::new();
        for (vm, at) in vms.iter().zip(times) {
            let vm = vm.unwrap_or_default();
            match counts.get_mut(vm) {
                Some(count) => count.add(at),
                None => counts.entry(vm.to_owned()).or_default().add(at),
            }
        }
        Ok(counts)
    }

    /// The table, if there is one.
    fn existing(&self) -> Result<Option<Table>> {
        if let Some(opened) = self.lock().as_ref().filter(|opened| opened.is_usable()) {
            return Ok(Some(opened.table.clone()));
        }
        match Table::open(&Storage::open(&self.root, &self.options)?, TABLE) {
            Ok(table) => Ok(Some(table)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        lock(&self.opened)
    }

    fn open<'a>(&self, opened: &'a mut Option<Opened>) -> Result<&'a mut Opened> {
        let pid = std::process::id();
        let current = opened.take().filter(Opened::is_usable);
        let current = match current {
            Some(current) => current,
            None => {
                let storage = Storage::open(&self.root, &self.options)?;
                let table = Table::open_or_create(&storage, &SPEC)?;
                Opened { pid, table, version: None, state: SelectionState::default() }
            }
        };
        Ok(opened.insert(current))
    }
}

impl Opened {
    /// Whether the table still is there. That of the parent uses the parent's threads, which a forked child does not have.
    fn is_usable(&self) -> bool {
        self.pid == std::process::id() && !self.table.is_gone()
    }

    /// Reads the newest version.
    fn refresh(&mut self) -> Result<()> {
        let Self { table, version, state, .. } = self;
        // A guarded append that writes nothing reads the newest version.
        table.append_conditionally(&mut |view| read(view, version, state).map(|()| None)).map(drop)
    }
}

/// Brings `state`, which is that of `version`, up to date with `view`.
fn read(view: &SnapshotView<'_>, version: &mut Option<Version>, state: &mut SelectionState) -> Result<()> {
    let now = version_of(view);
    if *version == Some(now) {
        return Ok(());
    }
    let values = |(id, value): (String, i64)| Some((StateKey::of(&id)?, value));
    let known = version.take().filter(|(incarnation, _)| *incarnation == now.0);
    let transactions = match known.map(|(_, known)| view.transactions_since(known)).transpose()?.flatten() {
        Some(newer) => newer,
        None => {
            *state = SelectionState::default();
            view.transactions()?.into_iter().collect()
        }
    };
    state.apply(transactions.into_iter().filter_map(values).collect());
    *version = Some(now);
    Ok(())
}

/// The commit of `step`.
fn guard(step: &Step) -> Result<ConditionalWrite> {
    let turns = &step.turns;
    let now = now();
    let by = format!("{}:{}", gethostname::gethostname().to_string_lossy(), std::process::id());
    let columns = vec![
        text(turns, |turn| Some(&turn.vm)),
        text(turns, |turn| Some(&turn.ip_address)),
        text(turns, |turn| turn.nic_name.as_deref()),
        text(turns, |turn| Some(&turn.probe)),
        number(turns, |turn| Some(turn.rtt_ms)),
        time(turns, |_| Some(now)),
        text(turns, |_| Some(&by)),
    ];
    let batch = RecordBatch::try_new(SPEC.schema.clone(), columns).map_err(|e| {
        Error::new(ErrorKind::Internal, "the rows of a selection could not be put together").with_source(e)
    })?;
    // The last value of each key: one commit may have an id only once.
    let last: HashMap<String, i64> = step.changes.iter().map(|(key, value)| (key.key(), *value)).collect();
    Ok(ConditionalWrite { batch, transactions: last.into_iter().collect() })
}

fn columns(rows: &RecordBatch) -> Option<(&StringArray, &TimestampMicrosecondArray)> {
    let vms = rows.column_by_name("vm")?.as_string_opt::<i32>()?;
    let times = rows.column_by_name(SELECTED_AT)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some((vms, times))
}
