//! Fetches tokens with `azure_identity`, and turns its errors into this crate's.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use azure_core::cloud::CustomConfiguration;
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::error::ErrorKind as AzureKind;
use azure_core::http::{ClientOptions, ExponentialRetryOptions, RetryOptions, Transport};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use chrono::{DateTime, Utc};
use url::Url;

use super::cloud::Cloud;
use super::credential::{AccessToken, Credential, Variables};
use super::identity_transport::IdentityTransport;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{address, client};
use crate::runtime;

/// The address of the metadata service on Azure's VMs.
const METADATA_SERVICE: &str = "http://169.254.169.254";
/// Time limit to connect to the metadata service, which is on the same host or does not exist.
const METADATA_CONNECT: Duration = Duration::from_secs(1);
/// Time limit for a managed identity, with all tries.
const METADATA_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for the login service, with all tries.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);

/// Fetches tokens with a credential. It stores none.
#[derive(Debug)]
pub(super) struct TokenFetcher {
    credential: Credential,
    variables: Variables,
    cloud: Cloud,
    login: reqwest::Client,
    metadata: reqwest::Client,
}

impl TokenFetcher {
    pub(super) fn new(credential: Credential, variables: Variables, cloud: Cloud) -> Result<Self> {
        let login = client::pool(|builder| {
            let builder = builder.connect_timeout(CONNECT_LIMIT).timeout(LOGIN_LIMIT);
            if address::is_loopback(cloud.authority()) { builder.no_proxy() } else { builder }
        })?;
        // The metadata service is on the VM's own host. A proxy would ask about another machine.
        let metadata =
            client::pool(|builder| builder.connect_timeout(METADATA_CONNECT).timeout(METADATA_LIMIT).no_proxy())?;
        Ok(Self { credential, variables, cloud, login, metadata })
    }

    /// A new token.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] when there is no credential or it is refused; [`ErrorKind::Network`], retryable, when
    /// the login service cannot be reached; [`ErrorKind::InvalidInput`] for malformed ids; those of a
    /// [`super::TokenSource`].
    pub(super) async fn fetch(&self) -> Result<AccessToken> {
        match &self.credential {
            Credential::Environment => self.environment_token().await,
            Credential::ServicePrincipal { tenant_id, client_id, client_secret } => {
                self.service_principal(tenant_id, client_id, client_secret.expose()).await
            }
            Credential::ManagedIdentity { client_id } => {
                self.managed_identity(client_id.as_deref()).await.map_err(|(error, reason)| {
                    let retryable = error.is_some_and(|e| is_transient(&e));
                    refused(format!("the managed identity gave no token: {reason}")).with_retryable(retryable)
                })
            }
            Credential::Source(source) => {
                let (source, scope) = (Arc::clone(source), self.cloud.scope());
                let token = runtime::blocking(move || source.token(&scope)).await?;
                if token.text().is_empty() || token.text().contains(|c: char| c.is_control() || c == ' ') {
                    return Err(Error::invalid(
                        "the credential's token is empty or has blanks in it: return the bare token",
                    ));
                }
                match token.expires() {
                    Some(expires) if expires <= Utc::now() => Err(refused(format!(
                        "the credential returned a token that expired at {}: let it fetch a new one",
                        expires.to_rfc3339()
                    ))),
                    _ => Ok(token),
                }
            }
        }
    }

    async fn environment_token(&self) -> Result<AccessToken> {
        let of = |name: &'static str| self.variables.get(name);
        let (tenant, client) = (of("AZURE_TENANT_ID"), of("AZURE_CLIENT_ID"));
        if let (Some(tenant), Some(client), Some(secret)) = (tenant, client, of("AZURE_CLIENT_SECRET")) {
            return self.service_principal(tenant, client, secret).await;
        }
        if let (Some(tenant), Some(client), Some(file)) = (tenant, client, of("AZURE_FEDERATED_TOKEN_FILE")) {
            return self.workload_identity(tenant, client, file).await;
        }
        let missing = |names: [&'static str; 3]| {
            let missing: Vec<&str> = names.into_iter().filter(|name| of(name).is_none()).collect();
            format!("{} {} not set", missing.join(" and "), if missing.len() == 1 { "is" } else { "are" })
        };
        self.managed_identity(client).await.map_err(|(error, reason)| {
            let text = format!(
                "no Azure credentials were found. It tried a service principal ({}), a workload identity ({}) and this \
                 machine's managed identity ({reason}). Set the variables, or give credential=",
                missing(["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"]),
                missing(["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"]),
            );
            refused(text).with_retryable(error.is_some_and(|e| status(&e).is_some() && is_transient(&e)))
        })
    }

    async fn service_principal(&self, tenant: &str, client: &str, secret: &str) -> Result<AccessToken> {
        let secret = Secret::new(secret.to_owned());
        let options = ClientSecretCredentialOptions { client_options: self.login_options() };
        let credential = ClientSecretCredential::new(tenant, client.to_owned(), secret, Some(options))
            .map_err(|e| invalid("the service principal", &e))?;
        self.login("the service principal", client, credential.as_ref()).await
    }

    async fn workload_identity(&self, tenant: &str, client: &str, file: &str) -> Result<AccessToken> {
        let options = WorkloadIdentityCredentialOptions {
            credential_options: ClientAssertionCredentialOptions { client_options: self.login_options() },
            client_id: Some(client.to_owned()),
            tenant_id: Some(tenant.to_owned()),
            token_file_path: Some(file.into()),
        };
        let credential =
            WorkloadIdentityCredential::new(Some(options)).map_err(|e| invalid("the workload identity", &e))?;
        self.login("the workload identity", client, credential.as_ref()).await
    }

