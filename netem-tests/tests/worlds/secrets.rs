//! What end-to-end encryption costs on the air, and what a relay holds of it.

use std::time::Duration;

use thinpost_carrier::Identity;
use thinpost_client::ticket::ContactTicket;
use thinpost_client::{AccountKey, ContactError, Event, InboxNumber, Message, ReceivedContent, Token};
use thinpost_gateway::folder::Folder;
use thinpost_gateway::invite::{InviteParams, Invites};
use thinpost_netem::{Person, World};
use thinpost_wire::ids::Position;
use thinpost_wire::letter::{Content, Letter};
use thinpost_wire::text::{ModelSet, Models};
use thinpost_wire::ticket::SealKeys;
use tokio::time::sleep;

use crate::people::{ann_and_bob, inbox};

/// 45 characters.
const TEXT: &str = "can you pick me up at eight, same place as us";

/// Two people on GPRS, connected. No keep-alives, which would be counted too.
async fn connected(seed: u64) -> (World, Person, Person) {
    let mut world = World::new(seed);
    let (mut ann, mut bob) = ann_and_bob(&mut world, "gprs").await;
    for person in [&mut ann, &mut bob] {
        person.kill().await;
        sleep(Duration::from_millis(2)).await;
        person.open_with(|builder| builder).connect();
    }
    sleep(Duration::from_secs(30)).await;
    (world, ann, bob)
}

/// No receipt leaves alone before this, and after the second one none is left to come.
const BEFORE_RECEIPTS: Duration = Duration::from_secs(14);
const AFTER_RECEIPTS: Duration = Duration::from_secs(180);

/// IP bytes on a person's link, both ways.
fn air_bytes(world: &World, person: &Person) -> u64 {
    let path = world.net().counters(person.ip());
    path.up.offered.ip_bytes + path.down.offered.ip_bytes
}

/// IP bytes on Ann's link, both ways, from writing to rest; and after that, for a receipt.
async fn air_bytes_of(world: &World, ann: &Person, messages: Vec<Message>) -> (u64, u64) {
    let began = air_bytes(world, ann);
    ann.client().send_all("bob", messages).await.unwrap();
    sleep(BEFORE_RECEIPTS).await;
    let sent = air_bytes(world, ann);
    sleep(AFTER_RECEIPTS).await;
    (sent - began, air_bytes(world, ann) - sent)
}

