//! Comparisons of two arms: how much faster one is, and whether parallelism or the context made the difference.
//!
//! The speed of a server varies from hour to hour, by more than contexts differ. Therefore only makespans of the same round
//! are compared: each round gives the logarithm of their ratio. The mean of these is the difference, and Student's t gives
//! its interval.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::arm::ArmFigures;
use super::run::{ArmPlan, RunData};
use crate::comparison::arms::SubmissionMode;

/// The least number of rounds for a claim.
pub const LEAST_ROUNDS: usize = 5;
/// The level of every interval. It is not 95 %, because a comparison of three arms makes three tests, and at most one in
/// twenty of 200 comparisons of equal arms may find a difference. See `docs/analysis.md`.
pub const LEVEL: f64 = 0.98;

/// What two arms differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Difference {
    /// Only in concurrency: the effect of parallelism.
    Parallelism,
    /// Only in the context: the effect of the context.
    Context,
    /// In both, and a third arm separates the two effects.
    Total,
    /// In both, and no arm separates the two effects.
    Mixed,
    /// In nothing that is known: a measured difference is chance.
    Same,
}

impl Difference {
    /// The meaning of a difference between two such arms.
    fn meaning(self) -> &'static str {
        match self {
            Self::Parallelism => "the effect of parallelism, in one context",
            Self::Context => "the effect of the context, at the same concurrency",
            Self::Total => "the effect of parallelism and context together",
            Self::Mixed => "the effect of parallelism and context together, which these arms cannot separate",
            Self::Same => "the arms differ in nothing that is known",
        }
    }
}

/// One comparison of two arms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmComparison {
    /// What they differ in.
    pub kind: Difference,
    /// The arm to compare with.
    pub baseline: String,
    /// The arm that is compared.
    pub treatment: String,
    /// Those of `mode`, `concurrent` and `context` that differ.
    pub differs: Vec<&'static str>,
    /// Treatment over baseline, paired by rounds.
    #[serde(flatten)]
    pub ratio: Option<MakespanRatio>,
    /// The level of the interval.
    pub level: f64,
    /// `t`, if there is an interval.
    pub method: Option<&'static str>,
    /// 100 × (1 − ratio).
    pub percent_saved: Option<f64>,
    /// Baseline minus treatment, as the mean of the rounds.
    pub seconds_saved: Option<f64>,
    /// The comparison in words.
    pub text: String,
}

/// Compares every pair of arms, in their order. `figures` are those of the arms of the run.
pub fn compare_arms(run: &RunData, figures: &[ArmFigures]) -> Vec<ArmComparison> {
    let arms: Vec<_> = run.arms.iter().zip(figures).collect();
    let pairs = (0..arms.len()).flat_map(|at| (at + 1..arms.len()).map(move |other| (at, other)));
    pairs.map(|(baseline, treatment)| compare(run, arms[baseline], arms[treatment])).collect()
}

/// Whether two arms have the same number of jobs in flight, submitted in the same way. The number of a run that was recorded
/// elsewhere is counted from its jobs, and a window is not always full.
fn same_concurrency(one: &ArmPlan, other: &ArmPlan) -> bool {
    let near = match (one.concurrent, other.concurrent) {
        (Some(1), Some(other)) | (Some(other), Some(1)) => return other == 1,
        (Some(one), Some(other)) => one.abs_diff(other) * 5 <= one.max(other),
        _ => true,
    };
    match (one.mode, other.mode) {
        // A batch or a window that holds all jobs is the same as all at once.
        (Some(ours), Some(theirs)) => {
            one.concurrent == other.concurrent && (ours == theirs || [ours, theirs].contains(&SubmissionMode::All))
        }
        _ => near,
    }
}

/// Whether two arms ran in one context: by its name, or by its queue, if known.
fn same_context(one: &ArmPlan, other: &ArmPlan) -> bool {
    match (&one.context, &other.context) {
        (Some(one), Some(other)) => one == other,
        _ => one.queue.as_ref().zip(other.queue.as_ref()).is_none_or(|(one, other)| one == other),
    }
}

fn difference(run: &RunData, one: &ArmPlan, other: &ArmPlan) -> Difference {
    // An arm with the context of one and the concurrency of the other.
    let shares =
        |third: &ArmPlan, one: &ArmPlan, other: &ArmPlan| same_context(third, one) && same_concurrency(third, other);
    match (same_context(one, other), same_concurrency(one, other)) {
        (true, true) => Difference::Same,
        (true, false) => Difference::Parallelism,
        (false, true) => Difference::Context,
        (false, false) if run.arms.iter().any(|third| shares(third, one, other) || shares(third, other, one)) => {
            Difference::Total
        }
        (false, false) => Difference::Mixed,
    }
}

