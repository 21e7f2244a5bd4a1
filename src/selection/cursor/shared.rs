//! The cursor in a Delta table, shared by everyone who names the same directory.
//!
//! A turn is one commit: the row that says who was selected, and, as transaction ids, the VM's new ticket and the last
//! ticket of all. Whoever commits first has the turn; everyone else sees the new order and decides again. As the
//! tickets are part of the table's snapshot, knowing whose turn it is never reads the history.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};

use super::{Count, Decide, now, ordered};
use crate::delta::{Guard, Predicate, Table, TableSpec, View};
use crate::error::{Error, ErrorKind, Result};
use crate::selection::Selection;
use crate::storage::Storage;

/// The table's directory below the root.
const TABLE: &str = "vm_selections";
/// Transaction id that holds the last ticket of all.
const LAST_TICKET: &str = "jobrota.cursor";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text("vm"),
        text("ip_address"),
        text("nic_name"),
        text("probe"),
        Field::new("rtt_ms", DataType::Float64, true),
        Field::new("selected_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        text("selected_by"),
    ]))
});

/// Transaction id that holds the ticket of the VM's last turn.
fn ticket_of(vm: &str) -> String {
    format!("jobrota.vm/{vm}")
}

/// A handle on the shared cursor. The table is opened at the first use, and again in a forked child.
pub(in crate::selection) struct SharedCursor {
    root: String,
    options: HashMap<String, String>,
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    pid: u32,
    table: Table,
    known: Tickets,
}

/// The tickets as of one version of the table.
#[derive(Default)]
struct Tickets {
    version: Option<u64>,
    last: i64,
    of: HashMap<String, Option<i64>>,
}

impl SharedCursor {
    pub(super) fn new(root: &str, options: &HashMap<String, String>) -> Self {
        Self { root: root.to_owned(), options: options.clone(), opened: Mutex::new(None) }
    }

    /// The order as of the last version that this handle has seen; read from the table when it has seen none.
    pub(super) fn order(&self, names: &[String]) -> Result<Vec<String>> {
        let mut opened = self.lock();
        let Opened { table, known, .. } = self.open(&mut opened)?;
        if !names.iter().all(|name| known.of.contains_key(name)) {
            // A guarded append that decides to write nothing is a look at the newest version.
            table.append_guarded(&mut |view| known.read(view, names).map(|()| None))?;
        }
        Ok(known.order(names))
    }

    pub(super) fn advance(&self, names: &[String], decide: &mut impl Decide) -> Result<Option<Vec<Selection>>> {
        // Held while committing: threads of one process would only lose races against each other.
        let mut opened = self.lock();
        let Opened { table, known, .. } = self.open(&mut opened)?;
        let mut taken: Option<(u64, Vec<Selection>)> = None;
        let version = table.append_guarded(&mut |view| {
            known.read(view, names)?;
            taken = decide(&known.order(names)).filter(|turns| !turns.is_empty()).map(|turns| (view.version(), turns));
            taken.as_ref().map(|(_, turns)| guard(turns, &known.after(turns)?)).transpose()
        })?;
        let (Some(version), Some((decided_on, turns))) = (version, taken) else { return Ok(None) };
        if version == decided_on + 1 {
            let (last, tickets) = known.after(&turns)?;
            known.last = last;
            known.of.extend(tickets.into_iter().map(|(vm, ticket)| (vm, Some(ticket))));
            known.version = Some(version);
        }
        Ok(Some(turns))
    }