fn texts(count: usize) -> Vec<Message> {
    let lines = |text: &'static str| text.lines();
    let english = lines(include_str!("../../../bench/corpora/demo/en-chat.txt"));
    let russian = lines(include_str!("../../../bench/corpora/demo/ru-social.txt"));
    english
        .zip(russian)
        .flat_map(|(english, russian)| [english, russian])
        .take(count)
        .map(Message::from)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn secrets_stay_within_their_budget_on_the_air() {
    // A seed with which none of the few packets is lost: a repeat is no part of these budgets.
    let (world, ann, bob) = connected(4).await;
    let (first, first_receipt) = air_bytes_of(&world, &ann, vec![TEXT.into()]).await;
    bob.client().send("ann", "yes".into()).await.unwrap();
    sleep(AFTER_RECEIPTS).await;
    let (alone, receipt) = air_bytes_of(&world, &ann, vec![TEXT.into()]).await;
    let (visible, none) = air_bytes_of(&world, &ann, vec![Message::from(TEXT).relay_visible()]).await;
    let (together, receipt_of_200) = air_bytes_of(&world, &ann, texts(200)).await;
    let together = together / 200;
    println!("first {first}, alone {alone}, relay-visible {visible}, 200 together {together} each");
    println!("receipts alone: of the first {first_receipt}, of one {receipt}, of 200 {receipt_of_200}");
    assert_eq!(none, 0, "what the relay may read has no receipt");
    assert!(receipt <= 255 && receipt_of_200 <= 255, "a receipt alone: {receipt}, {receipt_of_200}");
    assert!(first <= 450, "the first message to somebody: {first}");
    assert!(alone <= 255, "a message alone: {alone}");
    assert!(alone - visible <= 50, "what the seal costs: {alone} - {visible}");
    assert!(together <= 30, "200 messages together, each: {together}");
    assert_eq!(inbox(&bob, 203).await.len(), 203);
}

#[tokio::test(start_paused = true)]
async fn both_see_the_same_safety_number_and_changed_keys_are_told() {
    let (world, ann, bob) = connected(3).await;
    let number = ann.client().safety_number("bob").unwrap();
    assert_eq!(bob.client().safety_number("ann"), Some(number));
    assert_eq!(ann.client().safety_number("eve"), None);

    // What only Bob's account can sign: another device's keys.
    let account = Identity::from_seed([7; 32]);
    let ticket = |seal: SealKeys| ContactTicket {
        account: AccountKey(account.public()),
        seal,
        signature: account.sign(&seal.signed_bytes()),
        token: Token([7; 16]),
        relays: vec![world.relay_ticket()],
        models: ModelSet::default(),
    };
    let keys = [10, 20].map(|n| SealKeys { identity: [n; 32], pre_key: [n + 1; 32], envelope: [n + 2; 32] });
    let mut events = ann.client().subscribe(InboxNumber(0));
    ann.client().add_contact("carol", &ticket(keys[1])).await.unwrap();
    let before = ann.client().safety_number("carol");
    ann.client().add_contact("carol", &ticket(keys[0])).await.unwrap();
    assert_ne!(ann.client().safety_number("carol"), before);
    assert_eq!(events.next().await, Some(Event::KeysChanged { contact: "carol".to_owned() }));

    // An account can sign what is not its own: it would pass for whoever seals under that.
    let [own, bobs] = [&ann, &bob].map(|person| person.client().ticket().seal);
    let added = ann.client().add_contact("carol", &ticket(bobs)).await;
    assert_eq!(added, Err(ContactError::KeysOf("bob".to_owned())));
    assert_eq!(ann.client().add_contact("carol", &ticket(own)).await, Err(ContactError::OwnKeys));
}

#[tokio::test(start_paused = true)]
async fn a_relay_holds_no_text_and_no_sender_of_what_is_sealed() {
    let (world, ann, bob) = connected(2).await;
    ann.client().send("bob", TEXT.into()).await.unwrap();
    bob.client().send("ann", TEXT.into()).await.unwrap();
    inbox(&bob, 1).await;
    inbox(&ann, 1).await;
    bob.client().disconnect();
    sleep(Duration::from_secs(30)).await;
    ann.client().send_all("bob", texts(20)).await.unwrap();
    ann.client().send("bob", Message::from(TEXT).relay_visible()).await.unwrap();
    sleep(Duration::from_secs(60)).await;

    let entries = world.store().read(&bob.client().account(), Position(0), usize::MAX, usize::MAX).unwrap();
    let (visible, sealed): (Vec<_>, Vec<_>) = entries.iter().partition(|(_, entry)| entry.sender.is_some());
    assert_eq!(visible.len(), 1, "only what is to be visible names its sender");
    let letter = Letter::decode(&visible[0].1.body, &Models::compiled_in()).unwrap();
    assert_eq!(letter.content, Content::Text(TEXT.into()), "what the relay can read");
    assert!(!sealed.is_empty());
    let ticket = ann.client().ticket();
    let names = [ann.client().account().0, ticket.seal.identity, ticket.seal.pre_key, ticket.seal.envelope];
    let words: Vec<_> = TEXT.split(' ').filter(|word| word.len() > 3).map(str::as_bytes).collect();
    assert!(sealed.iter().all(|(_, entry)| entry.submitter.is_none()), "nor does anything beside it");
    for (_, entry) in &sealed {
        let holds = |part: &[u8]| entry.body.windows(part.len()).any(|window| window == part);
        assert!(!names.iter().any(|key| holds(key)) && !words.iter().any(|word| holds(word)));
    }
    bob.client().connect();
    inbox(&bob, 22).await;
    for message in bob.client().inbox(InboxNumber(0), 100).await.unwrap() {
        assert_eq!((message.sealed, message.contact.as_deref()), (message.number.0 < 22, Some("ann")));
        assert!(matches!(message.content, ReceivedContent::Text(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_keeps_to_itself_and_what_proves_an_invite_are_in_no_text_for_people() {
    const KEY: [u8; 32] = [0x5a; 32];
    let invites = Invites::new(KEY);
    let ticket = World::new(5).relay_ticket();
    let invite = invites.mint(ticket, InviteParams { uses: 1, valid: None }, 1_800_000_000).unwrap();
    let says = |shown: String, secret: &[u8]| {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        shown.to_lowercase().contains(&hex) || shown.contains(&format!("{secret:?}"))
    };
    for shown in [format!("{:?}", invite.token), format!("{invite:?}"), format!("{invite:#?}")] {
        assert!(!says(shown.clone(), &invite.token.mac), "{shown}");
    }
    assert!(says(format!("{:?}", invite.token.mac), &invite.token.mac), "it would be found");
    assert_eq!(format!("{invites:?}"), "Invites");

    let folder = tempfile::tempdir().unwrap();
    let folder = Folder::open(folder.path()).unwrap();
    let keys = folder.keys().unwrap();
    let file = std::fs::read_to_string(folder.key_path()).unwrap();
    let (seed, check) = file.trim().split_at(64);
    assert_eq!(check.len(), 16, "behind the seed as hex");
    for shown in [format!("{keys:?}"), format!("{keys:#?}"), format!("{:?}", keys.invites())] {
        let is_secret = shown.contains(seed) || says(shown.clone(), &keys.reset_key());
        assert!(!is_secret && shown.len() < 16, "{shown}");
    }
}
