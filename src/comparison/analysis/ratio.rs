//! The ratio of the makespans of two arms, with a confidence interval.
//!
//! The speed of a server varies from hour to hour, by more than contexts differ. Therefore only makespans of the same round
//! are compared: each round gives the logarithm of their ratio. The mean of these is the difference, and Student's t gives
//! its interval.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// The least number of rounds for a claim.
pub const LEAST_ROUNDS: usize = 5;
/// The level of every interval. It is not 95 %, because a comparison of three arms makes three tests, and at most one in
/// twenty of 200 comparisons of equal arms may find a difference. See `docs/analysis.md`.
pub const LEVEL: f64 = 0.98;

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
}

#[cfg(test)]
mod tests;
