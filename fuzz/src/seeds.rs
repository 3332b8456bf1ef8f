//! Inputs to start from: what our own encoders write, as a search would take long to find so much sense.

use std::net::SocketAddr;

use thinpost_client::fuzzing::{Pair, home_samples};
use thinpost_gateway::config::Config;
use thinpost_gateway::fuzzing;
use thinpost_wire::batch::{Ack, Batch, Chunk, Held, Item, Transfer};
use thinpost_wire::codec::{self, Codec};
use thinpost_wire::dictionary::DICTIONARIES;
use thinpost_wire::frame::{
    DeliverOptions, Denial, HeldRanges, Hello, NetworkPrefix, ObjectRefusal, Refusal, Signature,
    SubmitOptions, ToDevice, ToRelay, Welcome,
};
use thinpost_wire::ids::{
    AccountKey, AppId, Handle, Incarnation, ObjectId, OneTimeKey, Origin, Position, RelayKey, StoreId,
};
use thinpost_wire::letter::{Content, Letter, Way};
use thinpost_wire::notes::{Introduction, Notes, Seen};
use thinpost_wire::parcel::{self, Parcel, Reader, ShortIncarnation};
use thinpost_wire::table::TableState;
use thinpost_wire::text::{
    self, AGREEMENTS, ContextParts, Entry, Favourite, Hits, LIKELIHOODS, Level, ModelName, ModelSet, Models,
    NUMBERS, Parts,
};
use thinpost_wire::ticket::{
    ContactTicket, GuestTicket, InviteTicket, InviteToken, RelayTicket, SealKeys, Ticket,
};
use thinpost_wire::token::{MailboxAddress, MailboxSecret, Token, TokenId};

use crate::model::WRITTEN_AGAIN;

static MODELS: Models = Models::compiled_in();

/// Texts in the languages and scripts that dictionaries and models are for.
const TEXTS: [&str; 9] = [
    "are you there? I'll be at the station at 7.",
    "Где ты? Буду на вокзале в семь.",
    "¿Dónde estás? Llego a la estación a las siete.",
    "Où es-tu ? J'arrive à la gare à sept heures.",
    "أين أنت؟ سأكون في المحطة الساعة السابعة",
    "तुम कहाँ हो? मैं सात बजे स्टेशन पर रहूँगा।",
    "Uko wapi? Nitakuwa kituoni saa moja.",
    r#"{"type":"position","lat":52.5200,"lon":13.4050,"id":42}"#,
    "OK OK ok Ok \u{1f44d}\u{1f44d}",
];

fn behind(kind: u8, rest: impl AsRef<[u8]>) -> Vec<u8> {
    [&[kind], rest.as_ref()].concat()
}

fn ack() -> Ack {
    Ack { watermark: 300, received: vec![(302, 310), (312, 312)] }
}

fn batches() -> Vec<Vec<u8>> {
    let item = |number, more, bytes| Item { number, more, bytes };
    let of = |batch: Batch<'_>| {
        let mut bytes = Vec::new();
        batch.encode(&mut bytes);
        bytes
    };
    vec![
        of(Batch { poll: true, ack: Some(Ack { watermark: 4, received: vec![] }), ..Batch::default() }),
        of(Batch { ack: Some(ack()), ..Batch::default() }),
        of(Batch { unreadable: Some(16), ack: Some(Ack::default()), ..Batch::default() }),
        of(Batch {
            items: vec![item(1, true, b"are you"), item(2, false, b" there?"), item(5, false, b"x")],
            ..Batch::default()
        }),
        of(Batch {
            ack: Some(Ack { watermark: 0, received: vec![(1, 2), (4, 4)] }),
            held: vec![
                Held { transfer: Transfer(1), bytes: ack() },
                Held { transfer: Transfer(700), bytes: Ack::default() },
            ],
            ..Batch::default()
        }),
        of(Batch {
            chunk: Some(Chunk { transfer: Transfer(3), offset: 70_000, bytes: b"some of it" }),
            ..Batch::default()
        }),
    ]
}

/// See [`crate::batch`].
pub(crate) fn batch() -> Vec<Vec<u8>> {
    batches()
}

fn coded(content: &[u8]) -> Vec<Vec<u8>> {
    let dictionaries = DICTIONARIES.iter().map(|dictionary| Codec::Dictionary(dictionary.number));
    let codecs = [Codec::Raw, Codec::Zstd].into_iter().chain(dictionaries);
    let code = |codec| {
        let mut coded = Vec::new();
        codec::encode_as(codec, content, &mut coded).then_some(coded)
    };
    codecs.filter_map(code).collect()
}

