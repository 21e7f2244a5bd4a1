//! The processes beside the deliveries: an operator, and the maintenance of the tables.

use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::actors::{Scenario, pause};
use super::threads::Actor;
use crate::delivery::{AuditNote, Settlement};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::JobLedger;
use crate::ledger::LedgerTable::Notifications;
use crate::ledger::tables::RETRIES;
use crate::runtime::environment::wait_for;

const NOTE: AuditNote<'_> = AuditNote { by: "operator", reason: Some("simulated") };

pub(super) fn redrive(ledger: &JobLedger) -> Result<u64> {
    ledger.redrive(Notifications, None, None, &NOTE)
}

impl Scenario {
    /// Starts an operator, who redrives and settles a few times, or deletes the retry state.
    pub(super) fn start_operator(&self) {
        let deletes = self.world.below(8) == 0;
        self.start_beside("operator", move |scenario, ledger, actor| match scenario.world.below(3) {
            0 => scenario.settle(ledger, actor),
            1 if deletes => scenario.delete_retry_state(actor),
            _ => redrive(ledger),
        });
    }

    /// Starts a process that maintains all tables.
    pub(super) fn start_maintainer(&self) {
        self.start_beside("maintainer", |scenario, ledger, actor| {
            let report = ledger.maintain(0.0)?;
            for problem in report.problems() {
                scenario.world.note(actor, "could not maintain:", &problem);
            }
            Ok(report.total(|done| done.files_compacted))
        });
    }

    /// Starts a process that does something a few times.
    fn start_beside(&self, name: &'static str, act: impl Fn(&Self, &JobLedger, Actor) -> Result<u64> + Send + 'static) {
        let actor = self.world.add_process(name, false);
        self.start(actor, move |scenario| {
            let Some(ledger) = scenario.ledger(actor) else { return };
            for _ in 0..3 {
                pause(&scenario.world, 8000);
                if scenario.is_over(actor) {
                    return;
                }
                let done = act(scenario, &ledger, actor);
                let how = done.map_or_else(|error| error.full_message(), |rows| format!("{rows} rows or files"));
                scenario.world.note(actor, "has done:", &how);
            }
        });
    }

    fn settle(&self, ledger: &JobLedger, actor: Actor) -> Result<u64> {
        let Some(row) = ledger.pending(Notifications)?.into_iter().next() else { return Ok(0) };
        let settlement = if self.world.below(2) == 0 { Settlement::Arrived } else { Settlement::NotToBeSent };
        self.world.note(actor, "settles", row.file_name.as_deref().unwrap_or_default());
        ledger.settle_by_hand(Notifications, &[row], settlement, &NOTE)
    }

    /// Deletes the table of the retry state file by file, as programs for stores do.
    fn delete_retry_state(&self, actor: Actor) -> Result<u64> {
        let store = self.store(actor);
        self.world.state().truth.is_retry_state_deleted = true;
        let deleting = async {
            let table = Path::from(format!("ledger/{}", RETRIES.name));
            let files: Vec<_> = store.list(Some(&table)).try_collect().await?;
            for file in &files {
                store.delete(&file.location).await?;
            }
            Ok(files.len() as u64)
        };
        let failed = |e: object_store::Error| Error::new(ErrorKind::Storage, "deleting a table").with_source(e);
        wait_for(deleting).map_err(failed)
    }
}
