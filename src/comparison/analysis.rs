//! The analysis of a run, from server-side phases only, and how reliable it is.

use serde::Serialize;

pub mod arm;
pub mod comparisons;
pub mod concurrency;
pub mod from_table;
pub mod hosts;
pub mod ratio;
pub mod run;
pub mod verdict;
pub mod warnings;

#[cfg(test)]
mod tests;

pub use arm::ArmFigures;
pub use comparisons::{ArmComparison, Difference};
pub use hosts::{HostArrivals, HostFigures};
pub use run::{ArmPlan, JobRow, RunData};
pub use verdict::Verdict;
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
    let comparisons = comparisons::compare_arms(run, &arms);
    let warnings = warnings::find_warnings(run, &arms, &comparisons);
    let verdict = verdict::conclude(run, &comparisons, &warnings);
    (Analysis { verdict, comparisons, arms }, warnings)
}
