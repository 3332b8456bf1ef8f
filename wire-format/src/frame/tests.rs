use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::ids::Incarnation;
use crate::parcel::ShortIncarnation;
use crate::token::Token;

fn table(len: u16, digest: u8) -> TableState {
    TableState { len, digest: [digest; 8] }
}

/// The vectors of `PROTOCOL.md`, section "Golden vectors": one for each.
#[test]
fn golden_vectors_of_frames_to_a_relay_hold() {
    let origin = Origin { incarnation: Incarnation([0xaa; 8]), sequence: 300 };
    let cases = [
        (
            "003f00010201010101010101010002020202020202020107070707070707078002",
            ToRelay::Hello(Hello {
                dictionaries: 63,
                registers: false,
                deliver: true,
                mailboxes: table(2, 1),
                senders: table(0, 2),
                have: Some((StoreId([7; 8]), Position(256))),
            }),
        ),
        (
            concat!(
                "01",
                "0101010101010101010101010101010101010101010101010101010101010101",
                "0202020202020202020202020202020202020202020202020202020202020202",
                "0303030303030303030303030303030303030303030303030303030303030303",
                "010404040404040404",
                "0100",
                "05050505050505050505050505050505",
                "0606060606060606060606060606060606060606060606060606060606060606"
            ),
            ToRelay::Register {
                account: AccountKey([1; 32]),
                certificate: Signature([[2; 32], [3; 32]]),
                invite: Some(InviteToken { id: [4; 8], uses: 1, expires_unix_s: 0, mac: [5; 16] }),
                secret: MailboxSecret([6; 32]),
            },
        ),
        (
            concat!(
                "0201",
                "0909090909090909090909090909090909090909090909090909090909090909",
                "08080808080808080808080808080808"
            ),
            ToRelay::Bind {
                handle: Handle(1),
                address: MailboxAddress { mailbox: AccountKey([9; 32]), token: Token([8; 16]) },
            },
        ),
        ("03aaaaaaaaaaaaaaaaac02", ToRelay::Numbering(origin)),
        ("04", ToRelay::Ping),
        (
            "05010101901c010705026869",
            ToRelay::SubmitWith {
                to: Handle(1),
                options: SubmitOptions {
                    unattributed: true,
                    lifetime_s: Some(3600),
                    collapse_key: Some(7),
                    age_s: 5,
                },
                body: b"hi",
            },
        ),
        ("0601026869", ToRelay::Submit { to: Handle(1), body: b"hi" }),
        ("0701", ToRelay::Resume { to: Handle(1) }),
        ("0801026869", ToRelay::SubmitUnattributed { to: Handle(1), body: b"hi" }),
        ("098580808008", ToRelay::Revoke { id: TokenId::personal(5) }),
        (
            concat!(
                "0a0102",
                "0404040404040404040404040404040404040404040404040404040404040404",
                "0505050505050505050505050505050505050505050505050505050505050505"
            ),
            ToRelay::PutKeys { replaces: true, keys: vec![OneTimeKey([4; 32]), OneTimeKey([5; 32])] },
        ),
        ("0b01", ToRelay::Claim { to: Handle(1) }),
        (
            "0c010606060606060606060606060606060606060606060606060606060606060606c09a0c0180a305",
            ToRelay::PutObject {
                transfer: Transfer(1),
                id: ObjectId([6; 32]),
                size: 200_000,
                lifetime_s: Some(86_400),
            },
        ),
        (
            "0d020606060606060606060606060606060606060606060606060606060606060606020092099410b001",
            ToRelay::GetObject {
                transfer: Transfer(2),
                id: ObjectId([6; 32]),
                held: HeldRanges(vec![(0, 1_170), (2_068, 176)]),
            },
        ),
        ("0e02", ToRelay::EndTransfer { transfer: Transfer(2) }),
        ("0fac02", ToRelay::CallAfter { quiet_s: 300 }),
        ("100a", ToRelay::GatherAcks { at_most_s: 10 }),
    ];
    for (hex, frame) in cases {
        assert_eq!(HEXLOWER.encode(&frame.encode()), hex);
        assert_eq!(ToRelay::decode(&HEXLOWER.decode(hex.as_bytes()).unwrap()), Ok(frame));
    }
}

/// The vectors of `PROTOCOL.md`, section "Golden vectors": one for each.
#[test]
fn golden_vectors_of_frames_to_a_device_hold() {
    let origin = Origin { incarnation: Incarnation([0xaa; 8]), sequence: 3 };
    let cases = [
        (
            "003f0707070707070707020080020900",
            ToDevice::Welcome(Welcome {
                dictionaries: 63,
                store: StoreId([7; 8]),
                mailboxes_known: 2,
                senders_known: 0,
                cursor: Position(256),
                keys_left: 9,
                last: None,
            }),
        ),
        (
            "003f070707070707070702008002090166666666",
            ToDevice::Welcome(Welcome {
                dictionaries: 63,
                store: StoreId([7; 8]),
                mailboxes_known: 2,
                senders_known: 0,
                cursor: Position(256),
                keys_left: 9,
                last: Some(ShortIncarnation([0x66; 4])),
            }),
        ),
        (
            "01aaaaaaaaaaaaaaaa03033c",
            ToDevice::Refused { origin, reason: Refusal::TooFast { retry_after_s: 60 } },
        ),
        (
            "02010909090909090909090909090909090909090909090909090909090909090909",
            ToDevice::Peer { handle: Handle(1), account: AccountKey([9; 32]) },
        ),
        (
            "0305010190e103026869",
            ToDevice::DeliverWith {
                advance: 5,
                options: DeliverOptions { from: Some(Handle(1)), age_s: 61_584 },
                body: b"hi",
            },
        ),
        ("040101026869", ToDevice::Deliver { advance: 1, from: Handle(1), body: b"hi" }),
        ("05", ToDevice::CaughtUp),
        ("06ac02", ToDevice::Ready { to: Handle(300) }),
        ("078580808008", ToDevice::NotRevoked { id: TokenId::personal(5) }),
        (
            "0801010404040404040404040404040404040404040404040404040404040404040404",
            ToDevice::Claimed { to: Handle(1), key: Some(OneTimeKey([4; 32])) },
        ),
        ("080100", ToDevice::Claimed { to: Handle(1), key: None }),
        (
            "0901c09a0c01009209",
            ToDevice::ObjectOpened {
                transfer: Transfer(1),
                size: 200_000,
                held: HeldRanges(vec![(0, 1_170)]),
            },
        ),
        ("0a01", ToDevice::ObjectStored { transfer: Transfer(1) }),
        ("0b0104", ToDevice::ObjectRefused { transfer: Transfer(1), reason: ObjectRefusal::Damaged }),
        ("0cb38c03", ToDevice::Call { network: NetworkPrefix::of([198, 51, 100, 1].into()) }),
    ];
    for (hex, frame) in cases {
        assert_eq!(HEXLOWER.encode(&frame.encode()), hex);
        assert_eq!(ToDevice::decode(&HEXLOWER.decode(hex.as_bytes()).unwrap()), Ok(frame));
    }
}

