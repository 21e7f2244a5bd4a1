//! The server's seconds, in which this crate states all waits and durations.
//!
//! A real SAS Viya runs at the speed of the wall clock. A simulated one replays a workload faster, by a factor that is
//! its time scale. The caller gives the time scale, or the server runs in this process and has declared it. No answer of
//! a server changes it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use url::{Host, Url};

use crate::error::{Error, Result};
use crate::runtime::lock;

/// The largest time scale.
pub const MAX_TIME_SCALE: f64 = 1_000_000.0;

/// The servers that run in this process, each with its time scale.
static LOCAL_SERVERS: Mutex<Vec<(SocketAddr, f64)>> = Mutex::new(Vec::new());

/// Refuses a time scale that cannot work.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for 0, negative numbers, NaN, and numbers above [`MAX_TIME_SCALE`].
pub fn check_time_scale(name: &str, value: f64) -> Result<()> {
    if value > 0.0 && value <= MAX_TIME_SCALE {
        return Ok(());
    }
    Err(Error::invalid(format!("{name} is {value}: give a number above 0 and at most {MAX_TIME_SCALE}")))
}

/// Declares the time scale of a server that runs in this process, for as long as the value lives.
#[derive(Debug)]
pub struct LocalTimeScale(SocketAddr);

impl LocalTimeScale {
    /// Declares that the server at `address` runs at `scale`.
    pub fn declare(address: SocketAddr, scale: f64) -> Self {
        lock(&LOCAL_SERVERS).push((address, scale));
        Self(address)
    }
}

impl Drop for LocalTimeScale {
    fn drop(&mut self) {
        lock(&LOCAL_SERVERS).retain(|(address, _)| *address != self.0);
    }
}

fn local_time_scale(server: &Url) -> Option<f64> {
    let ip: IpAddr = match server.host()? {
        Host::Ipv4(ip) => ip.into(),
        Host::Ipv6(ip) => ip.into(),
        Host::Domain(name) => (name == "localhost").then_some(Ipv4Addr::LOCALHOST)?.into(),
    };
    let wanted = SocketAddr::new(ip, server.port_or_known_default()?);
    lock(&LOCAL_SERVERS).iter().find(|(address, _)| *address == wanted).map(|(_, scale)| *scale)
}

/// Converts between real time and the server's time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Server seconds per real second; 1 for a real SAS Viya.
    pub time_scale: f64,
}

impl Clock {
    /// The clock of `server`. The time scale is the one that is given, else the one that a server in this process has
    /// declared, else 1.
    ///
    /// # Errors
    /// Those of [`check_time_scale`].
    pub fn of(server: &Url, given: Option<f64>) -> Result<Self> {
        let time_scale = given.or_else(|| local_time_scale(server)).unwrap_or(1.0);
        check_time_scale("time_scale", time_scale)?;
        Ok(Self { time_scale })
    }

    /// Server seconds since `start`.
    pub fn since(&self, start: Instant) -> f64 {
        start.elapsed().as_secs_f64() * self.time_scale
    }

    /// The real time that `seconds` of the server take.
    pub fn real(&self, seconds: f64) -> Duration {
        Duration::try_from_secs_f64((seconds / self.time_scale).max(0.0)).unwrap_or(Duration::MAX)
    }

    /// Waits `seconds` of the server.
    pub async fn sleep(&self, seconds: f64) {
        tokio::time::sleep(self.real(seconds)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(server: &str, given: Option<f64>) -> Result<f64> {
        Clock::of(&server.parse().unwrap(), given).map(|clock| clock.time_scale)
    }

    #[test]
    fn the_caller_decides_then_a_server_in_this_process() {
        // A port that no other test listens on.
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let (by_address, by_name) = ("http://127.0.0.1:1", "http://localhost:1/");
        assert_eq!(scale(by_address, None).unwrap(), 1.0);
        let declared = LocalTimeScale::declare(address, 200.0);
        assert_eq!(scale(by_address, None).unwrap(), 200.0);
        assert_eq!(scale(by_name, None).unwrap(), 200.0);
        assert_eq!(scale(by_address, Some(5.0)).unwrap(), 5.0);
        for other in ["http://127.0.0.1:2", "http://127.0.0.2:1", "https://viya.example.com"] {
            assert_eq!(scale(other, None).unwrap(), 1.0, "{other}");
        }
        drop(declared);
        assert_eq!(scale(by_address, None).unwrap(), 1.0);
    }

    #[test]
    fn time_scales_that_cannot_work_are_refused() {
        for bad in [0.0, -3.0, f64::NAN, f64::INFINITY, 1e6 + 1.0] {
            let error = scale("https://viya.example.com", Some(bad)).unwrap_err();
            assert!(error.to_string().starts_with("time_scale is "), "{error}");
        }
    }

    #[test]
    fn real_time_is_server_time_divided_by_the_scale() {
        let clock = Clock { time_scale: 200.0 };
        assert_eq!(clock.real(10.0), Duration::from_millis(50));
        assert_eq!(clock.real(-1.0), Duration::ZERO);
    }
}
