use super::*;

fn mapper(anonymous: bool) -> Mapper {
    Mapper { store: "the bucket 'b'".to_owned(), anonymous }
}

fn response(text: &str) -> StoreResponse {
    parse(text)
}

#[test]
fn only_code_and_message_of_a_response_are_kept() {
    let s3 = response(
        "403 Forbidden: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature &amp; key do \
         not match</Message><CanonicalRequest>x-amz-security-token:S3cr3t</CanonicalRequest></Error>",
    );
    assert_eq!(s3.text, "HTTP status 403, SignatureDoesNotMatch: The signature & key do not match");
    let azure = response(
        "404 Not Found: <Error><Code>ContainerNotFound</Code><Message>The container does not exist.\nRequestId:1\nTime:2</Message></Error>",
    );
    assert_eq!(azure.text, "HTTP status 404, ContainerNotFound: The container does not exist");
    let entra = response(
        "401 Unauthorized: {\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid client secret.\\r\\nTrace ID: 1\"}",
    );
    assert_eq!(entra.text, "HTTP status 401, invalid_client: AADSTS7000215: Invalid client secret");
    let google = response(
        "403 Forbidden: {\"error\":{\"code\":403,\"message\":\"no access\",\"status\":\"PERMISSION_DENIED\"}}",
    );
    assert_eq!(google.text, "HTTP status 403, PERMISSION_DENIED: no access");
    assert_eq!(response("502 Bad Gateway: <html>S3cr3t</html>").text, "HTTP status 502");
    assert_eq!(response("<Error><Code>SlowDown</Code></Error>").text, "HTTP status 200, SlowDown");
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
        let error = mapper(false).explain(credentials, &Cause::Response(response(answer)));
        assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{answer}");
        assert!(error.to_string().contains("the bucket 'b'"), "{error}");
    }
}

#[test]
fn an_error_says_when_no_credentials_were_given() {
    let silent = Cause::NoResponse(HttpErrorKind::Connect, "connection refused".into());
    let error = mapper(true).explain(true, &silent);
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Authentication, false));
    assert!(error.to_string().contains("neither storage_options nor the environment"), "{error}");
    let error = mapper(false).explain(true, &silent);
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Network, true));
}

#[test]
fn a_bucket_in_another_region_is_recognised() {
    let redirect = "Received redirect without LOCATION, this normally indicates an incorrectly configured region";
    let error = mapper(false).explain(false, &Cause::Other(redirect.into()));
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, false));
    assert!(error.to_string().contains("aws_region"), "{error}");
}

#[test]
fn an_untrusted_certificate_is_not_retryable() {
    let cause = Cause::NoResponse(HttpErrorKind::Connect, "invalid peer certificate: UnknownIssuer".into());
    let error = mapper(false).explain(false, &cause);
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Network, false));
    assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
}

#[test]
fn errors_that_callers_act_on_stay_what_they_are() {
    let source = || -> Box<dyn StdError + Send + Sync> { "412 https://host/?sig=S3cr3t".into() };
    let path = || "a/b".to_owned();
    let is = |error: StoreError| mapper(false).map(error);
    assert!(matches!(
        is(StoreError::AlreadyExists { path: path(), source: source() }),
        StoreError::AlreadyExists { .. }
    ));
    assert!(matches!(is(StoreError::Precondition { path: path(), source: source() }), StoreError::Precondition { .. }));
    let implemented = StoreError::NotImplemented { operation: "x".into(), implementer: "y".into() };
    assert!(matches!(is(implemented), StoreError::NotImplemented { .. }));
}