#[test]
fn a_network_is_known_again_by_its_prefix() {
    let of = |ip: &str| NetworkPrefix::of(ip.parse().unwrap());
    assert_eq!(of("198.51.100.1"), of("198.51.7.7"));
    assert_ne!(of("198.51.100.1"), of("198.52.100.1"));
    assert_eq!(of("::ffff:198.51.100.1"), of("198.51.100.1"));
    assert_eq!(of("2001:db8::1"), of("2001:db8:7::7"));
    assert_ne!(of("2001:db8::1"), of("2001:db9::1"));
}

#[test]
fn closes_are_read_back_with_their_reason() {
    for close in [Close::Done, Close::Busy, Close::Denied(Denial::InviteSpent)] {
        assert_eq!(Close::from_wire(close.code().into(), &close.reason()), Some(close));
    }
    assert_eq!(Close::Denied(Denial::InviteNeeded).reason(), [1]);
    assert_eq!(Close::from_wire(99, &[]), None);
}

#[test]
fn each_kind_of_damage_has_its_own_error() {
    assert_eq!(ToRelay::decode(&[]), Err(FrameError::Malformed));
    assert_eq!(ToRelay::decode(&[99]), Err(FrameError::Malformed));
    assert_eq!(ToRelay::decode(&[4, 4]), Err(FrameError::Trailing(1)));
    assert_eq!(ToRelay::decode(&[6, 0, 0]), Err(FrameError::BadHandle(0)));
    assert_eq!(ToRelay::decode(&[6, 0xff, 0xff, 1, 0]), Err(FrameError::BadHandle(0x7fff)));
    assert_eq!(ToRelay::decode(&[6, 1, 5, 0]), Err(FrameError::Malformed));
    let keys = vec![OneTimeKey([0; 32]); ONE_TIME_KEYS_MAX + 1];
    let many = ToRelay::PutKeys { replaces: false, keys }.encode();
    assert_eq!(ToRelay::decode(&many), Err(FrameError::TooManyKeys(51)));
    assert_eq!(ToRelay::decode(&[10, 0, 0xff, 0xff, 0xff, 0xff, 15]), Err(FrameError::Malformed));
    for size in [0, OBJECT_BYTES_MAX + 1] {
        let put = ToRelay::PutObject { transfer: Transfer(1), id: ObjectId([0; 32]), size, lifetime_s: None };
        assert_eq!(ToRelay::decode(&put.encode()), Err(FrameError::BadSize(size)));
    }
    let many = (0..=HELD_RANGES_MAX as u64).map(|n| (3 * n, 1)).collect();
    for ranges in [vec![(0, 0)], vec![(0, 5), (5, 1)], vec![(9, 2), (0, 1)], vec![(1, u64::MAX)], many] {
        let held = HeldRanges(ranges);
        let get = ToRelay::GetObject { transfer: Transfer(1), id: ObjectId([0; 32]), held };
        assert_eq!(ToRelay::decode(&get.encode()), Err(FrameError::BadRanges));
    }
    let held = HeldRanges(vec![(5, 6)]);
    let beyond = ToDevice::ObjectOpened { transfer: Transfer(1), size: 10, held };
    assert_eq!(ToDevice::decode(&beyond.encode()), Err(FrameError::BadRanges));
    let body = vec![0; BODY_BYTES_MAX + 1];
    let long = ToRelay::Submit { to: Handle(1), body: &body }.encode();
    assert_eq!(ToRelay::decode(&long), Err(FrameError::TooLong));
    assert_eq!(ToDevice::decode(&vec![0; FRAME_BYTES_MAX + 1]), Err(FrameError::TooLong));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic(input in prop::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(frame) = ToRelay::decode(&input) {
            let coded = frame.encode();
            prop_assert_eq!(ToRelay::decode(&coded), Ok(frame));
        }
        if let Ok(frame) = ToDevice::decode(&input) {
            let coded = frame.encode();
            prop_assert_eq!(ToDevice::decode(&coded), Ok(frame));
        }
    }

    #[test]
    fn bodies_of_any_length_come_back(body in prop::collection::vec(any::<u8>(), 0..3000), to in 1..HANDLES_MAX) {
        let frame = ToRelay::Submit { to: Handle(to), body: &body };
        let coded = frame.encode();
        prop_assert_eq!(ToRelay::decode(&coded), Ok(frame));
    }
}
