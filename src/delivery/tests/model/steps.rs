//! The steps of the model: what each process, the store, AutoSys and the faults can do in a state, and what follows.

use std::sync::Arc;

use super::planning::Outline;
use super::state::{
    Counts, Flight, Item, KINDS, LONG_AGO, LateCommit, OPERATOR, Process, Queue, Recorded, Stage, State, Step, Task,
    Word,
};
use super::{DRIFT, LIMIT, MARGIN, PlantedBug, Protocol, SKEW, TTL};

/// What AutoSys does with an event, and what its sender learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Delivered,
    /// The event arrived, the answer is lost.
    DeliveredUnheard,
    /// The event did not arrive, and its sender does not know.
    LostUnheard,
    Failed,
    Parked,
    /// The sender does not wait any longer, although the event can still arrive.
    NotYet,
}

/// One step. Processes are meant by their number, rows by the place of their queue, events by their place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Tick,
    Begin(usize, Task),
    Renew(usize),
    Claim(usize),
    ClaimSource(usize),
    ReadPending(usize),
    ReadAttempts(usize),
    /// Commits outcomes and marks to the attempts table.
    Record(usize),
    /// Sets flags, in one commit to the source table.
    Acknowledge(usize),
    PassGate(usize, usize),
    Send(usize, usize),
    SkipSend(usize, usize),
    Answer(usize, Answer),
    End(usize),
    /// A commit whose request created its version after its process gave it up.
    Land,
    // Faults.
    Kill(usize),
    StoreFails(usize),
    LoseRecord(usize),
    LoseAcknowledge(usize),
}

impl Protocol {
    pub(super) fn actions_of(&self, state: &State, actions: &mut Vec<Action>) {
        let has_faults = state.faults > 0;
        for at in 0..state.flights.len() {
            let has_sender = state.flights[at].sender.is_some();
            actions.push(Action::Answer(at, Answer::Delivered));
            // Without a sender, no answer is left to be lost.
            if !has_sender {
                actions.push(Action::Answer(at, Answer::LostUnheard));
            } else if has_faults {
                actions.push(Action::Answer(at, Answer::DeliveredUnheard));
                actions.push(Action::Answer(at, Answer::LostUnheard));
                actions.push(Action::Answer(at, Answer::Failed));
                if self.actions > 0 {
                    actions.push(Action::Answer(at, Answer::Parked));
                }
                if self.late_events {
                    actions.push(Action::Answer(at, Answer::NotYet));
                }
            }
        }
        for (at, process) in state.processes.iter().enumerate() {
            self.actions_of_process(state, at, process, actions);
        }
        if state.late.is_some() {
            actions.push(Action::Land);
        }
        actions.push(Action::Tick);
    }

    fn actions_of_process(&self, state: &State, at: usize, process: &Process, actions: &mut Vec<Action>) {
        let has_faults = state.faults > 0;
        if process.step == Step::Idle {
            self.beginnings(state, at, actions);
            return;
        }
        if process.valid_for < TTL + DRIFT && !process.is_stopping() {
            actions.push(Action::Renew(at));
        }
        match process.step {
            Step::Idle => {}
            Step::ClaimAttempts => actions.push(Action::Claim(at)),
            Step::ClaimSource => actions.push(Action::ClaimSource(at)),
            Step::ReadPending => actions.push(Action::ReadPending(at)),
            Step::ReadAttempts => actions.push(Action::ReadAttempts(at)),
            Step::Work => self.work(process, at, has_faults, actions),
        }
        if has_faults {
            actions.push(Action::Kill(at));
            if !process.has_failed && !process.is_lost {
                actions.push(Action::StoreFails(at));
            }
        }
    }

    fn beginnings(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let pending = (0..self.kinds.len()).filter(|kind| state.yes[*kind] < self.kinds[*kind].count);
        if !self.can_take(state) || (at == 1 && !state.has_begun) {
            return;
        }
        if at != OPERATOR {
            if pending.count() > 0 {
                actions.push(Action::Begin(at, Task::Deliver));
            }
            return;
        }
        if state.actions == 0 {
            return;
        }
        let parked = self.outline(state).parked;
        for kind in pending {
            let number = kind.try_into().unwrap();
            actions.push(Action::Begin(at, Task::Settle(number)));
            if parked[kind] > 0 {
                actions.push(Action::Begin(at, Task::Redrive(number)));
            }
        }
    }

