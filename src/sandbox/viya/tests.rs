//! The protocol, over real HTTP.

use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::json;

use super::contexts::CONTEXTS;
use super::*;
use crate::error::ErrorKind;

const REQUEST: &str = "application/vnd.sas.job.execution.job.request+json";
const FAST: f64 = 5_000.0;

/// A started sandbox with a client that is logged on.
struct Fixture {
    viya: ViyaSandbox,
    client: Client,
    tokens: Value,
}

impl Fixture {
    fn new(options: ViyaOptions) -> Self {
        let viya = ViyaSandbox::start(options).unwrap();
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let tokens = viya.issue_tokens();
        Self { viya, client, tokens }
    }

    fn fast() -> Self {
        Self::new(ViyaOptions { speed: FAST, ..ViyaOptions::default() })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.viya.url())
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(self.tokens["access_token"].as_str().unwrap())
    }

    async fn get(&self, path: &str) -> Response {
        self.authorized(self.client.get(self.url(path))).send().await.unwrap()
    }

    async fn get_json(&self, path: &str) -> Value {
        let reply = self.get(path).await;
        assert_eq!(reply.status(), 200, "{path}");
        reply.json().await.unwrap()
    }

    async fn submit(&self, name: &str, job: &str, context: &str) -> Response {
        let definitions = workload::example_definitions().unwrap();
        let id = definitions.iter().find(|definition| definition.name == job).map_or("unknown", |d| d.id.as_str());
        let body = json!({
            "version": 3, "name": name, "jobDefinitionUri": format!("/jobDefinitions/definitions/{id}"), "arguments": {"_contextName": context},
        });
        let request =
            self.client.post(self.url("/jobExecution/jobs")).header("content-type", REQUEST).body(body.to_string());
        self.authorized(request).send().await.unwrap()
    }

    async fn submitted(&self, name: &str, job: &str, context: &str) -> String {
        let reply = self.submit(name, job, context).await;
        assert_eq!(reply.status(), 201);
        let job: Value = reply.json().await.unwrap();
        assert_eq!(job["state"], "running");
        job["id"].as_str().unwrap().to_owned()
    }

    /// Asks until the job has ended; bounded.
    async fn ended(&self, id: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let job = self.get_json(&format!("/jobExecution/jobs/{id}")).await;
            if job["state"] != "running" {
                return job;
            }
            assert!(Instant::now() < deadline, "{job}");
        }
    }

    async fn token(&self, form: &[(&str, &str)], client: (&str, &str)) -> (u16, Value) {
        let request =
            self.client.post(self.url("/SASLogon/oauth/token")).basic_auth(client.0, Some(client.1)).form(form);
        let reply = request.send().await.unwrap();
        (reply.status().as_u16(), reply.json().await.unwrap())
    }
}

fn run(test: impl Future<Output = ()>) {
    crate::runtime::handle().unwrap().block_on(test);
}

fn content_type(reply: &Response) -> String {
    reply.headers()["content-type"].to_str().unwrap().to_owned()
}

fn moment(stamp: &Value) -> chrono::DateTime<chrono::Utc> {
    stamp.as_str().unwrap().parse().unwrap()
}

fn length(value: &Value) -> usize {
    value.as_array().unwrap().len()
}

/// The one nested error's message.
fn nested(error: &Value) -> &str {
    error["errors"][0]["message"].as_str().unwrap()
}

