use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::attempt::ProbeDeadline;
use super::HttpProbe;
use crate::error::ErrorKind;
use crate::inventory::Vm;
use crate::selection::Probe;

/// Long enough for a loaded machine; what answers, answers at once.
const PLENTY: Duration = Duration::from_secs(20);

fn vm(ip_address: &str) -> Vm {
    Vm { ip_address: ip_address.to_owned(), ..Vm::named("vm1") }
}

fn probe(text: &str) -> Probe {
    text.parse().unwrap()
}

async fn closed_port() -> u16 {
    // Bound, but not listening: no other process gets the port as long as the caller keeps it; here it is let go at once and
    // the system hands out other ports first.
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

async fn health_server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = Router::new()
        .route("/ok", get(|| async { "fine" }))
        .route("/moved", get(|| async { (StatusCode::FOUND, [("location", "/broken")]) }))
        .route("/broken", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route("/silent", get(std::future::pending::<()>))
        .route(
            "/named/vm1",
            get(|headers: HeaderMap| async move {
                if headers["host"].to_str().unwrap().starts_with("127.0.0.1") {
                    StatusCode::OK
                } else {
                    StatusCode::NOT_FOUND
                }
            }),
        );
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

#[tokio::test]
async fn http_goes_by_the_status() {
    let port = health_server().await;
    for (path, up) in [("ok", true), ("moved", true), ("broken", false), ("missing", false), ("named/{name}", true)] {
        let answer = probe(&format!("http://{{ip}}:{port}/{path}")).check(&vm("127.0.0.1"), PLENTY).await;
        match answer {
            Ok(outcome) => assert!(up && outcome.kind == "http" && outcome.ip_address == "127.0.0.1", "{path}"),
            Err(reason) => assert!(!up && reason.contains("answered"), "{path}: {reason}"),
        }
    }
    let silent =
        probe(&format!("http://{{ip}}:{port}/silent")).check(&vm("127.0.0.1"), Duration::from_millis(200)).await;
    assert_eq!(silent.unwrap_err(), "the health address at 127.0.0.1 did not answer within 200ms");
    let port = closed_port().await;
    let refused =
        probe(&format!("http://user:secret@{{ip}}:{port}/")).check(&vm("127.0.0.1"), PLENTY).await.unwrap_err();
    assert!(refused.contains("refused") && !refused.contains("secret"), "{refused}");
}

#[tokio::test]
async fn the_request_goes_to_the_address_of_the_vm_whatever_its_name_resolves_to() {
    let port = health_server().await;
    // "vm1.invalid" is a name that cannot be resolved (RFC 6761), and no resolver is asked.
    let named = probe(&format!("http://{{name}}.invalid:{port}/ok"));
    let outcome = named.check(&vm("127.0.0.1"), PLENTY).await.unwrap();
    assert_eq!((outcome.kind.as_str(), outcome.ip_address.as_str()), ("http", "127.0.0.1"));
    let elsewhere = named.check(&vm("127.0.0.9"), PLENTY).await.unwrap_err();
    assert!(elsewhere.starts_with("the health address at 127.0.0.9 cannot be reached:"), "{elsewhere}");

    // A name that is an address itself, and another one than the VM's.
    let other = Vm { ip_address: "127.0.0.1".to_owned(), ..Vm::named("127.0.0.9") };
    let reason = probe(&format!("http://{{name}}:{port}/ok")).check(&other, PLENTY).await.unwrap_err();
    assert_eq!(reason, "the health address leads to 127.0.0.9, and the VM's address is 127.0.0.1");

    let link_local: SocketAddr = "[fe80::1%1]:0".parse().unwrap();
    let by_address = HttpProbe::new("http://{ip}/").unwrap();
    let reason = by_address.get("vm1", link_local, ProbeDeadline::after(PLENTY)).await.result.unwrap_err();
    assert!(reason.contains("use {name} as its host"), "{reason}");
}

/// A server that answers every request with `head`, and then with `more` until the client stops reading. Gives the port and how
/// many bytes were sent to the first who came.
async fn endless(head: &'static [u8], more: &'static [u8]) -> (u16, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(head).await.unwrap();
        let mut sent = 0;
        while stream.write_all(more).await.is_ok() {
            sent += more.len();
        }
        sent
    });
    (port, sent)
}

