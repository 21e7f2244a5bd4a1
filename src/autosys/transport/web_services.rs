//! AutoSys's web services (AEWS) as a transport: one POST per event, and a GET for the status of a job.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use url::Url;

use super::{Delivery, Gate, SendOutcome, SendResult, Transport, command};
use crate::autosys::event::{Event, JobName, Mapping};
use crate::error::{Error, Result};
use crate::http::retry::retry_after_text;
use crate::http::{Client, RequestFailure, Response, SendState, tls};

mod address;
mod credentials;
mod response;
#[cfg(test)]
mod tests;

use address::Addresses;
pub use credentials::WebCredentials;

/// Longest wait for a connection, name resolution and TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept. It is shorter than the limit of servers (Tomcat: 20 s), because a request on a
/// connection that the server is closing may or may not arrive.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// How much of a response is read, in bytes.
const LONGEST_BODY: usize = 64 << 10;

/// The last segments of the addresses that events are posted to.
///
/// The defaults are those of clients in use, because the vendor's list is not public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNames {
    /// For `CHANGE_STATUS`.
    pub change_status: String,
    /// For `STARTJOB`.
    pub start: String,
    /// For `FORCE_STARTJOB`.
    pub force_start: String,
}

impl Default for EventNames {
    fn default() -> Self {
        let [change_status, start, force_start] =
            ["change-status-job", "start-job", "force-start-job"].map(str::to_owned);
        Self { change_status, start, force_start }
    }
}

/// How [`WebServices`] connects to AutoSys.
#[derive(Debug, Clone)]
pub struct WebServicesOptions {
    /// `https://host:9443`, with a path when the services are not below `/AEWS`.
    pub base_url: String,
    /// The credentials of each request.
    pub credentials: WebCredentials,
    /// The path that events are posted to: below `base_url`, or with a leading `/` below its host. It is `event` in older
    /// releases, and `api/event` in those with a Swagger page.
    pub prefix: String,
    /// The event addresses below `prefix`.
    pub events: EventNames,
    /// The path of a job's status, like `prefix`; `{job}` becomes its name. `None`: the status is not read.
    pub status_path: Option<String>,
    /// The `comment` of each event; `{file_name}` becomes the row's file name. Cut at 255 characters, control characters
    /// become spaces.
    pub comment: Option<String>,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest wait for a response. Connecting may take the same time in addition, at most ten seconds.
    pub timeout: Duration,
    /// The HTTP statuses that prove that an event was stored.
    pub accepted: Vec<u16>,
    /// Whether credentials and events may cross a network in clear text.
    pub allow_http: bool,
    /// The event of each status.
    pub mapping: Mapping,
}

impl WebServicesOptions {
    /// The default options for the services at `base_url`.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            credentials: WebCredentials::None,
            prefix: "event".to_owned(),
            events: EventNames::default(),
            status_path: Some("job-run-info/{job}".to_owned()),
            comment: None,
            ca_file: None,
            timeout: Duration::from_secs(30),
            accepted: vec![201],
            allow_http: false,
            mapping: Mapping::change_status(),
        }
    }
}

/// Sends events to AutoSys's web services.
///
/// The server's certificate is always verified, redirects are not followed (they would get the credentials), and no request
/// is repeated. 201 means that the event was stored, not that it was applied.
#[derive(Debug)]
pub struct WebServices {
    http: Client,
    addresses: Addresses,
    options: WebServicesOptions,
    authorization: Option<HeaderValue>,
}

impl WebServices {
    /// Checks the options and reads the certificates; sends nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for addresses, credentials, certificates and limits that can never work, also for
    /// `http` to another machine without `allow_http`; [`crate::ErrorKind::NotFound`] for a `ca_file` that does not exist.
    pub fn new(options: WebServicesOptions) -> Result<Self> {
        if options.timeout.is_zero() {
            return Err(Error::invalid("the time limit of the web services is zero; give at least some milliseconds"));
        }
        if options.accepted.is_empty() || options.accepted.iter().any(|status| !(200..300).contains(status)) {
            return Err(Error::invalid(
                "accepted must be HTTP statuses from 200 to 299, such as 201, that prove that an event was stored",
            ));
        }
        let addresses = Addresses::new(&options)?;
        let authorization = options.credentials.header()?;
        let certificates = match &options.ca_file {
            Some(file) => tls::certificates(file, "ca_file", "")?,
            None => Vec::new(),
        };
        let has_certificates = !certificates.is_empty();
        // Connecting has a time limit of its own within that of the request, so that a request that reaches it was sent.
        let connect_limit = options.timeout.min(CONNECT_LIMIT);
        let (server, advice) = (&addresses.server, "check base_url and the network");
        let http = Client::new("the web services", server, advice, |builder| {
            builder.connect_timeout(connect_limit).pool_idle_timeout(IDLE_LIMIT).tls_certs_merge(certificates)
        });
        // Whether a certificate can be read shows only here.
        let http = http.map_err(|error| match has_certificates {
            true => {
                Error::invalid("ca_file has a certificate that cannot be read: give a PEM bundle").with_source(error)
            }
            false => error,
        })?;
        let http = http.with_limit(options.timeout + connect_limit).with_longest_body(LONGEST_BODY);
        Ok(Self { http, addresses, options, authorization })
    }

