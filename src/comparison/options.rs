//! What to compare, and how.

use std::collections::HashMap;
use std::path::PathBuf;

use super::arms::{self, Arm, Arms, Mode};
use super::journal;
use crate::error::{Error, Result};
use crate::viya::clock::check_time_scale;
use crate::viya::{ClientOptions, Credentials};

/// In which order the jobs of an arm are let in.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum JobOrder {
    /// As the job configs have them.
    #[default]
    Submission,
    /// The longest first, by seconds of job names, which leaves the short ones to fill the gaps at the end; without seconds
    /// those of the newest result in the results' folder. Jobs that are not known go first, as they may be long.
    LongestFirst(Option<HashMap<String, f64>>),
}

/// What to compare, and how. Times are seconds of the server.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// The SAS Viya, e.g. `https://viya.example.com`.
    pub base_url: String,
    /// Where the login comes from.
    pub tokens: Credentials,
    /// The job configs.
    pub jobs: PathBuf,
    /// Which arms run.
    pub arms: Arms,
    /// How the asynchronous arms run, where `arms` are not given one by one.
    pub mode: Mode,
    /// Jobs of a batch, or in flight, of the asynchronous arms, where `arms` are not given one by one.
    pub concurrent: usize,
    /// How often all arms run: the order of the arms is turned round in every second round.
    pub repeat: u32,
    /// Pause between one arm and the next, so that hosts which are not needed can go.
    pub pause: f64,
    /// Compute context of the sequential arm.
    pub sequential_context: String,
    /// Compute context of the asynchronous arm.
    pub async_context: String,
    /// Only the first so many jobs. With 0 there is nothing to run: see [`ViyaComparisonRunner::describe`].
    pub limit_jobs: Option<usize>,
    /// Only the sequential arm.
    pub sequential_only: bool,
    /// Only the asynchronous arm.
    pub async_only: bool,
    /// Folder of the result files.
    pub results_dir: PathBuf,
    /// How long orchestrator entries are waited for once the jobs have ended.
    pub correlation_timeout: f64,
    /// A job that takes longer is canceled and counts as failed.
    pub job_timeout: f64,
    /// Time between two looks at a job, where the server does not wait with its answer until the job has ended.
    pub poll_interval: f64,
    /// In which order the jobs of an arm are let in.
    pub order: JobOrder,
    /// Whether the server's jobs are deleted, with their logs and results, once the result is written.
    pub cleanup: bool,
    /// What an hour of a compute host costs, in whichever currency; for the cost of jobs.
    pub host_price: Option<f64>,
    /// Directory or URI of the Delta table that keeps the jobs of every run, with the options of its store.
    pub results_table: Option<(String, HashMap<String, String>)>,
    /// How the journal is kept.
    pub journal: journal::Kind,
    /// ISO 8601 duration after which the server deletes the jobs and their files; `None` keeps them for ever.
    pub expires_after: Option<String>,
    /// Limits of the HTTP client, in real seconds.
    pub client: ClientOptions,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            tokens: Credentials::FileOrEnvironment("data/sas_tokens.json".into()),
            jobs: "config/job_configs.json".into(),
            arms: Arms::Pair,
            mode: Mode::Batch,
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
            journal: journal::Kind::Auto,
            expires_after: Some("P7D".into()),
            client: ClientOptions::default(),
        }
    }
}

impl RunnerOptions {
    /// Refuses what can never work.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`].
    pub(super) fn check(&self) -> Result<()> {
        crate::viya::client::parse_base_url(&self.base_url)?;
        if self.sequential_only && self.async_only {
            return Err(Error::invalid(
                "sequential_only and async_only exclude each other: give one of them, or none for both arms",
            ));
        }
        for (name, value) in [
            ("correlation_timeout", self.correlation_timeout),
            ("job_timeout", self.job_timeout),
            ("poll_interval", self.poll_interval),
            ("pause", self.pause),
        ] {
            let may_be_none = ["correlation_timeout", "pause"].contains(&name);
            if !(value.is_finite() && value >= 0.0) || (value == 0.0 && !may_be_none) {
                return Err(Error::invalid(format!("{name} is {value}: give a positive number of seconds")));
            }
        }
        if let Some(after) = self.expires_after.as_deref().filter(|after| !is_duration(after)) {
            return Err(Error::invalid(format!(
                "expires_after is {after:?}, which is no ISO 8601 duration: give one such as P7D or PT12H"
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

    /// The arms in the order of the first round, checked.
    pub(super) fn planned_arms(&self) -> Result<Vec<Arm>> {
        let (one, other) = (&self.sequential_context, &self.async_context);
        let parallel = |name: &str, context: &str| Arm::new(name, context, self.mode, self.concurrent);
        let sequential = Arm::new("sequential", one, Mode::Sequential, 1);
        let arms = match &self.arms {
            Arms::Given(arms) => arms.clone(),
            Arms::ThreeWay => {
                vec![sequential?, parallel("async_regular", one)?, parallel("async_autoscaling", other)?]
            }
            Arms::Pair => vec![sequential?, parallel("async", other)?],
        };
        if (self.sequential_only || self.async_only) && self.arms != Arms::Pair {
            return Err(Error::invalid(
                "sequential_only and async_only choose between the two known arms: leave them out where arms are given",
            ));
        }
        let arms: Vec<Arm> = match (self.sequential_only, self.async_only) {
            (true, _) => arms.into_iter().take(1).collect(),
            (_, true) => arms.into_iter().skip(1).collect(),
            _ => arms,
        };
        arms::check(&arms)?;
        Ok(arms)
    }
}

/// Refuses what is no price of an hour.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`].
pub(super) fn check_price(host_price: Option<f64>) -> Result<()> {
    match host_price {
        Some(price) if !(price.is_finite() && price >= 0.0) => {
            Err(Error::invalid("host_price is no price: give what an hour of a host costs, 0 or more"))
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
