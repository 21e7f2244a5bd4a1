//! What one arm gained over another, and what that can be put down to.

use serde::{Serialize, Serializer};

use super::arm::ArmFigures;
use super::interval::{LEAST_ROUNDS, LEVEL, Ratio};
use super::observation::{ArmPlan, Run};
use crate::comparison::arms::Mode;

/// What two arms differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In concurrency alone: what parallelism gave.
    Parallelism,
    /// In the context alone: what the context gave.
    Context,
    /// In both, and a third arm tells the two apart.
    Total,
    /// In both, and nothing tells the two apart.
    Mixed,
    /// In nothing that is known: a difference is chance.
    Same,
}

impl Kind {
    /// The name that results have.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parallelism => "parallelism",
            Self::Context => "context",
            Self::Total => "total",
            Self::Mixed => "mixed",
            Self::Same => "same",
        }
    }

    /// What a difference of two such arms is.
    fn meaning(self) -> &'static str {
        match self {
            Self::Parallelism => "what parallelism gave, in one context",
            Self::Context => "what the context gave, at the same concurrency",
            Self::Total => "what parallelism and context gave together",
            Self::Mixed => "parallelism and context together, which nothing here tells apart",
            Self::Same => "arms that differ in nothing that is known",
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One comparison of two arms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gain {
    /// What they differ in.
    pub kind: Kind,
    /// The arm that is compared with.
    pub baseline: String,
    /// The arm that is compared.
    pub treatment: String,
    /// `mode`, `concurrent` and `context`, as far as they differ.
    pub differs: Vec<&'static str>,
    /// Treatment over baseline, paired by rounds.
    #[serde(flatten)]
    pub ratio: Option<Ratio>,
    /// The interval's level.
    pub level: f64,
    /// `t`, where there is an interval.
    pub method: Option<&'static str>,
    /// 100 × (1 − ratio).
    pub percent_saved: Option<f64>,
    /// Baseline minus treatment, on average over the rounds.
    pub seconds_saved: Option<f64>,
    /// The same in words.
    pub text: String,
}

/// Every pair of arms, in their order; `figures` are those of the run's arms.
pub fn gains(run: &Run, figures: &[ArmFigures]) -> Vec<Gain> {
    let arms: Vec<_> = run.arms.iter().zip(figures).collect();
    let mut found = Vec::new();
    for (at, baseline) in arms.iter().enumerate() {
        for treatment in &arms[at + 1..] {
            found.push(gain(run, *baseline, *treatment));
        }
    }
    found
}

/// Whether two arms have the same number of jobs in flight, and let them in alike. Of a run recorded elsewhere that is what
/// was seen from outside, where a window is not always full.
fn alike(one: &ArmPlan, other: &ArmPlan) -> bool {
    let near = match (one.concurrent, other.concurrent) {
        (Some(1), Some(other)) | (Some(other), Some(1)) => return other == 1,
        (Some(one), Some(other)) => one.abs_diff(other) * 5 <= one.max(other),
        _ => true,
    };
    match (one.mode, other.mode) {
        // All at once is what a batch or a window is that takes them all.
        (Some(ours), Some(theirs)) => {
            one.concurrent == other.concurrent && (ours == theirs || [ours, theirs].contains(&Mode::All))
        }
        _ => near,
    }
}

/// Whether two arms ran in one context: by its name, else by its queue, where these are known.
fn same_context(one: &ArmPlan, other: &ArmPlan) -> bool {
    match (&one.context, &other.context) {
        (Some(one), Some(other)) => one == other,
        _ => one.queue.as_ref().zip(other.queue.as_ref()).is_none_or(|(one, other)| one == other),
    }
}

fn kind(run: &Run, one: &ArmPlan, other: &ArmPlan) -> Kind {
    match (same_context(one, other), alike(one, other)) {
        (true, true) => Kind::Same,
        (true, false) => Kind::Parallelism,
        (false, true) => Kind::Context,
        // An arm that shares the context with the one and the concurrency with the other.
        (false, false) => {
            let between = |third: &ArmPlan| {
                same_context(third, one) && alike(third, other) || same_context(third, other) && alike(third, one)
            };
            if run.arms.iter().any(between) { Kind::Total } else { Kind::Mixed }
        }
    }
}

fn gain(run: &Run, (baseline, before): (&ArmPlan, &ArmFigures), (treatment, after): (&ArmPlan, &ArmFigures)) -> Gain {
    let kind = kind(run, baseline, treatment);
    let of_round =
        |wanted: i64| after.makespans.iter().find(|(round, _)| *round == wanted).map(|(_, seconds)| *seconds);
    let pairs: Vec<(f64, f64)> =
        before.makespans.iter().filter_map(|(round, seconds)| Some((*seconds, of_round(*round)?))).collect();
    let ratio = Ratio::of(&pairs);
    let mut differs = Vec::new();
    if baseline.mode != treatment.mode {
        differs.push("mode");
    }
    if !alike(baseline, treatment) {
        differs.push("concurrent");
    }
    if !same_context(baseline, treatment) {
        differs.push("context");
    }
    let (one, other) = (&baseline.name, &treatment.name);
    let mut gain = Gain {
        kind,
        baseline: baseline.name.clone(),
        treatment: treatment.name.clone(),
        differs,
        method: ratio.and_then(|ratio| ratio.low).map(|_| "t"),
        percent_saved: ratio.map(|ratio| 100.0 * (1.0 - ratio.ratio)),
        seconds_saved: (!pairs.is_empty())
            .then(|| pairs.iter().map(|(before, after)| before - after).sum::<f64>() / pairs.len() as f64),
        ratio,
        level: LEVEL,
        text: String::new(),
    };
    gain.text = gain
        .finding(&format!("{other} against {one}"))
        .unwrap_or_else(|| format!("{other} and {one} have no round in common that both did to its end"));
    gain
}

impl Ratio {
    /// The ratio as people read it, interval first.
    fn words(&self) -> String {
        let rounds = if self.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", self.rounds) };
        match self.low.zip(self.high).filter(|_| self.rounds >= LEAST_ROUNDS) {
            Some((low, high)) => {
                format!("{low:.2} to {high:.2} times the time ({:.0} % interval, {rounds})", 100.0 * LEVEL)
            }
            None => format!("{:.2} times the time in {rounds}, too few for an interval", self.ratio),
        }
    }
}

impl Gain {
    /// What `says`, after the interval and before what the difference of two such arms is.
    pub(super) fn finding(&self, says: &str) -> Option<String> {
        Some(format!("{}: {says} ({})", self.ratio?.words(), self.kind.meaning()))
    }
}
