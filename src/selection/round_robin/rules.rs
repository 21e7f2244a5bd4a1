//! When a VM counts as up, and how much work it may have at once.

use std::time::Duration;

use crate::selection::standing::{Streak, VmStanding};

/// The rules of one selector.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Answers in a row that a VM which counts as down needs to be selected again.
    pub(super) rise: u32,
    /// Failures in a row after which a VM counts as down.
    pub(super) fall: u32,
    /// How long failures and answers of the past count.
    pub(super) health_max_age: Duration,
    /// How many selections of a VM may be in use at the same time.
    pub(super) max_in_flight: Option<u32>,
    /// For how long a selection stays in use after its holder was last heard of.
    pub(super) hold_ttl: Duration,
}

impl Rules {
    /// Whether the past counts at all: with one answer and one failure, the last probe alone decides.
    pub(super) fn count(&self) -> bool {
        self.rise > 1 || self.fall > 1
    }

    /// The streak after another answer, at `now` (microseconds since 1970). None: as if nothing had ever been amiss.
    pub(super) fn observe(&self, streak: Option<Streak>, ok: bool, now: i64) -> Option<Streak> {
        let streak = self.valid(streak, now);
        let (mut up, mut against) = streak.map_or((true, 0), |streak| (streak.up, streak.against));
        against = if ok == up { 0 } else { against.saturating_add(1) };
        if against >= if up { self.fall } else { self.rise } {
            (up, against) = (!up, 0);
        }
        (!up || against > 0).then_some(Streak { at: now / 1_000_000, up, against })
    }

    /// How many answers a VM still needs before it can be selected, not counting the next one.
    pub(super) fn needs(&self, streak: Option<Streak>, now: i64) -> u32 {
        match self.valid(streak, now) {
            Some(streak) if self.count() && !streak.up => self.rise.saturating_sub(streak.against),
            _ => 0,
        }
    }

    /// Why nobody gets a turn on it as long as this is so.
    pub(super) fn full(&self, vm: &VmStanding, now: i64) -> Option<String> {
        let most = self.max_in_flight?;
        vm.free_slot(most, now).is_none().then(|| format!("{} of {most} selections in flight", vm.in_flight(now)))
    }

    fn valid(&self, streak: Option<Streak>, now: i64) -> Option<Streak> {
        let age = |streak: &Streak| Duration::from_secs((now / 1_000_000 - streak.at).max(0).unsigned_abs());
        streak.filter(|streak| age(streak) <= self.health_max_age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn rules(rise: u32, fall: u32) -> Rules {
        let hold_ttl = Duration::from_secs(60);
        Rules { rise, fall, health_max_age: Duration::from_secs(100), max_in_flight: None, hold_ttl }
    }

    fn played(rules: Rules, answers: &[(i64, bool)]) -> Option<Streak> {
        answers.iter().fold(None, |streak, (at, ok)| rules.observe(streak, *ok, at * SECOND))
    }

    #[test]
    fn it_takes_fall_failures_in_a_row_and_then_rise_answers() {
        let rules = rules(2, 3);
        let up = |answers: &[(i64, bool)]| played(rules, answers).is_none_or(|streak| streak.up);
        assert!(up(&[(1, false), (2, false)]));
        assert!(up(&[(1, false), (2, false), (3, true), (4, false), (5, false)]));
        let down = [(1, false), (2, false), (3, false)];
        assert!(!up(&down));
        assert_eq!(rules.needs(played(rules, &down), 4 * SECOND), 2);
        let one = [down.as_slice(), &[(4, true)]].concat();
        assert_eq!((up(&one), rules.needs(played(rules, &one), 5 * SECOND)), (false, 1));
        let flapping = [one.as_slice(), &[(5, false), (6, true)]].concat();
        assert_eq!((up(&flapping), rules.needs(played(rules, &flapping), 6 * SECOND)), (false, 1));
        let two = [one.as_slice(), &[(5, true)]].concat();
        assert_eq!(played(rules, &two), None);
    }

    #[test]
    fn what_is_too_old_does_not_count() {
        let rules = rules(3, 1);
        let down = played(rules, &[(1, false)]);
        assert_eq!(rules.needs(down, 101 * SECOND), 3);
        assert_eq!(rules.needs(down, 102 * SECOND), 0);
        assert_eq!(rules.observe(down, true, 102 * SECOND), None);
    }
}
