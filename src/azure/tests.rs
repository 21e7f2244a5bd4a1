//! The client against the sandbox's Azure: what is repeated, and where links may lead.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::ErrorKind;
use crate::runtime::block_on;
use crate::sandbox::azure::{AzureOptions, AzureSandbox, CLIENT_ID, SUBSCRIPTION_ID, TENANT_ID};

fn client(azure: &AzureSandbox) -> ArmClient {
    let variables = CredentialVariables::default();
    let cloud = Cloud::new(Some(&azure.url()), Some(&azure.url()), &variables).unwrap();
    let credential = Credential::service_principal(TENANT_ID, CLIENT_ID, azure.client_secret());
    ArmClient::new(&cloud, credential, variables).unwrap()
}

fn send(arm: &ArmClient, call: &ArmRequest, limit: Duration) -> crate::Error {
    block_on(arm.send(call, Deadline::after(limit))).unwrap_err()
}

#[test]
fn a_post_is_repeated_only_where_it_did_nothing() {
    let azure = AzureSandbox::start(AzureOptions { throttle_first: 1, ..AzureOptions::default() }).unwrap();
    let arm = client(&azure);
    let call = ArmRequest::post(format!("/subscriptions/{SUBSCRIPTION_ID}/do"), "2024-07-01", json!({"x": 1}));
    let error = send(&arm, &call, Duration::from_secs(20));
    assert_eq!((error.kind(), azure.requests().len()), (ErrorKind::NotFound, 2), "429, and then the answer: {error}");
    azure.set_down(true);
    let error = send(&arm, &call, Duration::from_secs(20));
    assert_eq!((error.kind(), error.is_retryable(), azure.requests().len()), (ErrorKind::Server, true, 3), "{error}");
    azure.set_down(false);
    azure.revoke_tokens();
    send(&arm, &call, Duration::from_secs(20));
    assert_eq!((azure.requests().len(), azure.tokens_issued()), (5, 2), "401, and with another token the answer");
}

#[test]
fn a_get_is_repeated_until_the_time_is_up() {
    let azure = AzureSandbox::start(AzureOptions::default()).unwrap();
    let arm = client(&azure);
    azure.set_down(true);
    let call = ArmRequest::get(format!("/subscriptions/{SUBSCRIPTION_ID}"), "2024-07-01");
    let error = send(&arm, &call, Duration::from_secs(2));
    assert!(error.is_retryable() && error.to_string().contains("503"), "{error}");
    assert!(azure.requests().len() >= 2, "{:?}", azure.requests());
}

#[test]
fn links_lead_to_the_same_server_or_nowhere() {
    let azure = AzureSandbox::start(AzureOptions::default()).unwrap();
    let arm = client(&azure);
    let own = format!("{}/subscriptions/s?x=1", azure.url());
    assert_eq!(arm.own_link(&own).unwrap().as_str(), own);
    assert_eq!(arm.own_link("/subscriptions/s?x=1").unwrap().as_str(), own);
    let with_user = own.replace("http://", "http://user@");
    for link in ["https://127.0.0.1/x", "http://elsewhere.example/x", "//elsewhere.example/x", &with_user, "http://"] {
        assert_eq!(arm.own_link(link).unwrap_err().kind(), ErrorKind::Server, "{link}");
    }
}

#[test]
fn nothing_secret_is_in_debug_output() {
    let azure = AzureSandbox::start(AzureOptions::default()).unwrap();
    let arm = client(&azure);
    let call = ArmRequest::get(format!("/subscriptions/{SUBSCRIPTION_ID}"), "2024-07-01");
    send(&arm, &call, Duration::from_secs(20));
    let shown = format!("{arm:?}{:?}", AccessToken::new("token-text", None));
    assert!(shown.contains(CLIENT_ID), "{shown}");
    assert!(!shown.contains(&azure.client_secret()) && !shown.contains("token-text"), "{shown}");
}

#[test]
fn the_end_of_a_token_is_read_from_the_token() {
    // {"exp": 4102444800} without padding, as in a JWT.
    let token = AccessToken::new("e30.eyJleHAiOiA0MTAyNDQ0ODAwfQ.x", None);
    assert_eq!(token.expires.map(|at| at.to_rfc3339()), Some("2100-01-01T00:00:00+00:00".to_owned()));
    for text in ["opaque", "a.b.c", ""] {
        assert_eq!(AccessToken::new(text, None).expires, None, "{text}");
    }
}
