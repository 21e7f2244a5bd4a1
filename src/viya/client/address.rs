//! Addresses of servers: checked, and shown without what is secret in them.

use url::Url;

use crate::error::{Error, Result};

/// Checks a base URL: `http` or `https`, a host, no user, query or fragment.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] with what is wrong.
pub fn parse_base_url(text: &str) -> Result<Url> {
    let refuse = |why: &str| {
        Error::invalid(format!("base_url {why}: give the address of SAS Viya, such as https://viya.example.com"))
    };
    let shown = without_userinfo(text);
    let url = Url::parse(text.trim()).map_err(|e| refuse(&format!("{shown:?} is not a URL")).with_source(e))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("must not hold a user name or password"));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(refuse(&format!("{shown:?} is not http or https")));
    }
    if url.query().is_some() || url.fragment().is_some() || url.path() != "/" {
        return Err(refuse(&format!("{shown:?} has more than a host and a port")));
    }
    Ok(url)
}

/// Whether nobody beyond this machine can be meant.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// `url` for people to read: what stands before an `@`, where user names and passwords are, is left out, and so is a query,
/// where tokens may be. Also of a text that is no URL, so that a typing error shows no password either.
pub fn without_userinfo(url: &str) -> String {
    let (scheme, rest) = match url.find("://") {
        Some(at) => url.split_at(at + 3),
        None => ("", url),
    };
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    format!("{scheme}{}", &rest[..end])
}
