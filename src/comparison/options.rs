//! What to compare, and how.

use std::collections::HashMap;
use std::path::PathBuf;

use super::arms::{self, Arm, Arms, SubmissionMode};
use crate::error::{Error, Result};
use crate::storage::StorageOptions;
use crate::viya::clock::check_time_scale;
use crate::viya::{ClientOptions, Credentials};

/// The order in which the jobs of an arm are submitted.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum JobOrder {
    /// The order of the job configs.
    #[default]
    Submission,
    /// The longest jobs first, by seconds of job names, so that short jobs fill the gaps at the end. Without seconds, those
    /// of the newest result in the results folder apply. Unknown jobs go first, because they can be long.
    LongestFirst(Option<HashMap<String, f64>>),
}

/// What to compare, and how. Times are seconds of the server.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// The SAS Viya server, such as `https://viya.example.com`.
    pub base_url: String,
    /// The source of access tokens.
    pub tokens: Credentials,
    /// The job configs.
    pub jobs: PathBuf,
    /// The arms.
    pub arms: Arms,
    /// The mode of the asynchronous arms, unless `arms` are given one by one.
    pub mode: SubmissionMode,
    /// Jobs of a batch, or in flight, in the asynchronous arms, unless `arms` are given one by one.
    pub concurrent: usize,
    /// The number of rounds. The order of the arms is reversed in every second round.
    pub repeat: u32,
    /// The pause between one arm and the next, in which idle hosts can be released.
    pub pause: f64,
    /// The compute context of the sequential arm.
    pub sequential_context: String,
    /// The compute context of the asynchronous arm.
    pub async_context: String,
    /// Only the first jobs, this many. With 0 nothing runs: see [`ViyaComparisonRunner::describe`].
    ///
    /// [`ViyaComparisonRunner::describe`]: super::ViyaComparisonRunner::describe
    pub limit_jobs: Option<usize>,
    /// Only the sequential arm.
    pub sequential_only: bool,
    /// Only the asynchronous arm.
    pub async_only: bool,
    /// The folder of the result files.
    pub results_dir: PathBuf,
    /// How long to wait for orchestrator entries after the jobs have ended.
    pub correlation_timeout: f64,
    /// A job that takes longer is canceled and counts as failed.
    pub job_timeout: f64,
    /// The time between two reads of a job's state, if the server cannot delay its answer until the job has ended.
    pub poll_interval: f64,
    /// The order in which the jobs of an arm are submitted.
    pub order: JobOrder,
    /// Whether to delete the jobs from the server, with their logs and results, after the result is written.
    pub cleanup: bool,
    /// The price of an hour of a compute host, in any currency, for the cost of jobs.
    pub host_price: Option<f64>,
    /// Directory or URI of the Delta table with the jobs of every run, and the options of its store.
    pub results_table: Option<(String, StorageOptions)>,
    /// ISO 8601 duration after which the server deletes the jobs and their files; `None` keeps them.
    pub expires_after: Option<String>,
    /// Limits of the HTTP client, in real seconds.
    pub client: ClientOptions,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            tokens: Credentials::default(),
            jobs: "config/job_configs.json".into(),
            arms: Arms::Pair,
            mode: SubmissionMode::Batch,
            concurrent: 5,
            repeat: 1,
            pause: 0.0,
            sequential_context: "SAS Job Execution compute context".into(),
            async_context: "Autoscaling POC Context".into(),
            limit_jobs: None,
            sequential_only: false,
            async_only: false,
            results_dir: "results".into(),
            correlation_timeout: 60.0,
            job_timeout: 3600.0,
            poll_interval: 0.8,
            order: JobOrder::Submission,
            cleanup: false,
            host_price: None,
            results_table: None,
            expires_after: Some("P7D".into()),
            client: ClientOptions::default(),
        }
    }
}

