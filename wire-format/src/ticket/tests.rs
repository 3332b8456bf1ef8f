use proptest::prelude::*;

use super::*;
use crate::text::{IDS_MAX, ModelName, NUMBERS};

fn relay() -> RelayTicket {
    RelayTicket {
        key: RelayKey([0x11; 32]),
        addresses: vec!["192.0.2.7:4433".parse().unwrap(), "[2001:db8::7]:4433".parse().unwrap()],
    }
}

fn tickets() -> [Ticket; 4] {
    let token = InviteToken { id: [0x22; 8], uses: 3, expires_unix_s: 1_800_000_000, mac: [0x33; 16] };
    let invite = InviteTicket { relay: relay(), token };
    let contact = ContactTicket {
        account: AccountKey([0x44; 32]),
        seal: SealKeys { identity: [0x55; 32], pre_key: [0x66; 32], envelope: [0x77; 32] },
        signature: Signature([[0x88; 32]; 2]),
        token: Token([0x99; 16]),
        relays: vec![relay()],
        models: ModelSet::EMPTY,
    };
    [
        Ticket::Relay(relay()),
        Ticket::Invite(invite.clone()),
        Ticket::Contact(contact.clone()),
        Ticket::Guest(GuestTicket { invite, host: contact, name: "Bob from the mill".into() }),
    ]
}

#[test]
fn the_content_of_a_contacts_ticket_is_read_back_alone() {
    let [_, _, Ticket::Contact(ticket), _] = tickets() else { unreachable!() };
    let mut bytes = ticket.to_bytes();
    assert_eq!(ContactTicket::from_bytes(&bytes), Ok(ticket));
    bytes.push(0);
    assert!(ContactTicket::from_bytes(&bytes).is_err());
    assert!(ContactTicket::from_bytes(&bytes[..100]).is_err());
}

#[test]
fn a_contacts_ticket_is_laid_out_as_the_protocol_says() {
    let [_, _, ticket, _] = tickets();
    let text = ticket.to_string().to_ascii_uppercase();
    let content = BASE32_NOPAD.decode(&text.as_bytes()[4..]).unwrap();
    let keys = [0x44, 0x55, 0x66, 0x77, 0x88, 0x88].map(|byte| [byte; 32]).concat();
    let mut expected = [&keys[..], &[0x99; 16], &[1], &[0x11; 32], &[2, 4, 192, 0, 2, 7]].concat();
    expected.extend(4433u16.to_be_bytes());
    assert_eq!(content[..expected.len()], expected);
    assert_eq!((text.len(), content.len()), (440, 272));
}

/// The longest set that can be said.
fn all_models() -> ModelSet {
    let numbers = (0..NUMBERS).map(ModelName::Number);
    let ids = (0..IDS_MAX as u8).map(|n| ModelName::Id([n; 4]));
    let mut set = ModelSet::default();
    numbers.chain(ids).for_each(|name| set.insert(name));
    set
}

fn with_models(ticket: Ticket, models: &ModelSet) -> Ticket {
    let say = |contact| ContactTicket { models: models.clone(), ..contact };
    match ticket {
        Ticket::Contact(contact) => Ticket::Contact(say(contact)),
        Ticket::Guest(guest) => Ticket::Guest(GuestTicket { host: say(guest.host), ..guest }),
        other => other,
    }
}

#[test]
fn models_stand_at_the_end_of_a_ticket_and_may_be_left_out() {
    let mut set = ModelSet::default();
    (0..11).for_each(|number| set.insert(ModelName::Number(number)));
    let [_, _, contact, guest] = tickets();
    for ticket in [contact, guest] {
        let (without, with) = (ticket.to_string(), with_models(ticket.clone(), &set).to_string());
        assert!((4..=5).contains(&(with.len() - without.len())), "3 bytes");
        assert_eq!(without.parse(), Ok(ticket.clone()));
        assert_eq!(with.parse(), Ok(with_models(ticket, &set)));
    }
}

