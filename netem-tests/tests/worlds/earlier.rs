//! Files of earlier formats are opened, hold what they held, and go on from there: see `fixtures/README.md`. A relay that speaks another protocol is
//! waited for.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, ServerConfig};
use rustls::server::NoServerSessionStorage;
use thinpost_carrier::Identity;
use thinpost_client::ticket::Ticket;
use thinpost_client::{
    Client, Home, InboxNumber, MessageId, MessageState, ReceivedContent, Status, WallClock,
};
use thinpost_gateway::folder::Folder;
use thinpost_gateway::store::{RedbStore, Store, StoreConfig};
use thinpost_netem::World;
use thinpost_wire::ids::Position;
use tokio::time::sleep;

use crate::fixtures::{FORMATS, unpacked};
use crate::people::{A_WHILE, ann_and_bob, expected, go, inbox, line, profile};

/// The day on which they were made.
struct ThatDay;

const THAT_DAY_UNIX_S: u64 = 1_795_797_500;

impl WallClock for ThatDay {
    fn unix_ms(&self) -> u64 {
        THAT_DAY_UNIX_S * 1_000
    }
}

async fn texts(client: &Client) -> Vec<String> {
    let inbox = client.inbox(InboxNumber(0), usize::MAX).await.unwrap();
    let text = |content| match content {
        ReceivedContent::Text(text) => text,
        other => panic!("{other:?}"),
    };
    inbox.into_iter().map(|message| text(message.content)).collect()
}

#[tokio::test(start_paused = true)]
async fn homes_and_stores_of_earlier_formats_hold_what_they_held() {
    for format in FORMATS {
        let folder = unpacked(format);
        // Once as it was, and once as it became.
        for _ in 0..2 {
            let store =
                RedbStore::open(&folder.path().join("relay/store.redb"), StoreConfig::default()).unwrap();
            let counts = store.counts().unwrap();
            assert_eq!((counts.accounts, counts.devices, counts.entries), (2, 2, 1), "{format}");
            let open = |name: &str| {
                let builder = Client::builder(folder.path().join(name)).wall_clock(Arc::new(ThatDay));
                builder.open().unwrap_or_else(|error| panic!("{format}, {name}: {error}"))
            };
            let (ann, bob) = (open("ann"), open("bob"));
            assert_eq!(texts(&ann).await, ["an answer"]);
            assert_eq!(texts(&bob).await, ["first, and fetched"]);
            let mut states = Vec::new();
            for id in 1..=3 {
                states.push(ann.message_state(MessageId(id)).await.unwrap());
            }
            let expected = [MessageState::Delivered, MessageState::Custody, MessageState::Waiting];
            assert_eq!(states, expected.map(Some), "{format}");
            let account = bob.account();
            assert_eq!(store.read(&account, Position(0), 10, usize::MAX).unwrap().len(), 1, "{format}");
            ann.close().await;
            bob.close().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn homes_and_stores_of_earlier_formats_go_on_where_they_stopped() {
    for format in FORMATS {
        let folder = unpacked(format);
        let relay = Folder::open(&folder.path().join("relay")).unwrap();
        let identity = relay.keys().unwrap().identity();
        let mut world = World::builder().seed(1).relay_identity(identity).beginning(THAT_DAY_UNIX_S).build();
        world.kill_relay();
        let store = RedbStore::open(&relay.store_path(), StoreConfig::default()).unwrap();
        world.put_store(Arc::new(store));
        world.start_relay();
        // The same relay has another address.
        let here = Ticket::Relay(world.relay_ticket());
        let [ann, bob] = ["ann", "bob"].map(|name| {
            let home = folder.path().join(name);
            Home::renew(&home, &here, None).unwrap_or_else(|error| panic!("{format}, {name}: {error}"));
            let mut person = world.person(name, &profile("gprs"));
            person.open_home(home, |builder| builder).connect();
            person
        });
        let from = |name: &str, texts: &[&str]| {
            texts.iter().map(|text| (name.to_owned(), (*text).to_owned())).collect::<Vec<_>>()
        };
        let held = ["first, and fetched", "in custody", "waiting"];
        assert_eq!(inbox(&bob, 3).await, from("ann", &held), "{format}");
        bob.client().send("ann", "all of it has come".into()).await.unwrap();
        assert_eq!(inbox(&ann, 2).await, from("bob", &["an answer", "all of it has come"]), "{format}");
        ann.client().send("bob", "and your answer".into()).await.unwrap();
        assert_eq!(inbox(&bob, 4).await[3..], from("ann", &["and your answer"]), "{format}");
        sleep(A_WHILE * 10).await;
        for person in [&ann, &bob] {
            let Status { waiting, unconfirmed, failed, abandoned, notices, .. } =
                person.client().status().await.unwrap();
            assert_eq!(
                (waiting, unconfirmed, failed, abandoned),
                (0, 0, 0, 0),
                "{format}, {}",
                person.name()
            );
            assert!(notices.is_empty(), "{format}, {}: {notices:?}", person.name());
        }
        for id in 1..=4 {
            let state = ann.client().message_state(MessageId(id)).await.unwrap();
            assert_eq!(state, Some(MessageState::Delivered), "{format}, message {id}");
        }
        assert_eq!(
            world.store().counts().unwrap().entries,
            0,
            "{format}: all that was in custody is let go of"
        );
    }
}

/// What stands in the place of the relay, with its key, and speaks the protocol of this name.
fn speaker_of(protocol: &[u8], world: &World) -> Endpoint {
    let sessions = Arc::new(NoServerSessionStorage {});
    let mut tls = thinpost_carrier::tls::server(&Identity::from_seed([0x52; 32]), sessions);
    tls.alpn_protocols = vec![protocol.to_vec()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let socket = world.net().host(world.relay_ticket().addresses[0]).unwrap();
    let (endpoint, runtime) = (EndpointConfig::default(), world.net().runtime());
    Endpoint::new_with_abstract_socket(endpoint, Some(config), socket, runtime).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_relay_of_another_protocol_is_waited_for_and_nothing_is_lost() {
    const COUNT: usize = 6;
    let mut world = World::new(1);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    for person in [&ann, &bob] {
        go(person, true).await;
    }
    for n in 0..COUNT / 2 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
    }
    inbox(&bob, COUNT as u64 / 2).await;
    world.stop_relay().await;
    let other = speaker_of(b"thinpost/2", &world);
    let met = tokio::spawn({
        let other = other.clone();
        async move {
            let mut met = 0;
            while let Some(incoming) = other.accept().await {
                assert!(incoming.await.is_err(), "they have no protocol in common");
                met += 1;
            }
            met
        }
    });
    for n in COUNT / 2..COUNT {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
    }
    sleep(Duration::from_secs(3_600)).await;
    for person in [&ann, &bob] {
        let state = person.client().link_status().borrow().state.clone();
        let why = state.detail().unwrap_or_default();
        assert!(why.contains("another version"), "{}: {state:?}", person.name());
    }
    assert_eq!(ann.client().status().await.unwrap().waiting, COUNT as u64 / 2);
    other.close(0u32.into(), b"");
    world.net().unplug(world.relay_ticket().addresses[0]);
    assert!(met.await.unwrap() >= 4, "both came, and again");
    world.start_relay();
    assert_eq!(inbox(&bob, COUNT as u64).await, expected("ann", COUNT));
    sleep(A_WHILE).await;
    let status = ann.client().status().await.unwrap();
    assert_eq!((status.waiting, status.failed), (0, 0));
}