    fn work(&self, process: &Process, at: usize, has_faults: bool, actions: &mut Vec<Action>) {
        let recovers = process.recovered != [0; KINDS];
        let is_stopping = process.is_stopping();
        let answered = process.queues.iter().any(|queue| matches!(queue.active, Some((_, Stage::Answered(_)))));
        let ready = process.queues.iter().any(|queue| queue.active.is_none()) || !process.notes.is_empty();
        let must_claim = recovers && !process.has_claimed && self.bug != Some(PlantedBug::ClaimsInSourceOnly);
        if !is_stopping && must_claim {
            actions.push(Action::Claim(at));
        } else if answered || (ready && !is_stopping && !recovers) {
            actions.push(Action::Record(at));
            if has_faults && !is_stopping {
                actions.push(Action::LoseRecord(at));
            }
        }
        if process.flags() != [0; KINDS] && !is_stopping && !must_claim {
            actions.push(Action::Acknowledge(at));
            if has_faults {
                actions.push(Action::LoseAcknowledge(at));
            }
        }
        let mut is_busy = false;
        for (place, queue) in process.queues.iter().enumerate() {
            let is_open = process.valid_for > MARGIN && !is_stopping;
            match queue.active {
                Some((_, Stage::Marked)) if self.bug == Some(PlantedBug::GateNotAsked) => {
                    actions.push(Action::Send(at, place));
                }
                Some((_, Stage::Marked)) if is_open && self.long_pauses => actions.push(Action::PassGate(at, place)),
                Some((_, Stage::Marked)) if is_open => actions.push(Action::Send(at, place)),
                Some((_, Stage::Marked)) => actions.push(Action::SkipSend(at, place)),
                Some((_, Stage::Passed)) => actions.push(Action::Send(at, place)),
                _ => {}
            }
            is_busy |= matches!(queue.active, Some((_, Stage::Marked | Stage::Passed | Stage::Sending)));
        }
        let is_done = !answered && !ready && !recovers && process.delivered == [0; KINDS];
        if !is_busy && (process.has_failed || (process.is_lost && !answered) || is_done) {
            actions.push(Action::End(at));
        }
    }

    /// Whether the lease can be taken: it was released, or has expired even if the store's time is as early as it can be.
    fn can_take(&self, state: &State) -> bool {
        let skew = if self.bug == Some(PlantedBug::ContenderTrustsItsClock) { SKEW } else { 0 };
        state.lease.is_released || state.lease.expires_in < skew
    }

    /// Whether rows in doubt wait, because an event of a lapsed holder can still arrive.
    fn waits(&self, process: &Process) -> bool {
        let skew = if self.bug == Some(PlantedBug::ContenderTrustsItsClock) { SKEW } else { 0 };
        match self.bug {
            Some(PlantedBug::NoWaitForLimit) => false,
            Some(PlantedBug::WaitsForEver) => process.lapsed.is_some(),
            _ => process.lapsed.is_some_and(|expires_in| expires_in + LIMIT >= skew),
        }
    }

    /// Whether the tick makes the lease of a process lapse that was not killed: it pauses, or the store does not answer it.
    fn tick_is_fault(state: &State) -> bool {
        state.lease.holder.is_some() && !state.lease.is_released && state.lease.expires_in == 0
    }

    pub(super) fn is_fault(state: &State, action: &Action) -> bool {
        match action {
            Action::Tick => Self::tick_is_fault(state),
            Action::Answer(at, answer) => *answer != Answer::Delivered && state.flights[*at].sender.is_some(),
            Action::Kill(_) | Action::StoreFails(_) | Action::LoseRecord(_) | Action::LoseAcknowledge(_) => true,
            _ => false,
        }
    }

