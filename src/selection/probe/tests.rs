use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{Answer, Probe, ProbeCallback, ProbeOutcome};
use crate::error::ErrorKind;
use crate::inventory::Vm;

/// Long enough for a loaded machine; what answers, answers at once.
const PLENTY: Duration = Duration::from_secs(20);

fn vm(ip_address: &str) -> Vm {
    Vm { ip_address: ip_address.to_owned(), nic_name: Some("nic1".to_owned()), ..Vm::named("vm1") }
}

fn probe(text: &str) -> Probe {
    text.parse().unwrap()
}

async fn closed_port() -> u16 {
    // Bound, but not listening: nobody else gets the port as long as the caller keeps it; here it is let go at once and
    // the system hands out other ports first.
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

struct Scripted<F>(F);
impl<F> ProbeCallback for Scripted<F>
where
    F: Fn(&Vm) -> Result<Option<(String, Option<String>)>, String> + Send + Sync,
{
    fn probe(&self, vm: &Vm) -> Result<Option<(String, Option<String>)>, String> {
        (self.0)(vm)
    }
}

fn callback(f: impl Fn(&Vm) -> Result<Option<(String, Option<String>)>, String> + Send + Sync + 'static) -> Probe {
    Probe::Callback(Arc::new(Scripted(f)))
}

#[test]
fn probes_are_read_from_text() {
    for (text, shown) in [
        ("auto", "auto"),
        (" icmp ", "icmp"),
        ("tcp:22", "tcp:22"),
        ("http://{ip}:8080/health", "http"),
        ("https://user:secret@{name}.example/", "http"),
    ] {
        assert_eq!(format!("{:?}", probe(text)), shown);
    }
    for (text, part) in [
        ("ping", "not known"),
        ("", "not known"),
        ("tcp:", "TCP port"),
        ("tcp:0", "TCP port"),
        ("tcp:65536", "TCP port"),
        ("tcp:ssh", "TCP port"),
        ("http://", "no address"),
        ("http://same.example/health", "neither {ip} nor {name}"),
        ("http://same.example/{ip}", "neither {ip} nor {name}"),
    ] {
        let error = text.parse::<Probe>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
    assert_eq!(Probe::any_of(Vec::new()).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn tcp_tells_a_listener_from_a_closed_port() {
    let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let outcome = Probe::Tcp(port).check(&vm("127.0.0.3"), PLENTY).await.unwrap();
    assert_eq!((outcome.kind, outcome.ip_address.as_str()), (format!("tcp:{port}"), "127.0.0.3"));
    assert_eq!(outcome.nic_name.as_deref(), Some("nic1"));
    assert!(outcome.rtt < PLENTY);

    // Same port, other address: nobody listens there.
    let reason = Probe::Tcp(port).check(&vm("127.0.0.4"), PLENTY).await.unwrap_err();
    assert_eq!(reason, format!("127.0.0.4 refused a connection to TCP port {port}"));
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_given_up_at_the_deadline() {
    // A listener that never accepts and whose queue is full: the kernel drops further requests to connect.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 64, "the queue never fills");
    }
    let start = Instant::now();
    let reason = Probe::Tcp(address.port()).check(&vm("127.0.0.1"), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(reason, format!("TCP port {} of 127.0.0.1 did not answer within 200ms", address.port()));
    assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < PLENTY);
}

#[tokio::test]
async fn icmp_reaches_loopback_over_whichever_socket_is_permitted_or_says_that_none_is() {
    match Probe::Icmp.check(&vm("127.0.0.1"), PLENTY).await {
        Ok(outcome) => {
            assert!(["icmp-dgram", "icmp-raw"].contains(&outcome.kind.as_str()), "{outcome:?}");
            assert_eq!(outcome.ip_address, "127.0.0.1");
            assert!(outcome.rtt < PLENTY);
        }
        Err(reason) => assert!(reason.contains("not permitted here"), "{reason}"),
    }
}

#[tokio::test]
async fn many_icmp_probes_of_one_host_do_not_disturb_each_other() {
    if Probe::Icmp.check(&vm("127.0.0.1"), PLENTY).await.is_err() {
        return; // no permission here; the test above has looked at the reason
    }
    let vm = vm("127.0.0.1");
    let answers = futures::future::join_all((0..50).map(|_| Probe::Icmp.check(&vm, PLENTY))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn an_address_no_route_leads_to_is_unreachable_with_a_reason() {
    // Never leaves the machine: the system itself refuses to send here (RFC 1122: 0.0.0.0/8 is no destination, and a
    // raw or datagram socket may not send to a broadcast address unasked).
    let reason = Probe::Icmp.check(&vm("255.255.255.255"), Duration::from_millis(300)).await.unwrap_err();
    assert!(reason.contains("ICMP"), "{reason}");
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
async fn a_callback_decides_and_says_what_it_found() {
    let found = callback(|vm| Ok(Some((format!("10.0.0.{}", vm.name.len()), Some("nic9".to_owned())))));
    let outcome = found.check(&vm("10.9.9.9"), PLENTY).await.unwrap();
    let expected = ProbeOutcome {
        kind: "callable".to_owned(),
        rtt: outcome.rtt,
        ip_address: "10.0.0.3".to_owned(),
        nic_name: Some("nic9".to_owned()),
    };
    assert_eq!(outcome, expected);

    let reason = async |probe: Probe| probe.check(&vm("10.9.9.9"), PLENTY).await.unwrap_err();
    assert!(reason(callback(|_| Ok(None))).await.contains("says that it is unreachable"));
    assert_eq!(reason(callback(|_| Err("on fire".to_owned()))).await, "on fire");
    assert!(reason(callback(|_| Ok(Some((" ".to_owned(), None))))).await.contains("empty IP address"));
    assert!(reason(callback(|_| panic!("a defect"))).await.contains("broke off"));
}

#[tokio::test]
async fn a_callback_that_hangs_is_not_waited_for() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let hanging = callback(move |_| {
        let _ = held.lock().unwrap().recv();
        Ok(None)
    });
    let answer = hanging.check(&vm("10.9.9.9"), Duration::from_millis(100)).await;
    assert_eq!(answer.unwrap_err(), "the probe callable did not return within 100ms");
    drop(release); // lets the thread go, which the runtime waits for
}

#[tokio::test]
async fn a_list_overlaps_and_its_first_success_wins() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let hanging = callback(move |_| {
        let _ = held.lock().unwrap().recv();
        Ok(None)
    });
    let good = callback(|_| Ok(Some(("10.0.0.1".to_owned(), None))));
    let list = Probe::any_of(vec![hanging, callback(|_| Err("no".to_owned())), good]).unwrap();
    let outcome = list.check(&vm("127.0.0.1"), PLENTY).await.unwrap();
    assert_eq!((outcome.ip_address.as_str(), outcome.nic_name.as_deref()), ("10.0.0.1", Some("nic1")));
    drop(release);

    let none = Probe::any_of(vec![
        callback(|_| Err("a".into())),
        callback(|_| Err("b".into())),
        callback(|_| Err("a".into())),
    ]);
    assert_eq!(none.unwrap().check(&vm("127.0.0.1"), PLENTY).await.unwrap_err(), "a; b");
}

#[tokio::test]
async fn names_are_resolved_within_the_deadline() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let outcome = Probe::Tcp(port).check(&vm("localhost"), PLENTY).await.unwrap();
    assert_eq!(outcome.ip_address, "127.0.0.1"); // also where localhost is ::1 as well: both are tried

    // A label of more than 63 characters is no name (RFC 1035): refused without asking anyone.
    let reason = Probe::Tcp(port).check(&vm(&"x".repeat(70)), PLENTY).await.unwrap_err();
    assert!(reason.contains("could not be resolved"), "{reason}");
}

#[tokio::test]
async fn auto_answers_by_icmp_or_else_says_both_reasons() {
    let answer: Answer = Probe::Auto.check(&vm("127.0.0.1"), PLENTY).await;
    match answer {
        Ok(outcome) => assert!(["icmp-dgram", "icmp-raw", "tcp:22"].contains(&outcome.kind.as_str())),
        Err(reason) => assert!(reason.contains("ICMP") && reason.contains("TCP port 22"), "{reason}"),
    }
}
