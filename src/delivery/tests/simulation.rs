//! A simulation of the real code. Several processes log, deliver and settle on one store, in one thread at a time. A seed decides
//! which of their requests to the store or to AutoSys goes on, how long it takes, and which is answered with an error before or
//! after its effect, later, or never; which process is killed or paused; and who draws which random number. A seed replays
//! identically.
//!
//! | file | contents |
//! | --- | --- |
//! | `threads.rs` | threads of which one runs at a time, with simulated clocks and random numbers |
//! | `world.rs`, `world/faults.rs` | time, the requests that wait, and what fails |
//! | `store.rs`, `autosys.rs` | the store and AutoSys behind the gate |
//! | `actors.rs`, `loggers.rs`, `operators.rs` | what the processes do |
//! | `truth.rs`, `contents.rs` | what really happened, what the store holds, and the properties |
//!
//! `make simulate SEEDS=0..1000` runs seeds; one seed prints what happened.

mod actors;
mod autosys;
mod contents;
mod loggers;
mod operators;
mod store;
mod threads;
mod truth;
mod world;

use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::actors::Scenario;
use self::threads::{Simulated, Threads, within};
use self::truth::{LOST, STUCK, TWICE, check};
use self::world::{OBSERVER, World};
use crate::runtime::environment::SIMULATION;

/// What is planted to show that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    /// The store creates a log entry although there is one.
    OverwritesEntries,
    /// The transport takes an event without an answer for delivered.
    TrustsNoAnswer,
    /// The updater sends without a mark.
    SendsWithoutMark,
}

const BUGS: [Bug; 3] = [Bug::OverwritesEntries, Bug::TrustsNoAnswer, Bug::SendsWithoutMark];
/// More decisions than any seed needs.
const MOST_STEPS: u64 = 20_000;
/// Seeds of `make test`.
const TESTED: Range<u64> = 0..2000;

/// What one seed did.
struct Outcome {
    hash: u64,
    steps: u64,
    violations: Vec<String>,
}

/// Runs one seed.
fn simulate(threads: &Arc<Threads>, seed: u64, bug: Option<Bug>, is_shown: bool) -> Outcome {
    let world = World::new(threads, seed, bug, is_shown);
    let mut violations = within(&world, OBSERVER, || {
        let scenario = Scenario::new(&world);
        let ended = run(&scenario);
        world.bury();
        let left = threads.alive();
        let mut found = if left.is_empty() { check(&scenario) } else { vec![format!("{STUCK}: threads of {left:?}")] };
        found.extend(ended);
        found
    });
    violations.extend(threads.panics().into_iter().map(|panic| format!("a thread panicked: {panic}")));
    let (hash, steps) = world.fingerprint();
    Outcome { hash, steps, violations }
}

/// Runs the processes until all rows are delivered.
fn run(scenario: &Scenario) -> Option<String> {
    let world = &scenario.world;
    let loggers = match if scenario.is_small { 0 } else { world.below(5) } {
        0 | 1 => vec![scenario.start_logger(&[0])],
        2 => vec![scenario.start_logger(&[0, 1])],
        3 => vec![scenario.start_logger(&[0, 1, 2])],
        _ => vec![scenario.start_logger(&[0]), scenario.start_logger(&[1])],
    };
    for _ in 0..1 + world.below(2) {
        let (scenario, delay) = (scenario.clone(), Duration::from_millis(world.below(6000)));
        world.after(delay, move |_| scenario.start_updater());
    }
    if world.below(if scenario.is_small { 6 } else { 3 }) == 0 {
        scenario.start_operator();
    }
    if world.below(16) == 0 {
        scenario.start_maintainer();
    }
    let (lasts, kills) = (Duration::from_secs(2 + world.below(20)), world.below(2) == 0);
    let (mut is_calm, mut is_last, mut ends) = (false, false, None);
    for _ in 0..MOST_STEPS {
        world.settle();
        if world.state().truth.is_drained {
            return None;
        }
        let replaced = std::mem::take(&mut world.state().truth.to_replace);
        for _ in 0..replaced {
            let (scenario, delay) = (scenario.clone(), Duration::from_millis(world.below(45_000)));
            world.after(delay, move |_| scenario.start_updater());
        }
        let alive = world.alive();
        if ends.is_none() && !loggers.iter().any(|logger| alive.contains(logger)) {
            ends = Some(world.now() + lasts);
            world.state().is_idle = false;
        }
        let is_idle = world.state().is_idle;
        if is_idle && ends.is_some() && alive.iter().all(|actor| world.is_updater(*actor)) {
            ends = Some(Duration::ZERO);
        }
        if !is_calm && ends.is_some_and(|ends| world.now() > ends) {
            is_calm = true;
            world.calm(kills);
            continue;
        }
        if is_calm && !is_last && alive.is_empty() {
            is_last = true;
            scenario.start_last();
            continue;
        }
        if !world.step() {
            return Some(format!("{STUCK}: nothing is left to decide, but processes {alive:?} wait"));
        }
    }
    Some(format!("{STUCK}: there is no end"))
}