    /// The state after `action`. None if nothing changes, or if the action is not possible after all.
    pub(super) fn after(&self, before: &State, action: &Action) -> Option<State> {
        let mut state = before.clone();
        if Self::is_fault(before, action) {
            state.faults = state.faults.checked_sub(1)?;
        }
        match *action {
            Action::Tick => tick(&mut state)?,
            Action::Begin(at, task) => self.begin(&mut state, at, task),
            Action::Renew(at) => self.renew(&mut state, at),
            Action::Claim(at) => self.claim(&mut state, at),
            Action::ClaimSource(at) => claim_source(&mut state, at),
            Action::ReadPending(at) => {
                let pending = self.pending(&state);
                let process = &mut state.processes[at];
                (process.pending, process.step) = (pending, Step::ReadAttempts);
            }
            Action::ReadAttempts(at) => self.read_attempts(&mut state, at),
            Action::Record(at) => self.record(&mut state, at),
            Action::Acknowledge(at) => self.acknowledge(&mut state, at),
            Action::PassGate(at, place) => state.processes[at].queues[place].active.as_mut()?.1 = Stage::Passed,
            Action::Send(at, place) => self.send(&mut state, at, place)?,
            Action::SkipSend(at, place) => {
                state.processes[at].queues[place].active.as_mut()?.1 = Stage::Answered(Word::NotSent);
            }
            Action::Answer(at, answer) => self.answer(&mut state, at, answer),
            Action::End(at) => self.end(&mut state, at),
            Action::Land => self.land(&mut state)?,
            Action::Kill(at) => vanish(&mut state, at),
            Action::StoreFails(at) => state.processes[at].fail(),
            Action::LoseRecord(at) => self.lose_record(&mut state, at)?,
            Action::LoseAcknowledge(at) => self.lose_acknowledge(&mut state, at)?,
        }
        state.simplify(self);
        (state != *before).then_some(state)
    }

    fn pending(&self, state: &State) -> Counts {
        let mut pending = [0; KINDS];
        for (kind, rows) in self.kinds.iter().enumerate() {
            pending[kind] = rows.count - state.yes[kind];
        }
        pending
    }

    pub(super) fn outline(&self, state: &State) -> Arc<Outline> {
        self.plans.get(self, self.pending(state), state.yes, &state.recorded)
    }

    fn begin(&self, state: &mut State, at: usize, task: Task) {
        let lapsed = (!state.lease.is_released).then_some(state.lease.expires_in);
        let claims = lapsed.is_some() && self.bug != Some(PlantedBug::NoClaimAfterLapse);
        let step = if claims { Step::ClaimAttempts } else { Step::ReadPending };
        // Read before the lease is taken: an epoch that is read later can be that of a successor.
        let epoch = if self.epochs_of_lease { state.lease.number + 1 } else { state.attempts_epoch + 1 };
        state.processes[at] = Process { task, step, lapsed, epoch, valid_for: TTL + DRIFT, ..Process::IDLE };
        state.lease.taken(at);
        state.lease.number = if self.epochs_of_lease { epoch } else { 0 };
        state.has_begun = true;
        if at == OPERATOR {
            state.actions -= 1;
        }
    }

    fn renew(&self, state: &mut State, at: usize) {
        let is_ours = state.lease.holder.map(usize::from) == Some(at);
        let takes_again = self.bug == Some(PlantedBug::RenewalTakesAgain) && self.can_take(state);
        if is_ours || takes_again {
            state.lease.taken(at);
            state.processes[at].valid_for = TTL + DRIFT;
        } else {
            state.processes[at].lose();
        }
    }

    /// A commit to the attempts table without rows.
    fn claim(&self, state: &mut State, at: usize) {
        if self.clock_after_reads && state.processes[at].step == Step::ClaimAttempts {
            state.processes[at].epoch = state.attempts_epoch + 1;
        }
        if self.is_passed_over(state, at) {
            state.processes[at].lose();
            return;
        }
        let process = &mut state.processes[at];
        if process.step == Step::ClaimAttempts {
            process.step = Step::ClaimSource;
        } else if process.is_outdated {
            process.read_again();
            return;
        }
        if self.bug == Some(PlantedBug::ClaimsAboveSuccessor) {
            process.epoch = state.attempts_epoch + 1;
        }
        (process.has_claimed, process.is_outdated) = (true, false);
        state.attempts_epoch = process.epoch;
        drop_late(state, |late| matches!(late, LateCommit::Attempts { .. }));
    }

