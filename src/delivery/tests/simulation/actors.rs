//! The processes: updaters, loggers, an operator, and the updater that delivers what is left at the end.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use url::Url;

use super::Bug;
use super::autosys::SimulatedAutosys;
use super::store::SimulatedStore;
use super::threads::Actor;
use super::truth::Promise;
use super::world::World;
use crate::autosys::transport::{Gate, Transport as _};
use crate::delivery::{AuditNote, AutosysUpdater, Backoff, Settlement, UpdaterOptions};
use crate::error::{Error, Result};
use crate::ledger::LedgerTable::{Executions, Notifications};
use crate::ledger::{JobLedger, LedgerRow};
use crate::runtime::environment;
use crate::runtime::environment::wait_for;
use crate::storage::Storage;

/// What a seed makes of the processes.
#[derive(Clone)]
pub(super) struct Scenario {
    pub(super) world: Arc<World>,
    pub(super) memory: Arc<InMemory>,
    options: UpdaterOptions,
    every: Duration,
    refuses: u64,
}

fn pause(world: &World, millis: u64) {
    environment().block(Duration::from_millis(world.below(millis)));
}

impl Scenario {
    pub(super) fn new(world: &Arc<World>) -> Self {
        let one_of = |choices: &[u64]| choices[world.below(choices.len() as u64) as usize];
        let options = UpdaterOptions {
            concurrency: one_of(&[1, 2, 8]) as usize,
            lease_ttl: Duration::from_secs(one_of(&[5, 15, 30])),
            max_attempts: [None, None, Some(1), Some(2)][world.below(4) as usize],
            backoff: (world.below(4) == 0).then(|| Backoff { first: Duration::from_secs(5), ..Backoff::default() }),
            ..UpdaterOptions::default()
        };
        let (every, refuses) = (Duration::from_secs(one_of(&[3, 8, 20])), one_of(&[0, 0, 10, 30]));
        Self { world: Arc::clone(world), memory: Arc::default(), options, every, refuses }
    }

    pub(super) fn storage(&self, actor: Actor) -> Storage {
        let store = SimulatedStore { world: Arc::clone(&self.world), memory: Arc::clone(&self.memory), actor };
        Storage::in_place(Arc::new(store), Url::parse("az://container/ledger/").expect("a URL")).expect("a storage")
    }

    /// The ledger; tries again until the store lets it.
    pub(super) fn ledger(&self, actor: Actor) -> Option<JobLedger> {
        loop {
            match JobLedger::over(self.storage(actor)) {
                Ok(ledger) => return Some(ledger),
                Err(_) if self.is_over(actor) => return None,
                Err(_) => pause(&self.world, 3000),
            }
        }
    }

    fn is_over(&self, actor: Actor) -> bool {
        self.world.state().processes[actor].stop.is_stopped()
    }

    fn start(&self, actor: Actor, work: impl FnOnce(&Self) + Send + 'static) {
        let scenario = self.clone();
        self.world.threads.start(&self.world, actor, Box::new(move || work(&scenario)));
    }

    fn updater(&self, actor: Actor, options: &UpdaterOptions) -> Option<AutosysUpdater> {
        let (world, refuses) = (Arc::clone(&self.world), self.refuses);
        let transport = Arc::new(SimulatedAutosys { world, actor, refuses });
        Some(AutosysUpdater::new(self.ledger(actor)?, transport, options.clone()).expect("the options work"))
    }

    /// Starts a process that delivers until it is stopped or killed.
    pub(super) fn start_updater(&self) {
        // Its predecessor was killed right before the end.
        if self.world.state().is_calm {
            return;
        }
        let actor = self.world.add_process("updater", true);
        self.start(actor, move |scenario| {
            if scenario.world.bug == Some(Bug::SendsWithoutMark) {
                return scenario.deliver_without_marks(actor);
            }
            let Some(updater) = scenario.updater(actor, &scenario.options) else { return };
            let (world, stop) = (&scenario.world, scenario.world.state().processes[actor].stop.clone());
            let every = scenario.every;
            wait_for(updater.run_forever(every, &stop, |report| {
                let how = match report {
                    Ok(report) => format!("{} delivered, {} pending", report.delivered, report.pending),
                    Err(error) => error.full_message(),
                };
                world.note(actor, "ran:", &how);
                true
            }));
        });
    }

    /// A bug: an updater as one would write it at first.
    fn deliver_without_marks(&self, actor: Actor) {
        let Some(ledger) = self.ledger(actor) else { return };
        let transport = SimulatedAutosys { world: Arc::clone(&self.world), actor, refuses: 0 };
        while !self.is_over(actor) {
            for row in ledger.pending(Notifications).unwrap_or_default() {
                let delivery = crate::autosys::transport::Delivery {
                    file_name: row.file_name.clone().unwrap_or_default(),
                    job_id: row.job_id.clone().unwrap_or_default(),
                    status: row.status.clone().unwrap_or_default(),
                };
                wait_for(transport.send(&delivery, &Gate::open()));
                drop(ledger.acknowledge(Notifications, &[row]));
            }
            pause(&self.world, 10_000);
        }
    }

