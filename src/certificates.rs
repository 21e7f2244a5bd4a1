//! Files of authorities to trust beside the system's.

use std::path::Path;

use reqwest::Certificate;

use crate::error::{Error, ErrorKind, Result};

/// The certificates of a PEM file. `name` is what errors call it, and `hint` is where another one can be named.
///
/// # Errors
/// [`ErrorKind::NotFound`] or [`ErrorKind::InvalidInput`] with the file; no retry helps.
pub(crate) fn read(file: &Path, name: &str, hint: &str) -> Result<Vec<Certificate>> {
    let shown = file.display();
    let pem = std::fs::read(file).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::InvalidInput };
        Error::new(kind, format!("{name} {shown} cannot be read: give a PEM file with certificates{hint}"))
            .with_source(e)
    })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::invalid(format!("{name} {shown} has no certificate in it: give a PEM file"))),
        Err(e) => Err(Error::invalid(format!("{name} {shown} is no PEM file with certificates")).with_source(e)),
    }
}
