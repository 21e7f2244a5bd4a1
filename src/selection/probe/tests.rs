use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::names::NameResolver;
use super::{Probe, ProbeOutcome, ProbeResult, ProcessLimits};
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

fn callback(f: impl Fn(&Vm) -> Result<Option<(String, Option<String>)>, String> + Send + Sync + 'static) -> Probe {
    Probe::Callback(Arc::new(f))
}

#[test]
fn probes_are_read_from_text() {
    for (text, shown) in [
        ("auto", "auto"),
        (" icmp ", "icmp"),
        ("tcp:22", "tcp:22"),
        ("http://{ip}:8080/health", "http"),
        ("http://user:secret@{name}.example/", "http"),
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

    // Same port, other address: no process listens there.
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
    assert!(reason(callback(|_| panic!("a defect"))).await.contains("stopped with an error"));
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
async fn callables_that_hang_do_not_take_every_thread_and_the_wait_for_one_is_not_the_vms_fault() {
    let limits = ProcessLimits::new(NameResolver::of_the_system(), 2);
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let hanging = callback(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = held.lock().unwrap().recv();
        Ok(Some(("10.0.0.1".to_owned(), None)))
    });
    let short = Duration::from_millis(50);
    let vm = vm("10.9.9.9");
    for _ in 0..2 {
        let reason = hanging.check_with(&limits, &vm, short).await.unwrap_err();
        assert_eq!(reason, "the probe callable did not return within 50ms");
    }
    let reason = hanging.check_with(&limits, &vm, short).await.unwrap_err();
    assert_eq!(reason, "no thread was free for the probe callable within 50ms: many calls do not return");
    assert_eq!(calls.load(Ordering::SeqCst), 2);

    let waiting = hanging.check_with(&limits, &vm, PLENTY);
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(release);
    waiting.await.unwrap();
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
    let answer: ProbeResult = Probe::Auto.check(&vm("127.0.0.1"), PLENTY).await;
    match answer {
        Ok(outcome) => assert!(["icmp-dgram", "icmp-raw", "tcp:22"].contains(&outcome.kind.as_str())),
        Err(reason) => assert!(reason.contains("ICMP") && reason.contains("TCP port 22"), "{reason}"),
    }
}

#[tokio::test]
async fn a_chain_resolves_the_name_once_and_says_every_reason() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let names = NameResolver::new(
        4,
        Box::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(vec!["127.0.0.4:0".parse().unwrap()])
        }),
    );
    let listener = TcpListener::bind("127.0.0.5:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // There is no listener at this address.
    let chain = Probe::any_of(vec![
        Probe::Tcp(port),
        Probe::any_of(vec![Probe::Tcp(port), probe(&format!("http://{{ip}}:{port}/"))]).unwrap(),
    ]);
    let reason =
        chain.unwrap().check_with(&ProcessLimits::new(names.clone(), 8), &vm("vm1.example"), PLENTY).await.unwrap_err();
    assert_eq!(
        reason,
        format!(
            "127.0.0.4 refused a connection to TCP port {port}; the health address at 127.0.0.4 cannot be reached: \
             Connection refused (os error 111)"
        )
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_resolver_that_hangs_leaves_the_other_probes_of_a_chain_alone() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let names = NameResolver::new(
        1,
        Box::new(move |_| {
            let _ = held.lock().unwrap().recv();
            Ok(Vec::new())
        }),
    );
    let timeout = Duration::from_millis(100);
    let auto =
        Probe::Auto.check_with(&ProcessLimits::new(names.clone(), 8), &vm("vm1.example"), timeout).await.unwrap_err();
    // ICMP and TCP have the same reason, which is said once.
    assert_eq!(auto, "the name \"vm1.example\" could not be resolved within 50ms (half of the time limit of 100ms)");
    let good = callback(|_| Ok(Some(("10.0.0.1".to_owned(), None))));
    let chain = Probe::any_of(vec![Probe::Icmp, Probe::Tcp(22), good]).unwrap();
    let outcome = chain.check_with(&ProcessLimits::new(names.clone(), 8), &vm("vm1.example"), timeout).await.unwrap();
    assert_eq!(outcome.kind, "callable");
    drop(release);
}

/// Keeps the fields of every event, as text.
#[derive(Clone, Default)]
struct Events(Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "jobrota::selection::probe"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() != "ms" {
                    self.0 += &format!("{}={value:?} ", field.name());
                }
            }
            fn record_f64(&mut self, field: &tracing::field::Field, value: f64) {
                assert!(field.name() == "ms" && value >= 0.0);
                self.0 += "ms ";
            }
        }
        let mut fields = Fields(format!("{}: ", event.metadata().level()));
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0.trim_end().to_owned());
    }
}

#[tokio::test]
async fn every_attempt_is_logged_with_its_kind() {
    let listener = TcpListener::bind("127.0.0.6:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let events = Events::default();
    // For this thread, which is the one that this test runs on.
    let _logged = tracing::subscriber::set_default(events.clone());
    let probe = Probe::Tcp(port);
    probe.check(&vm("127.0.0.6"), PLENTY).await.unwrap();
    let refused = probe.check(&vm("127.0.0.7"), PLENTY).await.unwrap_err();
    callback(|_| Err("no".to_owned())).check(&vm("127.0.0.6"), PLENTY).await.unwrap_err();
    let icmp = Probe::Icmp.check(&vm("127.0.0.6"), PLENTY).await;
    let events = events.0.lock().unwrap();
    let down = |reason: &str| format!("outcome=\"down\" reason={reason:?}");
    let icmp = match icmp {
        Ok(outcome) => format!("kind=\"{}\" address=\"127.0.0.6\" ms outcome=\"up\"", outcome.kind),
        Err(reason) => format!("kind=\"icmp\" address=\"127.0.0.6\" ms {}", down(&reason)),
    };
    let expected: Vec<String> = [
        format!("kind=\"tcp:{port}\" address=\"127.0.0.6\" ms outcome=\"up\""),
        format!("kind=\"tcp:{port}\" address=\"127.0.0.7\" ms {}", down(&refused)),
        format!("kind=\"callable\" address=\"127.0.0.6\" ms {}", down("no")),
        icmp,
    ]
    .iter()
    .map(|fields| format!("DEBUG: message=probed vm=\"vm1\" {fields}"))
    .collect();
    assert_eq!(*events, expected);
}
