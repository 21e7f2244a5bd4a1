//! Whom a client trusts, and through whom it speaks.

use std::path::{Path, PathBuf};

use reqwest::{Certificate, Proxy};

use crate::error::{Error, ErrorKind, Result};

/// Variables that name a file of certificates: ours, that of Python's requests, and SAS's own.
const VARIABLES: [&str; 4] = ["JOBROTA_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSLCALISTLOC", "CAS_CLIENT_SSL_CA_LIST"];

/// The file of certificates to trust beside the system's.
pub(super) fn ca_bundle(given: Option<&Path>) -> Option<PathBuf> {
    let set = |name: &&str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given.map(Path::to_owned).or_else(|| VARIABLES.iter().find_map(set))
}

/// The certificates of a PEM file.
///
/// # Errors
/// [`ErrorKind::NotFound`] or [`ErrorKind::InvalidInput`] with the file.
pub(super) fn authorities(file: &Path) -> Result<Vec<Certificate>> {
    let shown = file.display();
    let pem = std::fs::read(file).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::InvalidInput };
        let text = format!(
            "the CA bundle {shown} cannot be read: give a PEM file with certificates (ca_bundle, or one of {})",
            VARIABLES.join(", ")
        );
        Error::new(kind, text).with_source(e)
    })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::invalid(format!("the CA bundle {shown} has no certificate in it: give a PEM file"))),
        Err(e) => Err(Error::invalid(format!("the CA bundle {shown} is no PEM file with certificates")).with_source(e)),
    }
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
