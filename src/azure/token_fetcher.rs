//! Tokens for Azure Resource Manager: each is fetched once for all callers, and another one before it expires, by one request
//! to the login service of Microsoft Entra ID, or to the metadata service of the machine.
//!
//! Sources: <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow> (service principals and
//! workload identities), <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>
//! (managed identities of VMs), <https://learn.microsoft.com/azure/app-service/overview-managed-identity> (of App Service).

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Mutex;
use url::Url;

use super::cloud::Cloud;
use super::credential::{AccessToken, Credential, CredentialVariables};
use super::request::is_transient;
use crate::error::{Error, ErrorKind, Result};
use crate::http::address::without_userinfo;
use crate::http::retry::Retry;
use crate::http::secret::one_line;
use crate::http::{Client, Deadline, RequestFailure, Response, SendState};
use crate::runtime;

/// The metadata service of Azure's VMs.
const METADATA_SERVICE: &str = "http://169.254.169.254";
/// Time limit to connect to the metadata service, which is on the same host or does not exist.
const METADATA_CONNECT: Duration = Duration::from_secs(1);
/// Time limit for a managed identity, with all tries.
const METADATA_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for the login service, with all tries.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);
/// How often a request is tried.
const TRIES: u32 = 4;
/// Longest response that is read, in bytes.
const LONGEST_BODY: usize = 1 << 20;

/// Fetches tokens with a credential, and holds the current one.
#[derive(Debug)]
pub(super) struct TokenFetcher {
    credential: Credential,
    variables: CredentialVariables,
    cloud: Cloud,
    login: Client,
    current: Mutex<Option<Arc<AccessToken>>>,
}

/// A request for a token.
struct TokenExchange<'a> {
    client: &'a Client,
    /// What errors call the identity, for example `the service principal <client id>`.
    identity: &'a str,
    /// What must not appear in an error, even if the server repeats it.
    secret: &'a str,
    /// Whether the service exists on some machines only: one that cannot be reached is not there, and is asked once.
    is_optional: bool,
    /// Time limit, with all tries.
    limit: Duration,
}

impl TokenFetcher {
    pub(super) fn new(credential: Credential, variables: CredentialVariables, cloud: Cloud) -> Result<Self> {
        let advice = "check the network and its proxy";
        let login = Client::new("the login service", cloud.authority(), advice, |builder| {
            builder.connect_timeout(CONNECT_LIMIT)
        })?;
        let login = login.with_longest_body(LONGEST_BODY);
        Ok(Self { credential, variables, cloud, login, current: Mutex::new(None) })
    }

