//! Virtual time: the moment of the start plus real time multiplied by the speed.

use std::time::Instant;

use chrono::{DateTime, SecondsFormat, Utc};

/// A clock that runs faster than real time by a constant factor.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    began: Instant,
    epoch_ms: i64,
    /// Virtual seconds per real second.
    pub speed: f64,
}

impl VirtualClock {
    pub fn new(speed: f64) -> Self {
        // A whole second, so that the orchestrator's stamps are virtual seconds rounded down.
        Self { began: Instant::now(), epoch_ms: Utc::now().timestamp() * 1000, speed }
    }

    /// Virtual seconds since the start.
    pub fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * self.speed
    }

    /// The moment `at` in whole milliseconds since 1970.
    pub fn millis(&self, at: f64) -> i64 {
        self.epoch_ms + (at * 1000.0).floor() as i64
    }

    /// A stamp of the Job Execution Service: ISO 8601, milliseconds, `Z`.
    pub fn stamp_ms(&self, at: f64) -> String {
        iso(self.millis(at), SecondsFormat::Millis)
    }

    /// A stamp of the Workload Orchestrator: ISO 8601, whole seconds (SAS: WLO stamps have 1 s resolution), `Z`.
    pub fn stamp_s(&self, at: f64) -> String {
        iso(self.millis(at), SecondsFormat::Secs)
    }
}

fn iso(millis: i64, format: SecondsFormat) -> String {
    DateTime::<Utc>::from_timestamp_millis(millis).unwrap_or_default().to_rfc3339_opts(format, true)
}
