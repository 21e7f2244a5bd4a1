//! The client against small servers that answer what a unreliable server brings.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use url::Url;

use super::auth::OAuthClient;
use super::client::{ClientOptions, MOST_PAGES, ViyaClient, ViyaRequest, parse_base_url};
use super::submission::{self, Submission};
use super::{Login, contexts, orchestrator};
use crate::error::ErrorKind;

/// Serves `app` on a port the system chose, for as long as the test's runtime lives.
pub(crate) async fn serve(app: Router) -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    base
}

fn tokens(value: &Value) -> (tempfile::TempDir, Login) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.json");
    std::fs::write(&path, value.to_string()).unwrap();
    let tokens = Login::open_as(path, OAuthClient::new("sas.cli", "")).unwrap();
    (folder, tokens)
}

/// A client of `app`, at a time scale that makes all back-offs short.
pub(crate) async fn client(app: Router) -> (tempfile::TempDir, ViyaClient) {
    client_at(app, 1000.0).await
}

/// A client of `app` at `time_scale`: slower where a test is about times that a busy machine must not reach.
pub(crate) async fn client_at(app: Router, time_scale: f64) -> (tempfile::TempDir, ViyaClient) {
    let base = serve(app).await;
    let (folder, tokens) = tokens(&json!({"access_token": "first", "refresh_token": "again"}));
    let options = ClientOptions { time_scale: Some(time_scale), ..ClientOptions::default() };
    let client = ViyaClient::new(base.as_str(), tokens, &options).unwrap();
    (folder, client)
}

fn answer(status: u16, kind: &str, body: impl Into<Body>) -> Response {
    Response::builder().status(status).header("content-type", kind).body(body.into()).unwrap()
}

const JSON: &str = "application/json";

#[tokio::test]
async fn passing_failures_are_repeated_and_refusals_are_not() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let app = Router::new().route(
        "/x/{status}",
        get(move |Path(status): Path<u16>| async move {
            match counted.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => answer(status, "text/html", "<html>proxy</html>"),
                _ => answer(200, JSON, "{\"fine\":true}"),
            }
        }),
    );
    let (_folder, client) = client(app).await;
    for (status, expected) in [(429, 3), (502, 3), (503, 3), (504, 3), (500, 1), (404, 1), (403, 1)] {
        calls.store(0, Ordering::SeqCst);
        let path = format!("/x/{status}");
        let got = client.send_json(&ViyaRequest::get(&path, JSON)).await;
        assert_eq!(calls.load(Ordering::SeqCst), expected, "{status}");
        assert_eq!(got.is_ok(), expected == 3, "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let app = Router::new().route(
        "/x",
        get(move || async move {
            if counted.fetch_add(1, Ordering::SeqCst) > 0 {
                return answer(200, JSON, "{}");
            }
            let mut busy = answer(503, JSON, "{}");
            busy.headers_mut().insert("retry-after", "100".parse().unwrap());
            busy
        }),
    );
    let (_folder, client) = client(app).await;
    let start = Instant::now();
    client.send(&ViyaRequest::get("/x", JSON)).await.unwrap();
    // 100 seconds of a server that runs 1000 times as fast.
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_401_renews_once_and_repeats() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let app = Router::new()
        .route(
            "/x",
            get(move |headers: HeaderMap| async move {
                let token = headers["authorization"].to_str().unwrap().to_owned();
                log.lock().unwrap().push(token.clone());
                let status = if token == "Bearer second" { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
                (status, Json(json!({"error": "invalid_token"}))).into_response()
            }),
        )
        .route("/SASLogon/oauth/token", post(|| async { Json(json!({"access_token": "second", "expires_in": 3600})) }));
    let (_folder, client) = client(app).await;
    client.send(&ViyaRequest::get("/x", JSON)).await.unwrap();
    client.send(&ViyaRequest::get("/x", JSON)).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["Bearer first", "Bearer second", "Bearer second"]);
}