    /// Whether the newest version of the attempts table has a greater epoch, or had another one when it was read.
    fn is_passed_over(&self, state: &State, at: usize) -> bool {
        let process = &state.processes[at];
        match process.has_claimed {
            true => state.attempts_epoch > process.epoch,
            false if self.bug == Some(PlantedBug::ClaimsAboveSuccessor) => false,
            false if self.epochs_of_lease => state.attempts_epoch > process.epoch,
            false => state.attempts_epoch + 1 != process.epoch,
        }
    }

    fn read_attempts(&self, state: &mut State, at: usize) {
        let pending = state.processes[at].pending;
        let outline = self.plans.get(self, pending, state.yes, &state.recorded);
        let waits = self.waits(&state.processes[at]);
        let epoch = state.attempts_epoch + 1;
        let process = &mut state.processes[at];
        if self.clock_after_reads && process.valid_for <= MARGIN {
            process.lose();
            return;
        }
        if self.clock_after_reads && !process.has_claimed {
            process.epoch = epoch;
        }
        (process.step, process.pending) = (Step::Work, [0; KINDS]);
        if !process.has_claimed && self.bug == Some(PlantedBug::EpochReadAfterLease) {
            process.epoch = epoch;
        }
        process.is_outdated = false;
        process.forget_plan();
        match process.task {
            Task::Deliver => {
                let can_arrive = |kind: usize| waits && outline.is_unanswered[kind];
                let has_to_wait = |item: &Item| {
                    let kind = usize::from(item.kind);
                    let of_job = (0..=kind).filter(|before| self.kinds[*before].job == self.kinds[kind].job);
                    let ignores_delivered = self.bug == Some(PlantedBug::OnlyOpenRowsWait);
                    (waits && item.in_doubt) || (!ignores_delivered && of_job.into_iter().any(can_arrive))
                };
                process.recovered = outline.recovered;
                if self.bug != Some(PlantedBug::OnlyOpenRowsWait) {
                    // Its attempts are read only while it is pending.
                    (0..KINDS).filter(|kind| can_arrive(*kind)).for_each(|kind| process.recovered[kind] = 0);
                }
                process.queues = outline.queues.iter().filter_map(|items| queue(items, has_to_wait)).collect();
                if self.bug == Some(PlantedBug::SendsWithoutMark) {
                    process.queues.iter_mut().for_each(mark_next);
                }
            }
            Task::Settle(kind) => {
                let at = usize::from(kind);
                let last = outline.last_attempt[at].max(1);
                if outline.recovered[at] > 0 {
                    process.recovered[at] = 1;
                } else if pending[at] > 0 {
                    process.notes.extend((outline.parked[at] > 0).then_some((kind, last, Word::Redriven)));
                    process.notes.extend((1..outline.parked[at]).map(|_| (kind, last + 1, Word::Parked)));
                    process.notes.push((kind, 0, Word::ByHand));
                }
            }
            Task::Redrive(kind) => {
                let (parked, last) = (outline.parked[usize::from(kind)], outline.last_attempt[usize::from(kind)]);
                process.notes.extend((parked > 0).then_some((kind, last.max(1), Word::Redriven)));
            }
        }
    }

    /// Outcomes, marks, and what an operator records: what a commit to the attempts table would have.
    fn next_commit(&self, process: &mut Process, only_outcomes: bool) -> Vec<Recorded> {
        let mut recorded = Vec::new();
        for queue in &process.queues {
            if let Some((item, Stage::Answered(word))) = queue.active {
                recorded.push((item.kind, item.attempt, word));
            }
        }
        if only_outcomes {
            return recorded;
        }
        recorded.append(&mut process.notes);
        if self.bug == Some(PlantedBug::NextRowBeforeOutcome) {
            let rests = process.queues.iter_mut().map(|queue| std::mem::take(&mut queue.rest));
            let rests: Vec<Queue> =
                rests.filter(|rest| !rest.is_empty()).map(|rest| Queue { active: None, rest }).collect();
            process.queues.extend(rests);
        }
        for queue in process.queues.iter_mut().filter(|queue| queue.active.is_none()) {
            mark_next(queue);
            if let Some((item, _)) = queue.active {
                recorded.push((item.kind, item.attempt, Word::Sending));
            }
        }
        process.queues.retain(|queue| queue.active.is_some());
        recorded
    }

