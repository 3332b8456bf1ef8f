use std::{future::poll_fn, io::IoSliceMut};

use quinn::udp::Transmit;

use super::*;
use crate::{Tally, Verdict};

mod nat;
mod quinn_endpoints;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn phone() -> SocketAddr {
    addr("10.0.0.2:5000")
}

fn relay() -> SocketAddr {
    addr("192.0.2.1:4433")
}

fn slow() -> Profile {
    // 1,000 IP bytes take a second, and then half a second to travel.
    let text = "source = 'round figures'\n[both]\nrate_kbit_s = 8\ndelay_ms = 500\nqueue_packets = 30";
    Profile::from_toml("slow", text).unwrap()
}

fn send(socket: &Arc<dyn AsyncUdpSocket>, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
    socket.try_send(&Transmit {
        destination: to,
        ecn: None,
        contents: payload,
        segment_size: None,
        src_ip: None,
    })
}

async fn receive(socket: &Arc<dyn AsyncUdpSocket>) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; 2_048];
    let mut meta = [RecvMeta::default()];
    let count = poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)).await?;
    assert_eq!(count, 1);
    buffer.truncate(meta[0].len);
    Ok((buffer, meta[0].addr))
}

/// Waits longer than any link here takes, and says whether `socket` got something meanwhile.
async fn stays_silent(socket: &Arc<dyn AsyncUdpSocket>) -> bool {
    tokio::time::timeout(Duration::from_secs(60), receive(socket)).await.is_err()
}

/// Records all that happens from now on, but for payloads: their keys are others in each run.
fn record(net: &Net) -> Arc<Mutex<Vec<Trace>>> {
    let traces = Arc::new(Mutex::new(Vec::new()));
    let record = traces.clone();
    let without_payload = |trace: &Trace| Trace { payload: Bytes::new(), ..trace.clone() };
    net.set_trace(move |trace| record.lock().unwrap().push(without_payload(trace)));
    traces
}

fn fates(traces: &Mutex<Vec<Trace>>) -> Vec<Fate> {
    traces.lock().unwrap().iter().map(|trace| trace.fate).collect()
}

#[tokio::test(start_paused = true)]
async fn a_datagram_takes_the_time_of_its_link_and_is_counted_on_it() {
    let net = Net::new(1);
    net.attach_profile(phone().ip(), &slow());
    let (from_phone, at_relay) = (net.host(phone()).unwrap(), net.host(relay()).unwrap());

    send(&from_phone, relay(), &[7; 972]).unwrap();
    assert_eq!(receive(&at_relay).await.unwrap(), (vec![7; 972], phone()));
    // The direct wire's 50 µs and tokio's whole milliseconds come on top.
    assert_eq!(net.now(), Duration::from_millis(1_501));

    send(&at_relay, phone(), &[8; 72]).unwrap();
    assert_eq!(receive(&from_phone).await.unwrap(), (vec![8; 72], relay()));
    let counters = net.counters(phone().ip());
    assert_eq!(counters.up.offered, Tally { packets: 1, ip_bytes: 1_000 });
    assert_eq!(counters.up.delivered, counters.up.offered);
    assert_eq!(counters.down.delivered, Tally { packets: 1, ip_bytes: 100 });
    assert_eq!(net.counters(relay().ip()).up.delivered, counters.down.delivered);
}

#[tokio::test(start_paused = true)]
async fn sockets_of_one_phone_share_its_link() {
    let net = Net::new(1);
    net.attach_profile(phone().ip(), &slow());
    let at_relay = net.host(relay()).unwrap();
    let (first, second) = (net.host(phone()).unwrap(), net.host(addr("10.0.0.2:5001")).unwrap());
    send(&first, relay(), &[1; 972]).unwrap();
    send(&second, relay(), &[2; 972]).unwrap();
    assert_eq!(receive(&at_relay).await.unwrap().0[0], 1);
    assert_eq!(receive(&at_relay).await.unwrap().0[0], 2);
    assert_eq!(net.now(), Duration::from_millis(2_501));
}

