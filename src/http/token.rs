//! Bearer tokens: the header that carries one, and the claims of a JSON Web Token (JWT, RFC 7519).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use reqwest::header::HeaderValue;
use serde_json::Value;

use crate::error::{Error, Result};

/// The `Authorization` header with `credentials` of a `scheme` such as `Bearer`.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for text that no HTTP header can have, without the text.
pub(crate) fn authorization(scheme: &str, credentials: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {credentials}"))
        .map_err(|_| Error::invalid("the credentials have characters that no HTTP header can have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// All claims of a JWT. They are not verified: they only tell when to renew it and to whom it belongs. `None` for an
/// opaque token.
pub(crate) fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// A claim that is a time, in seconds since 1970.
pub(crate) fn time_claim(token: &str, name: &str) -> Option<f64> {
    claims(token)?.get(name)?.as_f64()
}

/// When a JWT expires, where it says so.
pub(crate) fn expiry(token: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis((time_claim(token, "exp")? * 1e3) as i64)
}
