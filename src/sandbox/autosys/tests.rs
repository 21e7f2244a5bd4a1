use std::io::ErrorKind as IoErrorKind;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::*;

fn sandbox(options: AutosysOptions) -> (tempfile::TempDir, AutosysSandbox) {
    let dir = tempfile::tempdir().unwrap();
    let sandbox = AutosysSandbox::start(dir.path(), options).unwrap();
    (dir, sandbox)
}

fn jobs(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Runs a program of the sandbox. Another test that forks at the wrong moment may hold the file open for writing.
fn run(program: &Path, arguments: &[&str]) -> Output {
    loop {
        match Command::new(program).args(arguments).output() {
            Err(e) if e.kind() == IoErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            done => return done.unwrap(),
        }
    }
}

fn send(sandbox: &AutosysSandbox, arguments: &[&str]) -> (bool, String) {
    let output = run(&sandbox.sendevent(), arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn autostatus(sandbox: &AutosysSandbox, job: &str) -> (bool, String) {
    let output = run(&sandbox.autostatus(), &["-J", job]);
    (output.status.success(), String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
}

#[test]
fn an_event_is_recorded_and_the_status_read_back() {
    let (_dir, sandbox) = sandbox(AutosysOptions { jobs: jobs(&["a.b#1", ".."]), ..Default::default() });
    assert_eq!(autostatus(&sandbox, "a.b#1"), (true, "INACTIVE".into()));
    let before = Utc::now();
    let (ok, text) = send(&sandbox, &["-E", "CHANGE_STATUS", "-s", "SUCCESS", "-J", "a.b#1"]);
    assert!(ok && text.contains("CAUAJM_I_"), "{text}");
    assert!(send(&sandbox, &["-E", "STARTJOB", "-J", ".."]).0);
    let events = sandbox.events().unwrap();
    let short: Vec<_> = events.iter().map(|e| [&e.via, &e.event, &e.job, &e.status].map(String::as_str)).collect();
    assert_eq!(short, [["sendevent", "CHANGE_STATUS", "a.b#1", "SUCCESS"], ["sendevent", "STARTJOB", "..", "RUNNING"]]);
    assert!((events[0].at - before).num_seconds().abs() <= 60 && events[0].comment.is_none());
    assert_eq!(autostatus(&sandbox, "a.b#1"), (true, "SUCCESS".into()));
    assert_eq!(sandbox.status("..").unwrap(), "RUNNING");
    assert_eq!(sandbox.status("other").unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!autostatus(&sandbox, "other").0);
}

#[test]
fn wrong_arguments_are_refused_and_not_recorded() {
    let (_dir, sandbox) = sandbox(AutosysOptions { jobs: jobs(&["a"]), ..Default::default() });
    let long = "x".repeat(65);
    for (arguments, code) in [
        (vec!["-E", "CHANGE_STATUS", "-s", "SUCCESS", "-J", "b"], "CAUAJM_E_50029 Invalid job name"),
        (vec!["-E", "CHANGE_STATUS", "-s", "SUCCESS", "-J", "a%"], "CAUAJM_E_50029"),
        (vec!["-E", "CHANGE_STATUS", "-s", "SUCCESS", "-J", &long], "CAUAJM_E_50029"),
        (vec!["-E", "CHANGE_STATUS", "-s", "SUCCESS"], "CAUAJM_E_50029"),
        (vec!["-E", "CHANGE_STATUS", "-s", "success", "-J", "a"], "CAUAJM_E_50032"),
        (vec!["-E", "CHANGE_STATUS", "-J", "a"], "CAUAJM_E_50031"),
        // The classic slip: -S is the instance.
        (vec!["-E", "CHANGE_STATUS", "-S", "FAILURE", "-J", "a"], "CAUAJM_E_10014"),
        (vec!["-E", "STARTJOB", "-s", "SUCCESS", "-J", "a"], "CAUAJM_E_50033"),
        (vec!["-E", "startjob", "-J", "a"], "CAUAJM_E_50030"),
        (vec!["-E", "STARTJOB", "-J", "a", "-X"], "CAUAJM_E_10003"),
        (vec!["-E", "STARTJOB", "-J", "a", "more"], "CAUAJM_E_10003"),
        (vec![], "CAUAJM_E_50030"),
    ] {
        let (ok, text) = send(&sandbox, &arguments);
        assert!(!ok && text.contains(code), "{arguments:?}: {text}");
    }
    assert_eq!(sandbox.events().unwrap(), []);
    assert!(send(&sandbox, &["-E", "STARTJOB", "-J", "a", "-S", "SBX"]).0);
}

#[test]
fn values_are_stored_verbatim_and_never_interpreted() {
    let (dir, sandbox) = sandbox(AutosysOptions::default());
    let witness = dir.path().join("witness");
    let comment = format!("$(touch {0}) `touch {0}` ; touch {0} | \\t '\"* ü\tend\n", witness.display());
    assert!(send(&sandbox, &["-E", "STARTJOB", "-J", "a", "-C", &comment]).0);
    assert!(send(&sandbox, &["-E", "STARTJOB", "-J", "a", "-C", ""]).0);
    let name = format!("$(touch {})", witness.display());
    assert!(!send(&sandbox, &["-E", "STARTJOB", "-J", &name]).0);
    assert!(!send(&sandbox, &["-E", "CHANGE_STATUS", "-s", &name, "-J", "a"]).0);
    assert!(!autostatus(&sandbox, &name).0);
    assert!(!witness.exists());
    let comments: Vec<_> = sandbox.events().unwrap().into_iter().map(|event| event.comment).collect();
    assert_eq!(comments, [Some(comment), Some(String::new())]);
}

#[test]
fn a_job_is_refused_the_first_time_only() {
    let options = AutosysOptions { jobs: jobs(&["a", "b", "c", "d"]), refuse_first: vec!["b".into(), "d".into()] };
    let (_dir, sandbox) = sandbox(options);
    let tries: Vec<bool> =
        ["a", "b", "c", "d", "b", "d"].map(|job| send(&sandbox, &["-E", "STARTJOB", "-J", job]).0).into();
    assert_eq!(tries, [true, false, true, false, true, true]);
    assert_eq!(sandbox.events().unwrap().len(), 4);
}

#[test]
fn lines_of_many_processes_do_not_mix() {
    let (_dir, sandbox) = sandbox(AutosysOptions { refuse_first: vec!["same".into()], ..Default::default() });
    let refused: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..5).filter(|_| !send(&sandbox, &["-E", "STARTJOB", "-J", "same", "-C", "x"]).0).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((refused, sandbox.events().unwrap().len()), (1, 39));
}

#[test]
fn an_event_server_that_is_away_takes_nothing() {
    let (dir, sandbox) = sandbox(AutosysOptions::default());
    sandbox.set_available(false).unwrap();
    let (ok, text) = send(&sandbox, &["-E", "STARTJOB", "-J", "a"]);
    assert!(!ok && text.contains("not available"), "{text}");
    sandbox.set_available(true).unwrap();
    assert!(send(&sandbox, &["-E", "STARTJOB", "-J", "a"]).0);
    let program = sandbox.sendevent();
    drop(sandbox);
    assert!(!run(&program, &["-E", "STARTJOB", "-J", "a"]).status.success());
    // Started again in the same place, it still knows what it took.
    let sandbox = AutosysSandbox::start(dir.path(), AutosysOptions::default()).unwrap();
    assert_eq!(sandbox.events().unwrap().len(), 1);
}

#[test]
fn bad_options_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (jobs, refuse_first) in [(jobs(&["a b"]), vec![]), (None, vec!["%".into()])] {
        let options = AutosysOptions { jobs, refuse_first };
        assert_eq!(AutosysSandbox::start(dir.path(), options).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn no_password_in_debug_output() {
    let (_dir, sandbox) = sandbox(AutosysOptions::default());
    assert!(!format!("{sandbox:?}").contains(sandbox.credentials().1));
}

struct Web {
    client: reqwest::Client,
    base: String,
    user: String,
    password: String,
}

impl Web {
    fn of(sandbox: &AutosysSandbox) -> Self {
        let (user, password) = sandbox.credentials();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { client, base: sandbox.url().into(), user: user.into(), password: password.into() }
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.basic_auth(&self.user, Some(&self.password)).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn post(&self, event: &str, body: Value) -> (u16, Value) {
        self.answer(self.client.post(format!("{}/event/{event}", self.base)).json(&body)).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.answer(self.client.get(format!("{}/{path}", self.base))).await
    }
}

#[tokio::test]
async fn the_web_services_share_the_log_with_the_programs() {
    let (_dir, sandbox) = sandbox(AutosysOptions { jobs: jobs(&["a"]), ..Default::default() });
    let web = Web::of(&sandbox);
    let body = json!({ "jobName": "a", "jobStatus": "FAILURE", "comment": "$(x); \t" });
    assert_eq!(web.post("change-status-job", body).await.0, 201);
    assert_eq!(autostatus(&sandbox, "a"), (true, "FAILURE".into()));
    assert_eq!(web.get("job-run-info/a").await.1["status"], "FAILURE");
    assert_eq!(web.post("start-job", json!({ "jobName": "a" })).await.0, 201);
    assert_eq!(web.post("force-start-job", json!({ "jobName": "a" })).await.0, 201);
    assert_eq!(web.get("job/a").await, (200, json!({ "name": "a", "jobType": "CMD", "status": "RUNNING" })));
    let events = sandbox.events().unwrap();
    let names: Vec<_> = events.iter().map(|e| [&e.via, &e.event].map(String::as_str)).collect();
    assert_eq!(names, [["web", "CHANGE_STATUS"], ["web", "STARTJOB"], ["web", "FORCE_STARTJOB"]]);
    assert_eq!(events[0].comment.as_deref(), Some("$(x); \t"));
}

#[tokio::test]
async fn the_web_services_refuse_with_an_error_body() {
    let (_dir, sandbox) = sandbox(AutosysOptions { jobs: jobs(&["a"]), refuse_first: vec!["a".into()] });
    let web = Web::of(&sandbox);
    for (event, body, status) in [
        ("change-status-job", json!({ "jobName": "b", "jobStatus": "SUCCESS" }), 404),
        ("change-status-job", json!({ "jobName": "a*", "jobStatus": "SUCCESS" }), 400),
        ("change-status-job", json!({ "jobName": "a", "jobStatus": "success" }), 400),
        ("change-status-job", json!({ "jobName": "a" }), 400),
        ("start-job", json!({ "jobName": "a", "jobStatus": "SUCCESS" }), 400),
        ("start-job", json!({}), 400),
        ("start-job", json!({ "jobName": "a", "comment": "x".repeat(256) }), 400),
        ("start-job", json!({ "jobName": "a" }), 503),
    ] {
        let (answered, error) = web.post(event, body.clone()).await;
        assert!(answered == status && error["error"].is_string(), "{event} {body}: {answered} {error}");
    }
    assert_eq!(web.get("job/b").await.0, 404);
    assert_eq!(sandbox.events().unwrap(), []);
    assert_eq!(web.post("start-job", json!({ "jobName": "a" })).await.0, 201);
    let wrong = Web { password: "wrong".into(), ..web };
    assert_eq!(wrong.post("start-job", json!({ "jobName": "a" })).await.0, 401);
}

#[tokio::test]
async fn dropping_it_frees_the_port() {
    let (_dir, sandbox) = sandbox(AutosysOptions::default());
    let web = Web::of(&sandbox);
    assert_eq!(web.get("job/a").await.0, 200);
    let address = sandbox.url().trim_start_matches("http://").trim_end_matches("/AEWS").to_owned();
    drop(sandbox);
    let closed = async {
        while tokio::net::TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), closed).await.expect("the port is still open");
}
