//! Fetching tokens, with `azure_identity` as far as it goes, and what its errors mean.

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

use super::cloud::{Cloud, is_loopback};
use super::credential::{AccessToken, Credential, Variables};
use super::transport::HttpTransport;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

/// Where Azure's VMs find their metadata service.
const METADATA_SERVICE: &str = "http://169.254.169.254";
/// How long connecting to the metadata service may take: it is on the same host, or it is not there.
const METADATA_CONNECT: Duration = Duration::from_secs(1);
/// How long a managed identity may take, tries included.
const METADATA_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long the login service may take, tries included.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);

/// Fetches tokens with a credential; keeps none.
#[derive(Debug)]
pub(super) struct Fetcher {
    credential: Credential,
    variables: Variables,
    cloud: Cloud,
    login: reqwest::Client,
    metadata: reqwest::Client,
}

impl Fetcher {
    pub(super) fn new(credential: Credential, variables: Variables, cloud: Cloud) -> Result<Self> {
        let client = |builder: reqwest::ClientBuilder| {
            builder
                .user_agent(concat!("jobrota/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|e| {
                    Error::new(ErrorKind::Internal, "the HTTP client could not be set up on this machine")
                        .with_source(e)
                })
        };
        let mut login = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT).timeout(LOGIN_LIMIT);
        if is_loopback(cloud.authority()) {
            login = login.no_proxy();
        }
        // The metadata service is on the VM's own host: a proxy would ask about another machine, if it knew it at all.
        let metadata = reqwest::Client::builder().connect_timeout(METADATA_CONNECT).timeout(METADATA_LIMIT).no_proxy();
        Ok(Self { credential, variables, cloud, login: client(login)?, metadata: client(metadata)? })
    }

    /// A new token.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] when there is no credential or it is refused; [`ErrorKind::Network`], retryable, when
    /// the login service cannot be reached; [`ErrorKind::InvalidInput`] for ids that are none; those of a [`TokenSource`].
    pub(super) async fn fetch(&self) -> Result<AccessToken> {
        match &self.credential {
            Credential::Environment => self.of_environment().await,
            Credential::ServicePrincipal { tenant_id, client_id, client_secret } => {
                self.service_principal(tenant_id, client_id, client_secret.clone()).await
            }
            Credential::ManagedIdentity { client_id } => {
                let (error, reason) = match self.managed_identity(client_id.as_deref()).await {
                    Ok(token) => return Ok(token),
                    Err(failure) => failure,
                };
                let retryable = error.is_some_and(|e| is_passing(&e));
                let text = format!("the managed identity gave no token: {reason}");
                Err(Error::new(ErrorKind::Authentication, text).with_retryable(retryable))
            }
            Credential::Source(source) => {
                let (source, scope) = (Arc::clone(source), self.cloud.scope());
                let token = runtime::blocking(move || source.token(&scope)).await?;
                if token.text().is_empty() || token.text().contains(|c: char| c.is_control() || c == ' ') {
                    return Err(Error::invalid(
                        "the credential's token is empty or has blanks in it: it must be the bare token",
                    ));
                }
                match token.expires() {
                    Some(expires) if expires <= Utc::now() => Err(Error::new(
                        ErrorKind::Authentication,
                        format!(
                            "the credential gave a token that has expired at {}: let it fetch a new one",
                            expires.to_rfc3339()
                        ),
                    )),
                    _ => Ok(token),
                }
            }
        }
    }

    async fn of_environment(&self) -> Result<AccessToken> {
        let of = |name: &'static str| self.variables.get(name);
        let (tenant, client) = (of("AZURE_TENANT_ID"), of("AZURE_CLIENT_ID"));
        if let (Some(tenant), Some(client), Some(secret)) = (tenant, client, of("AZURE_CLIENT_SECRET")) {
            return self.service_principal(tenant, client, Secret::new(secret.to_owned())).await;
        }
        if let (Some(tenant), Some(client), Some(file)) = (tenant, client, of("AZURE_FEDERATED_TOKEN_FILE")) {
            return self.workload_identity(tenant, client, file).await;
        }
        let missing = |names: [&'static str; 3]| {
            let missing: Vec<&str> = names.into_iter().filter(|name| of(name).is_none()).collect();
            format!("{} {} not set", missing.join(" and "), if missing.len() == 1 { "is" } else { "are" })
        };
        let (error, reason) = match self.managed_identity(client).await {
            Ok(token) => return Ok(token),
            Err(failure) => failure,
        };
        let text = format!(
            "no Azure credentials were found. Tried were a service principal ({}), a workload identity ({}) and this machine's \
             managed identity ({reason}). Set the variables, or give credential=",
            missing(["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"]),
            missing(["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"]),
        );
        let retryable = error.is_some_and(|e| status(&e).is_some() && is_passing(&e));
        Err(Error::new(ErrorKind::Authentication, text).with_retryable(retryable))
    }

    async fn service_principal(&self, tenant: &str, client: &str, secret: Secret) -> Result<AccessToken> {
        let options = ClientSecretCredentialOptions { client_options: self.login_options() };
        let credential = ClientSecretCredential::new(tenant, client.to_owned(), secret, Some(options))
            .map_err(|e| unusable("the service principal", &e))?;
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
            WorkloadIdentityCredential::new(Some(options)).map_err(|e| unusable("the workload identity", &e))?;
        self.login("the workload identity", client, credential.as_ref()).await
    }

    async fn login(&self, what: &str, client: &str, credential: &dyn TokenCredential) -> Result<AccessToken> {
        let scope = self.cloud.scope();
        let at = self.cloud.authority().as_str().trim_end_matches('/');
        let late = || {
            let text = format!(
                "the login service {at} gave {what} {client} no token within {} seconds",
                LOGIN_LIMIT.as_secs()
            );
            Error::new(ErrorKind::Network, text).with_retryable(true)
        };
        let answer =
            tokio::time::timeout(LOGIN_LIMIT, credential.get_token(&[&scope], None)).await.map_err(|_| late())?;
        answer.map(core_token).map_err(|e| {
            let (kind, verb) = match status(&e) {
                None if is_passing(&e) => (ErrorKind::Network, "could not be asked for"),
                _ => (ErrorKind::Authentication, "refused"),
            };
            let text = match kind {
                ErrorKind::Network => {
                    format!("the login service {at} {verb} a token of {what} {client}: {}", reason(&e))
                }
                _ => format!("the login service {at} {verb} {what} {client}: {}", reason(&e)),
            };
            Error::new(kind, text).with_retryable(is_passing(&e))
        })
    }

    /// A token of the machine's identity, else the error, if there was one, and the reason in words.
    async fn managed_identity(
        &self,
        client_id: Option<&str>,
    ) -> std::result::Result<AccessToken, (Option<azure_core::Error>, String)> {
        let mut routes = Vec::new();
        let elsewhere = self.variables.get("AZURE_POD_IDENTITY_AUTHORITY_HOST");
        if let (Ok(from), Some(to)) = (Url::parse(METADATA_SERVICE), elsewhere) {
            let to =
                Url::parse(to).map_err(|e| (None, format!("AZURE_POD_IDENTITY_AUTHORITY_HOST is not a URL: {e}")))?;
            routes.push((from, to));
        }
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: client_id.map(|id| UserAssignedId::ClientId(id.to_owned())),
            client_options: client_options(HttpTransport::metadata(self.metadata.clone(), routes)),
        };
        let scope = self.cloud.scope();
        let asked = async {
            let credential = ManagedIdentityCredential::new(Some(options))?;
            credential.get_token(&[&scope], None).await
        };
        match tokio::time::timeout(METADATA_LIMIT, asked).await {
            Ok(Ok(token)) => Ok(core_token(token)),
            Ok(Err(e)) => {
                let reason = reason(&e);
                Err((Some(e), reason))
            }
            Err(_) => {
                let at = elsewhere.unwrap_or(METADATA_SERVICE);
                let seconds = METADATA_LIMIT.as_secs();
                Err((
                    None,
                    format!("the metadata service {at} gave none within {seconds} seconds, as outside of Azure"),
                ))
            }
        }
    }

    fn login_options(&self) -> ClientOptions {
        let meant = self.cloud.authority();
        let mut routes = Vec::new();
        let mut taken = meant.to_string();
        if meant.scheme() == "http" {
            // An http address keeps its port when it is written with https, so that the two origins differ by scheme alone.
            let port = meant.port_or_known_default().unwrap_or(80);
            taken = format!("https://{}:{port}/", meant.host_str().unwrap_or_default());
            if let Ok(from) = Url::parse(&taken) {
                routes.push((from, meant.clone()));
            }
        }
        let mut custom = CustomConfiguration::default();
        custom.authority_host = taken;
        ClientOptions {
            cloud: Some(Arc::new(custom.into())),
            ..client_options(HttpTransport::login(self.login.clone(), routes))
        }
    }
}

fn client_options(transport: HttpTransport) -> ClientOptions {
    let retry = ExponentialRetryOptions { max_retries: 3, ..ExponentialRetryOptions::default() };
    ClientOptions {
        retry: RetryOptions::exponential(retry),
        transport: Some(Transport::new(Arc::new(transport))),
        ..ClientOptions::default()
    }
}

fn core_token(token: azure_core::credentials::AccessToken) -> AccessToken {
    let expires = DateTime::from_timestamp(token.expires_on.unix_timestamp(), 0);
    AccessToken::new(token.token.secret().to_owned(), expires)
}

fn unusable(what: &str, e: &azure_core::Error) -> Error {
    Error::invalid(format!("{what} cannot be used: {}", reason(e)))
}

/// The errors of `azure_identity` behind `e`, outermost first.
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
fn is_passing(e: &azure_core::Error) -> bool {
    match status(e) {
        Some(status) => matches!(status, 408 | 410 | 429 | 500..=599),
        None => chain(e).into_iter().any(|e| matches!(e.kind(), AzureKind::Connection | AzureKind::Io)),
    }
}

/// What the innermost error that says something has to say, as one line without the crate's links to web pages.
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
