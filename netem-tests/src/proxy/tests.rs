use std::collections::BTreeSet;

use super::*;

/// Bounds a wait on real sockets: reached only if what is waited for never comes.
const PATIENCE: Duration = Duration::from_secs(20);

fn profile(text: &str) -> Profile {
    Profile::from_toml("test", &format!("source = 'a test of the proxy'\n[both]\n{text}")).unwrap()
}

fn fast() -> Profile {
    profile("rate_kbit_s = 10_000\ndelay_ms = 5\nqueue_packets = 100")
}

async fn loopback() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2_048];
    let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await;
    let (len, from) = received.expect("nothing arrived").unwrap();
    (buffer[..len].to_vec(), from)
}

#[tokio::test]
async fn a_datagram_and_its_answer_cross_the_link_with_its_delay_and_are_counted() {
    let relay = loopback().await;
    let proxy = UdpProxy::spawn(relay.local_addr().unwrap(), &fast(), 1).await.unwrap();
    let client = loopback().await;

    let sent_at = Instant::now();
    client.send_to(b"hello", proxy.addr()).await.unwrap();
    let (hello, upstream) = receive(&relay).await;
    assert_eq!(hello, b"hello");
    relay.send_to(b"and hello to you", upstream).await.unwrap();
    let (answer, from) = receive(&client).await;
    assert_eq!((answer.as_slice(), from), (b"and hello to you".as_slice(), proxy.addr()));
    assert!(sent_at.elapsed() >= Duration::from_millis(10), "faster than 5 ms each way");

    let counters = proxy.shutdown().await;
    assert_eq!((counters.up.delivered.packets, counters.up.delivered.ip_bytes), (1, 5 + 28));
    assert_eq!((counters.down.delivered.packets, counters.down.delivered.ip_bytes), (1, 16 + 28));
}

#[tokio::test]
async fn the_relay_tells_clients_apart_and_each_gets_its_own_answers() {
    let relay = loopback().await;
    let proxy = UdpProxy::spawn(relay.local_addr().unwrap(), &fast(), 2).await.unwrap();
    let clients = [loopback().await, loopback().await, loopback().await];
    for (index, client) in (0u8..).zip(&clients) {
        client.send_to(&[index], proxy.addr()).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    for _ in &clients {
        let (message, upstream) = receive(&relay).await;
        assert!(seen.insert(upstream), "two clients share an upstream address");
        relay.send_to(&[message[0] + 100], upstream).await.unwrap();
    }
    for (index, client) in (0u8..).zip(&clients) {
        assert_eq!(receive(client).await.0, [index + 100]);
    }
}

#[tokio::test]
async fn an_outage_takes_what_is_under_way_and_the_link_works_again_after_it() {
    let relay = loopback().await;
    // So slow that what was sent is certainly still under way when the outage begins.
    let slow = profile("rate_kbit_s = 10_000\ndelay_ms = 500\nqueue_packets = 100");
    let proxy = UdpProxy::spawn(relay.local_addr().unwrap(), &slow, 3).await.unwrap();
    let client = loopback().await;

    client.send_to(b"lost on the way", proxy.addr()).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while proxy.counters().up.offered.packets < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the proxy never took the datagram");
    proxy.set_outage(true);
    client.send_to(b"lost at once", proxy.addr()).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while proxy.counters().up.lost_outage.packets < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the outage did not take both");
    proxy.set_outage(false);

    client.send_to(b"arrives", proxy.addr()).await.unwrap();
    assert_eq!(receive(&relay).await.0, b"arrives");
    let counters = proxy.shutdown().await;
    assert_eq!(counters.up.offered.packets, 3);
    assert_eq!(counters.up.delivered.packets, 1);
}

#[tokio::test]
async fn a_relay_may_be_down_and_come_back_at_its_address() {
    let relay = loopback().await;
    let addr = relay.local_addr().unwrap();
    drop(relay);
    let proxy = UdpProxy::spawn(addr, &fast(), 4).await.unwrap();
    let client = loopback().await;
    client.send_to(b"to nobody", proxy.addr()).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while proxy.counters().up.delivered.packets < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the link did not carry the datagram");

    let relay = UdpSocket::bind(addr).await.unwrap();
    client.send_to(b"to the relay", proxy.addr()).await.unwrap();
    // The first may still reach the socket if it was handed over only now.
    let mut received = receive(&relay).await.0;
    if received == b"to nobody" {
        received = receive(&relay).await.0;
    }
    assert_eq!(received, b"to the relay");
}

#[tokio::test]
async fn more_clients_than_flows_take_the_place_of_the_silent() {
    let relay = loopback().await;
    let proxy = UdpProxy::spawn(relay.local_addr().unwrap(), &fast(), 5).await.unwrap();
    let mut clients = Vec::new();
    for index in 0..=FLOWS_MAX {
        let client = loopback().await;
        client.send_to(&[index as u8], proxy.addr()).await.unwrap();
        assert_eq!(receive(&relay).await.0, [index as u8]);
        clients.push(client);
    }
    // The first was silent longest and is served again as a newcomer; the second gave way to it.
    for client in &clients[..2] {
        client.send_to(b"again", proxy.addr()).await.unwrap();
        let (_, upstream) = receive(&relay).await;
        relay.send_to(b"welcome", upstream).await.unwrap();
        assert_eq!(receive(client).await.0, b"welcome");
    }
}
