use super::*;

#[tokio::test]
async fn every_icmp_socket_works_or_says_why_not() {
    let found = icmp_sockets().await;
    eprintln!("{found:#?}");
    let named: Vec<_> = found.iter().map(|socket| (socket.family, socket.kind)).collect();
    assert_eq!(
        named,
        [
            (IpFamily::V4, "icmp-dgram"),
            (IpFamily::V4, "icmp-raw"),
            (IpFamily::V6, "icmp-dgram"),
            (IpFamily::V6, "icmp-raw")
        ]
    );
    for socket in &found {
        let words: &[&str] = match (socket.works, socket.kind, socket.family) {
            (true, _, IpFamily::V4) => &["127.0.0.1 answered"],
            (true, _, IpFamily::V6) => &["::1 answered"],
            (false, "icmp-dgram", _) => &["ping_group_range is", "IPv6"],
            (false, _, _) => &["CAP_NET_RAW", "IPv6"],
        };
        assert!(words.iter().any(|word| socket.why.contains(word)), "{socket:?}");
    }
}

const PLENTY: Duration = Duration::from_secs(20);

fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 0)
}

#[tokio::test]
async fn a_thousand_hosts_are_asked_at_once() {
    let hosts: Vec<SocketAddr> = (0..1000).map(|n| at(&format!("127.0.{}.{}", 1 + n / 250, 1 + n % 250))).collect();
    let start = std::time::Instant::now();
    let attempts = futures::future::join_all(hosts.iter().map(|host| echo(*host, ProbeDeadline::after(PLENTY)))).await;
    eprintln!("1,000 hosts: {:?}", start.elapsed());
    for attempt in attempts {
        match attempt.result {
            Ok(rtt) => assert!(["icmp-dgram", "icmp-raw"].contains(&attempt.kind.as_str()) && rtt < PLENTY),
            Err(reason) => assert!(reason.starts_with("ICMP is not permitted here: "), "{reason}"),
        }
    }
}

#[tokio::test]
async fn many_probes_of_one_host_do_not_disturb_each_other() {
    let attempts =
        futures::future::join_all((0..300).map(|_| echo(at("127.0.0.1"), ProbeDeadline::after(PLENTY)))).await;
    for reason in attempts.into_iter().filter_map(|attempt| attempt.result.err()) {
        assert!(reason.starts_with("ICMP is not permitted here: "), "{reason}");
    }
}

#[tokio::test]
async fn what_this_machine_does_not_send_is_known_at_once() {
    let start = std::time::Instant::now();
    let reason = echo(at("255.255.255.255"), ProbeDeadline::after(PLENTY)).await.result.unwrap_err();
    let known = [
        "no ICMP echo to 255.255.255.255: it is administratively prohibited, or a broadcast address",
        // A machine that has no network.
        "no ICMP echo to 255.255.255.255: network unreachable",
        "ICMP is not permitted here: ",
    ];
    assert!(known.iter().any(|known| reason.starts_with(known)), "{reason}");
    assert!(start.elapsed() < PLENTY);
}

#[tokio::test]
async fn an_answer_from_another_address_does_not_count() {
    // Linux takes these as its own loopback addresses, from which the answer then comes.
    for (asked, answers) in [("0.0.0.0", "127.0.0.1"), ("::", "::1")] {
        let reason = echo(at(asked), ProbeDeadline::after(PLENTY)).await.result.unwrap_err();
        let expected = format!("{answers} answered the ICMP echo to {asked} in its place");
        let no_v6 = asked == "::"
            && ["has no IPv6", "network unreachable", "no address to send from"]
                .iter()
                .any(|words| reason.contains(words));
        assert!(reason == expected || reason.starts_with("ICMP is not permitted here: ") || no_v6, "{reason}");
    }
}
