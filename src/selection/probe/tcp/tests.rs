use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;

use crate::inventory::Vm;
use crate::selection::Probe;

const PLENTY: Duration = Duration::from_secs(20);

fn loopback() -> Vm {
    Vm { ip_address: "127.0.0.1".to_owned(), ..Vm::named("vm1") }
}

#[tokio::test]
async fn a_network_that_no_route_leads_to_is_said_in_words() {
    // Never leaves the machine: TCP does not connect to a broadcast address.
    let vm = Vm::named("255.255.255.255");
    let reason = Probe::Tcp(22).check(&vm, PLENTY).await.unwrap_err();
    assert!(reason.starts_with("no connection to TCP port 22 of 255.255.255.255: network unreachable"), "{reason}");
}

/// Runs the test `name` again in a process of its own, which it finds in the environment variable.
fn in_a_process_of_its_own(name: &str, port: u16) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("selection::probe::tcp::tests::{name}"), "--exact", "--nocapture"])
        .env("JOBROTA_TEST_PORT", port.to_string())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn port() -> Option<u16> {
    std::env::var("JOBROTA_TEST_PORT").ok().map(|port| port.parse().unwrap())
}

fn limit_descriptors(limit: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum }).unwrap();
}

/// A listener that accepts whatever comes.
async fn accepting() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_hosts_than_file_descriptors_are_all_found() {
    let Some(port) = port() else {
        let port = accepting().await;
        let again = move || in_a_process_of_its_own("more_hosts_than_file_descriptors_are_all_found", port);
        return tokio::task::spawn_blocking(again).await.unwrap();
    };
    limit_descriptors(64);
    let vm = loopback();
    let chain = Probe::any_of(vec![Probe::Tcp(1), Probe::Tcp(port)]).unwrap();
    let answers = futures::future::join_all((0..500).map(|_| chain.check(&vm, PLENTY))).await;
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
    let answers = futures::future::join_all((0..500).map(|_| Probe::Icmp.check(&vm, PLENTY))).await;
    let fine = |answer: &Result<_, String>| answer.as_ref().err().is_none_or(|reason| reason.contains("not permitted"));
    assert!(answers.iter().all(fine), "{:?}", answers.iter().find(|answer| !fine(answer)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_file_descriptors_waits_for_one_or_says_so() {
    let Some(port) = port() else {
        let port = accepting().await;
        let again =
            move || in_a_process_of_its_own("a_process_without_file_descriptors_waits_for_one_or_says_so", port);
        return tokio::task::spawn_blocking(again).await.unwrap();
    };
    let vm = loopback();
    let http = format!("http://{{ip}}:{port}/").parse::<Probe>().unwrap();
    limit_descriptors(64);
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!taken.is_empty());
    for probe in [Probe::Tcp(port), Probe::Icmp, http] {
        let reason = probe.check(&vm, Duration::from_millis(60)).await.unwrap_err();
        let not_permitted = reason.starts_with("ICMP is not permitted here: ");
        let words = "not known whether it answers, as no file descriptor was free: raise the limit (ulimit -n)";
        assert!(not_permitted || reason.contains(words), "{reason}");
    }

    let probe = Probe::Tcp(port);
    let waiting = probe.check(&vm, PLENTY);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    drop(taken);
    assert_eq!(waiting.await.unwrap().kind, format!("tcp:{port}"));
}
