//! Server addresses: checked, compared, and shown without credentials.

use url::{Host, Url};

use crate::error::{Error, Result};

/// What the address of a server may be.
pub(crate) struct AddressRules<'a> {
    /// The name of the argument, for errors.
    pub name: &'a str,
    /// An address that is right, for errors.
    pub example: &'a str,
    /// Where credentials belong instead, for errors; may be empty.
    pub credentials: &'a str,
    /// Why `http` is allowed for this machine only; `None` allows it everywhere.
    pub https_only: Option<&'a str>,
    /// Whether a path may follow host and port.
    pub with_path: bool,
}

impl AddressRules<'_> {
    /// Parses the address.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] that says which rule the address breaks, without its credentials. A retry does
    /// not help.
    pub(crate) fn parse(&self, text: &str) -> Result<Url> {
        let shown = without_userinfo(text);
        let refuse = |why: &str| {
            Error::invalid(format!("{} {shown:?} {why}: give an address such as {}", self.name, self.example))
        };
        let url = Url::parse(text.trim()).map_err(|e| refuse("is not a URL").with_source(e))?;
        if has_userinfo(&url) {
            return Err(refuse(&format!("must not hold a user name or password{}", self.credentials)));
        }
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(refuse(if self.https_only.is_some() { "is not https" } else { "is not http or https" }));
        }
        if let Some(reason) = self.https_only
            && url.scheme() == "http"
            && !is_loopback(&url)
        {
            return Err(refuse(&format!("is not https, {reason}")));
        }
        if url.query().is_some() || url.fragment().is_some() || (url.path() != "/" && !self.with_path) {
            let parts = if self.with_path { "host, a port and a path" } else { "host and a port" };
            return Err(refuse(&format!("has more than a {parts}")));
        }
        Ok(url)
    }
}

/// Whether `url` is on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Whether a request to `url` goes to `server`, with no other credentials than the request's own.
pub(crate) fn is_same_server(server: &Url, url: &Url) -> bool {
    url.origin() == server.origin() && !has_userinfo(url)
}

/// `url` for display, without user name, password and query, where tokens may be. A text that is not a URL is treated the
/// same way, so that a typing error shows no password either.
pub(crate) fn without_userinfo(url: &str) -> String {
    let (scheme, rest) = url.find("://").map_or(("", url), |at| url.split_at(at + 3));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    format!("{scheme}{}", &rest[..end])
}

/// Whether `url` holds a user name or a password.
pub(crate) fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}
