//! A token pair as SASLogon issued it, and how long it is valid.

use std::time::Instant;

use chrono::{DateTime, Local, NaiveDateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::Bearer;
use crate::error::{Error, Result};
use crate::http::token::{claims, expiry, time_claim};
use crate::viya::json::{parse_time, text};

/// Renewing starts this long before the token expires (SAS samples use 5 minutes), or a tenth of a shorter lifetime.
const MARGIN_SECONDS: f64 = 300.0;

/// Seconds between two tries to renew a token that is still valid, while SASLogon is not available.
const EARLY_RENEWAL_PAUSE: f64 = 15.0;

/// A token pair, with everything else in its SASLogon response.
pub(super) struct TokenPair {
    pub raw: Map<String, Value>,
    pub access: String,
    pub refresh: Option<String>,
    pub expires: Option<DateTime<Utc>>,
    pub lifetime: Option<f64>,
    pub generation: u64,
    /// Whether it was renewed and is not stored yet.
    pub unsaved: bool,
    /// When renewing it before its end failed last.
    pub early_renewal_failed: Option<Instant>,
}

impl TokenPair {
    /// The pair of a stored response.
    pub fn from_stored(raw: Map<String, Value>, origin: &str) -> Result<Self> {
        let mut pair = Self::parse(raw, origin)?;
        let written = pair.raw.get("expires_at").and_then(Value::as_str).and_then(parse_local_time);
        pair.expires = expiry(&pair.access).or(written);
        Ok(pair)
    }

    /// The pair of a response that came now.
    pub fn from_response(raw: Map<String, Value>, origin: &str) -> Result<Self> {
        let mut pair = Self::parse(raw, origin)?;
        // A lifetime that is counted from now does not depend on the server's clock.
        let span = pair.lifetime.map(|seconds| TimeDelta::milliseconds((seconds * 1e3) as i64));
        pair.expires = span.and_then(|span| Utc::now().checked_add_signed(span));
        pair.raw.shift_remove("expires_at");
        if let Some(at) = pair.expires {
            let local = at.with_timezone(&Local).naive_local().format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
            pair.raw.insert("expires_at".into(), local.into());
        }
        Ok(pair)
    }

    /// Reads a SASLogon response.
    pub fn parse(raw: Map<String, Value>, origin: &str) -> Result<Self> {
        let field =
            |name: &str| raw.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let Some(access) = field("access_token") else {
            return Err(Error::invalid(format!(
                "{origin} holds no access_token: write the SASLogon response of POST /SASLogon/oauth/token to it"
            )));
        };
        // RFC 6750 has a narrower alphabet, but servers decide. A header cannot hold any other character.
        if access.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(Error::invalid(format!(
                "the access_token in {origin} has a line break, blank or other character that an HTTP header cannot hold: \
                 write the SASLogon response of POST /SASLogon/oauth/token to it again, unchanged"
            )));
        }
        let expires = time_claim(&access, "exp");
        let own = expires.zip(time_claim(&access, "iat")).map(|(exp, iat)| exp - iat).filter(|seconds| *seconds > 0.0);
        // Without its start, only the local clock can tell how long a JWT is still valid.
        let left = expires.map(|exp| exp - Utc::now().timestamp_millis() as f64 / 1e3).filter(|seconds| *seconds > 0.0);
        let stated =
            raw.get("expires_in").and_then(|value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()));
        let shorter = left.into_iter().chain(stated).reduce(f64::min);
        Ok(Self {
            refresh: field("refresh_token"),
            lifetime: own.or(shorter).filter(|seconds| (0.0..1e9).contains(seconds)),
            access,
            raw,
            expires: None,
            generation: 0,
            unsaved: false,
            early_renewal_failed: None,
        })
    }

    /// The OAuth client that the tokens were issued to, as the file or the token itself names it.
    pub fn client(&self) -> Option<String> {
        let stored = self.raw.get("client_id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
        // SASLogon is a UAA, whose tokens have client_id, and azp and cid of the same value.
        stored.or_else(|| {
            let claims = claims(&self.access)?;
            ["client_id", "azp", "cid"].iter().find_map(|key| text(&claims, key)).map(str::to_owned)
        })
    }

    /// Whether the token can be sent as it is.
    pub fn is_fresh(&self) -> bool {
        !self.unsaved && !self.expires_within(self.margin())
    }

    /// Whether an early renewal may be tried again.
    pub fn may_renew_early(&self) -> bool {
        self.early_renewal_failed.is_none_or(|at| at.elapsed().as_secs_f64() >= EARLY_RENEWAL_PAUSE)
    }

    pub fn margin(&self) -> f64 {
        self.lifetime.map_or(MARGIN_SECONDS, |seconds| MARGIN_SECONDS.min(seconds / 10.0))
    }

    pub fn expires_within(&self, seconds: f64) -> bool {
        self.expires.is_some_and(|at| (at - Utc::now()).as_seconds_f64() <= seconds)
    }

    pub fn bearer(&self) -> Bearer {
        Bearer { token: self.access.as_str().into(), generation: self.generation }
    }
}

/// A time with a zone, or without one in local time.
pub(super) fn parse_local_time(text: &str) -> Option<DateTime<Utc>> {
    parse_time(text).or_else(|| {
        let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
        let naive = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
        naive.and_local_timezone(Local).earliest().map(|at| at.to_utc())
    })
}
