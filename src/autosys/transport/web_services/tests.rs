//! Web services against the sandbox's, and against servers that answer what they are told to.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::response::outcome;
use super::*;
use crate::ErrorKind;
use crate::runtime::block_on;
use crate::sandbox::autosys::{AutosysOptions, AutosysSandbox};

const PASSWORD: &str = "pass-word-in-clear";

fn delivery(job: &str, status: &str) -> Delivery {
    Delivery { file_name: "a.sas".to_owned(), job_id: job.to_owned(), status: status.to_owned() }
}

fn basic(user: &str, password: &str) -> WebCredentials {
    WebCredentials::Basic { user: user.to_owned(), password: password.into() }
}

fn send(way: &WebServices, delivery: &Delivery) -> SendOutcome {
    block_on(async { Ok(way.send(delivery, &Gate::open()).await.outcome) }).unwrap()
}

fn word(outcome: &SendOutcome) -> &'static str {
    match outcome {
        SendOutcome::Delivered { .. } => "delivered",
        SendOutcome::Failed { permanent: true, .. } => "permanent",
        SendOutcome::Failed { .. } => "transient",
        SendOutcome::Unknown { .. } => "unknown",
        SendOutcome::NotTried => "not tried",
    }
}

fn detail(outcome: &SendOutcome) -> &str {
    match outcome {
        SendOutcome::Delivered { detail } => detail.as_deref().unwrap_or_default(),
        SendOutcome::Failed { detail, .. } | SendOutcome::Unknown { detail } => detail,
        SendOutcome::NotTried => "",
    }
}

fn sandbox(jobs: Option<Vec<String>>) -> (tempfile::TempDir, AutosysSandbox, WebServicesOptions) {
    let dir = tempfile::tempdir().unwrap();
    let sandbox = AutosysSandbox::start(dir.path(), AutosysOptions { jobs, ..Default::default() }).unwrap();
    let (user, password) = sandbox.credentials();
    let options = WebServicesOptions { credentials: basic(user, password), ..WebServicesOptions::new(sandbox.url()) };
    (dir, sandbox, options)
}

#[test]
fn events_are_stored_and_the_status_is_read_back() {
    let (_dir, sandbox, options) = sandbox(Some(vec!["A#1".to_owned(), "..".to_owned()]));
    let way = WebServices::new(options).unwrap();
    assert_eq!(way.name(), "web_services");
    assert!(way.reads_status());
    let status = |job: &'static str| block_on(async { Ok(way.status(job).await) }).unwrap();
    assert_eq!(status("A#1").as_deref(), Ok("INACTIVE"));
    let sent = send(&way, &delivery("A#1", "FAILURE"));
    assert_eq!(word(&sent), "delivered", "{sent:?}");
    assert_eq!(status("A#1").as_deref(), Ok("FAILURE"));
    assert!(
        way.confirms(&delivery("A#1", "FAILURE"), "FAILURE") && !way.confirms(&delivery("A#1", "FAILURE"), "SUCCESS")
    );
    assert_eq!(word(&send(&way, &delivery("..", "SUCCESS"))), "delivered");
    // As part of an address it would mean another address.
    assert!(status("..").unwrap_err().contains("web address"));
    let unknown = send(&way, &delivery("other", "SUCCESS"));
    assert!(word(&unknown) == "permanent" && detail(&unknown).contains("CAUAJM_E_50029"), "{unknown:?}");
    assert!(status("other").unwrap_err().contains("404"));
    sandbox.refuse_once(&["A#1".to_owned()]).unwrap();
    assert_eq!(word(&send(&way, &delivery("A#1", "SUCCESS"))), "transient");
    sandbox.set_available(false).unwrap();
    let away = send(&way, &delivery("A#1", "SUCCESS"));
    assert!(word(&away) == "transient" && detail(&away).contains("503"), "{away:?}");
    let events = sandbox.events().unwrap();
    let events: Vec<_> =
        events.iter().map(|event| [&event.via, &event.event, &event.job, &event.status].map(String::as_str)).collect();
    assert_eq!(events, [["web", "CHANGE_STATUS", "A#1", "FAILURE"], ["web", "CHANGE_STATUS", "..", "SUCCESS"]]);
}