    async fn login(&self, what: &str, client: &str, credential: &dyn TokenCredential) -> Result<AccessToken> {
        let scope = self.cloud.scope();
        let at = self.cloud.authority().as_str().trim_end_matches('/');
        let unreached = |text: String| Error::new(ErrorKind::Network, text).with_retryable(true);
        let asked = tokio::time::timeout(LOGIN_LIMIT, credential.get_token(&[&scope], None)).await;
        let response = asked.map_err(|_| {
            let seconds = LOGIN_LIMIT.as_secs();
            unreached(format!("the login service {at} gave {what} {client} no token within {seconds} seconds"))
        })?;
        response.map(from_azure).map_err(|e| match (status(&e), reason(&e)) {
            (None, reason) if is_transient(&e) => {
                unreached(format!("the login service {at} could not be asked for a token of {what} {client}: {reason}"))
            }
            (_, reason) => refused(format!("the login service {at} refused {what} {client}: {reason}"))
                .with_retryable(is_transient(&e)),
        })
    }

    /// A token of the machine's identity; or the error, if there was one, and the reason in words.
    async fn managed_identity(
        &self,
        client_id: Option<&str>,
    ) -> std::result::Result<AccessToken, (Option<azure_core::Error>, String)> {
        let mut routes = Vec::new();
        let metadata_host = self.variables.get("AZURE_POD_IDENTITY_AUTHORITY_HOST");
        if let (Ok(from), Some(to)) = (Url::parse(METADATA_SERVICE), metadata_host) {
            let to =
                Url::parse(to).map_err(|e| (None, format!("AZURE_POD_IDENTITY_AUTHORITY_HOST is not a URL: {e}")))?;
            routes.push((from, to));
        }
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: client_id.map(|id| UserAssignedId::ClientId(id.to_owned())),
            client_options: client_options(IdentityTransport::metadata(self.metadata.clone(), routes)),
        };
        let scope = self.cloud.scope();
        let asked = async {
            let credential = ManagedIdentityCredential::new(Some(options))?;
            credential.get_token(&[&scope], None).await
        };
        match tokio::time::timeout(METADATA_LIMIT, asked).await {
            Ok(Ok(token)) => Ok(from_azure(token)),
            Ok(Err(e)) => {
                let reason = reason(&e);
                Err((Some(e), reason))
            }
            Err(_) => {
                let (at, seconds) = (metadata_host.unwrap_or(METADATA_SERVICE), METADATA_LIMIT.as_secs());
                let text = format!("the metadata service {at} gave none within {seconds} seconds, as outside of Azure");
                Err((None, text))
            }
        }
    }

    fn login_options(&self) -> ClientOptions {
        let authority = self.cloud.authority();
        let mut routes = Vec::new();
        let mut accepted = authority.to_string();
        if authority.scheme() == "http" {
            // The https form keeps the port, so that the two origins differ only in their scheme.
            let port = authority.port_or_known_default().unwrap_or(80);
            accepted = format!("https://{}:{port}/", authority.host_str().unwrap_or_default());
            if let Ok(from) = Url::parse(&accepted) {
                routes.push((from, authority.clone()));
            }
        }
        let mut custom = CustomConfiguration::default();
        custom.authority_host = accepted;
        ClientOptions {
            cloud: Some(Arc::new(custom.into())),
            ..client_options(IdentityTransport::login(self.login.clone(), routes))
        }
    }
}

fn client_options(transport: IdentityTransport) -> ClientOptions {
    let retry = ExponentialRetryOptions { max_retries: 3, ..ExponentialRetryOptions::default() };
    ClientOptions {
        retry: RetryOptions::exponential(retry),
        transport: Some(Transport::new(Arc::new(transport))),
        ..ClientOptions::default()
    }
}

fn from_azure(token: azure_core::credentials::AccessToken) -> AccessToken {
    let expires = DateTime::from_timestamp(token.expires_on.unix_timestamp(), 0);
    AccessToken::new(token.token.secret().to_owned(), expires)
}

fn refused(text: String) -> Error {
    Error::new(ErrorKind::Authentication, text)
}

fn invalid(what: &str, e: &azure_core::Error) -> Error {
    Error::invalid(format!("{what} cannot be used: {}", reason(e)))
}

/// The errors of `azure_identity` in the chain of `e`, outermost first.
fn chain(e: &azure_core::Error) -> Vec<&azure_core::Error> {
    let mut found = vec![e];
    let mut cause = e.source();
    while let Some(error) = cause {
        found.extend(error.downcast_ref::<azure_core::Error>());
        cause = error.source();
    }
    found
}

fn status(e: &azure_core::Error) -> Option<u16> {
    chain(e).into_iter().find_map(|e| match e.kind() {
        AzureKind::HttpResponse { status, .. } => Some(u16::from(*status)),
        _ => None,
    })
}

/// Whether the same request may succeed later.
fn is_transient(e: &azure_core::Error) -> bool {
    match status(e) {
        Some(status) => matches!(status, 408 | 410 | 429 | 500..=599),
        None => chain(e).into_iter().any(|e| matches!(e.kind(), AzureKind::Connection | AzureKind::Io)),
    }
}

/// The text of the innermost error that has one, as one line without the crate's links to web pages.
fn reason(e: &azure_core::Error) -> String {
    let texts = chain(e).into_iter().rev().map(ToString::to_string);
    let line = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
    let found = texts.map(line).find(|text| !text.is_empty());
    let text = found.unwrap_or_else(|| "no reason was given".to_owned());
    match status(e) {
        Some(status) if !text.contains(&status.to_string()) => format!("{text} (HTTP status {status})"),
        _ => text,
    }
}
