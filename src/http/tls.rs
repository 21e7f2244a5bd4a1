//! Which certificates a client trusts, and which proxy it uses.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::{Certificate, Proxy};
use rustls::{ClientConfig, RootCertStore};

use super::address::without_userinfo;
use crate::error::{Error, ErrorKind, Result};

/// Variables that name a file of certificates: this project's, that of Python's requests, and SAS's own.
const CA_VARIABLES: [&str; 4] = ["JOBROTA_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSLCALISTLOC", "CAS_CLIENT_SSL_CA_LIST"];

/// The certificates to trust beside the system's: those of the file `given`, else of the first file that a variable names.
///
/// # Errors
/// Those of [`certificates`].
pub(crate) fn ca_bundle(given: Option<&Path>) -> Result<Vec<Certificate>> {
    let set = |name: &&str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let Some(file) = given.map(Path::to_owned).or_else(|| CA_VARIABLES.iter().find_map(set)) else {
        return Ok(Vec::new());
    };
    certificates(&file, "the CA bundle", &format!(" (ca_bundle, or one of {})", CA_VARIABLES.join(", ")))
}

/// The certificates of a PEM file. Errors call it `name` and say with `hint` where another file can be named.
///
/// # Errors
/// [`ErrorKind::NotFound`] or [`ErrorKind::InvalidInput`] with the file. A retry does not help.
pub(crate) fn certificates(file: &Path, name: &str, hint: &str) -> Result<Vec<Certificate>> {
    let shown = file.display();
    let pem = std::fs::read(file).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::InvalidInput };
        Error::new(kind, format!("{name} {shown} cannot be read: give a PEM file with certificates{hint}"))
            .with_source(e)
    })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::invalid(format!("{name} {shown} has no certificate in it: give a PEM file"))),
        Err(e) => Err(Error::invalid(format!("{name} {shown} is not a PEM file with certificates")).with_source(e)),
    }
}

/// The certificates that this machine trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when there is no usable certificate, so that `what` could verify nothing.
pub(crate) fn system_roots(what: &str) -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(Error::invalid(format!(
            "{what} has no certificate of an authority to verify servers with ({why}): install the system's \
             (package ca-certificates), or name a PEM file in the environment variable SSL_CERT_FILE"
        )));
    }
    Ok(roots)
}

/// A TLS configuration that trusts `roots` and resumes no session, as a resumed session does not show its certificate.
///
/// # Errors
/// [`ErrorKind::Internal`] when the cryptography does not work on this machine.
pub(crate) fn client_config(roots: RootCertStore) -> Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(ErrorKind::Internal, "TLS could not be set up on this machine").with_source(e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The proxy at `text`. No error shows its user and password.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when it is not the URL of a proxy.
pub(crate) fn proxy(text: &str) -> Result<Proxy> {
    let shown = without_userinfo(text);
    Proxy::all(text).map_err(|e| {
        let text = format!("the proxy {shown:?} is not a URL such as http://proxy.example.com:3128: give one");
        Error::invalid(text).with_source(e.without_url())
    })
}