#[test]
fn tokens_are_given_for_each_grant_and_refused_as_saslogon_does() {
    let f = Fixture::fast();
    run(async {
        let (user, password) = tokens::USER;
        let cli = ("sas.cli", "");
        for (form, client) in [
            (vec![("grant_type", "password"), ("username", user), ("password", password)], cli),
            (vec![("grant_type", "authorization_code"), ("code", tokens::AUTHORIZATION_CODE)], cli),
            (vec![("grant_type", "client_credentials")], tokens::CLIENT),
        ] {
            let (status, pair) = f.token(&form, client).await;
            assert_eq!(status, 200, "{form:?}");
            assert_eq!((pair["token_type"].as_str(), pair["expires_in"].as_u64()), (Some("bearer"), Some(3600)));
            assert_eq!(pair["access_token"].as_str().unwrap().split('.').count(), 3);
            assert_eq!(pair.get("refresh_token").is_some(), form[0].1 != "client_credentials");
        }
        let wrong = [("grant_type", "password"), ("username", user), ("password", "wrong")];
        let (status, error) = f.token(&wrong, cli).await;
        assert_eq!((status, error["error_description"].as_str()), (401, Some("Bad credentials")));
        assert_eq!(f.token(&[("grant_type", "client_credentials")], cli).await.1["error"], "invalid_client");
        assert_eq!(f.token(&[("grant_type", "password")], ("unknown", "")).await.0, 401);
        assert_eq!(f.token(&[("grant_type", "other")], cli).await.1["error"], "unsupported_grant_type");
    });
}

#[test]
fn an_expired_token_is_refused_and_a_refresh_token_works_once() {
    let f = Fixture::new(ViyaOptions { token_lifetime: Duration::ZERO, ..ViyaOptions::default() });
    run(async {
        let reply = f.get("/jobExecution/jobs").await;
        assert_eq!((reply.status().as_u16(), content_type(&reply).as_str()), (401, "application/vnd.sas.error+json"));
        let challenge = reply.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.contains("error_description=\"Access token expired: "), "{challenge}");
        assert!(nested(&reply.json().await.unwrap()).starts_with("Access token expired: "));

        let refresh = f.tokens["refresh_token"].as_str().unwrap();
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
        let (status, pair) = f.token(&form, ("sas.cli", "")).await;
        assert_eq!(status, 200);
        assert_ne!(pair["refresh_token"], f.tokens["refresh_token"]);
        let (status, error) = f.token(&form, ("sas.cli", "")).await;
        assert_eq!((status, error["error"].as_str()), (401, Some("invalid_token")));
        let next = [("grant_type", "refresh_token"), ("refresh_token", pair["refresh_token"].as_str().unwrap())];
        assert_eq!(f.token(&next, ("sas.cli", "")).await.0, 200);

        let reply = f.client.get(f.url("/compute/contexts")).send().await.unwrap();
        assert_eq!(reply.status(), 401);
        assert!(reply.headers()["www-authenticate"].to_str().unwrap().contains("unauthorized"));
    });
}

#[test]
fn definitions_are_filtered_and_paged() {
    let f = Fixture::fast();
    run(async {
        let mut path = "/jobDefinitions/definitions?filter=contains(name,'_pooled')".to_owned();
        let mut names = Vec::new();
        loop {
            let page = f.get_json(&path).await;
            assert_eq!((page["limit"].as_u64(), page["count"].as_u64()), (Some(10), Some(54)));
            names
                .extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            let next = page["links"].as_array().unwrap().iter().find(|link| link["rel"] == "next").cloned();
            let Some(next) = next else { break };
            path = next["href"].as_str().unwrap().to_owned();
        }
        assert_eq!(names.len(), 54);
        assert!(names.is_sorted());
        let page = f.get_json("/jobDefinitions/definitions?filter=eq(name,%27cm_pooled%27)").await;
        assert_eq!(page["count"], 1);
        let id = page["items"][0]["id"].as_str().unwrap();
        let reply = f.get(&format!("/jobDefinitions/definitions/{id}")).await;
        assert_eq!(content_type(&reply), "application/vnd.sas.job.definition+json");
        assert!(reply.json::<Value>().await.unwrap()["code"].is_string());
        assert_eq!(
            length(&f.get_json("/jobDefinitions/definitions?filter=startsWith(name,'supp')&limit=100").await["items"]),
            20
        );
        assert_eq!(f.get("/jobDefinitions/definitions?filter=nonsense").await.status(), 400);
        assert_eq!(f.get("/jobDefinitions/definitions/none").await.status(), 404);
    });
}

