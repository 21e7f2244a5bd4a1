//! Credentials for Azure Resource Manager: a service principal, a workload identity, a managed identity, or the caller's tokens.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::http::{Secret, token};

/// The variables that hold credentials. Source: the environment variables of Azure's SDKs.
const VARIABLES: [&str; 11] = [
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
];

/// A bearer token.
#[derive(Debug, Clone)]
pub struct AccessToken {
    text: Secret,
    obtained: DateTime<Utc>,
    /// When it expires, where that is known.
    pub expires: Option<DateTime<Utc>>,
}

impl AccessToken {
    /// A token that was fetched now. Without `expires`, the time in the token itself counts, if it has one.
    pub fn new(text: impl Into<String>, expires: Option<DateTime<Utc>>) -> Self {
        let text = Secret::from(text);
        let expires = expires.or_else(|| token::expiry(text.expose()));
        Self { text, obtained: Utc::now(), expires }
    }

    /// The token.
    pub fn text(&self) -> &str {
        self.text.expose()
    }

    /// When to renew it: five minutes before it expires, or after half of its life where that is later.
    pub(super) fn renew_at(&self) -> Option<DateTime<Utc>> {
        let expires = self.expires?;
        let half = (expires - self.obtained) / 2;
        Some(expires - half.min(chrono::Duration::minutes(5)))
    }
}

/// Supplies tokens from elsewhere, such as a function of the caller.
pub trait TokenSource: Send + Sync {
    /// A token for `scope`, such as `https://management.azure.com/.default`. May block.
    ///
    /// # Errors
    /// Why there is no token, without secrets in the text.
    fn token(&self, scope: &str) -> Result<AccessToken>;
}

/// Whose rights are used.
#[derive(Debug, Clone, Default)]
pub enum Credential {
    /// The credentials of the environment: a service principal (`AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`), else a
    /// workload identity (`AZURE_FEDERATED_TOKEN_FILE`), else the machine's managed identity.
    #[default]
    Environment,
    /// An application with a client secret.
    ServicePrincipal {
        /// The directory (tenant) that it belongs to.
        tenant_id: String,
        /// The application (client) id.
        client_id: String,
        /// The secret's value.
        client_secret: Secret,
    },
    /// The managed identity of this VM, container or function; without a client id, the system-assigned one.
    ManagedIdentity {
        /// Client id of a user-assigned identity.
        client_id: Option<String>,
    },
    /// The caller's own tokens.
    Source(Arc<dyn TokenSource>),
}

impl Credential {
    /// A service principal.
    pub fn service_principal(tenant_id: &str, client_id: &str, client_secret: String) -> Self {
        let (tenant_id, client_id) = (tenant_id.to_owned(), client_id.to_owned());
        Self::ServicePrincipal { tenant_id, client_id, client_secret: client_secret.into() }
    }

    /// A text that tells credentials apart, without a secret.
    pub fn identity(&self, variables: &CredentialVariables) -> String {
        match self {
            Self::Environment => {
                let of = |name: &'static str| variables.get(name).unwrap_or_default();
                format!("environment {} {}", of("AZURE_TENANT_ID"), of("AZURE_CLIENT_ID"))
            }
            Self::ServicePrincipal { tenant_id, client_id, .. } => format!("service principal {tenant_id} {client_id}"),
            Self::ManagedIdentity { client_id } => {
                format!("managed identity {}", client_id.as_deref().unwrap_or_default())
            }
            Self::Source(_) => "tokens of the caller".to_owned(),
        }
    }
}

impl fmt::Debug for dyn TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

/// The environment variables that hold credentials. Empty ones count as not set.
#[derive(Debug, Clone, Default)]
pub struct CredentialVariables(HashMap<String, Secret>);

impl CredentialVariables {
    /// The variables of this process.
    pub fn from_process() -> Self {
        Self(VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?.into()))).collect())
    }

    /// The value of `name`, if it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.expose().trim()).filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for CredentialVariables {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect())
    }
}