    /// Starts a process that logs the rows of some jobs, each job in a thread of its own.
    pub(super) fn start_logger(&self, jobs: &[usize]) -> Actor {
        let actor = self.world.add_process("logger", false);
        let (scenario, jobs) = (self.clone(), jobs.to_vec());
        self.start(actor, move |_| {
            let Some(ledger) = scenario.ledger(actor) else { return };
            for job in jobs {
                let (ledger, rows) = (ledger.clone(), 1 + scenario.world.below(3));
                scenario.start(actor, move |scenario| scenario.log(&ledger, actor, job, rows));
            }
        });
        actor
    }

    fn log(&self, ledger: &JobLedger, actor: Actor, job: usize, rows: u64) {
        let job = format!("job{job}");
        for number in 0..rows {
            pause(&self.world, 4000);
            let (file, status) = (format!("{job}-{number}"), ["SUCCESS", "FAILURE"][self.world.below(2) as usize]);
            let at = self.world.time(Duration::from_secs(number));
            let with_execution = self.world.below(2) == 0;
            for table in [Executions, Notifications] {
                if table == Executions && !with_execution {
                    continue;
                }
                let is_there = loop {
                    match ledger.log(table, &file, &job, status, Some(at)) {
                        Ok(()) => break Some(true),
                        Err(error) if error.is_outcome_unknown() => break None,
                        // Nothing was written.
                        Err(error) if error.is_retryable() && !self.is_over(actor) => pause(&self.world, 2000),
                        Err(error) if error.is_retryable() => break Some(false),
                        Err(error) => {
                            self.world.note(actor, "did not log:", &error.full_message());
                            break None;
                        }
                    }
                };
                let row = LedgerRow {
                    file_name: Some(file.clone()),
                    job_id: Some(job.clone()),
                    status: Some(status.to_owned()),
                    timestamp: Some(at.timestamp_micros()),
                };
                self.world.state().truth.promises.push(Promise { table, row, is_there });
            }
        }
    }

    /// Starts an operator, who redrives and settles a few times.
    pub(super) fn start_operator(&self) {
        let actor = self.world.add_process("operator", false);
        self.start(actor, move |scenario| {
            let Some(ledger) = scenario.ledger(actor) else { return };
            for _ in 0..3 {
                pause(&scenario.world, 15_000);
                if scenario.is_over(actor) {
                    return;
                }
                let done = if scenario.world.below(3) > 0 { redrive(&ledger) } else { scenario.settle(&ledger, actor) };
                let how = done.map_or_else(|error| error.full_message(), |rows| format!("{rows} rows"));
                scenario.world.note(actor, "redrove or settled:", &how);
            }
        });
    }

    fn settle(&self, ledger: &JobLedger, actor: Actor) -> Result<u64> {
        let Some(row) = ledger.pending(Notifications)?.into_iter().next() else { return Ok(0) };
        let settlement = if self.world.below(2) == 0 { Settlement::Arrived } else { Settlement::NotToBeSent };
        self.world.note(actor, "settles", row.file_name.as_deref().unwrap_or_default());
        ledger.settle_by_hand(Notifications, &[row], settlement, &NOTE)
    }

    /// Starts an updater that delivers all that is left. Afterwards, `Truth::is_drained` says that nothing is.
    pub(super) fn start_last(&self) {
        let actor = self.world.add_process("last", false);
        self.start(actor, move |scenario| {
            let options = UpdaterOptions { max_attempts: None, backoff: None, ..scenario.options.clone() };
            let Some(updater) = scenario.updater(actor, &options) else { return };
            for _ in 0..60 {
                let ran = wait_for(updater.run());
                let how = match &ran {
                    Ok(report) => format!("{} delivered, {} pending", report.delivered, report.pending),
                    Err(error) => error.full_message(),
                };
                scenario.world.note(actor, "ran:", &how);
                let nothing_logged = |error: &Error| error.kind() == crate::ErrorKind::NotFound;
                if ran.as_ref().map_or_else(nothing_logged, |report| report.pending == 0) {
                    scenario.world.state().truth.is_drained = true;
                    return;
                }
                let _ = redrive(updater.ledger());
                environment().block(Duration::from_secs(20));
            }
        });
    }
}

const NOTE: AuditNote<'_> = AuditNote { by: "operator", reason: Some("simulated") };

fn redrive(ledger: &JobLedger) -> Result<u64> {
    ledger.redrive(Notifications, None, None, &NOTE)
}
