//! The HTTP probe: a health address that answers 2xx or 3xx.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::{Client, redirect};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;
use url::{Host, Url};

use super::attempt::{ProbeAttempt, ProbeDeadline, describe, with_descriptor};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::http::tls::{client_config, system_roots};

/// A GET of a health address, in which `{ip}` stands for the VM's address and `{name}` for its name. Either way the
/// request goes to the VM's address in the inventory; with `{name}` as the host, it carries the name, and the VM's
/// certificate has to be for it. 2xx and 3xx count as up. Redirects are not followed, the body is not read, and no proxy
/// is used: the probe tests whether this machine reaches the VM.
///
/// TLS certificates are verified against the authorities that this machine trusts, or against the file or directories that
/// the environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name, as with OpenSSL. A private certificate authority goes
/// there. They are read when the probe is created.
#[derive(Clone)]
pub struct HttpProbe {
    address: String,
    kind: &'static str,
    tls: Arc<ClientConfig>,
    /// For health addresses with the VM's address as their host.
    client: Client,
}

impl HttpProbe {
    /// A probe of `address`, as in `http://{ip}:8080/health`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is no `http` or `https` address, or has neither `{ip}` nor `{name}` in its host, so
    /// that all VMs would have the same address. Also when it is an `https` address and no certificate of an authority can
    /// be read.
    pub fn new(address: &str) -> Result<Self> {
        let invalid = |what: &str| {
            Error::invalid(format!("the HTTP probe {what}: give an address such as \"http://{{ip}}:8080/health\""))
        };
        // An example address shows where the placeholder is in the parsed address.
        let example = Url::parse(&address.replace("{ip}", "192.0.2.1").replace("{name}", "192.0.2.1"))
            .map_err(|e| invalid(&format!("is no address ({e})")))?;
        let kind = match example.scheme() {
            "http" => "http",
            "https" => "https",
            _ => return Err(invalid("has to begin with http:// or https://")),
        };
        if !example.host_str().is_some_and(|host| host.contains("192.0.2.1")) {
            return Err(invalid("has neither {ip} nor {name} as its host"));
        }
        // Minimal images have no certificates, and plain HTTP needs none.
        let roots = if kind == "https" { system_roots("an HTTPS probe")? } else { RootCertStore::empty() };
        let tls = Arc::new(client_config(roots)?);
        let client = client(&tls, None).map_err(|e| {
            Error::new(ErrorKind::Internal, "the HTTP client for the probe could not be set up").with_source(e)
        })?;
        Ok(Self { address: address.to_owned(), kind, tls, client })
    }

    /// Sends the request to the VM `name` at `address`.
    pub(super) async fn get(&self, name: &str, address: SocketAddr, deadline: ProbeDeadline) -> ProbeAttempt {
        let result = match self.request(name, address) {
            Ok((client, url)) => {
                let sent = with_descriptor(
                    deadline,
                    |deadline| {
                        let answer = client.get(url.clone()).send();
                        async move {
                            let start = Instant::now();
                            let answer = deadline.limit(answer).await.transpose()?;
                            Ok(answer.map(|response| (response, start.elapsed())))
                        }
                    },
                    io_error,
                );
                let ip = address.ip();
                match sent.await {
                    Ok(Some((response, rtt))) => match response.status() {
                        status if status.is_success() || status.is_redirection() => Ok(rtt),
                        status => Err(format!("the health address at {ip} answered {status}")),
                    },
                    Ok(None) => Err(format!("the health address at {ip} did not answer within {deadline}")),
                    Err(e) => Err(format!("the health address at {ip} cannot be reached: {}", cause(&e))),
                }
            }
            Err(reason) => Err(reason),
        };
        ProbeAttempt { kind: self.kind.to_owned(), result }
    }

    /// The health address of the VM, and a client that goes to `address` for it.
    fn request(&self, name: &str, address: SocketAddr) -> std::result::Result<(Client, Url), String> {
        let ip = address.ip();
        let host = if ip.is_ipv4() { ip.to_string() } else { format!("[{ip}]") };
        let url = Url::parse(&self.address.replace("{ip}", &host).replace("{name}", name))
            .map_err(|e| format!("the health address does not work with this VM: {e}"))?;
        let named: IpAddr = match url.host() {
            Some(Host::Domain(host)) => {
                return client(&self.tls, Some((host, address)))
                    .map(|client| (client, url.clone()))
                    .map_err(|e| format!("the HTTP client for the probe could not be set up: {}", cause(&e)));
            }
            Some(Host::Ipv4(ip)) => ip.into(),
            Some(Host::Ipv6(ip)) => ip.into(),
            None => return Err("the health address names no host with this VM".to_owned()),
        };
        if named != ip {
            return Err(format!("the health address leads to {named}, and the VM's address is {ip}"));
        }
        if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
            return Err(format!(
                "a health address cannot say over which network interface {ip} is reached: use {{name}} as its host"
            ));
        }
        Ok((self.client.clone(), url))
    }
}

/// A client that connects to the address in `override_host` for the host there.
fn client(tls: &ClientConfig, override_host: Option<(&str, SocketAddr)>) -> reqwest::Result<Client> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .http1_only()
        .redirect(redirect::Policy::none())
        .no_proxy()
        // A connection that stays open proves nothing for the next probe, and would not survive a fork.
        .pool_max_idle_per_host(0);
    if let Some((host, address)) = override_host {
        builder = builder.resolve(host, address);
    }
    builder.build()
}

impl fmt::Debug for HttpProbe {
    /// Without the address: it may hold a password or token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)
    }
}

fn io_error(error: &reqwest::Error) -> Option<&io::Error> {
    chain(error).skip(1).filter_map(|cause| cause.downcast_ref()).find(|e: &&io::Error| e.raw_os_error().is_some())
}

/// The innermost cause: the outer ones repeat the address, which may hold a password or token.
fn cause(error: &reqwest::Error) -> String {
    if let Some(e) = io_error(error) {
        return describe(e);
    }
    let innermost = chain(error).skip(1).last().map_or_else(|| "the request failed".to_owned(), ToString::to_string);
    if innermost.contains("UnknownIssuer") {
        return format!("{innermost} (to trust a private authority, name its PEM file in SSL_CERT_FILE)");
    }
    innermost
}