#[tokio::test]
async fn errors_tell_nested_reasons_and_html_is_not_parsed() {
    let app = Router::new()
        .route(
            "/sas",
            get(|| async {
                answer(
                    400,
                    "application/vnd.sas.error+json",
                    json!({"message": "No.", "errors": [{"message": "Disk full."}]}).to_string(),
                )
            }),
        )
        .route("/html", get(|| async { answer(400, "text/html", "<html>{\"message\":\"x\"}</html>") }))
        .route("/ok-html", get(|| async { answer(200, "text/html", "<html>login</html>") }))
        .route(
            "/login",
            get(|| async { Response::builder().status(302).header("location", "/x").body(Body::empty()).unwrap() }),
        );
    let (_folder, client) = client(app).await;
    let of = async |path: &str| client.send_json(&ViyaRequest::get(path, JSON)).await.unwrap_err().to_string();
    assert!(of("/sas").await.contains("No.; Disk full."));
    let html = of("/html").await;
    assert!(html.contains("text/html") && !html.contains("<html>"), "{html}");
    assert!(of("/ok-html").await.contains("where JSON was expected"));
    assert!(of("/login").await.contains("check base_url"));
}

#[tokio::test]
async fn an_unreachable_server_is_named_soon() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (_folder, tokens) = tokens(&json!({"access_token": "a"}));
    let options = ClientOptions { time_scale: Some(100.0), ..ClientOptions::default() };
    let client = ViyaClient::new(&base, tokens, &options).unwrap();
    let start = Instant::now();
    let error = contexts::find(&client, "c").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.is_retryable() && error.to_string().contains(&base), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn no_answer_changes_the_clock() {
    let told = |name: &'static str| get(move || async move { ([(name, "1000")], "{}") });
    let app = Router::new().route("/speed", told("x-jobrota-sandbox-speed")).route("/scale", told("x-time-scale"));
    let base = serve(app).await;
    let (_folder, tokens) = tokens(&json!({"access_token": "a"}));
    let client = ViyaClient::new(base.as_str(), tokens, &ClientOptions::default()).unwrap();
    for path in ["/speed", "/scale"] {
        client.send(&ViyaRequest::get(path, JSON)).await.unwrap();
        assert_eq!(client.clock.time_scale, 1.0);
    }
}

#[test]
fn base_urls_are_checked() {
    for bad in ["", "viya", "ftp://viya", "https://", "https://u:p@viya", "https://viya/SASLogon", "https://viya?x=1"] {
        assert_eq!(parse_base_url(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
    }
    for bad in [
        "https://u:secret@viya",
        "https://u:secret@viya:99999",
        "https://u:se#secret@viya",
        "https://u:secret/x@viya",
        "u:secret@viya",
        "https://viya/x?token=secret",
        "https://vi ya/?token=secret",
    ] {
        let error = parse_base_url(bad).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && !error.full_message().contains("secret"), "{error}");
    }
    assert_eq!(parse_base_url(" https://viya.example.com/ ").unwrap().as_str(), "https://viya.example.com/");
}

#[tokio::test]
async fn contexts_are_found_on_any_page_or_all_are_named() {
    async fn list(Query(query): Query<Vec<(String, String)>>) -> Json<Value> {
        let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let filter = value("filter");
        if let Some(filter) = filter {
            assert!(filter.starts_with("eq(name,'") && !filter.contains("O'R"), "{filter}");
            return Json(json!({"items": [], "count": 0}));
        }
        match value("start").as_deref() {
            // An absolute link to an inner host must not send the token there.
            Some("0") => Json(json!({"items": [{"id": "1", "name": "one"}, {"id": "2", "name": "two"}],
                "links": [{"rel": "self", "href": "/x"}, {"rel": "next", "href": "http://inner:1/compute/contexts?start=2&limit=2"}]})),
            Some("2") => Json(json!({"items": [{"id": "3", "name": "O'Reilly"}], "links": []})),
            other => panic!("{other:?}"),
        }
    }
    let app = Router::new().route("/compute/contexts", get(list)).route(
        "/compute/contexts/{id}",
        get(|Path(id): Path<String>| async move {
            Json(json!({"id": id, "name": "O'Reilly", "queueName": "fast", "attributes": {"a": 1}}))
        }),
    );
    let (_folder, client) = client(app).await;
    let found = contexts::find(&client, "O'Reilly").await.unwrap();
    assert_eq!((found.id.as_str(), found.queue.as_deref()), ("3", Some("fast")));
    let error = contexts::find(&client, "One").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("O'Reilly, one, two"), "{error}");
}