#[tokio::test]
async fn bodies_and_headers_without_end_are_not_read() {
    const MOST: usize = 64 << 20; // far more than the buffers of a connection, far less than "without end"
    let (port, sent) = endless(b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 65_536]).await;
    probe(&format!("http://{{ip}}:{port}/")).check(&vm("127.0.0.1"), PLENTY).await.unwrap();
    assert!(sent.await.unwrap() < MOST);

    let start = Instant::now();
    let (port, sent) = endless(b"HTTP/1.1 200 OK\r\nx: ", &[b'x'; 65_536]).await;
    let reason = probe(&format!("http://{{ip}}:{port}/")).check(&vm("127.0.0.1"), PLENTY).await.unwrap_err();
    assert!(reason.starts_with("the health address at 127.0.0.1 cannot be reached:"), "{reason}");
    assert!(sent.await.unwrap() < MOST && start.elapsed() < PLENTY);
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A server with a certificate of this authority for `names`, which answers "204 No Content".
    async fn serve(&self, names: &[&str]) -> u16 {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Err: the probe does not trust this server, and has left.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = [0; 1024];
                    if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                        let _ = stream.shutdown().await;
                    }
                });
            }
        });
        port
    }
}

const CHILD: &str = "JOBROTA_TEST_PROBE";

/// What a process of its own, in which SSL_CERT_FILE names this file, finds out about the VM "vm1" at 127.0.0.1.
async fn with_certificates(file: &std::path::Path, address: String) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([
            "selection::probe::http::tests::the_other_process_of_the_tests_with_certificates",
            "--exact",
            "--nocapture",
        ])
        .env("SSL_CERT_FILE", file)
        .env_remove("SSL_CERT_DIR")
        .env(CHILD, address);
    let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    printed
        .lines()
        .find_map(|line| line.split_once("found: "))
        .unwrap_or_else(|| panic!("{printed}{}", String::from_utf8_lossy(&output.stderr)))
        .1
        .to_owned()
}

/// The part of the test below that runs in a process of its own, as the environment belongs to a whole process.
#[tokio::test]
async fn the_other_process_of_the_tests_with_certificates() {
    let Ok(address) = std::env::var(CHILD) else {
        // Not the other process. Plain HTTP does without certificates.
        assert_eq!(format!("{:?}", HttpProbe::new("http://{name}/").unwrap()), "http");
        return;
    };
    match HttpProbe::new(&address) {
        Ok(probe) => {
            assert_eq!(format!("{probe:?}"), "https");
            match Probe::Http(probe).check(&vm("127.0.0.1"), PLENTY).await {
                Ok(outcome) => println!("found: {} at {}", outcome.kind, outcome.ip_address),
                Err(reason) => println!("found: {reason}"),
            }
        }
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::InvalidInput);
            println!("found: {e}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified_and_a_private_authority_is_trusted_by_its_file() {
    let (ours, stranger) = (Authority::new("ours"), Authority::new("stranger"));
    let dir = tempfile::tempdir().unwrap();
    let (our_file, stranger_file) = (dir.path().join("ours.pem"), dir.path().join("stranger.pem"));
    std::fs::write(&our_file, &ours.pem).unwrap();
    std::fs::write(&stranger_file, &stranger.pem).unwrap();
    let port = ours.serve(&["127.0.0.1", "vm1.example"]).await;

    let by_address = format!("https://{{ip}}:{port}/health");
    assert_eq!(with_certificates(&our_file, by_address.clone()).await, "https at 127.0.0.1");
    assert_eq!(with_certificates(&our_file, format!("https://{{name}}.example:{port}/")).await, "https at 127.0.0.1");

    let wrong_name = with_certificates(&our_file, format!("https://{{name}}.elsewhere:{port}/")).await;
    assert!(wrong_name.contains("certificate not valid for name \"vm1.elsewhere\""), "{wrong_name}");
    let unknown = with_certificates(&stranger_file, by_address.clone()).await;
    assert!(unknown.contains("UnknownIssuer") && unknown.contains("SSL_CERT_FILE"), "{unknown}");
    let no_file = with_certificates(&dir.path().join("none.pem"), by_address).await;
    assert!(no_file.contains("no certificate of an authority") && no_file.contains("none.pem"), "{no_file}");
}
