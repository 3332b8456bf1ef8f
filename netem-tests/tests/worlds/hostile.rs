//! Devices that keep to the wire's rules, and mean no good.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use quinn::udp::Transmit;
use thinpost_carrier::Down;
use thinpost_gateway::config::{Config, Registration};
use thinpost_gateway::invite::{InviteParams, Invites};
use thinpost_netem::World;
use thinpost_netem::flood::device::{Device, Heard, Line};
use thinpost_netem::flood::initial::Openings;
use thinpost_wire::frame::{Close, Denial, ToRelay};
use thinpost_wire::ticket::InviteToken;
use thinpost_wire::token::TokenId;
use tokio::time::{Instant, sleep, timeout};

/// A relay that lets anybody in.
fn world(seed: u64, set: impl FnOnce(&mut Config)) -> World {
    let mut config = Config::default();
    config.registration = Registration::Open;
    set(&mut config);
    World::builder().seed(seed).relay_config(config).build()
}

/// A line of a device at an address of its own, on which nothing was said.
async fn line(world: &World, device: &Device, last: u8) -> Line {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, last)), 5_000);
    let socket = world.net().host(address).unwrap();
    device.begin(world.relay_ticket().addresses[0], socket).await.unwrap()
}

async fn registered(world: &World, device: &Device, last: u8) -> Line {
    let mut line = line(world, device, last).await;
    line.say(&device.hello(true));
    line.say(&device.register());
    line.caught_up().await.unwrap();
    line
}

