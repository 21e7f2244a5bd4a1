//! Against small servers that wait or do not, and list or do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::*;
use crate::viya::tests::client_at;

const JOBS: usize = 40;

/// A server whose jobs all end after a while.
struct Server {
    waits: bool,
    /// Filters with `ne`, with `in`, or none are taken; a `liar` takes all and shows nothing, and where they are `ignored`
    /// all jobs are shown, with those of others; `short` has pages of a few of the newest.
    takes: &'static str,
    began: Instant,
    ends: Duration,
    states: AtomicUsize,
    listings: AtomicUsize,
}

impl Server {
    fn over(&self) -> bool {
        // A slow machine gets to its first listing late.
        self.began.elapsed() >= self.ends && (self.waits || self.listings.load(Ordering::SeqCst) > 0)
    }
}

type Parameters = Query<HashMap<String, String>>;

async fn state(Shared(server): Shared<Arc<Server>>, Query(query): Parameters) -> &'static str {
    server.states.fetch_add(1, Ordering::SeqCst);
    if server.waits
        && let Some(wait) = query.get("wait").and_then(|wait| wait.parse::<u64>().ok())
    {
        // Two hundred of its seconds pass in one of ours.
        let left = server.ends.saturating_sub(server.began.elapsed());
        tokio::time::sleep(left.min(Duration::from_millis(5 * wait))).await;
    }
    if server.over() { "completed" } else { "running" }
}

async fn list(Shared(server): Shared<Arc<Server>>, Query(query): Parameters) -> Response {
    server.listings.fetch_add(1, Ordering::SeqCst);
    let filter = query.get("filter").cloned().unwrap_or_default();
    let refused = |word: &str| filter.contains(word);
    if server.takes == "in" && refused("ne(") || server.takes == "none" && !filter.is_empty() {
        return (StatusCode::BAD_REQUEST, Json(json!({"message": "no such filter"}))).into_response();
    }
    let ended = server.over() && server.takes != "liar";
    let state = if server.over() { "completed" } else { "running" };
    let ignored = ["ignored", "short"].contains(&server.takes);
    let shown = |id: &String| filter.is_empty() || ignored || filter.contains(&format!("'{id}'"));
    let others = (0..if ignored { JOBS } else { 0 }).map(|job| format!("other{job}"));
    let ids = (0..JOBS).map(|job| format!("j{job}")).chain(others).filter(shown);
    let ids: Vec<String> = ids.take(if server.takes == "short" { 5 } else { usize::MAX }).collect();
    let item = |id: String| json!({"id": id, "state": state, "endTimeStamp": "2025-02-13T09:52:48.592Z"});
    let items: Vec<_> = ids.into_iter().filter(|_| ended || ignored || !filter.contains("ne(")).map(item).collect();
    let items = if server.takes == "liar" { Vec::new() } else { items };
    Json(json!({"items": items, "links": []})).into_response()
}

/// Watches all jobs to their end; returns requests for states and for listings.
async fn watch(waits: bool, takes: &'static str) -> (usize, usize) {
    let server = Arc::new(Server {
        waits,
        takes,
        began: Instant::now(),
        ends: Duration::from_millis(400),
        states: AtomicUsize::new(0),
        listings: AtomicUsize::new(0),
    });
    let app = Router::new()
        .route("/jobExecution/jobs", get(list))
        .route(
            "/jobExecution/jobs/{id}/state",
            get(|state_of: Shared<Arc<Server>>, Path(_): Path<String>, query: Parameters| state(state_of, query)),
        )
        .with_state(server.clone());
    let (_folder, client) = client_at(app, 200.0).await;
    let watch = Watch::new(&client, 1.0);
    let follow = async |job: usize| {
        let _inside = watch.count_in_flight();
        let (id, mut known) = (format!("j{job}"), JobState::Running);
        loop {
            match watch.next_update(&id, known).await.unwrap() {
                JobUpdate::Ended(job) => break assert_eq!(job.id(), id),
                JobUpdate::State(state) if state.is_final() => break,
                JobUpdate::State(state) => known = state,
            }
        }
    };
    let all = futures::future::join_all((0..JOBS).map(follow));
    tokio::select! { _ = all => {}, never = watch.run_lists() => match never {} }
    assert!(server.over());
    (server.states.load(Ordering::SeqCst), server.listings.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_server_that_waits_is_asked_by_job() {
    let (states, listings) = watch(true, "ne").await;
    assert_eq!(listings, 0);
    // 80 seconds of the server, 30 at a time.
    assert!(states <= JOBS * 7, "{states}");
}

#[tokio::test]
async fn many_jobs_are_listed_where_the_server_does_not_wait() {
    for takes in ["ne", "in", "none", "ignored"] {
        let (states, listings) = watch(false, takes).await;
        assert!(listings > 0, "{takes}");
        assert!(states <= JOBS * 6, "{takes}: {states}");
    }
}

#[tokio::test]
async fn a_listing_that_shows_nothing_does_not_hide_an_end() {
    for takes in ["liar", "short"] {
        let (states, listings) = watch(false, takes).await;
        assert!(states >= JOBS && listings > 0, "{takes}: {states} {listings}");
    }
}