    fn record(&self, state: &mut State, at: usize) {
        let was_passed_over = self.is_passed_over(state, at);
        let is_fenced = was_passed_over && self.bug != Some(PlantedBug::MarksAfterPassedOver);
        let process = &mut state.processes[at];
        if is_fenced {
            process.lose();
        }
        let only_outcomes = process.is_stopping();
        if !only_outcomes && !process.has_claimed && process.is_outdated {
            process.read_again();
            return;
        }
        let recorded = self.next_commit(process, only_outcomes);
        if recorded.is_empty() {
            return;
        }
        if !is_fenced {
            if !process.has_claimed && self.bug == Some(PlantedBug::ClaimsAboveSuccessor) {
                process.epoch = state.attempts_epoch + 1;
            }
            process.has_claimed = true;
            process.is_outdated = false;
            state.attempts_epoch = state.attempts_epoch.max(process.epoch);
        }
        process.outcomes_are_durable();
        process.queues.retain(|queue| queue.active.is_some() || !queue.rest.is_empty());
        for queue in &process.queues {
            if let Some((item, Stage::Marked)) = queue.active {
                let first = &mut state.truth.first_in_doubt[usize::from(item.kind)];
                if item.in_doubt {
                    *first = first.map_or(item.attempt, |first| first.min(item.attempt)).into();
                }
            }
        }
        self.append(state, Some(at), &recorded);
        if was_passed_over && recorded.iter().any(|(_, _, word)| *word == Word::Sending) {
            state.truth.marked_without_lease = true;
        }
        drop_late(state, |late| matches!(late, LateCommit::Attempts { .. }));
    }

    /// Adds attempts to the table.
    fn append(&self, state: &mut State, by: Option<usize>, recorded: &[Recorded]) {
        state.recorded.extend(recorded);
        for (at, process) in state.processes.iter_mut().enumerate() {
            process.is_outdated |= Some(at) != by && process.step == Step::Work && !process.has_claimed;
        }
        for (kind, _, word) in recorded {
            let kind = usize::from(*kind);
            match word {
                Word::ByHand => {
                    state.truth.settled[kind] += 1;
                    state.truth.was_set_aside[kind] = true;
                    if let Some(at) = by {
                        state.processes[at].delivered[kind] += 1;
                    }
                }
                Word::Parked => state.truth.was_set_aside[kind] = true,
                _ => {}
            }
        }
    }

    fn acknowledge(&self, state: &mut State, at: usize) {
        if self.is_fenced_from_source(state, at) {
            state.processes[at].lose();
            return;
        }
        let process = &mut state.processes[at];
        let (flags, epoch) = (process.flags(), process.epoch);
        let done = if process.recovered == [0; KINDS] { &mut process.delivered } else { &mut process.recovered };
        *done = [0; KINDS];
        self.flip(state, flags, epoch);
        drop_late(state, |late| matches!(late, LateCommit::Flags { .. }));
    }

    /// Sets flags by count, as identical rows cannot be told apart.
    fn flip(&self, state: &mut State, flags: Counts, epoch: u8) {
        state.source_epoch = state.source_epoch.max(epoch);
        for (kind, rows) in self.kinds.iter().enumerate() {
            state.yes[kind] = (state.yes[kind] + flags[kind]).min(rows.count);
        }
    }

    fn is_fenced_from_source(&self, state: &State, at: usize) -> bool {
        state.source_epoch > state.processes[at].epoch && self.bug != Some(PlantedBug::FlagsWithoutEpoch)
    }

