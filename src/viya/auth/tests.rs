use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Form, Json, Router};
use serde_json::json;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

fn jwt(iat: i64, exp: i64) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(json!({"alg": "RS256"})), part(json!({"iat": iat, "exp": exp})))
}

fn file(tokens: &Value) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sas_tokens.json");
    std::fs::write(&path, tokens.to_string()).unwrap();
    (folder, path)
}

#[test]
fn a_token_that_no_header_takes_is_an_error_of_the_file() {
    for token in ["geheim\n", "ge\rheim", "ge heim", "geheim\u{7}", "gehe\u{ee}m"] {
        let (_folder, path) = file(&json!({"access_token": token, "refresh_token": "refresh-1"}));
        let error = Login::open(&path).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::InvalidInput, false), "{token:?}");
        let text = error.full_message();
        assert!(text.contains("sas_tokens.json") && !text.contains(token.trim()), "{text}");
    }
}

/// A SASLogon whose refresh tokens work once: `refresh-1` gives `refresh-2`, and so on.
#[derive(Clone, Default)]
struct Logon {
    given: Arc<AtomicUsize>,
    opaque: bool,
}

async fn renew(
    State(logon): State<Logon>,
    headers: HeaderMap,
    Form(form): Form<Vec<(String, String)>>,
) -> (StatusCode, Json<Value>) {
    // "sas.cli:" in Base64: the public client, whose secret is empty.
    assert_eq!(headers["authorization"], "Basic c2FzLmNsaTo=");
    let spent = format!("refresh-{}", logon.given.load(Ordering::SeqCst) + 1);
    let right = form.contains(&("grant_type".into(), "refresh_token".into()))
        && form.contains(&("refresh_token".into(), spent));
    if !right {
        return (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_token", "error_description": "spent"})));
    }
    let number = logon.given.fetch_add(1, Ordering::SeqCst) + 2;
    let now = Utc::now().timestamp();
    let access = if logon.opaque { format!("opaque-{number}") } else { jwt(now, now + 3600 + number as i64) };
    let answer = json!({"access_token": access, "token_type": "bearer", "refresh_token": format!("refresh-{number}"), "expires_in": 3600});
    (StatusCode::OK, Json(answer))
}

async fn logon(logon: Logon) -> Client {
    let app = Router::new().route("/SASLogon/oauth/token", post(renew)).with_state(logon);
    let base = crate::viya::tests::serve(app).await;
    Client::new("SAS Viya", &base, "check base_url", |builder| builder).unwrap()
}

fn open(path: &Path) -> Login {
    Login::open_as(path, OAuthClient::new("sas.cli", "")).unwrap()
}

#[tokio::test]
async fn the_jwt_is_believed_over_expires_at() {
    let now = Utc::now().timestamp();
    let (_folder, path) = file(&json!({"access_token": jwt(now, now + 9000), "expires_at": "2001-01-01T00:00:00.5"}));
    let http = logon(Logon::default()).await;
    assert_eq!(open(&path).bearer(&http).await.unwrap().token(), jwt(now, now + 9000));
    let (_folder, path) =
        file(&json!({"access_token": jwt(now - 9000, now - 10), "expires_at": "2999-01-01T00:00:00"}));
    let error = open(&path).bearer(&http).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(error.to_string().contains("log in to SAS Viya again"), "{error}");
}

#[tokio::test]
async fn a_rotation_is_stored_with_mode_0600_and_keeps_other_keys() {
    let now = Utc::now().timestamp();
    let old = json!({"access_token": jwt(now - 9000, now - 10), "refresh_token": "refresh-1", "note": "mine", "expires_in": 9});
    let (folder, path) = file(&old);
    let http = logon(Logon::default()).await;
    let tokens = open(&path);
    let bearer = tokens.bearer(&http).await.unwrap();
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(stored["access_token"], bearer.token());
    assert_eq!((&stored["refresh_token"], &stored["note"]), (&json!("refresh-2"), &json!("mine")));
    let written = token_pair::parse_local_time(stored["expires_at"].as_str().unwrap()).unwrap();
    assert!((written - Utc::now()).num_seconds() > 3500);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{left:?}");
    // A second look uses what is there; a refusal of the older token does not spend the new refresh token.
    assert_eq!(tokens.bearer(&http).await.unwrap().token(), bearer.token());
    let older = Bearer { token: "old".into(), generation: 0 };
    assert_eq!(tokens.renewed(&older, &http).await.unwrap().token(), bearer.token());
}

#[tokio::test]
async fn several_renewers_spend_each_refresh_token_once() {
    let now = Utc::now().timestamp();
    let (_folder, path) = file(&json!({"access_token": jwt(now - 9000, now - 10), "refresh_token": "refresh-1"}));
    let server = Logon { opaque: true, ..Logon::default() };
    let http = logon(server.clone()).await;
    // Two files opened on one path stand for two processes: only the lock and the file are between them.
    let (one, two) = (open(&path), open(&path));
    let (a, b, c) = tokio::join!(one.bearer(&http), two.bearer(&http), one.bearer(&http));
    assert_eq!([a.unwrap().token(), b.unwrap().token(), c.unwrap().token()], ["opaque-2"; 3]);
    assert_eq!(server.given.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_refused_refresh_token_says_what_to_do_and_shows_no_token() {
    let (_folder, path) =
        file(&json!({"access_token": "secret-a", "refresh_token": "secret-r", "expires_at": "2001-01-01T00:00:00Z"}));
    let http = logon(Logon::default()).await;
    let tokens = open(&path);
    let error = tokens.bearer(&http).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    let text = format!("{} {tokens:?} {error:?}", error.full_message());
    assert!(text.contains("invalid_token") && text.contains("SAS_CLIENT_ID"), "{text}");
    assert!(!text.contains("secret-"), "{text}");
}

#[tokio::test]
async fn a_token_that_the_server_repeats_is_not_shown() {
    for (written, status) in [
        (r#"{"error": "invalid_token", "error_description": "Invalid refresh token (expired): secret-r/1+x"}"#, 401),
        (
            r#"{"error": "invalid_token", "error_description": "Invalid refresh token (expired): secret-r\/1\u002bx"}"#,
            401,
        ),
        (
            r#"{"error": "invalid_token", "error_description": "Access token expired: secret-a. See /?t=secret-r%2F1%2Bx"}"#,
            400,
        ),
        (r#"{"message": "no: c2VjcmV0LXIvMSt4"}"#, 400),
    ] {
        let refuse = move || async move { (StatusCode::from_u16(status).unwrap(), written) };
        let base = crate::viya::tests::serve(Router::new().route("/SASLogon/oauth/token", post(refuse))).await;
        let http = Client::new("SAS Viya", &base, "check base_url", |builder| builder).unwrap();
        let (_folder, path) = file(
            &json!({"access_token": "secret-a", "refresh_token": "secret-r/1+x", "expires_at": "2001-01-01T00:00:00Z"}),
        );
        let error = open(&path).bearer(&http).await.unwrap_err();
        let text = format!("{} {error:?}", error.full_message());
        assert!(text.contains('…') && !text.contains("secret-") && !text.contains("c2VjcmV0"), "{text}");
    }
}

/// Only root can give a file away; for any other user, the owner stays the same.
#[tokio::test]
async fn a_renewal_by_another_user_keeps_the_owner() {
    let now = Utc::now().timestamp();
    let (folder, path) = file(&json!({"access_token": jwt(now - 9000, now - 10), "refresh_token": "refresh-1"}));
    let is_root = std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).is_ok();
    let http = logon(Logon::default()).await;
    open(&path).bearer(&http).await.unwrap();
    let lock = folder.path().join("sas_tokens.json.lock");
    let owner = |path: &Path| std::fs::metadata(path).unwrap().uid();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(owner(&path) == 65_534, is_root);
    assert_eq!((owner(&lock), mode(&lock), mode(&path)), (owner(&path), 0o644, 0o600));
}

#[tokio::test]
async fn a_link_in_place_of_the_lock_gives_no_other_file_away() {
    let now = Utc::now().timestamp();
    let (folder, path) = file(&json!({"access_token": jwt(now - 9000, now - 10), "refresh_token": "refresh-1"}));
    let other = folder.path().join("other");
    std::fs::write(&other, "").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&other, folder.path().join("sas_tokens.json.lock")).unwrap();
    let _ = std::os::unix::fs::chown(&path, Some(65_534), Some(65_534));
    let before = std::fs::metadata(&other).unwrap();
    open(&path).bearer(&logon(Logon::default()).await).await.unwrap();
    let after = std::fs::metadata(&other).unwrap();
    assert_eq!((after.permissions().mode(), after.uid()), (before.permissions().mode(), before.uid()));
}

#[tokio::test]
async fn a_pipe_or_a_second_name_in_place_of_the_lock_is_no_harm() {
    let now = Utc::now().timestamp();
    for is_pipe in [true, false] {
        let (folder, path) = file(&json!({"access_token": jwt(now - 9000, now - 10), "refresh_token": "refresh-1"}));
        let (lock, other) = (folder.path().join("sas_tokens.json.lock"), folder.path().join("other"));
        std::fs::write(&other, "").unwrap();
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
        if is_pipe {
            assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
        } else {
            std::fs::hard_link(&other, &lock).unwrap();
        }
        open(&path).bearer(&logon(Logon::default()).await).await.unwrap();
        assert_eq!(std::fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn without_a_lock_file_the_folder_is_locked() {
    let now = Utc::now().timestamp();
    let (folder, path) = file(&json!({"access_token": jwt(now - 9000, now - 10), "refresh_token": "refresh-1"}));
    // A link to a file that cannot be created.
    let missing = folder.path().join("missing");
    std::os::unix::fs::symlink(missing.join("lock"), folder.path().join("sas_tokens.json.lock")).unwrap();
    let server = Logon { opaque: true, ..Logon::default() };
    let http = logon(server.clone()).await;
    let (one, two) = (open(&path), open(&path));
    let (a, b) = tokio::join!(one.bearer(&http), two.bearer(&http));
    assert_eq!([a.unwrap().token(), b.unwrap().token()], ["opaque-2"; 2]);
    assert_eq!(server.given.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_user_who_cannot_open_the_lock_file_and_one_who_can_exclude_each_other() {
    let (folder, path) = file(&json!({"access_token": "a"}));
    let lock_file = folder.path().join("sas_tokens.json.lock");
    std::fs::write(&lock_file, "").unwrap();
    std::fs::set_permissions(&lock_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    // What the other user can lock.
    let other = std::fs::File::open(folder.path()).unwrap();
    other.lock().unwrap();
    let waiting = token_file::lock(&path);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), &mut waiting).await.is_err());
    other.unlock().unwrap();
    let held = waiting.await.unwrap();
    assert!(matches!(other.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
    // What a child process has that was forked meanwhile.
    let inherited: Vec<_> = held.0.iter().map(|file| file.try_clone().unwrap()).collect();
    drop(held);
    other.try_lock().unwrap();
    drop(inherited);
    // Where all users can open the lock file, other tokens in the folder do not wait.
    std::fs::set_permissions(&lock_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(token_file::lock(&path).await.unwrap());
}

#[test]
fn bad_files_say_what_is_wrong_without_quoting_them() {
    let error = Login::open("/nowhere/tokens.json").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/nowhere/tokens.json"));
    for text in ["{\"access_token\": secret", "[]", "{}", "{\"access_token\": \"\"}"] {
        let (_folder, path) = file(&Value::Null);
        std::fs::write(&path, text).unwrap();
        let error = Login::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(!error.full_message().contains("secret"));
    }
}

#[test]
fn rotations_are_refused_where_they_would_get_lost() {
    for path in ["/Volumes/main/x/t.json", "/Workspace/Users/u/t.json", "/dbfs/t.json"] {
        assert_eq!(token_file::check_rotation(Path::new(path)).unwrap_err().kind(), ErrorKind::Unsupported);
    }
    assert!(token_file::check_rotation(Path::new("/local_disk0/t.json")).is_ok());
}

#[test]
fn margins_shrink_with_short_lifetimes() {
    let tokens = |value: Value| TokenPair::parse(value.as_object().unwrap().clone(), "t").unwrap();
    assert_eq!(tokens(json!({"access_token": "a"})).margin(), 300.0);
    assert_eq!(tokens(json!({"access_token": "a", "expires_in": 86_399})).margin(), 300.0);
    assert_eq!(tokens(json!({"access_token": jwt(0, 20), "expires_in": 86_399})).margin(), 2.0);
}
