//! Posts to a webhook: the whole address is a secret, because who has it can post.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use url::Url;

use super::address::{has_userinfo, is_loopback};
use super::client::Client;
use super::retry::{Deadline, Retry};
use super::secret::one_line;
use super::tls::ca_bundle;
use crate::error::{Error, ErrorKind, Result};

const TRIES: u32 = 3;
/// Longest body of a response that is read, in bytes: more than is shown, so that no secret at its end is cut and not found.
const MOST_BYTES: usize = 16 << 10;
const SHOWN: usize = 200;
const DAMAGED: &str = "is not valid: copy it again from the receiver";

/// The address of a webhook, checked.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] unless it is `https://`, or `http://` to this machine. The error shows no part of it.
pub(crate) fn address(text: &str) -> Result<Url> {
    let refuse = |why: &str| Err(Error::invalid(format!("the URL of the webhook {why}")));
    // The parser repairs what was not copied well.
    let is_damaged = text.contains(":///") || text.contains(|c: char| c.is_whitespace() || c.is_control());
    match Url::parse(text) {
        Err(_) => refuse(DAMAGED),
        Ok(_) if is_damaged => refuse(DAMAGED),
        Ok(url) if has_userinfo(&url) => refuse("has a user: use one whose path or query is the secret"),
        Ok(url) if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) => Ok(url),
        Ok(_) => refuse("must begin with https://, or with http:// for a receiver on this machine: copy it again"),
    }
}

/// Posts `body`, a JSON text, and tries again within `limit` if the receiver cannot be reached, is overloaded or fails. Of the
/// response, errors show no text that is one of `secrets`.
///
/// # Errors
/// [`ErrorKind::Network`] or [`ErrorKind::Server`], when the receiver did not take it.
pub(crate) async fn post(url: Url, body: String, secrets: Vec<String>, limit: Duration) -> Result<()> {
    let receiver = url.join("/").map_err(|_| Error::invalid("the URL of the webhook has no host"))?;
    let trusted = ca_bundle(None)?;
    let client = Client::new("the receiver", &receiver, "check its URL, the network and the proxy", |builder| {
        builder.tls_certs_merge(trusted)
    })?
    .with_longest_body(MOST_BYTES);
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let deadline = Deadline::after(limit);
    let mut retry = Retry::new(TRIES, TRIES).until(deadline);
    loop {
        let request =
            client.request(Method::POST, url.clone()).header(CONTENT_TYPE, "application/json").body(body.clone());
        let (error, asked, responded) = match client.send_until(request, "an alert", deadline).await {
            Ok(response) if response.status.is_success() => return Ok(()),
            Ok(response) => {
                let response = response.without(&secrets);
                let said = one_line(&String::from_utf8_lossy(&response.body), SHOWN);
                let error =
                    Error::new(ErrorKind::Server, format!("{} answered {}: {said}", client.shown, response.status));
                let passes = matches!(response.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
                (error.with_retryable(passes || response.status.is_server_error()), response.retry_after(), true)
            }
            Err(failure) => (failure.error, None, false),
        };
        if !error.is_retryable() || deadline.is_over() {
            return Err(error);
        }
        tokio::time::sleep(retry.after(error, responded, asked)?).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_not_shown() {
        assert_eq!(address("https://hooks.example.com/T0/S3CRET?sig=x").unwrap().host_str(), Some("hooks.example.com"));
        assert!(address("http://127.0.0.1:8000/").is_ok() && address("http://[::1]:8000/").is_ok());
        for text in [
            "",
            "S3CRET",
            "http://hooks.example.com/S3CRET",
            "ftp://127.0.0.1/S3CRET",
            "https://u:S3CRET@hooks.example.com/",
            "https:///S3CRET",
            "https://hooks.example.com/S3CRET\n",
            "https://hooks.example.com:99999/S3CRET",
        ] {
            let error = address(text).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidInput && !error.full_message().contains("S3CRET"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_receiver_that_is_away_is_named_without_its_path() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = address(&format!("http://{closed}/S3CRET")).unwrap();
        let error = post(url, "{}".into(), vec!["S3CRET".into()], Duration::from_millis(300)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Network && error.to_string().contains(&closed.to_string()), "{error}");
        assert!(!error.full_message().contains("S3CRET"), "{error}");
    }
}