#[test]
fn the_longest_tickets_fit_their_bound_and_a_qr_code() {
    let address = "[2001:db8::7]:4433".parse().unwrap();
    let longest = RelayTicket { key: RelayKey([1; 32]), addresses: vec![address; TICKET_ADDRESSES_MAX] };
    let [_, _, _, Ticket::Guest(mut guest)] = tickets() else { unreachable!() };
    guest.invite.relay = longest.clone();
    guest.invite.token = InviteToken { uses: u32::MAX, expires_unix_s: u64::MAX, ..guest.invite.token };
    guest.host.relays = vec![longest; TICKET_RELAYS_MAX];
    guest.host.models = all_models();
    guest.name = "n".repeat(HOST_NAME_BYTES_MAX);
    let ticket = Ticket::Guest(guest);
    let text = ticket.to_qr_text();
    assert!(text.len() <= TICKET_CHARS_MAX, "{}", text.len());
    assert_eq!(text.parse(), Ok(ticket));
}

#[test]
fn tickets_are_read_back_from_text_link_and_qr_code() {
    let all = all_models();
    for ticket in tickets().into_iter().flat_map(|ticket| [with_models(ticket.clone(), &all), ticket]) {
        let text = ticket.to_string();
        assert_eq!(text.parse(), Ok(ticket.clone()));
        assert_eq!(format!(" thinpost:{text}\n").parse(), Ok(ticket.clone()));
        assert_eq!(ticket.to_qr_text().parse(), Ok(ticket));
    }
}

#[test]
fn every_shortened_ticket_is_refused() {
    for ticket in tickets() {
        let text = ticket.to_string();
        for end in 0..text.len() {
            let error = text[..end].parse::<Ticket>().unwrap_err();
            let expected = if end < 4 { TicketError::NotATicket } else { TicketError::Checksum };
            assert_eq!(error, expected, "cut at {end}");
        }
    }
}

#[test]
fn each_kind_of_damage_has_its_own_error() {
    let [relay, _, contact, _] = tickets().map(|ticket| ticket.to_string());
    assert_eq!("hello".parse::<Ticket>(), Err(TicketError::NotATicket));
    assert_eq!(relay.replace("tpr1", "tpr2").parse::<Ticket>(), Err(TicketError::UnknownVersion('2')));
    assert_eq!(
        contact.parse::<RelayTicket>(),
        Err(TicketError::WrongKind { found: "a contact's ticket", wanted: "a relay's ticket" })
    );
    assert_eq!("x".repeat(3000).parse::<Ticket>(), Err(TicketError::TooLong(3000)));
    let mut odd = relay.clone();
    odd.replace_range(6..7, "!");
    assert_eq!(odd.parse::<Ticket>(), Err(TicketError::BadCharacter(7)));
    let folded = format!("  {}\r\n {}\n", &relay[..20], &relay[20..]);
    assert_eq!(folded.parse::<Ticket>(), relay.parse::<Ticket>());
    let swapped = relay.replace("tpr1", "tpc1");
    assert_eq!(swapped.parse::<Ticket>(), Err(TicketError::Checksum));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(tp[ric]1)?\\PC{0,200}") {
        let _ = text.parse::<Ticket>();
    }

    #[test]
    fn content_with_a_valid_checksum_never_panics(
        kind in prop::sample::select(vec!['r', 'i', 'c', 'g']),
        begins_well: bool,
        content in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let whole = tickets().into_iter().find(|ticket| ticket.kind().0 == kind).unwrap().to_string();
        let whole = BASE32_NOPAD.decode(&whole.to_ascii_uppercase().as_bytes()[4..]).unwrap();
        let begin = if begins_well { &whole[..whole.len() - CHECKSUM_LEN] } else { &[] };
        let content = [begin, &content].concat();
        let mut bytes = content.clone();
        bytes.extend(checksum(kind, &content));
        let text = format!("tp{kind}{VERSION}{}", BASE32_NOPAD.encode(&bytes));
        if let Ok(ticket) = text.parse::<Ticket>() {
            prop_assert_eq!(ticket.to_string().parse(), Ok(ticket));
        }
    }
}