#[test]
fn contexts_are_summaries_unless_whole_ones_are_asked_for() {
    let f = Fixture::fast();
    run(async {
        let page = f.get_json("/compute/contexts?filter=eq(name,'Autoscaling%20POC%20Context')").await;
        assert_eq!(page["count"], 1);
        assert!(page["items"][0].get("queueName").is_none());
        let id = page["items"][0]["id"].as_str().unwrap();
        assert_eq!(f.get_json(&format!("/compute/contexts/{id}")).await["queueName"], "autoscaling-poc-queue");
        let request =
            f.client.get(f.url("/compute/contexts")).header("accept-item", "application/vnd.sas.compute.context+json");
        let page: Value = f.authorized(request).send().await.unwrap().json().await.unwrap();
        assert_eq!(length(&page["items"]), CONTEXTS.len());
        assert_eq!(page["items"][0]["queueName"], "default");
    });
}

#[test]
fn a_job_runs_and_its_stamps_agree_to_the_millisecond() {
    let f = Fixture::fast();
    run(async {
        let id = f.submitted("bench_One1", "suppeg_pooled", "SAS Job Execution compute context").await;
        let job = f.ended(&id).await;
        assert_eq!(job["state"], "completed");
        let elapsed = moment(&job["endTimeStamp"]) - moment(&job["creationTimeStamp"]);
        assert_eq!(job["elapsedTime"].as_i64().unwrap(), elapsed.num_milliseconds());
        // Alone: hand-over, pod start and 14 s of work.
        assert!((20_000..24_000).contains(&elapsed.num_milliseconds()), "{elapsed}");
        assert_eq!(job["results"]["COMPUTE_CONTEXT"], "SAS Job Execution compute context");
        let state = f.get(&format!("/jobExecution/jobs/{id}/state")).await;
        assert_eq!((content_type(&state).as_str(), state.text().await.unwrap().as_str()), ("text/plain", "completed"));

        let log = f.get_json(&format!("{}/content", job["logLocation"].as_str().unwrap())).await;
        assert!(
            log["items"]
                .as_array()
                .unwrap()
                .iter()
                .any(|line| line["line"].as_str().unwrap().contains("suppeg_pooled"))
        );
        let compute_job = job["results"]["COMPUTE_JOB"].as_str().unwrap();
        let text = job["results"][format!("{compute_job}.log.txt")].as_str().unwrap();
        assert!(f.get(&format!("{text}/content")).await.text().await.unwrap().contains("real time"));

        let list = f.get_json("/workloadOrchestrator/jobs?limit=500&start=0&sortBy=submitTime:descending").await;
        let item = &list["items"][0];
        let name = item["request"]["name"].as_str().unwrap();
        let (prefix, pod) = name.split_once('-').unwrap();
        assert_eq!(prefix, "benchone1");
        assert!(uuid::Uuid::parse_str(pod).is_ok());
        let info = &item["processingInfo"];
        assert_eq!((info["executionHost"].as_str(), info["totalTimePending"].as_i64()), (Some("node-1"), Some(0)));
        assert_eq!(info["totalTimeStarting"].as_i64().unwrap() / 2, 3);
        assert_eq!(item["request"]["queue"], "default");
        assert_eq!(
            info["consumedResources"],
            json!([{"name": "cores", "value": 0.15}, {"name": "memory", "value": 250}])
        );

        assert_eq!(length(&f.get_json("/jobExecution/jobs?filter=eq(jobRequest.name,'bench_One1')").await["items"]), 1);
        let delete = f.authorized(f.client.delete(f.url(&format!("/jobExecution/jobs/{id}")))).send().await.unwrap();
        assert_eq!(delete.status(), 204);
        assert_eq!(f.get(&format!("/jobExecution/jobs/{id}")).await.status(), 404);
        assert_eq!(f.get_json("/workloadOrchestrator/jobs").await["count"], 1);
    });
}