#[tokio::test(start_paused = true)]
async fn neighbours_share_a_link_with_its_outages_and_counters() {
    let net = Net::new(1);
    let neighbour = addr("10.0.0.3:5000");
    net.attach_profile(phone().ip(), &slow());
    net.attach_beside(neighbour.ip(), phone().ip());
    let at_relay = net.host(relay()).unwrap();
    let (first, second) = (net.host(phone()).unwrap(), net.host(neighbour).unwrap());
    send(&first, relay(), &[1; 972]).unwrap();
    send(&second, relay(), &[2; 972]).unwrap();
    assert_eq!(receive(&at_relay).await.unwrap(), (vec![1; 972], phone()));
    assert_eq!(receive(&at_relay).await.unwrap(), (vec![2; 972], neighbour));
    assert_eq!(net.now(), Duration::from_millis(2_501));
    assert_eq!(net.counters(neighbour.ip()), net.counters(phone().ip()));
    assert_eq!(net.counters(phone().ip()).up.delivered, Tally { packets: 2, ip_bytes: 2_000 });

    send(&at_relay, neighbour, &[3; 72]).unwrap();
    assert_eq!(receive(&second).await.unwrap(), (vec![3; 72], relay()));
    net.set_outage(phone().ip(), true);
    send(&second, relay(), &[4; 972]).unwrap();
    assert!(stays_silent(&at_relay).await);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_restarts_gets_its_address_back() {
    let net = Net::new(1);
    let (from_phone, at_relay) = (net.host(phone()).unwrap(), net.host(relay()).unwrap());
    assert_eq!(net.host(relay()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(at_relay);

    let traces = record(&net);
    send(&from_phone, relay(), b"to nobody").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fates(&traces).last(), Some(&Fate::NoSocket));

    let at_relay = net.host(relay()).unwrap();
    send(&from_phone, relay(), b"again").unwrap();
    assert_eq!(receive(&at_relay).await.unwrap().0, b"again");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_unplugged_loses_its_socket_but_not_its_successor_s() {
    let net = Net::new(1);
    let (from_phone, killed) = (net.host(phone()).unwrap(), net.host(relay()).unwrap());
    let waiting = tokio::spawn({
        let killed = killed.clone();
        async move { receive(&killed).await }
    });
    tokio::task::yield_now().await;

    assert!(net.unplug(relay()));
    assert!(!net.unplug(relay()), "there was nothing left to unplug");
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), io::ErrorKind::NotConnected);
    assert_eq!(send(&killed, phone(), b"ghost").unwrap_err().kind(), io::ErrorKind::NotConnected);

    let successor = net.host(relay()).unwrap();
    drop(killed);
    send(&from_phone, relay(), b"hello").unwrap();
    assert_eq!(receive(&successor).await.unwrap().0, b"hello");
}

#[tokio::test(start_paused = true)]
async fn after_a_nat_rebinding_a_phone_is_seen_and_reached_at_its_new_address_only() {
    let net = Net::new(1);
    net.attach_profile(phone().ip(), &slow());
    let (at_phone, at_relay) = (net.host(phone()).unwrap(), net.host(relay()).unwrap());
    let public = addr("198.51.100.9:61000");

    send(&at_phone, relay(), b"on its way up").unwrap();
    net.rebind(phone(), public).unwrap();
    assert_eq!(receive(&at_relay).await.unwrap().1, public);
    assert_eq!(at_phone.local_addr().unwrap(), phone());

    let traces = record(&net);
    send(&at_relay, phone(), b"to the old address").unwrap();
    assert!(stays_silent(&at_phone).await);
    assert_eq!(fates(&traces).last(), Some(&Fate::NoRoute));
    send(&at_relay, public, b"to the new one").unwrap();
    assert_eq!(receive(&at_phone).await.unwrap().0, b"to the new one");
    assert_eq!(net.counters(phone().ip()).down.offered.packets, 1);

    assert_eq!(net.host(public).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(net.rebind(relay(), public).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    net.rebind(phone(), phone()).unwrap();
    send(&at_relay, phone(), b"as at first").unwrap();
    assert_eq!(receive(&at_phone).await.unwrap().0, b"as at first");
}

#[tokio::test(start_paused = true)]
async fn an_outage_takes_what_is_under_way_in_both_directions() {
    let net = Net::new(1);
    net.attach_profile(phone().ip(), &slow());
    let (at_phone, at_relay) = (net.host(phone()).unwrap(), net.host(relay()).unwrap());
    let traces = record(&net);
    net.schedule_outage(phone().ip(), Duration::from_millis(100), Duration::from_secs(20));
    send(&at_phone, relay(), b"up").unwrap();
    send(&at_relay, phone(), b"down").unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    send(&at_phone, relay(), b"up, at once").unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    send(&at_phone, relay(), b"after").unwrap();
    assert_eq!(receive(&at_relay).await.unwrap().0, b"after");
    assert!(stays_silent(&at_phone).await);

    assert_eq!(fates(&traces).iter().filter(|&&fate| fate == Fate::CutOff).count(), 2);
    let counters = net.counters(phone().ip());
    assert_eq!(counters.up.lost_outage.packets, 2);
    assert_eq!(counters.down.lost_outage.packets, 1);
    assert_eq!(counters.up.delivered.packets, 1);
}

#[tokio::test(start_paused = true)]
async fn a_handover_cuts_the_old_link_and_its_counters_go_on() {
    let net = Net::new(1);
    net.attach_profile(phone().ip(), &slow());
    let (at_phone, at_relay) = (net.host(phone()).unwrap(), net.host(relay()).unwrap());
    send(&at_phone, relay(), b"over 2G").unwrap();
    net.attach_profile(phone().ip(), &Profile::named("umts").unwrap());
    send(&at_phone, relay(), b"over 3G").unwrap();
    assert_eq!(receive(&at_relay).await.unwrap().0, b"over 3G");
    assert!(stays_silent(&at_relay).await);
    let up = net.counters(phone().ip()).up;
    assert_eq!((up.offered.packets, up.delivered.packets, up.lost_outage.packets), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_nobody_reads_holds_a_bounded_number_of_datagrams() {
    let net = Net::new(1);
    let (from_phone, at_relay) = (net.host(phone()).unwrap(), net.host(relay()).unwrap());
    let traces = record(&net);
    for _ in 0..INBOX_DATAGRAMS_MAX + 3 {
        send(&from_phone, relay(), b"unread").unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fates(&traces).iter().filter(|&&fate| fate == Fate::InboxFull).count(), 3);
    for _ in 0..INBOX_DATAGRAMS_MAX {
        receive(&at_relay).await.unwrap();
    }
    assert!(stays_silent(&at_relay).await);
}

#[tokio::test(start_paused = true)]
async fn a_packet_to_an_address_nobody_knows_has_no_route() {
    let net = Net::new(1);
    let from_phone = net.host(phone()).unwrap();
    let traces = record(&net);
    send(&from_phone, addr("203.0.113.1:1"), b"hello?").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let traces = fates(&traces);
    assert!(matches!(traces[..], [Fate::Offered(Verdict::Deliver { .. }), Fate::NoRoute]), "{traces:?}");
}

#[tokio::test(start_paused = true)]
async fn a_network_without_handles_and_sockets_leaves_no_task_behind() {
    let net = Net::new(1);
    let socket = net.host(phone()).unwrap();
    drop(net);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(alive(), 1, "the network must outlive its handle while a socket is open");
    drop(socket);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(alive(), 0);
}