/// See [`crate::codec`].
pub(crate) fn codec() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for text in TEXTS {
        seeds.extend(coded(text.as_bytes()).iter().map(|coded| behind(2, coded)));
        seeds.push(behind(0x80, text));
    }
    // Bombs: little that says to be much.
    for bytes in [BATCH_BOMB, codec::BLOCK_CONTENT_BYTES_MAX] {
        seeds.extend(
            coded(&vec![b'a'; bytes])
                .into_iter()
                .filter(|coded| coded.len() < 4_000)
                .flat_map(|coded| (0..5).map(move |allowed| behind(allowed, &coded))),
        );
    }
    seeds.push(vec![2, 47, 1, 2, 3]);
    seeds
}

/// More than a batch may have, bytes.
const BATCH_BOMB: usize = thinpost_wire::limits::BATCH_DECODED_BYTES_MAX + 1;

/// A file without what it says for people, but for the first lines of that.
fn without_words(toml: &str) -> Vec<u8> {
    let words = toml.lines().filter(|line| line.starts_with('#')).take(4);
    let settings = toml.lines().filter(|line| !line.starts_with('#'));
    words.chain(settings).flat_map(|line| [line, "\n"]).collect::<String>().into_bytes()
}

/// See [`crate::config`].
pub(crate) fn config() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        Config::default().to_toml().into_bytes(),
        without_words(include_str!("../../gateway/gateway.example.toml")),
        b"registration = \"allow-list\"\nallow_list = [\"".to_vec(),
        b"advertise = [\"192.0.2.1:4433\", \"[2001:db8::1]:4433\"]\n".to_vec(),
        b"[limits.account]\nbytes_burst = 1_000_000\n[limits.claims]\ndevice_burst = 0\n".to_vec(),
        b"[objects]\nbytes_max = 1\n[mailbox]\nlifetime_days = 0x1e\n".to_vec(),
    ];
    seeds[2].extend("ab".repeat(32).bytes().chain(*b"\"]\n"));
    seeds
}

/// Each datagram of [`crate::datagram`] behind its length.
pub(crate) fn datagram() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    let mut all = Vec::new();
    for batch in batches() {
        for coded in coded(&batch) {
            let datagram = behind(coded.len() as u8, &coded);
            all.extend(&datagram);
            seeds.push(datagram);
        }
    }
    seeds.push(all);
    seeds
}

/// See [`crate::frame`].
pub(crate) fn frame() -> Vec<Vec<u8>> {
    let to = Handle(3);
    let account = AccountKey([1; 32]);
    let origin = Origin { incarnation: Incarnation([2; 8]), sequence: 300 };
    let store = StoreId([3; 8]);
    let table = TableState { len: 2, digest: [4; 8] };
    let token = Token([5; 16]);
    let secret = MailboxSecret([6; 32]);
    let transfer = Transfer(1);
    let id = ObjectId([7; 32]);
    let held = HeldRanges::new(&[10..20, 30..3_000].into_iter().collect());
    let invite = InviteToken { id: [1; 8], uses: 2, expires_unix_s: 3, mac: [4; 16] };
    let certificate = Signature::from_bytes(&[8; 64]);
    let address = MailboxAddress { mailbox: account, token };
    let body = b"\x00are you there?";
    let options = SubmitOptions { unattributed: true, lifetime_s: Some(60), collapse_key: Some(1), age_s: 9 };
    let hello = Hello {
        dictionaries: 0x3f,
        registers: true,
        deliver: true,
        mailboxes: table,
        senders: table,
        have: Some((store, Position(70_000))),
    };
    let keys = vec![OneTimeKey([9; 32]), OneTimeKey([10; 32])];
    let to_relay = [
        ToRelay::Hello(hello),
        ToRelay::Register { account, certificate, invite: Some(invite), secret },
        ToRelay::Bind { handle: to, address },
        ToRelay::Numbering(origin),
        ToRelay::Ping,
        ToRelay::SubmitWith { to, options, body },
        ToRelay::Submit { to, body },
        ToRelay::Resume { to },
        ToRelay::SubmitUnattributed { to, body },
        ToRelay::Revoke { id: TokenId::personal(4) },
        ToRelay::PutKeys { replaces: true, keys },
        ToRelay::Claim { to },
        ToRelay::PutObject { transfer, id, size: 4_000, lifetime_s: None },
        ToRelay::GetObject { transfer, id, held: held.clone() },
        ToRelay::EndTransfer { transfer },
        ToRelay::CallAfter { quiet_s: 300 },
        ToRelay::GatherAcks { at_most_s: 10 },
    ];
    let welcome = Welcome {
        dictionaries: 0x3f,
        store,
        mailboxes_known: 2,
        senders_known: 0,
        cursor: Position(70_000),
        keys_left: 50,
        last: Some(ShortIncarnation([1; 4])),
    };
    let options = DeliverOptions { from: Some(to), age_s: 90 };
    let to_device = [
        ToDevice::Welcome(welcome),
        ToDevice::Refused { origin, reason: Refusal::TooFast { retry_after_s: 600 } },
        ToDevice::Peer { handle: to, account },
        ToDevice::DeliverWith { advance: 2, options, body },
        ToDevice::Deliver { advance: 1, from: to, body },
        ToDevice::CaughtUp,
        ToDevice::Ready { to },
        ToDevice::NotRevoked { id: TokenId::open(4) },
        ToDevice::Claimed { to, key: Some(OneTimeKey([9; 32])) },
        ToDevice::ObjectOpened { transfer, size: 4_000, held },
        ToDevice::ObjectStored { transfer },
        ToDevice::ObjectRefused { transfer, reason: ObjectRefusal::TooLong },
        ToDevice::Call { network: NetworkPrefix(0xc000) },
    ];
    let mut seeds: Vec<_> = to_relay.iter().map(ToRelay::encode).collect();
    seeds.extend(to_device.iter().map(ToDevice::encode));
    seeds.push(behind(4, Denial::InviteSpent.to_reason()));
    seeds
}

