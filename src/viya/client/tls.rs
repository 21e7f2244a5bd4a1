//! Whom a client trusts, and through whom it speaks.

use std::path::{Path, PathBuf};

use reqwest::{Certificate, Proxy};

use crate::certificates;
use crate::error::{Error, Result};

/// Variables that name a file of certificates: ours, that of Python's requests, and SAS's own.
const VARIABLES: [&str; 4] = ["JOBROTA_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSLCALISTLOC", "CAS_CLIENT_SSL_CA_LIST"];

/// The file of certificates to trust beside the system's.
pub(super) fn ca_bundle(given: Option<&Path>) -> Option<PathBuf> {
    let set = |name: &&str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given.map(Path::to_owned).or_else(|| VARIABLES.iter().find_map(set))
}

/// The certificates of that file.
///
/// # Errors
/// [`crate::ErrorKind::NotFound`] or [`crate::ErrorKind::InvalidInput`] with the file.
pub(super) fn authorities(file: &Path) -> Result<Vec<Certificate>> {
    certificates::read(file, "the CA bundle", &format!(" (ca_bundle, or one of {})", VARIABLES.join(", ")))
}

/// The proxy at `text`, whose user and password no error shows.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when it is no URL of a proxy.
pub(super) fn proxy(text: &str) -> Result<Proxy> {
    let shown = super::without_userinfo(text);
    Proxy::all(text).map_err(|e| {
        Error::invalid(format!("the proxy {shown:?} is none: give a URL such as http://proxy.example.com:3128"))
            .with_source(e.without_url())
    })
}
