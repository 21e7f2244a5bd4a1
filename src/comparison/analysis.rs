//! What a run shows, from server-side phases only, and how far it can be relied on.

use serde::Serialize;

pub mod arm;
pub mod gains;
pub mod hosts;
pub mod interval;
pub mod moments;
pub mod observation;
pub mod recorded;
pub mod spread;
pub mod verdict;

#[cfg(test)]
mod tests;

pub use arm::ArmFigures;
pub use gains::{Gain, Kind};
pub use hosts::{Arrivals, HostFigures};
pub use moments::Moment;
pub use observation::{ArmPlan, Observation, Run};
pub use spread::Spread;
pub use verdict::Verdict;

use super::warnings::{Warning, warnings};

/// The analysis of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// One sentence.
    pub verdict: Verdict,
    /// Every pair of arms.
    pub comparisons: Vec<Gain>,
    /// Every arm.
    pub arms: Vec<ArmFigures>,
}

/// Analyses a run; the second value is where a conclusion would be unsafe.
pub fn analyse(run: &Run) -> (Analysis, Vec<Warning>) {
    let arrivals = Arrivals::of(run);
    let arms: Vec<ArmFigures> = run.arms.iter().map(|plan| ArmFigures::of(run, plan, &arrivals)).collect();
    let comparisons = gains::gains(run, &arms);
    let warnings = warnings(run, &arms, &comparisons);
    let verdict = verdict::verdict(run, &comparisons, &warnings);
    (Analysis { verdict, comparisons, arms }, warnings)
}