/// Nothing of [`crate::link`]'s makes no sense: numbers without rhyme or reason are operations.
pub(crate) fn link() -> Vec<Vec<u8>> {
    let noise = |seed: u64, bytes: usize| -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let byte = |_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        };
        (0..bytes).map(byte).collect()
    };
    (0..100).map(|seed| noise(seed, 20 + 5 * seed as usize)).collect()
}

/// See [`crate::model`].
pub(crate) fn model() -> Vec<Vec<u8>> {
    let entry = |symbol, is_context| Entry { symbol, level: Level::nearest(3.0), is_context };
    // Four marks and two letters.
    let root = ContextParts {
        entries: (0..6).map(|symbol| entry(symbol, symbol == 4)).collect(),
        rest: Level::nearest(1.0),
    };
    let deeper = ContextParts { entries: vec![entry(5, false)], rest: Level::nearest(2.0) };
    let small = Parts {
        letters: vec!['a', 'b'],
        discount: 40,
        hits: Hits([[30_000; LIKELIHOODS]; AGREEMENTS]),
        contexts: vec![root, deeper],
    };
    let file = small.to_bytes().expect("the parts are sound");
    let body = zstd::bulk::decompress(&file[4..], 1 << 20).expect("it was packed");
    let coded = |coded: &[u8]| {
        let length = body.len() as u16;
        [length, length | WRITTEN_AGAIN].map(|length| [&length.to_le_bytes()[..], &body, coded].concat())
    };
    [coded(&[]), coded(&[0x40]), coded(&[1, 2, 3, 4, 5, 6, 7, 8])].concat()
}

fn notes() -> Notes {
    let seen = Seen { incarnation: ShortIncarnation([1; 4]), arrived: ack(), read: 300 };
    let mut models = ModelSet::default();
    models.insert(ModelName::Number(3));
    models.insert(ModelName::Id([4; 4]));
    Notes {
        seen: vec![seen.clone(), seen],
        again: true,
        token: Some(Token([5; 16])),
        introduction: Some(Introduction { under: Token([6; 16]), ticket: contact().to_bytes() }),
        models: Some(models),
    }
}

fn parcels(letters: &[Vec<u8>]) -> Vec<Parcel<'_>> {
    let items = |from: usize| {
        let item = |(place, letter)| parcel::Item { number: (place * place) as u64 + 1, letter };
        letters.iter().map(Vec::as_slice).enumerate().skip(from).map(item).collect()
    };
    let incarnation = ShortIncarnation([7; 4]);
    vec![
        Parcel { incarnation, notes: Notes::default(), items: items(letters.len() - 1) },
        Parcel { incarnation, notes: Notes::default(), items: items(0) },
        Parcel { incarnation, notes: notes(), items: items(1) },
        Parcel { incarnation, notes: notes(), items: Vec::new() },
    ]
}

fn letters() -> Vec<Vec<u8>> {
    let mut letters = Vec::new();
    for text in TEXTS {
        for content in [Content::Text(text.into()), Content::Data(text.as_bytes().into())] {
            let app_id = matches!(content, Content::Data(_)).then_some(AppId([3; 16]));
            let letter = Letter { app_id, content };
            letters.extend(letter.encode(Way::Sealed));
            let way = Way::Open {
                models: &MODELS,
                recipient_has: &MODELS.set(),
                favourite: &mut Favourite::default(),
            };
            letters.extend(letter.encode(way));
        }
    }
    letters
}