#[test]
fn orchestrator_phases_of_a_crowded_queue_fit_their_stamps() {
    // One slot, and 110 ms of real time per job: later ones wait on any machine that submits faster than that.
    let mut hosts = HostParameters { pool_max: 0, ..HostParameters::default() };
    hosts.fixed.slots = 1;
    let f = Fixture::new(ViyaOptions { speed: 200.0, hosts, ..ViyaOptions::default() });
    run(async {
        let mut ids = Vec::new();
        for n in 0..10 {
            ids.push(f.submitted(&format!("crowd{n}"), "relrec_pooled", "SAS Job Execution compute context").await);
        }
        for id in &ids {
            f.ended(id).await;
        }
        let items = f.get_json("/workloadOrchestrator/jobs?limit=500").await["items"].clone();
        assert_eq!(length(&items), 10);
        let mut waited = 0;
        for item in items.as_array().unwrap() {
            let info = &item["processingInfo"];
            let seconds = |name: &str| info[name].as_i64().unwrap();
            let (submit, start, end) =
                (moment(&info["submitTime"]), moment(&info["startTime"]), moment(&info["endTime"]));
            assert!(info["submitTime"].as_str().unwrap().len() == "2025-09-15T20:45:39Z".len());
            assert!((seconds("totalTimePending") - (start - submit).num_seconds()).abs() <= 1);
            let rest = (end - start).num_seconds() - seconds("totalTimeStarting") - seconds("totalTimeRunning");
            assert!((0..=3).contains(&rest));
            waited += i64::from(seconds("totalTimePending") > 0);
        }
        assert!(waited >= 1);
        let ids: Vec<i64> = items.as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1] + 1), "newest first, consecutive");
    });
}

#[test]
fn a_job_can_be_canceled_and_can_fail() {
    // Slow enough that the canceled job is still running.
    let f = Fixture::new(ViyaOptions { fail_jobs: vec!["co_pooled".into()], ..ViyaOptions::default() });
    let quick =
        Fixture::new(ViyaOptions { speed: FAST, fail_jobs: vec!["co_pooled".into()], ..ViyaOptions::default() });
    run(async {
        let id = f.submitted("stopme", "ae_pooled", "Autoscaling POC Context").await;
        let put = |id: String, value: &'static str| {
            f.authorized(f.client.put(f.url(&format!("/jobExecution/jobs/{id}/state?value={value}")))).send()
        };
        let refused = put(id.clone(), "completed").await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), content_type(&refused).as_str()),
            (400, "application/vnd.sas.error+json")
        );
        assert_eq!(put(id.clone(), "canceled").await.unwrap().text().await.unwrap(), "canceled");
        let job = f.get_json(&format!("/jobExecution/jobs/{id}")).await;
        assert_eq!(job["state"], "canceled");
        assert!(job["endTimeStamp"].is_string());

        let id = quick.submitted("failme", "co_pooled", "SAS Studio compute context").await;
        let job = quick.ended(&id).await;
        assert_eq!(
            (job["state"].as_str(), nested(&job["error"])),
            (Some("failed"), "The SAS program ended with errors.")
        );
    });
}

#[test]
fn what_cannot_run_is_refused_with_the_reason_in_a_nested_error() {
    let f = Fixture::fast();
    run(async {
        let unknown = f.submit("x", "no such job", "Autoscaling POC Context").await;
        assert_eq!(
            (unknown.status().as_u16(), content_type(&unknown).as_str()),
            (404, "application/vnd.sas.error+json")
        );
        let error: Value = unknown.json().await.unwrap();
        assert_eq!((error["version"].as_u64(), error["httpStatusCode"].as_u64()), (Some(2), Some(404)));
        assert!(nested(&error).contains("could not be found"));
        let context = f.submit("x", "cm_pooled", "No Such Context").await;
        assert_eq!(context.status(), 400);
        assert!(nested(&context.json().await.unwrap()).contains("No Such Context"));

        let post = |kind: &str, body: Value| {
            let request =
                f.client.post(f.url("/jobExecution/jobs")).header("content-type", kind).body(body.to_string());
            f.authorized(request).send()
        };
        let id = &workload::example_definitions().unwrap()[0].id;
        let uri = format!("/jobDefinitions/definitions/{id}");
        let number = json!({"jobDefinitionUri": uri, "arguments": {"AGE": 14}});
        assert_eq!(post(REQUEST, number).await.unwrap().status(), 400);
        assert_eq!(post("text/plain", json!({"jobDefinitionUri": uri})).await.unwrap().status(), 415);
        assert_eq!(post(REQUEST, json!([])).await.unwrap().status(), 400);
        assert_eq!(post(REQUEST, json!({"jobDefinitionUri": uri})).await.unwrap().status(), 201);
        for path in ["/no/such/path", "/jobExecution/jobs?limit=x", "/jobExecution/jobs/none/state"] {
            let reply = f.get(path).await;
            assert!(reply.status().is_client_error());
            assert_eq!(content_type(&reply), "application/vnd.sas.error+json", "{path}");
        }
        assert_eq!(f.authorized(f.client.put(f.url("/jobExecution/jobs"))).send().await.unwrap().status(), 405);
    });
}

