//! The server's seconds. A real SAS Viya runs at the speed of the wall clock; a sandbox replays a workload faster, and
//! states the factor in a response header. All waits and durations of this crate are in the server's seconds.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The response header in which a jobrota sandbox says how many of its seconds pass in one real second.
pub const SPEED_HEADER: &str = "x-jobrota-sandbox-speed";

/// Converts between real time here and the server's time. Clones share what was learned.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    speed: Arc<OnceLock<f64>>,
}

impl Clock {
    /// A clock of the wall clock's speed, until [`Clock::learn`] says otherwise.
    pub fn new() -> Self {
        Self::default()
    }

    /// Server seconds per real second; 1.0 for a real SAS Viya.
    pub fn speed(&self) -> f64 {
        self.speed.get().copied().unwrap_or(1.0)
    }

    /// Takes the speed from the text of [`SPEED_HEADER`]. The first valid one stays: a factor that changed in the middle
    /// of a run would mix two kinds of seconds.
    pub fn learn(&self, header: &str) {
        if let Some(speed) = header.trim().parse::<f64>().ok().filter(|speed| speed.is_finite() && *speed > 0.0) {
            let _ = self.speed.set(speed);
        }
    }

    /// Server seconds since `start`.
    pub fn since(&self, start: Instant) -> f64 {
        start.elapsed().as_secs_f64() * self.speed()
    }

    /// The real time of `seconds` of the server.
    pub fn real(&self, seconds: f64) -> Duration {
        Duration::try_from_secs_f64((seconds / self.speed()).max(0.0)).unwrap_or(Duration::MAX)
    }

    /// Waits `seconds` of the server.
    pub async fn sleep(&self, seconds: f64) {
        tokio::time::sleep(self.real(seconds)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_valid_speed_stays() {
        let clock = Clock::new();
        for nonsense in ["", "fast", "0", "-3", "NaN", "inf"] {
            clock.learn(nonsense);
            assert_eq!(clock.speed(), 1.0, "{nonsense}");
        }
        let shared = clock.clone();
        clock.learn(" 200 ");
        clock.learn("5");
        assert_eq!(shared.speed(), 200.0);
        assert_eq!(shared.real(10.0), Duration::from_millis(50));
        assert_eq!(shared.real(-1.0), Duration::ZERO);
    }
}