    /// A token for the next request, other than the one that Resource Manager `refused`. When an early renewal fails, the
    /// old token is used until it expires.
    pub(super) async fn token(&self, refused: Option<&AccessToken>) -> Result<Arc<AccessToken>> {
        let mut current = self.current.lock().await;
        let now = Utc::now();
        let usable = current.clone().filter(|token| refused.is_none_or(|refused| refused.text() != token.text()));
        let is_fresh = |token: &AccessToken| refused.is_some() || token.renew_at().is_none_or(|at| now < at);
        if let Some(token) = usable.clone().filter(|token| is_fresh(token)) {
            return Ok(token);
        }
        match (self.fetch().await, usable) {
            (Ok(token), _) => Ok(Arc::clone(current.insert(Arc::new(token)))),
            (Err(error), Some(token)) if token.expires.is_some_and(|at| now < at) => {
                tracing::warn!(error = error.full_message(), "the Azure token could not be renewed yet");
                Ok(token)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// A new token.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] when there is no credential or it is refused; [`ErrorKind::Network`], retryable, when
    /// the login service cannot be reached; [`ErrorKind::InvalidInput`] for malformed ids; those of a
    /// [`super::TokenSource`].
    async fn fetch(&self) -> Result<AccessToken> {
        match &self.credential {
            Credential::Environment => self.environment_token().await,
            Credential::ServicePrincipal { tenant_id, client_id, client_secret } => {
                self.service_principal(tenant_id, client_id, client_secret.expose()).await
            }
            Credential::ManagedIdentity { client_id } => {
                self.managed_identity(client_id.as_deref()).await.map_err(|error| {
                    let text = format!("the managed identity gave no token: {error}");
                    refused(text).with_retryable(error.is_retryable()).with_source(error)
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
                match token.expires {
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
        self.managed_identity(client).await.map_err(|error| {
            let text = format!(
                "no Azure credentials were found. It tried a service principal ({}), a workload identity ({}) and this \
                 machine's managed identity ({error}). Set the variables, or give credential=",
                missing(["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"]),
                missing(["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"]),
            );
            refused(text).with_retryable(error.is_retryable()).with_source(error)
        })
    }

    async fn service_principal(&self, tenant: &str, client: &str, secret: &str) -> Result<AccessToken> {
        let identity = format!("the service principal {client}");
        self.login(&identity, secret, tenant, &[("client_id", client), ("client_secret", secret)]).await
    }

    async fn workload_identity(&self, tenant: &str, client: &str, file: &str) -> Result<AccessToken> {
        const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let identity = format!("the workload identity {client}");
        let mut token = String::new();
        let read = async {
            let file = tokio::fs::File::open(file).await?;
            file.take(LONGEST_BODY as u64).read_to_string(&mut token).await
        };
        read.await.map_err(|e| {
            let text = format!("{identity} cannot be used: AZURE_FEDERATED_TOKEN_FILE {file} cannot be read");
            Error::invalid(text).with_source(e)
        })?;
        let (token, kind) = (token.trim(), ("client_assertion_type", ASSERTION));
        self.login(&identity, token, tenant, &[("client_id", client), kind, ("client_assertion", token)]).await
    }

    /// A token by the client credentials flow.
    async fn login(&self, identity: &str, secret: &str, tenant: &str, fields: &[(&str, &str)]) -> Result<AccessToken> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if !tenant.chars().all(is_allowed) || !tenant.contains(|c: char| c.is_ascii_alphanumeric()) {
            return Err(Error::invalid(format!(
                "{identity} cannot be used: the tenant id {tenant:?} has other characters than letters, digits, '.' and '-'"
            )));
        }
        let url = self.cloud.authority().join(&format!("/{tenant}/oauth2/v2.0/token")).map_err(|e| {
            Error::invalid(format!("{identity} cannot be used: its tenant id is {tenant:?}")).with_source(e)
        })?;
        let scope = self.cloud.scope();
        let form = [fields, &[("grant_type", "client_credentials"), ("scope", &scope)]].concat();
        let request = TokenExchange { client: &self.login, identity, secret, is_optional: false, limit: LOGIN_LIMIT };
        request.send(|| self.login.request(Method::POST, url.clone()).form(&form), is_transient).await
    }

    /// A token of the identity that this machine has.
    async fn managed_identity(&self, client_id: Option<&str>) -> Result<AccessToken> {
        let of = |name: &'static str| self.variables.get(name);
        let app_service = of("IDENTITY_ENDPOINT").zip(of("IDENTITY_HEADER"));
        let unsupported = match (app_service, of("IDENTITY_ENDPOINT")) {
            (Some(_), _) => of("IDENTITY_SERVER_THUMBPRINT").map(|_| "Service Fabric"),
            (None, Some(_)) => of("IMDS_ENDPOINT").map(|_| "Azure Arc"),
            (None, None) => of("MSI_ENDPOINT").map(|_| "Azure ML or Cloud Shell"),
        };
        if let Some(source) = unsupported {
            return Err(refused(format!("identities of {source} are not supported: use a service principal")));
        }
        let pod_identity = of("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or(METADATA_SERVICE);
        let (name, address, version) = match app_service {
            Some((endpoint, _)) => ("IDENTITY_ENDPOINT", endpoint, "2019-08-01"),
            None => ("AZURE_POD_IDENTITY_AUTHORITY_HOST", pod_identity, "2018-02-01"),
        };
        let not_a_url = |e| Error::invalid(format!("{name} is not a URL: {e}"));
        let mut url = Url::parse(&without_userinfo(address)).map_err(not_a_url)?;
        if app_service.is_none() {
            url.set_path("/metadata/identity/oauth2/token");
        }
        let scope = self.cloud.scope();
        let resource = scope.strip_suffix("/.default").unwrap_or(&scope);
        url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", resource);
        if let Some(id) = client_id {
            url.query_pairs_mut().append_pair("client_id", id);
        }
        let mut host = url.clone();
        host.set_path("");
        host.set_query(None);
        // The metadata service is on the VM's own host. A proxy would ask about another machine.
        let advice = "this machine has no managed identity, or a firewall blocks the metadata service";
        let client = Client::new("the metadata service", &host, advice, |builder| {
            builder.connect_timeout(METADATA_CONNECT).no_proxy()
        })?;
        let client = client.with_longest_body(LONGEST_BODY);
        let (_, header) = app_service.unwrap_or_default();
        let identity = "the identity of this machine";
        let request =
            TokenExchange { client: &client, identity, secret: header, is_optional: true, limit: METADATA_LIMIT };
        let build = || {
            let request = client.request(Method::GET, url.clone()).header("Metadata", "true");
            if header.is_empty() { request } else { request.header("X-IDENTITY-HEADER", header) }
        };
        // 404 and 410: the service is being updated.
        let may_repeat = |status: StatusCode| {
            matches!(status.as_u16(), 404 | 410) || status.is_server_error() || is_transient(status)
        };
        request.send(build, may_repeat).await
    }
}

impl TokenExchange<'_> {
    /// Sends the request until it is answered with a token or refused.
    async fn send(
        self,
        build: impl Fn() -> RequestBuilder,
        may_repeat: impl Fn(StatusCode) -> bool,
    ) -> Result<AccessToken> {
        let what = format!("the request for a token of {}", self.identity);
        let deadline = Deadline::after(self.limit);
        let mut retry = Retry::new(TRIES, TRIES).until(deadline);
        loop {
            let sent = self.client.send_until(build(), &what, deadline).await;
            let wait = match sent.and_then(Response::complete).map(|response| response.without(&[self.secret])) {
                Ok(response) if response.status.is_success() => return self.token(&response, &what),
                Ok(response) => {
                    let error = self.refusal(&response);
                    if !may_repeat(response.status) {
                        return Err(error);
                    }
                    retry.after(error, true, response.retry_after())?
                }
                Err(RequestFailure { error, state: SendState::NotSent, .. }) if self.is_optional => {
                    return Err(error.with_retryable(false));
                }
                Err(RequestFailure { error, .. }) => retry.after(error, false, None)?,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// The token in a response.
    fn token(&self, response: &Response, what: &str) -> Result<AccessToken> {
        let body = response.json(what, "AZURE_AUTHORITY_HOST, IDENTITY_ENDPOINT and AZURE_POD_IDENTITY_AUTHORITY_HOST are right where they are set")?;
        let Some(token) = body.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty()) else {
            let text = format!("{} answered {what} without a token", self.client.shown);
            return Err(Error::new(ErrorKind::Server, text));
        };
        // The metadata service gives numbers as text.
        let number =
            |name: &str| body.get(name).and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok()));
        let seconds =
            number("expires_on").or_else(|| Some(Utc::now().timestamp().saturating_add(number("expires_in")?)));
        Ok(AccessToken::new(token, seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0))))
    }

    /// The error for a response that refuses: the first line of what it says.
    fn refusal(&self, response: &Response) -> Error {
        let body = serde_json::from_slice::<Value>(&response.body).unwrap_or_default();
        let said = ["error_description", "error", "message"].iter().find_map(|name| body.get(name)?.as_str());
        let text = said.map_or_else(|| String::from_utf8_lossy(&response.body).into_owned(), str::to_owned);
        let mut reason = one_line(text.trim().lines().next().unwrap_or_default(), 500);
        let status = response.status.as_u16();
        if self.is_optional && status == 400 {
            reason = format!("it has not been assigned to this machine: {reason}");
        }
        let retryable = status == 410 || is_transient(response.status) || response.status.is_server_error();
        refused(format!("{} refused {} with HTTP status {status}: {reason}", self.client.shown, self.identity))
            .with_retryable(retryable)
    }
}

fn refused(text: String) -> Error {
    Error::new(ErrorKind::Authentication, text)
}
