//! What a seed makes of the processes; the updaters, and the one that delivers what is left at the end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::memory::InMemory;
use url::Url;

use super::Bug;
use super::autosys::SimulatedAutosys;
use super::operators::redrive;
use super::store::SimulatedStore;
use super::threads::{Actor, within};
use super::world::{OBSERVER, World};
use crate::autosys::transport::{Gate, Transport as _};
use crate::delivery::{AutosysUpdater, Backoff, DeliveryReport, Order, UpdaterOptions};
use crate::error::{Error, Result};
use crate::ledger::LedgerTable::Notifications;
use crate::ledger::tables::{DELIVERIES, LEASES, RETRIES};
use crate::ledger::{JobLedger, LedgerTable};
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
    /// Most seeds have few rows, because most bugs need few.
    pub(super) is_small: bool,
    /// How many events the transport sends in one call.
    batch: usize,
    pub(super) has_twins: bool,
}

/// A store with empty tables, which the first seed that needs it creates.
fn new_tables(world: &World) -> &'static InMemory {
    static TABLES: OnceLock<InMemory> = OnceLock::new();
    TABLES.get_or_init(|| {
        let (world, memory) = (World::new(&world.threads, 0, None, false), Arc::<InMemory>::default());
        let store = SimulatedStore { world: Arc::clone(&world), memory: Arc::clone(&memory), actor: OBSERVER };
        let created = within(&world, OBSERVER, || {
            let ledger = JobLedger::over(storage(store))?;
            let [executions, notifications] = LedgerTable::ALL.map(LedgerTable::spec);
            let all = [executions, notifications, &*DELIVERIES, &*RETRIES, &*LEASES];
            all.into_iter().try_for_each(|spec| ledger.created(spec).map(drop))
        });
        created.expect("the tables can be created");
        memory.fork()
    })
}

fn storage(store: SimulatedStore) -> Storage {
    Storage::in_place(Arc::new(store), Url::parse("az://container/ledger/").expect("a URL")).expect("a storage")
}

pub(super) fn pause(world: &World, millis: u64) {
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
            confirm: (world.below(4) == 0).then(|| Duration::from_secs(one_of(&[1, 5, 30]))),
            order: if world.below(6) == 0 { Order::Latest } else { Order::PerJob },
            stale_after: (world.below(8) == 0).then(|| Duration::from_secs(one_of(&[5, 20, 60]))),
            ..UpdaterOptions::default()
        };
        let (every, refuses) = (Duration::from_secs(one_of(&[3, 8, 20])), one_of(&[0, 0, 10, 30]));
        let (batch, has_twins) = (one_of(&[1, 1, 1, 3]) as usize, world.below(4) == 0);
        let is_small = world.below(5) > 0;
        // Most seeds find the tables: to create them takes longer than to deliver a row.
        let memory = if world.below(4) == 0 { Arc::default() } else { Arc::new(new_tables(world).fork()) };
        Self { world: Arc::clone(world), memory, options, every, refuses, is_small, batch, has_twins }
    }

    pub(super) fn store(&self, actor: Actor) -> SimulatedStore {
        SimulatedStore { world: Arc::clone(&self.world), memory: Arc::clone(&self.memory), actor }
    }

    pub(super) fn storage(&self, actor: Actor) -> Storage {
        storage(self.store(actor))
    }

    fn transport(&self, actor: Actor) -> SimulatedAutosys {
        let (refuses, batch, reads_status) = (self.refuses, self.batch, self.options.confirm.is_some());
        SimulatedAutosys { world: Arc::clone(&self.world), actor, refuses, batch, reads_status }
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

    pub(super) fn is_over(&self, actor: Actor) -> bool {
        self.world.state().processes[actor].stop.is_stopped()
    }

    pub(super) fn start(&self, actor: Actor, work: impl FnOnce(&Self) + Send + 'static) {
        let scenario = self.clone();
        self.world.threads.start(&self.world, actor, Box::new(move || work(&scenario)));
    }

    fn updater(&self, actor: Actor, options: &UpdaterOptions) -> Option<AutosysUpdater> {
        let transport = Arc::new(self.transport(actor));
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
                let how = said(&report);
                world.note(actor, "ran:", &how);
                world.state().note_idle(report.is_ok_and(|report| report.pending == 0));
                true
            }));
        });
    }

    /// A bug: an updater as one would write it at first.
    fn deliver_without_marks(&self, actor: Actor) {
        let Some(ledger) = self.ledger(actor) else { return };
        let transport = self.transport(actor);
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

    /// Starts an updater that delivers all that is left. Afterwards, `Truth::is_drained` says that nothing is.
    pub(super) fn start_last(&self) {
        let actor = self.world.add_process("last", false);
        self.start(actor, move |scenario| {
            let world = &scenario.world;
            // Mostly, nothing is under way any more, so that one cycle is enough.
            environment().block(if world.below(4) == 0 { Duration::ZERO } else { LONGEST_EFFECT });
            let options = UpdaterOptions { max_attempts: None, backoff: None, ..scenario.options.clone() };
            let Some(updater) = scenario.updater(actor, &options) else { return };
            for _ in 0..60 {
                let ran = wait_for(updater.run());
                world.note(actor, "ran:", &said(&ran));
                let nothing_logged = |error: &Error| error.kind() == crate::ErrorKind::NotFound;
                if ran.as_ref().map_or_else(nothing_logged, |report| report.pending == 0) {
                    world.state().truth.is_drained = true;
                    return;
                }
                if ran.is_ok_and(|report| report.parked > 0) {
                    let _ = redrive(updater.ledger());
                } else {
                    environment().block(Duration::from_secs(20));
                }
            }
        });
    }
}

/// A lease expires, and what was sent or written before the end takes effect within this time.
const LONGEST_EFFECT: Duration = Duration::from_secs(90);

fn said(ran: &Result<DeliveryReport>) -> String {
    match ran {
        Ok(report) => format!("{} delivered, {} pending", report.delivered, report.pending),
        Err(error) => error.full_message(),
    }
}
