//! The HTTP probe: a health address that answers well.

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use reqwest::{Client, redirect};
use url::Url;

use super::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};

/// A GET of a health address, in which `{ip}` stands for the VM's address and `{name}` for its name. 2xx and 3xx count
/// as up; redirects are not followed, TLS certificates are verified, and no proxy is used: the question is whether
/// this machine reaches that one.
#[derive(Clone)]
pub struct HttpProbe {
    address: String,
    client: Client,
}

impl HttpProbe {
    /// A probe of `address`, as in `http://{ip}:8080/health`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is no `http` or `https` address, or has neither `{ip}` nor `{name}` in its
    /// host: every VM would then be asked at one and the same place.
    pub fn new(address: &str) -> Result<Self> {
        let invalid = |what: &str| {
            Error::invalid(format!("the HTTP probe {what}: give an address such as \"http://{{ip}}:8080/health\""))
        };
        // A placeholder of its own shows where the VM ends up in the parsed address.
        let example = Url::parse(&address.replace("{ip}", "192.0.2.1").replace("{name}", "192.0.2.1"))
            .map_err(|e| invalid(&format!("is no address ({e})")))?;
        if !matches!(example.scheme(), "http" | "https") {
            return Err(invalid("has to begin with http:// or https://"));
        }
        if !example.host_str().is_some_and(|host| host.contains("192.0.2.1")) {
            return Err(invalid("has neither {ip} nor {name} as its host"));
        }
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            // A kept connection would prove nothing the next time, and would not survive a fork.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|e| {
                Error::new(ErrorKind::Internal, "the HTTP client for the probe could not be set up").with_source(e)
            })?;
        Ok(Self { address: address.to_owned(), client })
    }

    /// Asks the VM `name` at `ip`. Gives the kind of probe and how long it took.
    pub(super) async fn get(
        &self,
        name: &str,
        ip: IpAddr,
        deadline: Deadline,
    ) -> std::result::Result<(String, Duration), String> {
        let host = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let address = Url::parse(&self.address.replace("{ip}", &host).replace("{name}", name))
            .map_err(|e| format!("the health address does not work with this name: {e}"))?;
        let start = Instant::now();
        match deadline.limit(self.client.get(address).send()).await {
            Some(Ok(response)) => {
                let status = response.status();
                if status.is_success() || status.is_redirection() {
                    Ok(("http".to_owned(), start.elapsed()))
                } else {
                    Err(format!("the health address at {ip} answered {status}"))
                }
            }
            Some(Err(e)) => Err(format!("the health address at {ip} cannot be reached: {}", cause(&e))),
            None => Err(format!("the health address at {ip} did not answer within {deadline}")),
        }
    }
}

impl fmt::Debug for HttpProbe {
    /// Without the address: it may hold a password or token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("http")
    }
}

/// The innermost cause: the outer ones repeat the address, which may hold a password or token.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn StdError = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if std::ptr::addr_eq(innermost, error) { "the request failed".to_owned() } else { innermost.to_string() }
}
