//! Whose rights the web services are used with.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;

use crate::error::{Error, Result};

/// The credentials of a request. Secrets are in no `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// None, as behind a proxy that adds them.
    None,
    /// User and password (RFC 7617).
    Basic {
        /// The user, without a colon.
        user: String,
        /// The password.
        password: String,
    },
    /// A bearer token (RFC 6750).
    Bearer {
        /// The bare token.
        token: String,
    },
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Basic { user, .. } => write!(f, "Basic({user})"),
            Self::Bearer { .. } => f.write_str("Bearer"),
        }
    }
}

impl Login {
    /// The header that carries them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for what no header can carry; the text shows no secret.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Basic { user, password } => {
                if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
                    return Err(Error::invalid("user must be a name without colons and control characters"));
                }
                if password.chars().any(char::is_control) {
                    return Err(Error::invalid("password has a control character, such as the end of a line, in it"));
                }
                format!("Basic {}", encoded(user, password))
            }
            Self::Bearer { token } => {
                if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(Error::invalid("token is empty or has blanks in it: it must be the bare token"));
                }
                format!("Bearer {token}")
            }
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| Error::invalid("the credentials have characters that no HTTP header can have"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// `text` without the secrets, whichever way they are spelled.
    pub(super) fn removed_from(&self, text: String) -> String {
        let secrets = match self {
            Self::None => return text,
            Self::Basic { user, password } => vec![encoded(user, password), password.clone()],
            Self::Bearer { token } => vec![token.clone()],
        };
        secrets.iter().filter(|secret| !secret.is_empty()).fold(text, |text, secret| text.replace(secret, "…"))
    }
}

fn encoded(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}