/// A job service that takes jobs, and loses some answers.
#[derive(Clone, Default)]
struct Jobs {
    names: Arc<Mutex<Vec<String>>>,
    posts: Arc<AtomicUsize>,
    /// What the first POST is answered with, and whether the job was taken all the same.
    first: Option<(u16, bool)>,
    /// Milliseconds until it is there; 50 are a second of the server.
    late: u64,
}

async fn create(State(jobs): State<Jobs>, Json(body): Json<Value>) -> Response {
    let name = body["name"].as_str().unwrap().to_owned();
    assert_eq!(body["arguments"], json!({"_contextName": "ctx", "AGE": "14"}));
    let first = jobs.posts.fetch_add(1, Ordering::SeqCst) == 0;
    match jobs.first.filter(|_| first) {
        Some((status, taken)) => {
            if taken && jobs.late == 0 {
                jobs.names.lock().unwrap().push(name);
            } else if taken {
                let (names, late) = (jobs.names.clone(), Duration::from_millis(jobs.late));
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    names.lock().unwrap().push(name);
                });
            }
            answer(status, "text/html", "<html>bad gateway</html>")
        }
        None => {
            jobs.names.lock().unwrap().push(name.clone());
            answer(201, JSON, json!({"id": "new", "state": "running", "jobRequest": {"name": name}}).to_string())
        }
    }
}

async fn listing(State(jobs): State<Jobs>) -> Json<Value> {
    let items: Vec<Value> = jobs
        .names
        .lock()
        .unwrap()
        .iter()
        .map(|name| json!({"id": "taken", "state": "running", "jobRequest": {"name": name}}))
        .collect();
    Json(json!({"items": items}))
}

#[tokio::test]
async fn no_job_is_submitted_twice() {
    for (first, late, id, posts) in [
        (None, 0, Some("new"), 1),
        (Some((502, true)), 0, Some("taken"), 1),
        (Some((504, true)), 0, Some("taken"), 1),
        // The gateway gave up, and the server behind it had not.
        (Some((502, true)), 150, Some("taken"), 1),
        (Some((504, true)), 750, Some("taken"), 1),
        (Some((500, true)), 0, Some("taken"), 1),
        (Some((200, true)), 0, Some("taken"), 1),
        (Some((503, false)), 0, Some("new"), 2),
        (Some((429, false)), 0, Some("new"), 2),
        (Some((500, false)), 0, Some("new"), 2),
        (Some((400, false)), 0, None, 1),
    ] {
        let server = Jobs { first, late, ..Jobs::default() };
        let app = Router::new().route("/jobExecution/jobs", post(create).get(listing)).with_state(server.clone());
        let (_folder, client) = client_at(app, 20.0).await;
        let arguments = Map::from_iter([("AGE".to_owned(), Value::from("14"))]);
        let job = Submission {
            name: "n1".into(),
            definition: "d".into(),
            arguments,
            context: "ctx".into(),
            expires_after: None,
        };
        let got = submission::submit(&client, &job, Utc::now()).await;
        assert_eq!(got.as_ref().ok().map(|job| job.id()), id, "{first:?}");
        assert_eq!(server.posts.load(Ordering::SeqCst), posts, "{first:?}");
        assert!(server.names.lock().unwrap().len() <= 1, "{first:?}");
    }
}

/// What a service says of where the next page is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Next {
    Links,
    Offsets,
    Count,
    /// It gives the first page whatever is asked for.
    Nothing,
}