#[test]
fn the_mapping_decides_where_an_event_is_posted() {
    let (_dir, sandbox, options) = sandbox(None);
    let pairs = [("a", "STARTJOB"), ("b", "FORCE_STARTJOB"), ("c", "CHANGE_STATUS ON_ICE")];
    let way = WebServices::new(WebServicesOptions { mapping: Mapping::parse(pairs).unwrap(), ..options }).unwrap();
    for status in ["a", "b", "c"] {
        assert_eq!(word(&send(&way, &delivery("A", status))), "delivered");
    }
    assert_eq!(word(&send(&way, &delivery("A", "SUCCESS"))), "permanent");
    assert!(way.describe(&delivery("two words", "a")).is_err());
    assert!(way.describe(&delivery("A", "a")).unwrap().ends_with(r#"/AEWS/event/start-job {"jobName":"A"}"#));
    let events: Vec<_> = sandbox.events().unwrap().into_iter().map(|event| event.event).collect();
    assert_eq!(events, ["STARTJOB", "FORCE_STARTJOB", "CHANGE_STATUS"]);
}

#[test]
fn wrong_credentials_park_nothing_and_are_not_shown() {
    let (_dir, sandbox, options) = sandbox(None);
    let wrong = WebServicesOptions { credentials: basic("sandbox", PASSWORD), ..options };
    let way = WebServices::new(wrong).unwrap();
    let refused = send(&way, &delivery("A", "SUCCESS"));
    assert!(word(&refused) == "transient" && detail(&refused).contains("credentials"), "{refused:?}");
    assert!(!format!("{way:?}{refused:?}").contains(PASSWORD));
    assert_eq!(sandbox.events().unwrap(), []);
}

#[test]
fn a_closed_gate_sends_nothing() {
    let (_dir, sandbox, options) = sandbox(None);
    let way = WebServices::new(options).unwrap();
    let sent = block_on(async { Ok(way.send(&delivery("A", "SUCCESS"), &Gate::new(|| false)).await) }).unwrap();
    assert_eq!(word(&sent.outcome), "not tried");
    assert_eq!(sandbox.events().unwrap(), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn file_names_arrive_as_they_are(name in r#"\PC{0,80}|[-'"`$\\{}<>&;| ]{0,40}"#) {
        let (_dir, sandbox, options) = sandbox(None);
        let way = WebServices::new(WebServicesOptions { comment: Some("from {file_name}".to_owned()), ..options }).unwrap();
        let sent = send(&way, &Delivery { file_name: name.clone(), ..delivery("A", "SUCCESS") });
        prop_assert_eq!(word(&sent), "delivered", "{:?}", sent);
        let comment = sandbox.events().unwrap().pop().unwrap().comment;
        prop_assert_eq!(comment, Some(format!("from {name}")));
    }
}

/// What a server was asked: method and address, headers, body.
type Asked = Arc<Mutex<Vec<(String, HeaderMap, String)>>>;

/// A server that answers everything alike.
fn server(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> (String, Asked) {
    let asked = Asked::default();
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let app = Router::new().fallback({
        let asked = Arc::clone(&asked);
        move |uri: Uri, got: HeaderMap, text: String| async move {
            asked.lock().unwrap().push((uri.to_string(), got, text));
            (StatusCode::from_u16(status).unwrap(), headers, body)
        }
    });
    let address = block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(address)
    });
    (format!("http://{}", address.unwrap()), asked)
}

#[test]
fn an_answer_means_what_it_says_and_no_more() {
    let page = "<!DOCTYPE html><html>404 – A</html>";
    for (status, body, expected, says) in [
        (201, "", "delivered", ""),
        (201, "CAUAJM_E_50029 Invalid job name: A", "permanent", "CAUAJM_E_50029"),
        (200, r#"{"ok": true}"#, "unknown", "no proof"),
        (204, "", "unknown", "no proof"),
        (302, "", "transient", "redirects"),
        (400, "bad", "permanent", "400: bad"),
        (401, "", "transient", "credentials"),
        (403, "not yours", "permanent", "403: not yours"),
        (404, r#"{"error": "no job A."}"#, "permanent", "404"),
        (404, "CAUAJM_E_1", "permanent", "404"),
        (404, "", "transient", "prefix"),
        (404, page, "transient", "prefix"),
        (404, r#"{"error": "no job A2"}"#, "transient", "prefix"),
        (405, "", "transient", "prefix"),
        (408, "", "transient", "408"),
        (409, "", "permanent", "409"),
        (422, "", "permanent", "422"),
        (425, "", "transient", "425"),
        (429, "", "transient", "429"),
        (500, "", "unknown", "500"),
        (500, "CAUAJM_E_10029 not taken", "transient", "CAUAJM_E_10029"),
        (502, page, "unknown", "502"),
        (503, "", "transient", "503"),
        (504, "", "unknown", "504"),
    ] {
        let outcome = super::response::outcome(status, &[201], "A", body.as_bytes(), None);
        assert_eq!(word(&outcome), expected, "{status} {body}: {outcome:?}");
        assert!(detail(&outcome).contains(says), "{outcome:?}");
    }
    assert_eq!(word(&outcome(200, &[200, 201], "A", b"", None)), "delivered");
    let limited = outcome(429, &[201], "A", b"", Some("120"));
    assert!(detail(&limited).contains("Retry-After: 120"), "{limited:?}");
}

#[test]
fn all_that_was_read_is_searched_and_less_is_shown() {
    let late = |text: &str| format!(r#"{{"links": "{}", "message": "{text}"}}"#, "x".repeat(1000));
    for (status, body, expected, says) in [
        (201, late("CAUAJM_E_50029 not stored"), "transient", "AutoSys said CAUAJM_E_50029: "),
        (201, late("CAUAJM_E_50029 Invalid job name"), "permanent", "CAUAJM_E_50029"),
        (201, r#"{"message": "CAUAJM\u005fE\u005F50029 x"}"#.to_owned(), "transient", "CAUAJM_E_50029"),
        (201, r#"{"message": "CAUAJM_E_1 invalid\u0020job"}"#.to_owned(), "permanent", "CAUAJM_E_1"),
        (404, late("no job A"), "permanent", "404"),
        (500, late("CAUAJM_E_10029 not taken"), "transient", "CAUAJM_E_10029"),
        (500, late("CAUAJM_E_10262 not authorized"), "permanent", "CAUAJM_E_10262"),
    ] {
        let outcome = outcome(status, &[201], "A", body.as_bytes(), None);
        assert_eq!(word(&outcome), expected, "{status}: {outcome:?}");
        assert!(detail(&outcome).contains(says) && detail(&outcome).chars().count() < 700, "{outcome:?}");
    }
}

#[test]
fn answers_come_over_the_wire_with_their_headers_and_redirects_lead_nowhere() {
    let (elsewhere, not_asked) = server(201, &[], "");
    let location: &'static str = elsewhere.leak();
    let (url, _) = server(307, &[("location", location)], "");
    let credentials = || WebCredentials::Bearer { token: "token-in-clear".into() };
    let way = |url: &str| {
        WebServices::new(WebServicesOptions { credentials: credentials(), ..WebServicesOptions::new(url) }).unwrap()
    };
    assert_eq!(word(&send(&way(&url), &delivery("A", "SUCCESS"))), "transient");
    assert!(not_asked.lock().unwrap().is_empty());
    let (url, asked) = server(429, &[("retry-after", "7")], "slow down, token-in-clear");
    let outcome = send(&way(&url), &delivery("A", "SUCCESS"));
    assert_eq!(detail(&outcome), "the web services answered 429 (Retry-After: 7): slow down, …");
    let asked = asked.lock().unwrap();
    let (address, headers, body) = &asked[0];
    assert_eq!(address, "/AEWS/event/change-status-job");
    assert_eq!(
        (headers["authorization"].as_bytes(), headers["content-type"].as_bytes()),
        (&b"Bearer token-in-clear"[..], &b"application/json"[..])
    );
    assert_eq!(body, r#"{"jobName":"A","jobStatus":"SUCCESS"}"#);
    assert_eq!(asked.len(), 1, "a refused request is not repeated");
}

#[test]
fn addresses_and_names_can_be_others() {
    let (url, asked) = server(201, &[], r#"{"status": 4}"#);
    let options = WebServicesOptions {
        prefix: "api/event".to_owned(),
        events: EventNames { change_status: "change-status".to_owned(), ..EventNames::default() },
        status_path: Some("job?filter=name=={job}".to_owned()),
        ..WebServicesOptions::new(format!("{url}/proxy/AEWS/"))
    };
    let way = WebServices::new(options.clone()).unwrap();
    send(&way, &delivery("A", "SUCCESS"));
    let status = block_on(async { Ok(way.status("A#1").await) }).unwrap();
    assert_eq!(status.as_deref(), Ok("SUCCESS"));
    let from_host = WebServicesOptions { prefix: "/AEWS/event".to_owned(), status_path: None, ..options };
    let way = WebServices::new(from_host).unwrap();
    assert!(!way.reads_status());
    send(&way, &delivery("A", "SUCCESS"));
    let asked: Vec<String> = asked.lock().unwrap().iter().map(|(address, ..)| address.clone()).collect();
    let expected =
        ["/proxy/AEWS/api/event/change-status", "/proxy/AEWS/job?filter=name==A%231", "/AEWS/event/change-status"];
    assert_eq!(asked, expected);
}

/// A server that reads a request and writes `response`. Then it closes the connection, or keeps it open.
fn rude(response: &'static [u8], closes: bool) -> String {
    block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\"jobStatus\":\"SUCCESS\"}") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                }
                stream.write_all(response).await.unwrap();
                if !closes {
                    open.push(stream);
                }
            }
        });
        Ok(url)
    })
    .unwrap()
}

#[test]
fn what_may_have_arrived_is_unknown_and_what_was_never_sent_is_not() {
    let outcome = |url: &str, timeout: Duration| {
        let way = WebServices::new(WebServicesOptions { timeout, ..WebServicesOptions::new(url) }).unwrap();
        send(&way, &delivery("A", "SUCCESS"))
    };
    let plenty = Duration::from_secs(20);
    let cut = outcome(&rude(b"", true), plenty);
    assert!(word(&cut) == "unknown" && detail(&cut).contains("closed the connection"), "{cut:?}");
    const HALF: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\nabc";
    let half = outcome(&rude(HALF, true), plenty);
    assert_eq!(half, SendOutcome::Delivered { detail: Some("abc".to_owned()) }, "the status is the proof");
    let stalled = outcome(&rude(HALF, false), Duration::from_millis(200));
    assert!(word(&stalled) == "unknown" && detail(&stalled).contains("201"), "{stalled:?}");
    let silent = outcome(&rude(b"", false), Duration::from_millis(200));
    assert!(word(&silent) == "unknown" && detail(&silent).contains("did not answer"), "{silent:?}");
    let unused = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let refused = outcome(&format!("http://{unused}"), plenty);
    assert!(word(&refused) == "transient" && detail(&refused).contains("could not be reached"), "{refused:?}");
}

#[test]
fn options_that_can_never_work_are_refused() {
    let usual = || WebServicesOptions::new("https://autosys.example");
    assert!(WebServices::new(usual()).is_ok());
    assert!(
        WebServices::new(WebServicesOptions { allow_http: true, ..WebServicesOptions::new("http://10.0.0.4") }).is_ok()
    );
    let dir = tempfile::tempdir().unwrap();
    let (no_pem, no_certificate) = (dir.path().join("no.pem"), dir.path().join("no_certificate.pem"));
    std::fs::write(&no_pem, "nothing").unwrap();
    std::fs::write(&no_certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let wrong = [
        WebServicesOptions::new("http://autosys.example"),
        WebServicesOptions::new("https://user:secret-word@autosys.example"),
        WebServicesOptions::new("https://autosys.example/?x=1"),
        WebServicesOptions::new("ftp://autosys.example"),
        WebServicesOptions::new("autosys"),
        WebServicesOptions { prefix: "//elsewhere.example/event".to_owned(), ..usual() },
        WebServicesOptions { prefix: "../event".to_owned(), ..usual() },
        WebServicesOptions { prefix: String::new(), ..usual() },
        WebServicesOptions { events: EventNames { start: "a/b".to_owned(), ..EventNames::default() }, ..usual() },
        WebServicesOptions { status_path: Some("job".to_owned()), ..usual() },
        WebServicesOptions { status_path: Some("//elsewhere.example/{job}".to_owned()), ..usual() },
        WebServicesOptions { credentials: basic("a:b", "secret-word"), ..usual() },
        WebServicesOptions { credentials: basic("a", "secret-word\n"), ..usual() },
        WebServicesOptions { credentials: WebCredentials::Bearer { token: "secret-word x".into() }, ..usual() },
        WebServicesOptions { timeout: Duration::ZERO, ..usual() },
        WebServicesOptions { accepted: vec![404], ..usual() },
        WebServicesOptions { ca_file: Some(no_pem), ..usual() },
        WebServicesOptions { ca_file: Some(no_certificate), ..usual() },
    ];
    for options in wrong {
        let shown = format!("{options:?}");
        let error = WebServices::new(options).err().unwrap_or_else(|| panic!("{shown}"));
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{shown}: {error}");
        assert!(!error.full_message().contains("secret-word"), "{error}");
    }
    let missing = WebServicesOptions { ca_file: Some(dir.path().join("none.pem")), ..usual() };
    assert_eq!(WebServices::new(missing).unwrap_err().kind(), ErrorKind::NotFound);
}