impl RunnerOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`].
    pub(super) fn check(&self) -> Result<()> {
        crate::viya::client::parse_base_url(&self.base_url)?;
        if self.sequential_only && self.async_only {
            return Err(Error::invalid(
                "sequential_only and async_only exclude each other: give one of them, or neither for both arms",
            ));
        }
        for (name, value, may_be_zero) in [
            ("correlation_timeout", self.correlation_timeout, true),
            ("job_timeout", self.job_timeout, false),
            ("poll_interval", self.poll_interval, false),
            ("pause", self.pause, true),
        ] {
            if !(value.is_finite() && value >= 0.0) || (value == 0.0 && !may_be_zero) {
                let or_zero = if may_be_zero { ", or 0" } else { "" };
                return Err(Error::invalid(format!("{name} is {value}: give a positive number of seconds{or_zero}")));
            }
        }
        if let Some(after) = self.expires_after.as_deref().filter(|after| !is_duration(after)) {
            return Err(Error::invalid(format!(
                "expires_after is {after:?}, which is not an ISO 8601 duration: give one such as P7D or PT12H"
            )));
        }
        if self.repeat == 0 {
            return Err(Error::invalid("repeat is 0: give the number of rounds, at least 1"));
        }
        if let Some(scale) = self.client.time_scale {
            check_time_scale("time_scale", scale)?;
        }
        check_price(self.host_price)
    }

    /// The arms in the order of the first round.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for arms that cannot be compared.
    pub(super) fn planned_arms(&self) -> Result<Vec<Arm>> {
        let (one, other) = (&self.sequential_context, &self.async_context);
        let parallel = |name: &str, context: &str| Arm::new(name, context, self.mode, self.concurrent);
        let sequential = Arm::new("sequential", one, SubmissionMode::Sequential, 1);
        if (self.sequential_only || self.async_only) && self.arms != Arms::Pair {
            return Err(Error::invalid(
                "sequential_only and async_only choose between the two default arms: leave them out if arms are given",
            ));
        }
        let mut arms = match &self.arms {
            Arms::Given(arms) => arms.clone(),
            Arms::ThreeWay => vec![sequential?, parallel("async_regular", one)?, parallel("async_autoscaling", other)?],
            Arms::Pair => vec![sequential?, parallel("async", other)?],
        };
        if self.sequential_only {
            arms.truncate(1);
        } else if self.async_only {
            arms.remove(0);
        }
        arms::check(&arms)?;
        Ok(arms)
    }
}

/// Checks the price of an hour of a host.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`].
pub(super) fn check_price(host_price: Option<f64>) -> Result<()> {
    match host_price {
        Some(price) if !(price.is_finite() && price >= 0.0) => {
            Err(Error::invalid("host_price is not a price: give the price of an hour of a host, 0 or more"))
        }
        _ => Ok(()),
    }
}

/// Whether `text` is an ISO 8601 duration of whole numbers, such as `P7D`, `P2W` or `P1DT12H`.
fn is_duration(text: &str) -> bool {
    let parts = |text: &str, units: &str| -> Option<usize> {
        let (mut units, mut digits, mut found) = (units.chars(), 0, 0);
        for c in text.chars() {
            match c {
                '0'..='9' => digits += 1,
                _ if digits > 0 && units.any(|unit| unit == c) => (digits, found) = (0, found + 1),
                _ => return None,
            }
        }
        (digits == 0).then_some(found)
    };
    let Some(rest) = text.strip_prefix('P') else { return false };
    match rest.split_once('T') {
        Some((days, time)) => parts(days, "YMWD").is_some() && parts(time, "HMS").is_some_and(|found| found > 0),
        None => parts(rest, "YMWD").is_some_and(|found| found > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_iso_8601() {
        for text in ["P7D", "P2W", "P1Y2M3DT4H5M6S", "PT12H", "P1DT1S"] {
            assert!(is_duration(text), "{text}");
        }
        for text in ["", "P", "PT", "7D", "Pfoo", "P7", "P1D2M", "P1DT", "PD", "P-1D", "p7d", "P1H"] {
            assert!(!is_duration(text), "{text}");
        }
    }
}