    pub(super) fn counts(&self, since: Option<i64>) -> Result<HashMap<String, Count>> {
        let table = match Table::open(&Storage::open(&self.root, &self.options)?, TABLE) {
            Ok(table) => table,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(HashMap::new()),
            Err(e) => return Err(e),
        };
        let time = since.map(|since| ("selected_at".to_owned(), Some(since), None));
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
        let mut counts: HashMap<String, Count> = HashMap::new();
        for (vm, at) in vms.iter().zip(times) {
            let count = counts.entry(vm.unwrap_or_default().to_owned()).or_default();
            count.selections += 1;
            count.last_selected = count.last_selected.max(at);
        }
        Ok(counts)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open<'a>(&self, opened: &'a mut Option<Opened>) -> Result<&'a mut Opened> {
        let pid = std::process::id();
        // The parent's table works with the parent's threads, which a forked child does not have.
        let current = opened.take().filter(|opened| opened.pid == pid);
        let current = match current {
            Some(current) => current,
            None => {
                let storage = Storage::open(&self.root, &self.options)?;
                let spec = TableSpec { name: TABLE, schema: SCHEMA.clone(), partition_by: &[] };
                Opened { pid, table: Table::open_or_create(&storage, &spec)?, known: Tickets::default() }
            }
        };
        Ok(opened.insert(current))
    }
}

impl fmt::Debug for SharedCursor {
    /// Without the options: they may hold keys and tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCursor").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Tickets {
    /// Makes these the tickets of `view`, for at least `names`.
    fn read(&mut self, view: &View<'_>, names: &[String]) -> Result<()> {
        if self.version != Some(view.version()) {
            *self = Self::default();
            self.last = view.transaction(LAST_TICKET)?.unwrap_or(0);
            self.version = Some(view.version());
        }
        for name in names {
            if !self.of.contains_key(name) {
                self.of.insert(name.clone(), view.transaction(&ticket_of(name))?);
            }
        }
        Ok(())
    }

    fn order(&self, names: &[String]) -> Vec<String> {
        ordered(names, |name| self.of.get(name).copied().flatten())
    }

    /// The last ticket, and the last ticket per VM, once `turns` are taken.
    fn after(&self, turns: &[Selection]) -> Result<(i64, HashMap<String, i64>)> {
        let mut last = self.last;
        let mut tickets = HashMap::new();
        for turn in turns {
            last = last.checked_add(1).ok_or_else(|| {
                Error::new(ErrorKind::Internal, "the shared cursor has run out of tickets: use another directory")
            })?;
            tickets.insert(turn.vm.clone(), last);
        }
        Ok((last, tickets))
    }
}

/// The commit that takes `turns`.
fn guard(turns: &[Selection], (last, tickets): &(i64, HashMap<String, i64>)) -> Result<Guard> {
    let text =
        |of: fn(&Selection) -> Option<&str>| -> ArrayRef { Arc::new(turns.iter().map(of).collect::<StringArray>()) };
    let at = TimestampMicrosecondArray::from(vec![now(); turns.len()]).with_timezone("UTC");
    let by = format!("{}:{}", gethostname::gethostname().to_string_lossy(), std::process::id());
    let columns: Vec<ArrayRef> = vec![
        text(|turn| Some(&turn.vm)),
        text(|turn| Some(&turn.ip_address)),
        text(|turn| turn.nic_name.as_deref()),
        text(|turn| Some(&turn.probe)),
        Arc::new(turns.iter().map(|turn| Some(turn.rtt_ms)).collect::<Float64Array>()),
        Arc::new(at),
        Arc::new(StringArray::from(vec![by; turns.len()])),
    ];
    let batch = RecordBatch::try_new(SCHEMA.clone(), columns).map_err(|e| {
        Error::new(ErrorKind::Internal, "the rows of a selection could not be put together").with_source(e)
    })?;
    let mut transactions: Vec<(String, i64)> = tickets.iter().map(|(vm, ticket)| (ticket_of(vm), *ticket)).collect();
    transactions.push((LAST_TICKET.to_owned(), *last));
    Ok(Guard { batch, transactions })
}

fn columns(rows: &RecordBatch) -> Option<(&StringArray, &TimestampMicrosecondArray)> {
    let vms = rows.column_by_name("vm")?.as_string_opt::<i32>()?;
    let times = rows.column_by_name("selected_at")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some((vms, times))
}