/// Runs the seeds in this process that [`run_seeds`] wants of it, and prints a line for each.
fn serve(wanted: &str) {
    let (seeds, bug) = wanted.split_once(' ').expect("seeds and a bug");
    let bug = BUGS.into_iter().find(|known| format!("{:?}", Some(*known)) == bug);
    let seeds = range(seeds);
    SIMULATION.set(&Simulated).ok().expect("no simulation yet");
    let threads = Arc::new(Threads::default());
    let is_shown = seeds.end - seeds.start == 1;
    for seed in seeds {
        let outcome = simulate(&threads, seed, bug, is_shown);
        println!("SEED {seed} {:016x} {} {}", outcome.hash, outcome.steps, outcome.violations.join("; "));
    }
}

fn range(text: &str) -> Range<u64> {
    let (start, end) = text.split_once("..").expect("a range of seeds, such as 0..1000");
    start.parse().expect("a seed")..end.parse().expect("a seed")
}

/// What a process says of one seed.
#[derive(Debug, PartialEq)]
struct Line {
    seed: u64,
    hash: String,
    steps: u64,
    violations: String,
}

/// Runs seeds in two processes, and returns what they say of each.
fn run_seeds(seeds: Range<u64>, bug: Option<Bug>) -> Vec<Line> {
    let middle = seeds.start + (seeds.end - seeds.start).div_ceil(2);
    let parts = [seeds.start..middle, middle..seeds.end].into_iter().filter(|part| !part.is_empty());
    let test = "delivery::tests::simulation::no_seed_breaks_a_promise";
    let run = |part: Range<u64>| {
        let ended = Command::new(std::env::current_exe().expect("this program"))
            .args([test, "--exact", "--nocapture"])
            .env("JOBROTA_SIMULATE", format!("{}..{} {bug:?}", part.start, part.end))
            .stdin(Stdio::null())
            .output();
        (part, ended.expect("started"))
    };
    let outputs: Vec<_> = std::thread::scope(|threads| {
        let running: Vec<_> = parts.map(|part| threads.spawn(move || run(part))).collect();
        running.into_iter().map(|thread| thread.join().expect("ended")).collect()
    });
    let mut lines = Vec::new();
    for (part, output) in outputs {
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("SHOW ") {
                println!("{line}");
            }
            let mut words = line.strip_prefix("SEED ").into_iter().flat_map(|line| line.splitn(4, ' '));
            if let (Some(seed), Some(hash), Some(steps), Some(violations)) =
                (words.next(), words.next(), words.next(), words.next())
            {
                let (seed, steps) = (seed.parse().expect("a seed"), steps.parse().expect("a number"));
                lines.push(Line { seed, hash: hash.to_owned(), steps, violations: violations.to_owned() });
            }
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "seeds {part:?}, after {:?}: {errors}", lines.last());
    }
    lines
}

/// Runs the seeds of JOBROTA_SEEDS, or a few. The processes of a simulation run this test, too.
#[test]
fn no_seed_breaks_a_promise() {
    if let Ok(wanted) = std::env::var("JOBROTA_SIMULATE") {
        return serve(&wanted);
    }
    let seeds = std::env::var("JOBROTA_SEEDS").map_or(TESTED, |wanted| range(&wanted));
    let begun = Instant::now();
    let (mut broken, mut steps) = (0, 0);
    let mut next = seeds.start;
    while next < seeds.end {
        let part = next..seeds.end.min(next + 1000);
        next = part.end;
        for line in run_seeds(part, None) {
            steps += line.steps;
            if !line.violations.is_empty() {
                broken += 1;
                let (seed, after) = (line.seed, line.seed + 1);
                println!("seed {seed}: {}; make simulate SEEDS={seed}..{after} shows it", line.violations);
            }
        }
        let (done, seconds) = (next - seeds.start, begun.elapsed().as_secs_f64());
        println!("{done} seeds, {:.1} a second, {steps} decisions, {broken} violate a promise", done as f64 / seconds);
    }
    assert_eq!(broken, 0, "seeds {seeds:?}");
}

#[test]
fn a_seed_replays_identically() {
    let seeds = TESTED.start..TESTED.start + 20;
    assert_eq!(run_seeds(seeds.clone(), None), run_seeds(seeds, None));
}

/// A commit of a killed process came after the retry state was deleted, and left a log without a beginning, which ended every cycle.
/// So did attempts that were compacted and vacuumed after a process was killed before it saved its retry state. A row that was sent
/// again after the attempt that said its doubt had failed was sent without a mark that says so.
#[test]
fn seeds_that_found_something_find_nothing_any_more() {
    for seed in [293, 1177, 99968] {
        let lines = run_seeds(seed..seed + 2, None);
        assert!(lines.iter().all(|line| line.violations.is_empty()), "{lines:?}");
    }
}

#[test]
fn planted_bugs_are_found() {
    let found = [(Bug::OverwritesEntries, LOST), (Bug::TrustsNoAnswer, LOST), (Bug::SendsWithoutMark, TWICE)];
    for (bug, property) in found {
        let first = (0..400).step_by(20).find_map(|start| {
            run_seeds(start..start + 20, Some(bug)).into_iter().find(|line| line.violations.contains(property))
        });
        println!("{bug:?}: {first:?}");
        assert!(first.is_some(), "{bug:?}");
    }
}
