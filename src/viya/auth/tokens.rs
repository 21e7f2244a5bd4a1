//! A token pair as SASLogon gave it, and how long it is good for.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Local, NaiveDateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::Bearer;
use crate::error::{Error, Result};

/// Renewing starts this long before the token expires (SAS samples use 5 minutes), or a tenth of a shorter lifetime.
const MARGIN_SECONDS: f64 = 300.0;

/// Seconds between two tries to renew a token that is good yet, where SASLogon is away.
const TRIED_AGAIN: f64 = 15.0;

/// A pair, with everything else that was beside it.
pub(super) struct Tokens {
    pub raw: Map<String, Value>,
    pub access: String,
    pub refresh: Option<String>,
    pub expires: Option<DateTime<Utc>>,
    pub lifetime: Option<f64>,
    pub generation: u64,
    /// Renewed, and not stored yet.
    pub unsaved: bool,
    /// When renewing them ahead of time failed last.
    pub tried_at: Option<Instant>,
}

impl Tokens {
    pub fn of_file(raw: Map<String, Value>, origin: &str) -> Result<Self> {
        let mut tokens = Self::bare(raw, origin)?;
        let written = tokens.raw.get("expires_at").and_then(Value::as_str).and_then(parse_local);
        tokens.expires = claim(&tokens.access, "exp").and_then(from_epoch).or(written);
        Ok(tokens)
    }

    pub fn of_response(raw: Map<String, Value>, origin: &str) -> Result<Self> {
        let mut tokens = Self::bare(raw, origin)?;
        // A lifetime counted from now does not depend on the two clocks agreeing.
        let now = Utc::now();
        tokens.expires =
            tokens.lifetime.and_then(|seconds| now.checked_add_signed(TimeDelta::milliseconds((seconds * 1e3) as i64)));
        match tokens.expires {
            Some(at) => {
                let local = at.with_timezone(&Local).naive_local().format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
                tokens.raw.insert("expires_at".into(), local.into());
            }
            None => {
                tokens.raw.remove("expires_at");
            }
        }
        Ok(tokens)
    }

    pub fn bare(raw: Map<String, Value>, origin: &str) -> Result<Self> {
        let text =
            |name: &str| raw.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let Some(access) = text("access_token") else {
            return Err(Error::invalid(format!(
                "{} holds no access_token: write the SASLogon response of POST /SASLogon/oauth/token to it",
                origin
            )));
        };
        // RFC 6750 has a narrower alphabet, but servers decide; a header takes no more than this, and what it does not take
        // would look like a fault of the network.
        if access.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(Error::invalid(format!(
                "the access_token in {} has a line break, blank or other character that no HTTP header takes: write the \
                 SASLogon response of POST /SASLogon/oauth/token to it again, as it came",
                origin
            )));
        }
        let own = claim(&access, "exp")
            .zip(claim(&access, "iat"))
            .map(|(exp, iat)| exp - iat)
            .filter(|seconds| *seconds > 0.0);
        let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        // Without its beginning a JWT's end can only be counted by our own clock.
        let left = || {
            let left = claim(&access, "exp")? - Utc::now().timestamp_millis() as f64 / 1e3;
            Some(left).filter(|seconds| *seconds > 0.0)
        };
        let said = raw.get("expires_in").and_then(number);
        let lifetime = own
            .or_else(|| match (left(), said) {
                (Some(left), Some(said)) => Some(left.min(said)),
                (left, said) => left.or(said),
            })
            .filter(|seconds| (0.0..1e9).contains(seconds));
        Ok(Self {
            refresh: text("refresh_token"),
            access,
            raw,
            expires: None,
            lifetime,
            generation: 0,
            unsaved: false,
            tried_at: None,
        })
    }

    /// The OAuth client that they were given to, as the file or the token itself has it.
    pub fn client(&self) -> Option<String> {
        let text = |value: &Value, key: &str| {
            value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let noted = self.raw.get("client_id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
        // Of an UAA, which SASLogon is: client_id, and azp and cid of the same value.
        noted.or_else(|| {
            let claims = claims(&self.access)?;
            ["client_id", "azp", "cid"].iter().find_map(|key| text(&claims, key))
        })
    }

    /// Whether they can be sent as they are, with nothing to be done first.
    pub fn is_fresh(&self) -> bool {
        !self.unsaved && !self.expires_within(self.margin())
    }

    /// Whether it is long enough ago that renewing them ahead of time failed.
    pub fn may_be_tried(&self) -> bool {
        self.tried_at.is_none_or(|at| at.elapsed().as_secs_f64() >= TRIED_AGAIN)
    }

    pub fn margin(&self) -> f64 {
        self.lifetime.map_or(MARGIN_SECONDS, |seconds| MARGIN_SECONDS.min(seconds / 10.0))
    }

    pub fn expires_within(&self, seconds: f64) -> bool {
        self.expires.is_some_and(|at| (at - Utc::now()).as_seconds_f64() <= seconds)
    }

    pub fn bearer(&self) -> Bearer {
        Bearer { token: self.access.clone(), generation: self.generation }
    }
}

/// A numeric claim of a JWT, unverified: it only tells when to renew. `None` for opaque tokens.
fn claim(token: &str, name: &str) -> Option<f64> {
    claims(token)?.get(name)?.as_f64()
}

/// All claims of a JWT, unverified.
pub(super) fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Value>(&bytes).ok()
}

fn from_epoch(seconds: f64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis((seconds * 1e3) as i64)
}

pub(super) fn parse_local(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc());
    }
    if let Ok(at) = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z") {
        return Some(at.to_utc());
    }
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    let naive = naive.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
    naive.and_local_timezone(Local).earliest().map(|at| at.to_utc())
}
