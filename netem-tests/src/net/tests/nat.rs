use super::*;
use crate::Nat;

const MINUTE: Duration = Duration::from_secs(60);

fn with(change: impl FnOnce(&mut Mapping)) -> Nat {
    let mut nat = minute_nat();
    change(&mut nat.mapping);
    nat
}

fn minute_nat() -> Nat {
    Nat::forgetting_after("198.51.100.2".parse().unwrap(), MINUTE)
}

fn behind(nat: Nat, seed: u64) -> (Net, Arc<dyn AsyncUdpSocket>, Arc<dyn AsyncUdpSocket>) {
    let net = Net::new(seed);
    net.set_nat(phone().ip(), Some(nat));
    let (at_phone, at_relay) = (net.host(phone()).unwrap(), net.host(relay()).unwrap());
    (net, at_phone, at_relay)
}

/// Where the relay sees a packet of the phone come from.
async fn seen(at_phone: &Arc<dyn AsyncUdpSocket>, at_relay: &Arc<dyn AsyncUdpSocket>) -> SocketAddr {
    send(at_phone, relay(), b"out").unwrap();
    receive(at_relay).await.unwrap().1
}

async fn reaches(
    at_relay: &Arc<dyn AsyncUdpSocket>,
    public: SocketAddr,
    at_phone: &Arc<dyn AsyncUdpSocket>,
) -> bool {
    send(at_relay, public, b"in").unwrap();
    tokio::time::timeout(Duration::from_secs(1), receive(at_phone)).await.is_ok()
}

async fn wait(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_nat_hides_a_phone_and_gives_each_of_its_sockets_a_port() {
    let (net, first, at_relay) = behind(minute_nat(), 1);
    let second = net.host(addr("10.0.0.2:5001")).unwrap();
    let public = seen(&first, &at_relay).await;
    let other = seen(&second, &at_relay).await;
    assert_eq!(public.ip(), minute_nat().outside);
    assert_eq!(other.ip(), public.ip());
    assert_ne!(other, public);
    assert_eq!(seen(&first, &at_relay).await, public, "while it is remembered");
    assert!(reaches(&at_relay, public, &first).await);
    assert!(reaches(&at_relay, other, &second).await);
    assert!(!reaches(&at_relay, phone(), &first).await, "nobody outside knows that address");
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_is_forgotten_leads_nowhere_and_the_next_packet_gets_another() {
    let (_net, at_phone, at_relay) = behind(minute_nat(), 1);
    let public = seen(&at_phone, &at_relay).await;
    wait(59).await;
    assert!(reaches(&at_relay, public, &at_phone).await);
    wait(1).await;
    assert!(!reaches(&at_relay, public, &at_phone).await, "what came in has not refreshed it");
    let next = seen(&at_phone, &at_relay).await;
    assert_ne!(next, public);
    assert!(!reaches(&at_relay, public, &at_phone).await, "the old one stays forgotten");
    assert!(reaches(&at_relay, next, &at_phone).await);
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_refreshes_a_mapping_where_the_nat_is_of_that_kind() {
    let (_net, at_phone, at_relay) = behind(with(|mapping| mapping.inbound_refreshes = true), 1);
    let public = seen(&at_phone, &at_relay).await;
    for _ in 0..3 {
        wait(50).await;
        assert!(reaches(&at_relay, public, &at_phone).await);
    }
    wait(61).await;
    assert!(!reaches(&at_relay, public, &at_phone).await);
}

#[tokio::test(start_paused = true)]
async fn a_nat_that_keeps_ports_forgets_without_anybody_seeing_it() {
    let (_net, at_phone, at_relay) = behind(with(|mapping| mapping.keeps_ports = true), 1);
    let public = seen(&at_phone, &at_relay).await;
    wait(61).await;
    assert!(!reaches(&at_relay, public, &at_phone).await);
    assert_eq!(seen(&at_phone, &at_relay).await, public);
    assert!(reaches(&at_relay, public, &at_phone).await);
}

#[tokio::test(start_paused = true)]
async fn a_seed_gives_the_same_ports_again_and_hosts_may_share_a_nat_s_address() {
    let ports = async |seed| {
        let (net, at_phone, at_relay) = behind(minute_nat(), seed);
        let neighbour = addr("10.0.0.3:5000");
        net.set_nat(neighbour.ip(), Some(minute_nat()));
        let at_neighbour = net.host(neighbour).unwrap();
        let mut ports = Vec::new();
        for _ in 0..3 {
            ports.push([seen(&at_phone, &at_relay).await, seen(&at_neighbour, &at_relay).await]);
            wait(61).await;
        }
        ports
    };
    let first = ports(1).await;
    assert_eq!(first, ports(1).await);
    assert_ne!(first, ports(2).await);
    assert!(first.iter().all(|[phone, neighbour]| phone != neighbour), "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_leaves_its_nat_is_seen_as_it_is() {
    let (net, at_phone, at_relay) = behind(minute_nat(), 1);
    let public = seen(&at_phone, &at_relay).await;
    net.set_nat(phone().ip(), None);
    assert_eq!(seen(&at_phone, &at_relay).await, phone());
    assert!(!reaches(&at_relay, public, &at_phone).await);
}
