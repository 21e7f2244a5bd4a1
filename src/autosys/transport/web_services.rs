//! AutoSys's web services (AEWS) as the way to AutoSys: one POST per event, and a GET for the status of a job.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use url::Url;

use super::{Delivery, Gate, Outcome, Sent, Transport, command};
use crate::autosys::event::{Event, JobName, Mapping};
use crate::certificates;
use crate::error::{Error, ErrorKind, Result};

mod address;
mod answer;
mod job_status;
mod login;
#[cfg(test)]
mod tests;

use address::Addresses;
pub use login::Login;

/// Longest wait for a connection, name resolution and TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection that is not used is kept. Shorter than what servers allow (Tomcat: 20 s), because a request on a
/// connection that the server is just closing may or may not have arrived.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// How much of an answer is read, in bytes.
const LONGEST_BODY: usize = 64 << 10;

/// The last segments of the addresses that events are posted to.
///
/// The defaults are what clients of live installations use; the vendor's own list is not public.
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

/// How [`WebServices`] reaches AutoSys.
#[derive(Debug, Clone)]
pub struct WebServicesOptions {
    /// `https://host:9443`, with a path where the services are not below `/AEWS`.
    pub base_url: String,
    /// Whose rights are used.
    pub login: Login,
    /// Where events are posted: below `base_url`, or with a leading `/` below its host. `event` in older releases,
    /// `api/event` in those with a Swagger page.
    pub prefix: String,
    /// The event addresses below that.
    pub events: EventNames,
    /// Where the status of a job is read, like `prefix`; `{job}` becomes its name. `None`: it is not read.
    pub status_path: Option<String>,
    /// The `comment` of each event; `{file_name}` becomes the row's file name. Cut at 255 characters, control characters
    /// become spaces.
    pub comment: Option<String>,
    /// A PEM file with certificates of authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest wait for an answer. Connecting before that may take as long, at most ten seconds.
    pub timeout: Duration,
    /// The HTTP statuses that prove that an event was stored.
    pub accepted: Vec<u16>,
    /// Whether credentials and events may cross a network in the clear.
    pub allow_http: bool,
    /// Which event each status stands for.
    pub mapping: Mapping,
}

impl WebServicesOptions {
    /// The options for the services at `base_url`, everything else as usual.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            login: Login::None,
            prefix: "event".to_owned(),
            events: EventNames::default(),
            status_path: Some("job-run-info/{job}".to_owned()),
            comment: None,
            ca_file: None,
            timeout: Duration::from_secs(30),
            accepted: vec![201],
            allow_http: false,
            mapping: Mapping::default(),
        }
    }
}

/// Sends events to AutoSys's web services.
///
/// The server's certificate is always verified, redirects are not followed (they would take the credentials along), and
/// no request is repeated. 201 means that the event was stored, not that it was applied.
pub struct WebServices {
    http: Client,
    addresses: Addresses,
    options: WebServicesOptions,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for WebServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebServices").field("options", &self.options).finish_non_exhaustive()
    }
}

impl WebServices {
    /// Checks the options and reads the certificates; sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for addresses, credentials, certificates and limits that can never work, `http` without
    /// `allow_http` among them, unless it is this machine's; [`ErrorKind::NotFound`] for a `ca_file` that is not there.
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
        let authorization = options.login.header()?;
        let mut builder = Client::builder()
            .user_agent(concat!("jobrota/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.timeout.min(CONNECT_LIMIT))
            .pool_idle_timeout(IDLE_LIMIT)
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none());
        if addresses.is_loopback() {
            builder = builder.no_proxy();
        }
        if let Some(file) = &options.ca_file {
            builder = builder.tls_certs_merge(certificates::read(file, "ca_file", "")?);
        }
        let http = builder.build().map_err(|e| {
            let text = "the HTTP client for the web services could not be set up: see that the machine has certificates, and ca_file";
            Error::new(ErrorKind::InvalidInput, text).with_source(e)
        })?;
        Ok(Self { http, addresses, options, authorization })
    }

    /// Where the event of `delivery` is posted and what, or why it cannot be.
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

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header("Accept", "application/json");
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    /// How long a request may take altogether. The connection has its own limit within it, so that running out of this one
    /// means that the request was sent.
    fn whole_limit(&self) -> Duration {
        self.options.timeout + self.options.timeout.min(CONNECT_LIMIT)
    }

