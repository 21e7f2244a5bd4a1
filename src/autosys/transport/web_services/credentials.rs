//! The credentials of the web services.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;

use crate::error::{Error, Result};
use crate::http::{Secret, token};

/// The credentials of a request. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebCredentials {
    /// None, for example behind a proxy that adds them.
    None,
    /// User and password (RFC 7617).
    Basic {
        /// The user, without a colon.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token (RFC 6750).
    Bearer {
        /// The bare token.
        token: Secret,
    },
}

impl WebCredentials {
    /// The header that carries them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for text that no header can hold, without the text.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>> {
        match self {
            Self::None => Ok(None),
            Self::Basic { user, password } => {
                if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
                    return Err(Error::invalid("user must be a name without colons and control characters"));
                }
                if password.expose().chars().any(char::is_control) {
                    return Err(Error::invalid("password has a control character, such as the end of a line, in it"));
                }
                token::authorization("Basic", &STANDARD.encode(user_and_password(user, password))).map(Some)
            }
            Self::Bearer { token } => {
                if token.expose().is_empty() || !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(Error::invalid("token is empty or has blanks in it: give the bare token"));
                }
                token::authorization("Bearer", token.expose()).map(Some)
            }
        }
    }

    /// The texts that no error and no row shows.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Basic { user, password } => vec![user_and_password(user, password), password.expose().to_owned()],
            Self::Bearer { token } => vec![token.expose().to_owned()],
        }
    }
}

fn user_and_password(user: &str, password: &Secret) -> String {
    format!("{user}:{}", password.expose())
}