fn compare(
    run: &RunData,
    (baseline, before): (&ArmPlan, &ArmFigures),
    (treatment, after): (&ArmPlan, &ArmFigures),
) -> ArmComparison {
    let of_round =
        |wanted: i64| after.makespans.iter().find(|(round, _)| *round == wanted).map(|(_, seconds)| *seconds);
    let pairs: Vec<(f64, f64)> =
        before.makespans.iter().filter_map(|(round, seconds)| Some((*seconds, of_round(*round)?))).collect();
    let ratio = MakespanRatio::of(&pairs);
    let differs = [
        ("mode", baseline.mode != treatment.mode),
        ("concurrent", !same_concurrency(baseline, treatment)),
        ("context", !same_context(baseline, treatment)),
    ];
    let saved = || pairs.iter().map(|(before, after)| before - after).sum::<f64>() / pairs.len() as f64;
    let (one, other) = (&baseline.name, &treatment.name);
    let mut comparison = ArmComparison {
        kind: difference(run, baseline, treatment),
        baseline: one.clone(),
        treatment: other.clone(),
        differs: differs.into_iter().filter(|(_, differ)| *differ).map(|(name, _)| name).collect(),
        method: ratio.and_then(|ratio| ratio.low).map(|_| "t"),
        percent_saved: ratio.map(|ratio| 100.0 * (1.0 - ratio.ratio)),
        seconds_saved: (!pairs.is_empty()).then(saved),
        ratio,
        level: LEVEL,
        text: String::new(),
    };
    comparison.text = comparison
        .finding(&format!("{other} against {one}"))
        .unwrap_or_else(|| format!("{other} and {one} have no complete round in common"));
    comparison
}

impl ArmComparison {
    /// The ratio in words with `statement`, and the meaning of the difference.
    pub(super) fn finding(&self, statement: &str) -> Option<String> {
        Some(format!("{}: {statement} ({})", self.ratio?.words(), self.kind.meaning()))
    }
}

/// A ratio of makespans with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MakespanRatio {
    /// Rounds that both arms completed.
    pub rounds: usize,
    /// The geometric mean of treatment over baseline.
    pub ratio: f64,
    /// The lower end of the interval; `None` below three rounds.
    pub low: Option<f64>,
    /// The upper end of the interval.
    pub high: Option<f64>,
    /// The probability of a difference at least as large between equal arms.
    pub p_value: Option<f64>,
    /// Whether a difference is claimed: the interval excludes 1, and there were enough rounds.
    pub claimed: bool,
}

impl MakespanRatio {
    /// The ratio of pairs of baseline and treatment, one for each round; `None` without pairs.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let logs: Vec<f64> = pairs
            .iter()
            .filter(|(baseline, treatment)| *baseline > 0.0 && *treatment > 0.0)
            .map(|(baseline, treatment)| (treatment / baseline).ln())
            .collect();
        let rounds = logs.len();
        if rounds == 0 {
            return None;
        }
        let count = rounds as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let mut ratio = Self { rounds, ratio: mean.exp(), low: None, high: None, p_value: None, claimed: false };
        // The interval of two rounds would be useless.
        let Some(student) = (rounds >= 3).then(|| StudentsT::new(0.0, 1.0, count - 1.0).ok()).flatten() else {
            return Some(ratio);
        };
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let error = (variance / count).sqrt();
        let reach = student.inverse_cdf(f64::midpoint(1.0, LEVEL)) * error;
        ratio.low = Some((mean - reach).exp());
        ratio.high = Some((mean + reach).exp());
        // Timestamps have a resolution of a millisecond: closer rounds are equal.
        let p_value = if error > 1e-12 {
            2.0 * (1.0 - student.cdf((mean / error).abs()))
        } else if mean.abs() > 1e-9 {
            0.0
        } else {
            1.0
        };
        ratio.p_value = Some(p_value);
        ratio.claimed = rounds >= LEAST_ROUNDS && p_value < 1.0 - LEVEL;
        Some(ratio)
    }

    /// The ratio in words, its interval first.
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

#[cfg(test)]
mod tests;
