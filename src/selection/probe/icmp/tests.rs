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
