use super::*;

fn answered(text: &str) -> Answer {
    parse(text)
}

#[test]
fn of_a_servers_answer_only_code_and_message_are_kept() {
    let s3 = answered(
        "403 Forbidden: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature &amp; key do \
         not match</Message><CanonicalRequest>x-amz-security-token:S3cr3t</CanonicalRequest></Error>",
    );
    assert_eq!(s3.to_string(), "HTTP status 403, SignatureDoesNotMatch: The signature & key do not match");
    let azure = answered(
        "404 Not Found: <Error><Code>ContainerNotFound</Code><Message>The container does not exist.\nRequestId:1\nTime:2</Message></Error>",
    );
    assert_eq!(azure.to_string(), "HTTP status 404, ContainerNotFound: The container does not exist");
    let entra = answered(
        "401 Unauthorized: {\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid client secret.\\r\\nTrace ID: 1\"}",
    );
    assert_eq!(entra.to_string(), "HTTP status 401, invalid_client: AADSTS7000215: Invalid client secret");
    let google = answered(
        "403 Forbidden: {\"error\":{\"code\":403,\"message\":\"no access\",\"status\":\"PERMISSION_DENIED\"}}",
    );
    assert_eq!(google.to_string(), "HTTP status 403, PERMISSION_DENIED: no access");
    assert_eq!(answered("502 Bad Gateway: <html>S3cr3t</html>").to_string(), "HTTP status 502");
    assert_eq!(answered("<Error><Code>SlowDown</Code></Error>").to_string(), "HTTP status 200, SlowDown");
}

#[test]
fn the_status_decides_whether_a_retry_can_help() {
    for (answer, credentials, kind, retryable) in [
        ("503 Service Unavailable: <Error><Code>SlowDown</Code></Error>", false, ErrorKind::Storage, true),
        ("500 Internal Server Error: ", false, ErrorKind::Storage, true),
        ("429 Too Many Requests: ", false, ErrorKind::Storage, true),
        ("<Error><Code>InternalError</Code></Error>", false, ErrorKind::Storage, true),
        ("403 Forbidden: <Error><Code>AccessDenied</Code></Error>", false, ErrorKind::Authentication, false),
        ("401 Unauthorized: ", false, ErrorKind::Authentication, false),
        ("400 Bad Request: <Error><Code>ExpiredToken</Code></Error>", false, ErrorKind::Authentication, false),
        ("400 Bad Request: {\"error\":\"unauthorized_client\"}", true, ErrorKind::Authentication, false),
        ("404 Not Found: <Error><Code>NoSuchBucket</Code></Error>", false, ErrorKind::Storage, false),
        ("404 Not Found: <Error><Code>NoSuchKey</Code></Error>", false, ErrorKind::Server, false),
        ("400 Bad Request: <Error><Code>InvalidArgument</Code></Error>", false, ErrorKind::Storage, false),
    ] {
        let error = explain("the bucket 'b'", false, credentials, &Cause::Answered(answered(answer)));
        assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{answer}");
        assert!(error.to_string().contains("the bucket 'b'"), "{error}");
    }
}

#[test]
fn whoever_gave_no_credentials_is_told() {
    let silent = Cause::Unanswered(HttpErrorKind::Connect, "connection refused".into());
    let error = explain("the bucket 'b'", true, true, &silent);
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Authentication, false));
    assert!(error.to_string().contains("neither storage_options nor the environment"), "{error}");
    let error = explain("the bucket 'b'", false, true, &silent);
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Network, true));
}

#[test]
fn a_bucket_in_another_region_is_recognised() {
    let redirect = "Received redirect without LOCATION, this normally indicates an incorrectly configured region";
    let error = explain("the bucket 'b'", false, false, &Cause::Other(redirect.into()));
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, false));
    assert!(error.to_string().contains("aws_region"), "{error}");
}

#[test]
fn a_certificate_that_is_not_trusted_stays_so() {
    let cause = Cause::Unanswered(HttpErrorKind::Connect, "invalid peer certificate: UnknownIssuer".into());
    let error = explain("the bucket 'b'", false, false, &cause);
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Network, false));
    assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
}

#[test]
fn what_the_callers_act_on_stays_what_it_is() {
    let source = || -> Box<dyn StdError + Send + Sync> { "412 https://host/?sig=S3cr3t".into() };
    let path = || "a/b".to_owned();
    let is = |error: StoreError| clear("the bucket 'b'", false, error);
    assert!(matches!(
        is(StoreError::AlreadyExists { path: path(), source: source() }),
        StoreError::AlreadyExists { .. }
    ));
    assert!(matches!(is(StoreError::Precondition { path: path(), source: source() }), StoreError::Precondition { .. }));
    let implemented = StoreError::NotImplemented { operation: "x".into(), implementer: "y".into() };
    assert!(matches!(is(implemented), StoreError::NotImplemented { .. }));
}