#[tokio::test]
async fn a_job_is_found_however_the_server_lists() {
    let now: DateTime<Utc> = "2025-09-15T20:00:00Z".parse().unwrap();
    // Of 300 jobs of the last half hour, at 20 a page, ours is the last listed.
    let found = async |order: &'static str, next: Next, oldest: DateTime<Utc>| {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let list = move |Query(query): Query<Vec<(String, String)>>| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let start = query.iter().find(|(name, _)| name == "start").map_or(0, |(_, start)| start.parse().unwrap());
            let start = if next == Next::Nothing { 0 } else { start };
            let item = |at: i64| {
                let stamp = match order {
                    "newest" => json!((now - TimeDelta::seconds(6 * at)).to_rfc3339()),
                    "oldest" => json!((now - TimeDelta::seconds(1800 - 6 * at)).to_rfc3339()),
                    _ => Value::Null,
                };
                let name = if at == 299 { "ours".to_owned() } else { format!("other{at}") };
                json!({"id": format!("j{at}"), "creationTimeStamp": stamp, "jobRequest": {"name": name}})
            };
            let items: Vec<Value> = (start..(start + 20).min(300)).map(item).collect();
            let mut page = json!({"items": items});
            if next == Next::Links && start < 280 {
                page["links"] = json!([{"rel": "next", "href": format!("/jobExecution/jobs?start={}", start + 20)}]);
            } else if next == Next::Count {
                page["count"] = 300.into();
            }
            Json(page)
        };
        let (_folder, client) = client(Router::new().route("/jobExecution/jobs", get(list))).await;
        let found = submission::find_by_name(&client, "ours", oldest).await.unwrap().is_some();
        (found, asked.load(Ordering::SeqCst))
    };
    for order in ["newest", "oldest", "untold"] {
        for next in [Next::Links, Next::Offsets, Next::Count] {
            assert_eq!(found(order, next, now - TimeDelta::hours(1)).await, (true, 15), "{order} {next:?}");
        }
        let (is_there, asked) = found(order, Next::Nothing, now).await;
        assert!(!is_there && asked <= 2, "{order} {asked}");
    }
    // Only a list that is sorted by time may be left before its end.
    assert_eq!(found("newest", Next::Links, now - TimeDelta::minutes(5)).await, (false, 3));
    assert_eq!(found("oldest", Next::Links, now - TimeDelta::minutes(5)).await, (true, 15));
}

#[test]
fn states_in_every_spelling() {
    use crate::viya::jobs::JobState;
    for (text, expected) in [
        ("timed out", JobState::TimedOut),
        ("timedOut", JobState::TimedOut),
        ("canceled", JobState::Canceled),
        ("completed\n", JobState::Completed),
    ] {
        let state = JobState::parse(text).unwrap();
        assert!(state == expected && state.is_final());
    }
    assert!(!JobState::parse("running").unwrap().is_final() && !JobState::parse("pending").unwrap().is_final());
    assert_eq!(JobState::parse("<html>"), None);
}

#[tokio::test]
async fn the_orchestrator_is_listed_by_pages_until_the_run_began() {
    let pages = Arc::new(AtomicUsize::new(0));
    let counted = pages.clone();
    let list = move |Query(query): Query<Vec<(String, String)>>| async move {
        counted.fetch_add(1, Ordering::SeqCst);
        let start: i64 = query.iter().find(|(name, _)| name == "start").unwrap().1.parse().unwrap();
        // Two a page, newest first; one entry comes again on the next page because a new job pushed it down.
        let items: Vec<Value> = (start..start + 2)
            .map(|at| (at - start / 2).max(0))
            .map(|at| json!({"id": 100 - at, "processingInfo": {"submitTime": format!("2025-09-15T20:{:02}:00Z", 50 - at)}}))
            .collect();
        Json(
            json!({"items": items, "links": [{"rel": "next", "href": format!("/workloadOrchestrator/jobs?start={}", start + 2)}]}),
        )
    };
    let (_folder, client) = client(Router::new().route("/workloadOrchestrator/jobs", get(list))).await;
    let entries = orchestrator::list_since(&client, "2025-09-15T20:47:30Z".parse().unwrap(), |_| false).await.unwrap();
    let ids: Vec<i64> = entries.iter().filter_map(|entry| entry.id).collect();
    assert_eq!((ids, pages.load(Ordering::SeqCst)), (vec![100, 99, 98, 97], 3));
}

#[tokio::test]
async fn a_list_without_end_is_an_error_and_not_cut() {
    let page = |Query(query): Query<std::collections::HashMap<String, String>>| async move {
        let start: usize = query["start"].parse().unwrap();
        Json(
            json!({"items": [{"id": start, "name": "x"}], "links": [{"rel": "next", "href": format!("/things?start={}", start + 1)}]}),
        )
    };
    let (_folder, client) = client(Router::new().route("/things", get(page))).await;
    let error = client.items(ViyaRequest::get("/things", JSON)).await.unwrap_err();
    assert!(error.to_string().contains(&format!("more than {MOST_PAGES} pages")), "{error}");
}
