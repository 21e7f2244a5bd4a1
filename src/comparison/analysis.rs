//! The analysis of a run, from server-side phases only, and how reliable it is.

use serde::Serialize;

pub mod arm;
pub mod comparisons;
pub mod concurrency;
pub mod from_table;
pub mod hosts;
pub mod run;
pub mod warnings;

#[cfg(test)]
mod tests;

pub use arm::ArmFigures;
pub use comparisons::{ArmComparison, Difference};
use comparisons::{LEAST_ROUNDS, compare_arms};
pub use hosts::{HostArrivals, HostFigures};
pub use run::{ArmPlan, JobRow, RunData};
pub use warnings::ComparisonWarning;

/// The analysis of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// The conclusion in one sentence.
    pub verdict: Verdict,
    /// Every pair of arms.
    pub comparisons: Vec<ArmComparison>,
    /// Every arm.
    pub arms: Vec<ArmFigures>,
}

/// Analyses a run. The second value says where a conclusion would be unsafe.
pub fn analyse(run: &RunData) -> (Analysis, Vec<ComparisonWarning>) {
    let arrivals = HostArrivals::of(run);
    let arms: Vec<ArmFigures> = run.arms.iter().map(|plan| ArmFigures::of(run, plan, &arrivals)).collect();
    let comparisons = compare_arms(run, &arms);
    let warnings = warnings::find_warnings(run, &arms, &comparisons);
    let verdict = conclude(run, &comparisons, &warnings);
    (Analysis { verdict, comparisons, arms }, warnings)
}

/// The verdict of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// `faster`, `slower`, `no_difference`, `too_few_rounds`, `incomplete` or `single_arm`.
    pub code: &'static str,
    /// The verdict in words, its interval first.
    pub text: String,
    /// The index of the comparison that it is about.
    pub comparison: Option<usize>,
    /// The codes of warnings that make it unreliable.
    pub cautions: Vec<String>,
}

/// Warnings that name another possible cause of a difference between arms.
const CAUTIONS: [&str; 11] = [
    "wrong_context",
    "wrong_queue",
    "parallelism_confounded",
    "fixed_arm_scaled",
    "jobs_differ",
    "submitted_twice",
    "success_differs",
    "missing_correlation",
    "packed_host",
    "broke_off",
    "orchestrator_unavailable",
];

/// The verdict about the context if the arms can separate its effect, otherwise about the first and the last arm.
fn conclude(run: &RunData, comparisons: &[ArmComparison], warnings: &[ComparisonWarning]) -> Verdict {
    let given = |code: &&str| warnings.iter().any(|warning| warning.code == *code);
    let cautions: Vec<String> = CAUTIONS.into_iter().filter(given).map(str::to_owned).collect();
    let but = match cautions.is_empty() {
        true => String::new(),
        false => format!(" Before you rely on it, read the warnings: {}.", cautions.join(", ")),
    };
    let verdict = |code, text: String, comparison| Verdict { code, text, comparison, cautions: cautions.clone() };
    if run.arms.len() < 2 {
        return verdict("single_arm", "Only one arm was run: there is nothing to compare it with.".to_owned(), None);
    }
    let about = comparisons.iter().rposition(|comparison| comparison.kind == Difference::Context).or_else(|| {
        let (first, last) = (run.arms.first()?, run.arms.last()?);
        comparisons.iter().position(|comparison| comparison.baseline == first.name && comparison.treatment == last.name)
    });
    let Some((at, comparison)) = about.and_then(|at| Some((at, comparisons.get(at)?))) else {
        return verdict("incomplete", "Nothing was compared.".to_owned(), None);
    };
    let Some(ratio) = comparison.ratio else {
        return verdict("incomplete", format!("No verdict: {}.", comparison.text), Some(at));
    };
    if ratio.rounds < LEAST_ROUNDS {
        let rounds = if ratio.rounds == 1 { "1 round" } else { &format!("{} rounds", ratio.rounds) };
        let so_far = &comparison.text;
        let text = format!("No verdict: {rounds}, and a claim needs at least {LEAST_ROUNDS}. So far: {so_far}.{but}");
        return verdict("too_few_rounds", text, Some(at));
    }
    let (one, other) = (&comparison.baseline, &comparison.treatment);
    let (code, words) = match (ratio.claimed, ratio.ratio < 1.0) {
        (true, true) => ("faster", format!("{other} is faster than {one}")),
        (true, false) => ("slower", format!("{other} is slower than {one}")),
        (false, _) => ("no_difference", format!("no difference between {other} and {one} was found")),
    };
    let finding = comparison.finding(&words).unwrap_or(words);
    verdict(code, format!("{finding}.{but}"), Some(at))
}