    /// `text` without credentials, should a server have repeated them.
    fn without_secrets(&self, text: String) -> String {
        self.options.login.removed_from(text)
    }

    /// Why there was no answer.
    fn broken(&self, error: reqwest::Error) -> Outcome {
        let server = &self.addresses.server;
        let never_sent = error.is_connect() || error.is_builder();
        let (timed_out, reason) = (error.is_timeout(), reason(&error.without_url()));
        let reason = self.without_secrets(reason);
        if never_sent {
            return Outcome::transient(format!("the web services at {server} could not be reached: {reason}"));
        }
        let what = if timed_out { "did not answer in time" } else { "broke off the connection" };
        Outcome::unknown(format!("the web services at {server} {what} after the event was sent: {reason}"))
    }
}

#[async_trait]
impl Transport for WebServices {
    fn name(&self) -> &str {
        "web_services"
    }

    fn check(&self, delivery: &Delivery) -> Result<(), String> {
        self.request(delivery).map(|_| ())
    }

    fn describe(&self, delivery: &Delivery) -> String {
        match self.request(delivery) {
            Ok((address, body)) => format!("POST {address} {body}"),
            Err(reason) => reason,
        }
    }

    async fn send(&self, delivery: &Delivery, gate: &Gate) -> Sent {
        let (address, body) = match self.request(delivery) {
            Ok(request) => request,
            Err(reason) => return Outcome::permanent(reason).into(),
        };
        let request = self.authorized(self.http.post(address.clone()).json(&body));
        if !gate.is_open() {
            return Outcome::not_tried("the delivery was stopped before its turn").into();
        }
        let exchange = async {
            match request.send().await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    let retry_after = answer::retry_after(response.headers());
                    // The status is the answer; a body that breaks off explains it less, and no more.
                    let body = body_of(response).await.unwrap_or_else(|(read, _)| read);
                    let said = self.without_secrets(answer::text(&body));
                    answer::verdict(status, &self.options.accepted, &delivery.job_id, &said, retry_after.as_deref())
                }
                Err(error) => self.broken(error),
            }
        };
        let limit = self.whole_limit();
        tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| {
                let (server, seconds) = (&self.addresses.server, self.options.timeout.as_secs_f64());
                Outcome::unknown(format!(
                    "the web services at {server} did not answer within {seconds} s after the event was sent"
                ))
            })
            .into()
    }

    fn reads_status(&self) -> bool {
        self.options.status_path.is_some()
    }

    async fn status(&self, job_id: &str) -> Result<String, String> {
        let address = self.addresses.status(job_id)?;
        let ask = async {
            let response = match self.authorized(self.http.get(address)).send().await {
                Ok(response) => response,
                Err(error) => return Err(reason(&error.without_url())),
            };
            let status = response.status();
            let body = body_of(response).await.map_err(|(_, error)| reason(&error.without_url()))?;
            if !status.is_success() {
                return Err(format!("{status}{}", answer::after_colon(&answer::text(&body))));
            }
            job_status::read(&body, job_id)
        };
        let answer = tokio::time::timeout(self.whole_limit(), ask).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {} s", self.options.timeout.as_secs_f64()))).map_err(
            |reason| {
                let server = &self.addresses.server;
                self.without_secrets(format!(
                    "the web services at {server} did not tell the status of {job_id}: {reason}"
                ))
            },
        )
    }

    fn shows(&self, delivery: &Delivery, status: &str) -> bool {
        self.options.mapping.shows(&delivery.status, status)
    }
}

/// The body as far as it is of use; on an error what was read before it.
async fn body_of(mut response: Response) -> Result<Vec<u8>, (Vec<u8>, reqwest::Error)> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(piece)) => {
                let room = LONGEST_BODY - body.len();
                body.extend_from_slice(&piece[..piece.len().min(room)]);
                if body.len() == LONGEST_BODY {
                    return Ok(body);
                }
            }
            Ok(None) => return Ok(body),
            Err(error) => return Err((body, error)),
        }
    }
}

/// An error with its causes, each once.
fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}