    fn send(&self, state: &mut State, at: usize, place: usize) -> Option<()> {
        let (item, stage) = state.processes[at].queues[place].active.as_mut()?;
        let item = *item;
        *stage = Stage::Sending;
        let kind = usize::from(item.kind);
        let on_its_way = state.flights.iter().any(|flight| flight.kind == item.kind);
        // Which of identical rows is in doubt cannot be told.
        let is_again = self.kinds[kind].count == 1 && (on_its_way || state.truth.arrived[kind] > 0);
        // A mark of this attempt, or of one before it, said that the row is in doubt.
        let first = state.truth.first_in_doubt[kind];
        let in_doubt = item.in_doubt || first.is_some_and(|first| first < item.attempt);
        let may_be_late = self.long_pauses && !self.is_strict && first.is_some();
        state.truth.sent_twice |= is_again && !in_doubt && !may_be_late;
        let Item { kind, attempt, .. } = item;
        state.flights.push(Flight { sender: u8::try_from(at).ok(), kind, attempt, left: LIMIT });
        Some(())
    }

    fn answer(&self, state: &mut State, at: usize, answer: Answer) {
        let flight = state.flights.remove(at);
        if matches!(answer, Answer::Delivered | Answer::DeliveredUnheard) {
            self.arrive(state, &flight);
        }
        let word = match answer {
            Answer::Delivered => Word::Delivered,
            Answer::DeliveredUnheard | Answer::LostUnheard | Answer::NotYet => Word::Unknown,
            Answer::Failed => Word::Failed,
            Answer::Parked => Word::Parked,
        };
        if answer == Answer::NotYet {
            state.flights.push(Flight { sender: None, ..flight.clone() });
        }
        let Some(sender) = flight.sender else { return };
        for queue in &mut state.processes[usize::from(sender)].queues {
            if let Some((item, stage @ Stage::Sending)) = &mut queue.active
                && (item.kind, item.attempt) == (flight.kind, flight.attempt)
            {
                *stage = Stage::Answered(word);
                break;
            }
        }
    }

    fn arrive(&self, state: &mut State, flight: &Flight) {
        let truth = &mut state.truth;
        let kind = usize::from(flight.kind);
        truth.arrived[kind] += 1;
        let job = self.kinds[kind].job;
        let overtaken = (kind + 1..self.kinds.len()).any(|it| self.kinds[it].job == job && truth.arrived[it] > 0);
        let may_be_late =
            (self.long_pauses || self.late_events) && !self.is_strict && truth.first_in_doubt[kind].is_some();
        truth.out_of_order |= overtaken && !truth.was_set_aside[kind] && !may_be_late;
    }

    fn end(&self, state: &mut State, at: usize) {
        let process = &state.processes[at];
        let holds = state.lease.holder.map(usize::from) == Some(at);
        let keeps = process.has_unknown_commit && self.bug != Some(PlantedBug::ReleasesWithUnknownCommit);
        if holds && !keeps {
            let lapsed = process.lapsed.filter(|_| self.waits(process) || !process.has_claimed_source);
            let lapsed = lapsed.filter(|_| self.bug != Some(PlantedBug::ReleaseForgetsLapse));
            state.lease.is_released = lapsed.is_none();
            state.lease.expires_in = lapsed.unwrap_or(LONG_AGO);
        }
        vanish(state, at);
    }

    fn lose_record(&self, state: &mut State, at: usize) -> Option<()> {
        if self.is_passed_over(state, at) || state.processes[at].is_outdated {
            return None;
        }
        let mut process = state.processes[at].clone();
        let recorded = self.next_commit(&mut process, false);
        let epoch = process.epoch;
        // Its rows are not sent, whether the marks become durable or not.
        let process = &mut state.processes[at];
        process.fail();
        process.has_unknown_commit = true;
        state.late = Some(LateCommit::Attempts { by: u8::try_from(at).ok(), epoch, recorded });
        Some(())
    }

    fn lose_acknowledge(&self, state: &mut State, at: usize) -> Option<()> {
        if self.is_fenced_from_source(state, at) {
            return None;
        }
        let process = &mut state.processes[at];
        let (flags, epoch) = (process.flags(), process.epoch);
        process.fail();
        process.has_unknown_commit = true;
        state.late = Some(LateCommit::Flags { epoch, flags });
        Some(())
    }

