//! What rounds say about a ratio of two arms, and how sure that is.
//!
//! A server's speed changes from hour to hour, and more than contexts differ. So only what the two arms took in the same
//! round is compared: the logarithm of the ratio of their makespans, one number for each round. Their mean is the
//! difference, and Student's t says how far it may be from the truth.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// Rounds below which nothing is claimed.
pub const LEAST_ROUNDS: usize = 5;
/// The level of every interval. Not 95 %: a comparison of three arms asks three questions, and of 200 comparisons of equals
/// no more than one in twenty may find a difference, with certainty and not on average. Docs: `docs/analysis.md`.
pub const LEVEL: f64 = 0.98;

/// A ratio with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Rounds that both arms did to their end.
    pub rounds: usize,
    /// Geometric mean of treatment over baseline.
    pub ratio: f64,
    /// Lower end of the interval; none below three rounds.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
    /// Probability of a difference at least as large between equals.
    pub p_value: Option<f64>,
    /// Whether a difference is claimed: the interval leaves out 1, and there were rounds enough.
    pub claimed: bool,
}

impl Ratio {
    /// From pairs of baseline and treatment, one of each round; none without any.
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
        // Of two rounds it would reach from nothing to everything.
        let Some(student) = (rounds >= 3).then(|| StudentsT::new(0.0, 1.0, count - 1.0).ok()).flatten() else {
            return Some(ratio);
        };
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let error = (variance / count).sqrt();
        let reach = student.inverse_cdf(f64::midpoint(1.0, LEVEL)) * error;
        ratio.low = Some((mean - reach).exp());
        ratio.high = Some((mean + reach).exp());
        // Stamps have a resolution of a millisecond: rounds that are equal to that are all alike.
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
}

#[cfg(test)]
mod tests;
