use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;

const PLENTY: Duration = Duration::from_secs(20);

/// A resolver that answers when it is told to.
#[derive(Default)]
struct HeldResolver {
    released: Mutex<bool>,
    changed: Condvar,
    asked: AtomicUsize,
}

impl HeldResolver {
    fn answer(&self) -> io::Result<Vec<SocketAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut released = self.released.lock().unwrap();
        while !*released {
            released = self.changed.wait(released).unwrap();
        }
        Ok(vec!["127.0.0.1:0".parse().unwrap()])
    }

    fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.changed.notify_all();
    }

    async fn until_asked(&self, times: usize) {
        let start = Instant::now();
        while self.asked.load(Ordering::SeqCst) < times {
            assert!(start.elapsed() < PLENTY, "the resolver was not asked {times} times");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn held(threads: usize) -> (Arc<HeldResolver>, Arc<NameResolver>) {
    let held = Arc::new(HeldResolver::default());
    let lookup = held.clone();
    (held, NameResolver::new(threads, Box::new(move |_| lookup.answer())))
}

fn fixed(addresses: &[&str]) -> Arc<NameResolver> {
    let addresses: Vec<SocketAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    NameResolver::new(1, Box::new(move |_| Ok(addresses.clone())))
}

#[tokio::test]
async fn a_resolver_that_hangs_is_waited_for_half_of_the_time() {
    let (held, names) = held(1);
    let start = Instant::now();
    let reason = names.resolve("vm1.example", ProbeDeadline::after(Duration::from_millis(400))).await.unwrap_err();
    assert_eq!(reason, "the name \"vm1.example\" could not be resolved within 200ms (half of the time limit of 400ms)");
    assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < PLENTY);
    held.release();
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_all_who_ask_at_the_same_time_and_anew_afterwards() {
    let (held, names) = held(8);
    let mut asking: Vec<_> = (0..100).map(|_| Box::pin(names.resolve("vm1", ProbeDeadline::after(PLENTY)))).collect();
    for one in &mut asking {
        assert!(futures::poll!(one).is_pending());
    }
    held.until_asked(1).await;
    held.release();
    for found in futures::future::join_all(asking).await {
        assert_eq!(found.unwrap(), ["127.0.0.1:0".parse().unwrap()]);
    }
    assert_eq!(held.asked.load(Ordering::SeqCst), 1);

    names.resolve("vm1", ProbeDeadline::after(PLENTY)).await.unwrap();
    assert_eq!(held.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_resolver_that_hangs_keeps_a_limited_number_of_threads_and_nothing_of_those_who_gave_up() {
    let (held, names) = held(3);
    for _ in 0..20 {
        let hosts: Vec<String> = (0..10).map(|n| format!("vm{n}")).collect();
        let asking = hosts.iter().map(|host| names.resolve(host, ProbeDeadline::after(Duration::from_millis(4))));
        for found in futures::future::join_all(asking).await {
            assert!(found.unwrap_err().contains("within 2ms"));
        }
    }
    held.until_asked(3).await;
    {
        let work = lock(&names.work);
        assert_eq!((work.threads, work.waiting.len()), (3, 10));
        assert!(work.queue.len() == 7 && work.waiting.values().all(|waiting| waiting.len() == 1), "piled up");
    }
    held.release();
    // A name that no probe waits for is not looked up, and the threads end.
    names.resolve("another", ProbeDeadline::after(PLENTY)).await.unwrap();
    assert_eq!(held.asked.load(Ordering::SeqCst), 4);
    let start = Instant::now();
    while lock(&names.work).threads > 0 {
        assert!(start.elapsed() < PLENTY, "a thread does not end");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(lock(&names.work).waiting.is_empty());
}

#[tokio::test]
async fn a_lookup_that_breaks_off_is_a_reason_and_the_next_one_works() {
    let names = NameResolver::new(
        1,
        Box::new(|host| {
            assert_ne!(host, "broken", "a defect");
            Err(io::Error::other("no such name"))
        }),
    );
    let broken = names.resolve("broken", ProbeDeadline::after(PLENTY)).await.unwrap_err();
    assert_eq!(broken, "the name \"broken\" could not be resolved: the resolver stopped");
    let unknown = names.resolve("unknown", ProbeDeadline::after(PLENTY)).await.unwrap_err();
    assert_eq!(unknown, "the name \"unknown\" could not be resolved: no such name");
}

#[tokio::test]
async fn addresses_are_taken_once_and_only_where_something_can_be_sent_to_them() {
    let resolve = async |addresses: &[&str]| fixed(addresses).resolve("vm1", ProbeDeadline::after(PLENTY)).await;
    let shown = |found: ResolvedAddresses| found.unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(shown(resolve(&["10.0.0.1:0", "10.0.0.1:0", "[::ffff:10.0.0.1]:0"]).await), "10.0.0.1:0");
    assert_eq!(shown(resolve(&["[fe80::1]:0", "[fd00::1]:0"]).await), "[fd00::1]:0");
    assert_eq!(shown(resolve(&["[fe80::1%2]:0"]).await), "[fe80::1%2]:0");
    let many: Vec<String> = (1..=9).map(|n| format!("10.0.0.{n}:0")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(resolve(&many).await.unwrap().len(), MAX_ADDRESSES);
    assert_eq!(resolve(&[]).await.unwrap_err(), "the name \"vm1\" has no address");
    assert!(resolve(&["[fe80::1]:0"]).await.unwrap_err().contains("as in fe80::1%eth0"));
}

#[tokio::test]
async fn addresses_are_read_without_asking_anyone_and_interfaces_by_the_system() {
    let unused = NameResolver::new(1, Box::new(|host| panic!("{host} was looked up")));
    let literal = async |text: &str| unused.resolve(text, ProbeDeadline::after(PLENTY)).await;
    assert_eq!(literal("10.0.0.1").await.unwrap(), ["10.0.0.1:0".parse().unwrap()]);
    assert_eq!(literal("::ffff:10.0.0.1").await.unwrap(), ["10.0.0.1:0".parse().unwrap()]);
    let reason = literal("fe80::1").await.unwrap_err();
    assert!(reason.contains("link-local") && reason.contains("fe80::1%eth0"), "{reason}");

    let system = NameResolver::of_the_system();
    let found = system.resolve("fe80::1%lo", ProbeDeadline::after(PLENTY)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(matches!(found[0], SocketAddr::V6(v6) if v6.scope_id() != 0), "{found:?}");
    let reason = system.resolve("fe80::1%no-such", ProbeDeadline::after(PLENTY)).await.unwrap_err();
    assert!(reason.contains("\"fe80::1%no-such\" could not be resolved"), "{reason}");
}