#[test]
fn faults_come_once_where_they_were_asked_for() {
    let fault = |nth, status, retry_after| Fault { path: "/compute".into(), nth, status, retry_after };
    let faults = vec![fault(1, 503, None), fault(2, 429, Some(7))];
    let f = Fixture::new(ViyaOptions { faults, ..ViyaOptions::default() });
    run(async {
        assert_eq!(f.get("/jobExecution").await.status(), 200);
        let reply = f.get("/compute/contexts").await;
        assert_eq!((reply.status().as_u16(), content_type(&reply).as_str()), (503, "application/vnd.sas.error+json"));
        let reply = f.get("/compute/contexts").await;
        assert_eq!((reply.status().as_u16(), reply.headers()["retry-after"].to_str().unwrap()), (429, "7"));
        let reply = f.get("/compute/contexts").await;
        assert_eq!(reply.status(), 200);
    });
}

#[test]
fn it_stops_when_dropped_although_a_client_keeps_its_connection() {
    let f = Fixture::fast();
    run(async { assert_eq!(f.get("/jobExecution").await.status(), 200) });
    let Fixture { viya, client, .. } = f;
    let (url, address) = (viya.url(), viya.http.address);
    drop(viya);
    assert!(std::net::TcpStream::connect(address).is_err());
    run(async { assert!(client.get(url).send().await.is_err()) });
}

#[test]
fn its_speed_is_known_in_this_process_and_in_no_answer() {
    let f = Fixture::new(ViyaOptions { speed: 12.5, ..ViyaOptions::default() });
    let url: url::Url = f.viya.url().parse().unwrap();
    let scale = || crate::viya::Clock::of(&url, None).unwrap().time_scale;
    assert_eq!(scale(), 12.5);
    run(async {
        let reply = f.get("/jobExecution").await;
        assert!(reply.headers().values().all(|value| !value.as_bytes().windows(4).any(|part| part == b"12.5")));
    });
    drop(f);
    assert_eq!(scale(), 1.0);
}

#[test]
fn a_speed_that_cannot_work_is_refused() {
    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7] {
        let error = ViyaSandbox::start(ViyaOptions { speed, ..ViyaOptions::default() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_selection_of_jobs_is_canceled_with_an_answer_for_each() {
    let fixture = Fixture::new(ViyaOptions { speed: 1.0, ..ViyaOptions::default() });
    run(async {
        let job = &workload::example_definitions().unwrap()[0].name.clone();
        let id = fixture.submitted("one", job, CONTEXTS[0].name).await;
        let url = |value: &str| fixture.url(&format!("/jobExecution/jobs/@selection/state?value={value}"));
        let uri = format!("/jobExecution/jobs/{id}");
        let put = |value: &str, body: Value| fixture.authorized(fixture.client.put(url(value)).json(&body)).send();
        let selection = json!({"resources": [uri, "/jobExecution/jobs/none"]});
        assert_eq!(put("running", selection.clone()).await.unwrap().status(), 400);
        assert_eq!(put("canceled", json!([1])).await.unwrap().status(), 400);
        let reply: Value = put("canceled", selection).await.unwrap().json().await.unwrap();
        assert_eq!((&reply["items"][0]["id"], &reply["items"][1]["httpStatusCode"]), (&json!(id), &json!(404)));
        assert_eq!(fixture.get(&format!("{uri}/state")).await.text().await.unwrap(), "canceled");
    });
}
