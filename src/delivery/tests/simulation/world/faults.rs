//! What can happen to a request and to a process.

use std::time::Duration;

use rand::RngExt as _;

use super::{Event, Kind, Reply, Request, SEND_LIMIT, State, Then};
use crate::delivery::tests::simulation::threads::Actor;

impl State {
    /// How much later a request can still take effect.
    fn lateness(&mut self, kind: Kind, begun: Duration) -> Duration {
        let most = if kind == Kind::Send { begun + SEND_LIMIT - self.now } else { Duration::from_secs(60) };
        self.millis(most.as_millis() as u64)
    }

    /// Gives one fault to `request`.
    pub(super) fn fault(&mut self, mut request: Request) -> Then {
        self.faults -= 1;
        match (self.random.random_range(0..6), request.kind) {
            (0, _) => self.decide(request, "FAILS", false, Some(Reply::Lost)),
            (1, Kind::Create) => self.decide(request, "DONE, BUT SAYS THAT IT EXISTS", true, Some(Reply::Exists)),
            (1 | 2, _) => self.decide(request, "DONE, ANSWER LOST", true, Some(Reply::Lost)),
            (3 | 4, _) => {
                let (lands, never) = (self.lateness(request.kind, request.begun), self.random.random_range(0..3) == 0);
                // What goes on after its answer was lost can arrive after later rows: docs/promises.md says so.
                let answered = self.lateness(request.kind, request.begun);
                let answered = if request.kind == Kind::Send { answered.max(lands) } else { answered };
                let (now, number, other) = (self.now, self.next(), self.next());
                self.note(request.actor, &request.label, if never { "NEVER DONE" } else { "DONE LATE" });
                if !never {
                    self.events.insert((now + lands, number), Event::Land(request.label, request.effect));
                }
                self.events.insert((now + answered, other), Event::Answer(request.answer));
                Then(None, None)
            }
            (_, kind) => {
                self.note(request.actor, &request.label, "IS SLOW");
                request.ready = self.now + self.lateness(kind, request.begun);
                let number = self.next();
                self.requests.insert(number, request);
                Then(None, None)
            }
        }
    }

    pub(super) fn kill(&mut self, actor: Actor) {
        self.processes[actor].is_killed = true;
        self.note(actor, "KILLED", "");
        let its: Vec<u64> = self.requests.iter().filter(|(_, r)| r.actor == actor).map(|(number, _)| *number).collect();
        for number in its {
            let request = self.requests.remove(&number).expect("it is there");
            if self.random.random_range(0..3) > 0 {
                let at = (self.now + self.lateness(request.kind, request.begun), self.next());
                self.events.insert(at, Event::Land(request.label, request.effect));
            }
        }
    }

    pub(super) fn pause(&mut self, actor: Actor) {
        self.processes[actor].is_paused = true;
        self.note(actor, "PAUSED", "");
        let at = (self.now + self.millis(80_000), self.next());
        self.events.insert(at, Event::Resume(actor));
    }
}