    /// The address and the body of the event of `delivery`, or why it cannot be sent.
    fn request(&self, delivery: &Delivery) -> Result<(&Url, Value), String> {
        let job = JobName::parse(&delivery.job_id).map_err(|e| e.to_string())?;
        let event = self.options.mapping.event(&delivery.status).map_err(|e| e.to_string())?;
        let mut body = json!({ "jobName": job.as_str() });
        if let Some(status) = event.status() {
            body["jobStatus"] = json!(status);
        }
        if let Some(comment) = &self.options.comment {
            body["comment"] = json!(command::comment_text(comment, &delivery.file_name));
        }
        let address = match event {
            Event::ChangeStatus(_) => &self.addresses.change_status,
            Event::StartJob => &self.addresses.start,
            Event::ForceStartJob => &self.addresses.force_start,
        };
        Ok((address, body))
    }

    async fn exchange(&self, request: RequestBuilder, what: &str) -> Result<Response, RequestFailure> {
        let mut request = request.header("Accept", "application/json");
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        let secrets = self.options.credentials.secrets();
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        self.http.send(request, what).await.map(|response| response.without(&secrets))
    }
}

#[async_trait]
impl Transport for WebServices {
    fn name(&self) -> &str {
        "web_services"
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(self.options.timeout + self.options.timeout.min(CONNECT_LIMIT))
    }

    fn describe(&self, delivery: &Delivery) -> Result<String, String> {
        let (address, body) = self.request(delivery)?;
        Ok(format!("POST {address} {body}"))
    }

    async fn send(&self, delivery: &Delivery, gate: &Gate) -> SendResult {
        let (address, body) = match self.request(delivery) {
            Ok(request) => request,
            Err(reason) => return SendOutcome::permanent(reason).into(),
        };
        let request = self.http.request(Method::POST, address.clone()).json(&body);
        if !gate.is_open() {
            return SendOutcome::NotTried.into();
        }
        match self.exchange(request, "the event").await {
            // The rest of the body could hold an error code.
            Ok(response) if response.timed_out() => SendOutcome::unknown(format!(
                "{} answered {}, and the rest of its response did not come in time",
                self.http.shown, response.status
            )),
            // The status is the result. A body that breaks off only explains less.
            Ok(response) => {
                let retry_after = retry_after_text(&response.headers);
                let (status, accepted) = (response.status.as_u16(), &self.options.accepted);
                response::outcome(status, accepted, &delivery.job_id, &response.body, retry_after.as_deref())
            }
            Err(RequestFailure { error, state, .. }) => {
                let reason = error.full_message();
                match state {
                    SendState::NotSent => SendOutcome::transient(reason),
                    SendState::MaybeSent | SendState::Answered(_) => SendOutcome::unknown(reason),
                }
            }
        }
        .into()
    }

    fn reads_status(&self) -> bool {
        self.options.status_path.is_some()
    }

    async fn status(&self, job_id: &str) -> Result<String, String> {
        let request = self.http.request(Method::GET, self.addresses.status(job_id)?);
        let read = async {
            let response = self.exchange(request, "the request for the status").await.and_then(Response::complete);
            let response = response.map_err(|failure| failure.error.full_message())?;
            match response.status.is_success() {
                true => response::job_status(&response.body, job_id),
                false => Err(format!("{}{}", response.status, response::after_colon(&response::text(&response.body)))),
            }
        };
        read.await.map_err(|reason| format!("{} did not return the status of {job_id}: {reason}", self.http.shown))
    }

    fn confirms(&self, delivery: &Delivery, status: &str) -> bool {
        self.options.mapping.confirms(&delivery.status, status)
    }
}