    fn land(&self, state: &mut State) -> Option<()> {
        match state.late.take()? {
            LateCommit::Attempts { by, epoch, recorded } => {
                state.attempts_epoch = epoch;
                self.append(state, None, &recorded);
                if let Some(process) = by.map(|by| &mut state.processes[usize::from(by)])
                    && self.bug != Some(PlantedBug::RecordsTwice)
                {
                    // Its transaction number tells the process that these outcomes are recorded.
                    let is_there = |queue: &Queue| match queue.active {
                        Some((item, Stage::Answered(word))) => recorded.contains(&(item.kind, item.attempt, word)),
                        _ => false,
                    };
                    process.queues.retain(|queue| !is_there(queue));
                }
            }
            LateCommit::Flags { epoch, flags } => self.flip(state, flags, epoch),
        }
        Some(())
    }
}

impl Process {
    fn lose(&mut self) {
        self.is_lost = true;
        self.stop();
    }

    fn fail(&mut self) {
        self.has_failed = true;
        self.stop();
    }

    /// Marks and acknowledges nothing more. What is being sent goes on.
    fn stop(&mut self) {
        self.step = Step::Work;
        self.notes.clear();
        (self.recovered, self.delivered, self.pending) = ([0; KINDS], [0; KINDS], [0; KINDS]);
        self.valid_for = 0;
        for queue in &mut self.queues {
            queue.rest.clear();
            if let Some((_, stage @ Stage::Marked)) = &mut queue.active {
                *stage = Stage::Answered(Word::NotSent);
            }
        }
        self.queues.retain(|queue| queue.active.is_some());
    }

    fn read_again(&mut self) {
        self.forget_plan();
        self.step = Step::ReadPending;
    }

    /// Goes on after the answered rows of a commit.
    fn outcomes_are_durable(&mut self) {
        let is_lost = self.is_lost;
        for queue in &mut self.queues {
            let Some((item, Stage::Answered(word))) = queue.active else { continue };
            queue.active = None;
            if word == Word::Delivered && !is_lost && !self.has_failed {
                self.delivered[usize::from(item.kind)] += 1;
            }
            if !matches!(word, Word::Delivered | Word::Parked) {
                queue.rest.clear();
            }
        }
    }
}

fn claim_source(state: &mut State, at: usize) {
    let process = &mut state.processes[at];
    if state.source_epoch > process.epoch {
        process.lose();
        return;
    }
    (process.step, process.has_claimed_source) = (Step::ReadPending, true);
    state.source_epoch = process.epoch;
    drop_late(state, |late| matches!(late, LateCommit::Flags { .. }));
}

/// The rows of one job that do not wait.
fn queue(items: &[Item], has_to_wait: impl Fn(&Item) -> bool) -> Option<Queue> {
    let ready = items.iter().take_while(|item| !has_to_wait(item)).copied().collect::<Vec<_>>();
    (!ready.is_empty()).then_some(Queue { active: None, rest: ready })
}

fn mark_next(queue: &mut Queue) {
    if !queue.rest.is_empty() {
        queue.active = Some((queue.rest.remove(0), Stage::Marked));
    }
}

/// Time passes. None while an event has to arrive or to get lost first.
fn tick(state: &mut State) -> Option<()> {
    if state.flights.iter().any(|flight| flight.left == 0) {
        return None;
    }
    let later = |time: &mut i8| *time = (*time - 1).max(LONG_AGO);
    state.flights.iter_mut().for_each(|flight| later(&mut flight.left));
    later(&mut state.lease.expires_in);
    for process in &mut state.processes {
        process.valid_for = (process.valid_for - 1).max(0);
        process.lapsed.iter_mut().for_each(later);
    }
    Some(())
}

/// The cycle or action of a process is over. Events that it sent go on.
fn vanish(state: &mut State, at: usize) {
    state.processes[at] = Process::IDLE;
    let ours = u8::try_from(at).ok();
    if state.lease.holder == ours {
        state.lease.holder = None;
    }
    state.flights.iter_mut().filter(|flight| flight.sender == ours).for_each(|flight| flight.sender = None);
    if let Some(LateCommit::Attempts { by, .. }) = &mut state.late
        && *by == ours
    {
        *by = None;
    }
}

/// A request that is still on its way creates only the version that follows the one that it knew.
fn drop_late(state: &mut State, is_of_table: impl Fn(&LateCommit) -> bool) {
    if state.late.as_ref().is_some_and(is_of_table) {
        state.late = None;
    }
}