/// See [`crate::parcel`].
pub(crate) fn parcel() -> Vec<Vec<u8>> {
    let letters = letters();
    let mut seeds: Vec<_> =
        (1..=2).flat_map(|kind| letters.iter().map(move |letter| behind(kind, letter))).collect();
    for parcel in parcels(&letters[..5]) {
        let plain = parcel.encode();
        seeds.extend(coded(&plain).iter().map(|packed| behind(3, packed)));
        seeds.push(behind(0, plain));
    }
    seeds
}

/// See [`crate::records`].
pub(crate) fn records() -> Vec<Vec<u8>> {
    fuzzing::samples().into_iter().map(|(kind, record)| behind(kind, record)).collect()
}

/// See [`crate::rows`].
pub(crate) fn rows() -> Vec<Vec<u8>> {
    let records = home_samples(Pair::new().records());
    records.into_iter().map(|(kind, record)| behind(kind, record)).collect()
}

/// See [`crate::seal`].
pub(crate) fn seal() -> Vec<Vec<u8>> {
    let letters = letters();
    let mut seeds = vec![Pair::new().sealed(), vec![0], vec![0, 1, 1, 20, 4], vec![0, 200, 128]];
    for parcel in parcels(&letters[..3]) {
        seeds.extend(coded(&parcel.encode()).iter().map(|packed| behind(1, packed)));
        seeds.push(behind(1, packed(&parcel)));
    }
    seeds
}

fn packed(parcel: &Parcel<'_>) -> Vec<u8> {
    let reader = Reader { models: &MODELS.set(), knows_incarnation: false };
    parcel::pack(parcel, &MODELS, reader, &mut Favourite::default())
}

/// See [`crate::text`].
pub(crate) fn text() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for name in (0..NUMBERS).map(ModelName::Number) {
        let Some(model) = MODELS.get(name) else { continue };
        for text in TEXTS {
            let mut coded = Vec::new();
            if text::encode(name, model, text, &mut coded).is_ok() && coded.len() < text.len() {
                seeds.push(behind(0, coded));
            }
        }
    }
    let letters = letters();
    for letters in letters.chunks(3) {
        seeds.extend(parcels(letters).iter().map(|parcel| behind(0x80, packed(parcel))));
    }
    seeds
}

fn contact() -> ContactTicket {
    ContactTicket {
        account: AccountKey([1; 32]),
        seal: SealKeys { identity: [2; 32], pre_key: [3; 32], envelope: [4; 32] },
        signature: Signature::from_bytes(&[5; 64]),
        token: Token([6; 16]),
        relays: vec![relay()],
        models: MODELS.set(),
    }
}

fn relay() -> RelayTicket {
    let addresses = ["192.0.2.1:4433", "[2001:db8::1]:443"];
    let addresses = addresses.map(|address| address.parse::<SocketAddr>().expect("it is an address"));
    RelayTicket { key: RelayKey([7; 32]), addresses: addresses.to_vec() }
}

/// See [`crate::ticket`].
pub(crate) fn ticket() -> Vec<Vec<u8>> {
    let token = InviteToken { id: [1; 8], uses: 200, expires_unix_s: 1_800_000_000, mac: [4; 16] };
    let invite = InviteTicket { relay: relay(), token };
    let without = ContactTicket { models: ModelSet::EMPTY, relays: vec![relay(); 4], ..contact() };
    let guest = GuestTicket { invite: invite.clone(), host: contact(), name: "Bob".to_owned() };
    let tickets = [
        Ticket::Relay(relay()),
        Ticket::Invite(invite),
        Ticket::Contact(contact()),
        Ticket::Contact(without),
        Ticket::Guest(guest),
    ];
    let mut seeds = vec![contact().to_bytes()];
    for ticket in tickets {
        let text = ticket.to_string();
        let [.., kind, _] = text.as_bytes()[..4] else {
            unreachable!("a ticket begins with four characters")
        };
        let content = data_encoding::BASE32_NOPAD.decode(text[4..].to_ascii_uppercase().as_bytes());
        let content = content.expect("that is its coding");
        seeds.push(behind(kind, &content[..content.len() - 4]));
        seeds.push(ticket.to_qr_text().into_bytes());
        seeds.push(format!("thinpost:{text}\n").into_bytes());
    }
    seeds
}