/// How a relay ends a line on which this was said first, if it does.
async fn answer(world: &World, device: &Device, last: u8, registration: &ToRelay<'_>) -> Option<Close> {
    let mut line = line(world, device, last).await;
    line.say(&device.hello(true));
    line.say(registration);
    let end = async {
        loop {
            if let Err(error) = line.next().await {
                return error.downcast::<Down>().unwrap();
            }
        }
    };
    match timeout(Duration::from_secs(60), end).await {
        Err(_) => None,
        Ok(Down::Closed(close)) => Some(close),
        Ok(other) => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_into_an_account_that_is_not_theirs() {
    let world = world(9, |_| {});
    let ticket = world.relay_ticket();
    let [ann, eve] = [1, 2].map(|number| Device::new(9, number, &ticket));
    drop(registered(&world, &ann, 1).await);
    let into_anns = |certificate| eve.register_into(ann.account(), certificate, None);
    // Her own word, and what Ann's account says of Ann's device.
    for (last, certificate) in [(2, eve.certificate(eve.key())), (3, ann.certificate(ann.key()))] {
        let close = answer(&world, &eve, last, &into_anns(certificate)).await;
        assert_eq!(close, Some(Close::Denied(Denial::BadCertificate)));
    }
    assert_eq!(world.store().counts().unwrap().devices, 1);
    assert_eq!(answer(&world, &eve, 4, &eve.register()).await, None, "into her own she may");
    let word = ann.certificate(eve.key());
    let close = answer(&world, &eve, 5, &into_anns(word)).await;
    assert_eq!(close, Some(Close::Denied(Denial::BadCertificate)), "a device is of one account for ever");
}

#[tokio::test(start_paused = true)]
async fn an_invite_that_the_relay_did_not_make_or_that_is_spent_lets_nobody_in() {
    let world = world(10, |config| config.registration = Registration::Invite);
    let ticket = world.relay_ticket();
    let devices: Vec<_> = (0..6).map(|number| Device::new(10, number, &ticket)).collect();
    let with = |device: &Device, invite| {
        device.register_into(device.account(), device.certificate(device.key()), invite)
    };
    let params = InviteParams { uses: 1, valid: None };
    let token = Invites::new([0x54; 32]).mint(ticket.clone(), params, 0).unwrap().token;
    let others = Invites::new([0x55; 32]).mint(ticket.clone(), params, 0).unwrap().token;
    let for_two = InviteToken { uses: 2, ..token };
    for (number, invite, denial) in [
        (0, None, Some(Denial::InviteNeeded)),
        (1, Some(others), Some(Denial::InviteForged)),
        (2, Some(for_two), Some(Denial::InviteForged)),
        (3, Some(token), None),
        (4, Some(token), Some(Denial::InviteSpent)),
    ] {
        let device: &Device = &devices[number];
        let close = answer(&world, device, number as u8 + 1, &with(device, invite)).await;
        assert_eq!(close, denial.map(Close::Denied), "{number}");
    }
    let params = InviteParams { uses: 1, valid: Some(Duration::from_secs(1)) };
    let over = Invites::new([0x54; 32]).mint(ticket, params, 0).unwrap().token;
    let close = answer(&world, &devices[5], 6, &with(&devices[5], Some(over))).await;
    assert_eq!(close, Some(Close::Denied(Denial::InviteExpired)));
    assert_eq!(world.store().counts().unwrap().devices, 1);
}

#[tokio::test(start_paused = true)]
async fn who_never_registers_has_two_minutes_whatever_else_it_says() {
    let world = world(1, |_| {});
    let device = Device::new(1, 1, &world.relay_ticket());
    let mut line = line(&world, &device, 1).await;
    line.say(&device.hello(true));
    assert_eq!(world.relay().unwrap().strangers(), 1);
    let began = Instant::now();
    let talk = async {
        loop {
            line.say(&ToRelay::Ping);
            if timeout(Duration::from_secs(50), async { while line.next().await.is_ok() {} }).await.is_ok() {
                return;
            }
        }
    };
    timeout(Duration::from_secs(600), talk).await.expect("it is sent away");
    let took = began.elapsed();
    assert!((100..=130).contains(&took.as_secs()), "{took:?}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.relay().unwrap().strangers(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_says_hello_early_and_leaves_the_handshake_open_has_two_minutes_too() {
    let world = world(7, |_| {});
    let device = Device::new(7, 1, &world.relay_ticket());
    drop(registered(&world, &device, 1).await);
    sleep(Duration::from_secs(120)).await;
    let relay = world.relay().unwrap();
    assert_eq!((relay.connected(), relay.connections()), (0, 0));
    let mut line = line(&world, &device, 2).await;
    assert!(line.speaks_early);
    line.say(&device.hello(false));
    line.flush().unwrap();
    sleep(Duration::from_secs(100)).await;
    assert_eq!((relay.strangers(), relay.connections()), (1, 1), "the relay does not know who says so");
    // Two minutes, and what a connection takes to its end.
    sleep(Duration::from_secs(90)).await;
    assert_eq!((relay.strangers(), relay.connections()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_forges_an_address_does_not_keep_its_owner_out() {
    let world = world(8, |config| {
        config.limits.address.connections_burst = 8;
        config.limits.address.connections_per_minute = 1;
    });
    let ticket = world.relay_ticket();
    let shared = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    let forged = world.net().host(SocketAddr::new(shared, 4_000)).unwrap();
    let mut openings = Openings::new(ticket.key, [8; 32]).unwrap();
    for _ in 0..20 {
        let opening = openings.next(ticket.addresses[0]).unwrap();
        let transmit = Transmit {
            destination: ticket.addresses[0],
            ecn: None,
            contents: &opening,
            segment_size: None,
            src_ip: None,
        };
        forged.try_send(&transmit).unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.relay().unwrap().strangers(), 8, "the rest is asked where it is");
    let device = Device::new(8, 1, &ticket);
    let owner = timeout(Duration::from_secs(10), registered(&world, &device, 1)).await;
    assert!(owner.is_ok(), "who answers from there is let in");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_known_takes_no_place_of_strangers() {
    let world = world(2, |config| config.limits.strangers_max = 16);
    let relay = world.relay().unwrap();
    let mut known = Vec::new();
    for number in 0..20 {
        let device = Device::new(2, number, &world.relay_ticket());
        known.push(registered(&world, &device, number as u8 + 1).await);
    }
    assert_eq!((relay.connected(), relay.strangers()), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn one_address_leaves_places_for_strangers_from_others() {
    let world = world(3, |config| config.limits.strangers_max = 16);
    let ticket = world.relay_ticket();
    let devices: Vec<_> = (0..40).map(|number| Device::new(3, number, &ticket)).collect();
    let mut silent = Vec::new();
    for (number, device) in devices.iter().enumerate().take(20) {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 5_000 + number as u16);
        let socket = world.net().host(address).unwrap();
        silent.push(timeout(Duration::from_secs(2), device.begin(ticket.addresses[0], socket)).await);
    }
    let served = silent.iter().filter(|line| matches!(line, Ok(Ok(_)))).count();
    assert_eq!((served, world.relay().unwrap().strangers()), (4, 4), "a fourth of all places");
    let honest = timeout(Duration::from_secs(10), registered(&world, &devices[30], 2)).await;
    assert!(honest.is_ok(), "another address is served");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_settles_nothing_is_not_answered_without_end() {
    let world = world(4, |_| {});
    let device = Device::new(4, 1, &world.relay_ticket());
    let mut line = registered(&world, &device, 1).await;
    let to = line.bind(device.address(TokenId::personal(1)));
    line.settle_nothing();
    const CLAIMS: u64 = 5_000;
    let mut answers = 0;
    let ask = async {
        for _ in 0..CLAIMS {
            line.say(&ToRelay::Claim { to });
        }
        while let Ok(heard) = line.next().await {
            answers += u64::from(matches!(heard, Heard::Frame(_)));
        }
    };
    let _ = timeout(Duration::from_secs(600), ask).await;
    assert!((400..=1_100).contains(&answers), "{answers}");
    let honest = Device::new(4, 2, &world.relay_ticket());
    registered(&world, &honest, 2).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_device_does_not_take_stays_on_disk() {
    let world = world(6, |_| {});
    let device = Device::new(6, 1, &world.relay_ticket());
    let mut line = registered(&world, &device, 1).await;
    let to = line.bind(device.address(TokenId::personal(1)));
    line.settle_nothing();
    for _ in 0..60 {
        line.submit(to, &[6; 8_000]);
    }
    tokio::spawn(async move { while line.next().await.is_ok() {} });
    sleep(Duration::from_secs(600)).await;
    let lent = world.relay().unwrap().lent_bytes();
    assert!((1..=48 << 10).contains(&lent), "{lent} bytes wait in memory");
}

#[tokio::test(start_paused = true)]
async fn who_holds_most_of_what_all_may_leaves_and_those_who_hold_little_do_not() {
    let world = world(5, |config| config.limits.links_bytes_max = 256 << 10);
    let ticket = world.relay_ticket();
    let quiet = Device::new(5, 0, &ticket);
    let mut quiet_line = registered(&world, &quiet, 1).await;
    let to_self = quiet_line.bind(quiet.address(TokenId::personal(1)));
    let mut ended = 0;
    for number in 1..=8_u8 {
        let device = Device::new(5, number.into(), &ticket);
        let mut line = registered(&world, &device, number + 1).await;
        let to = line.bind(device.address(TokenId::personal(1)));
        // Its own mail, of which it settles nothing.
        line.settle_nothing();
        for _ in 0..60 {
            line.submit(to, &[number; 8_000]);
        }
        tokio::spawn(async move { while line.next().await.is_ok() {} });
        sleep(Duration::from_secs(60)).await;
        ended = world.relay().unwrap().called_in();
    }
    let relay = world.relay().unwrap();
    assert!(ended > 0 && relay.lent_bytes() <= 256 << 10, "{ended}, {}", relay.lent_bytes());
    let (number, _) = quiet_line.submit(to_self, b"still here");
    timeout(Duration::from_secs(10), quiet_line.settled(number)).await.expect("it is served").unwrap();
}
