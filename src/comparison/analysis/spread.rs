//! How a list of numbers is spread.

use serde::Serialize;

use crate::comparison::statistics::{mean, quantile};

/// Count, mean, extremes, sum and linear percentiles (NumPy's default).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// How many numbers.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The greatest.
    pub max: f64,
    /// Their sum.
    pub sum: f64,
}

impl Spread {
    /// The spread of `values`; none of nothing.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        Some(Self {
            count: values.len(),
            mean: mean(&values)?,
            min: quantile(&values, 0.0)?,
            p50: quantile(&values, 0.5)?,
            p90: quantile(&values, 0.9)?,
            p95: quantile(&values, 0.95)?,
            max: quantile(&values, 1.0)?,
            sum: values.iter().sum(),
        })
    }
}
