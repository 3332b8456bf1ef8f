#![allow(clippy::unwrap_used)]

use super::*;
use crate::medium::{Call, Medium};

const PAGE: u64 = PAGE_BYTES as u64;

fn of_pages(pages: u64) -> (Medium, Checked<Medium>) {
    let medium = Medium::default();
    let checked = Checked::new(medium.clone()).unwrap();
    checked.set_len(pages * PAGE).unwrap();
    (medium, checked)
}

fn page(byte: u8) -> Vec<u8> {
    vec![byte; PAGE_BYTES]
}

fn read(checked: &Checked<Medium>, first: u64, pages: u64) -> io::Result<Vec<u8>> {
    let mut out = vec![0; pages as usize * PAGE_BYTES];
    checked.read(first * PAGE, &mut out).map(|()| out)
}

#[test]
fn what_is_written_is_read_over_the_edges_of_groups() {
    let (medium, checked) = of_pages(1_600);
    assert_eq!(checked.len().unwrap(), 1_600 * PAGE);
    assert_eq!(medium.size() as u64, (1_600 + 4) * PAGE);
    let three: Vec<u8> = [page(1), page(2), page(3)].concat();
    for first in [1, 510, 511, 512, 1_023, 1_597] {
        checked.write(first * PAGE, &three).unwrap();
        assert_eq!(read(&checked, first, 3).unwrap(), three, "from page {first}");
        let again = Checked::new(medium.fork()).unwrap();
        assert_eq!(read(&again, first, 3).unwrap(), three, "from page {first}");
    }
    assert_eq!(read(&checked, 700, 1).unwrap(), page(0), "what was never written is empty");
}

#[test]
fn a_file_is_as_long_as_was_asked_and_begins_as_ours_do() {
    for pages in [1, 2, 511, 512, 513, 1_022, 1_023, 1_024, 1_025, 1_026] {
        let medium = Medium::recording();
        let checked = Checked::new(medium.clone()).unwrap();
        checked.set_len(0).unwrap();
        assert_eq!((checked.len().unwrap(), medium.size()), (0, 0));
        checked.set_len(pages * PAGE).unwrap();
        assert_eq!(checked.len().unwrap(), pages * PAGE);
        assert_eq!(medium.content()[..CHECK_BYTES], MAGIC);
        let before = medium.calls();
        checked.set_len((pages + 3) * PAGE).unwrap();
        assert_eq!(checked.len().unwrap(), (pages + 3) * PAGE);
        assert!(
            medium.recorded()[before..].iter().all(|call| !matches!(call, Call::Write { .. })),
            "nothing is to be written where a file grows"
        );
    }
}

#[test]
fn parts_of_pages_are_refused() {
    let (_, checked) = of_pages(4);
    for (offset, bytes) in [(PAGE + 1, PAGE_BYTES), (PAGE, PAGE_BYTES - 1), (PAGE + 1, 1)] {
        let refused = checked.read(offset, &mut vec![0; bytes]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        let refused = checked.write(offset, &vec![0; bytes]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(checked.set_len(PAGE + 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn the_first_page_is_written_with_its_check_in_one_sector() {
    let medium = Medium::recording();
    let checked = Checked::new(medium.clone()).unwrap();
    checked.set_len(2 * PAGE).unwrap();
    let before = medium.calls();
    checked.write(0, &[7; 320]).unwrap();
    let calls = &medium.recorded()[before..];
    assert!(matches!(calls, [Call::Write { at: 4_096, bytes }] if bytes.len() == HEAD_BYTES));
    checked.write(9, &[1]).unwrap();
    let mut expected = page(0);
    expected[..320].fill(7);
    expected[9] = 1;
    assert_eq!(read(&checked, 0, 1).unwrap(), expected);
    assert_eq!(read(&checked, 0, 2).unwrap()[..PAGE_BYTES], expected);
    assert!(checked.write(0, &[7; HEAD_BYTES]).is_err(), "there is no room beside the check");
}

#[test]
fn no_flipped_bit_is_read() {
    let (medium, checked) = of_pages(4);
    checked.write(0, &[7; 320]).unwrap();
    checked.write(PAGE, &[page(1), page(2)].concat()).unwrap();
    let content = medium.content();
    let mut noticed = 0;
    for bit in 0..content.len() * 8 {
        // All bits of checks and head, and some of each page.
        if bit % 8 != bit / 8 % 8 && bit / 8 >= 100 {
            continue;
        }
        let mut flipped = content.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let opened = Checked::new(Medium::holding(flipped));
        let seen = opened.and_then(|checked| read(&checked, 0, 4));
        match seen {
            Ok(seen) => assert_eq!(seen, read(&checked, 0, 4).unwrap(), "bit {bit}"),
            Err(error) => {
                noticed += 1;
                assert!(DamagedPage::of(&error).is_some(), "bit {bit}: {error}");
            }
        }
    }
    assert!(noticed > 3 * PAGE_BYTES, "{noticed}");
}

#[test]
fn a_page_that_went_and_came_again_is_empty() {
    let (_, checked) = of_pages(600);
    for at in [3, 520, 599] {
        checked.write(at * PAGE, &page(1)).unwrap();
    }
    checked.set_len(515 * PAGE).unwrap();
    checked.set_len(600 * PAGE).unwrap();
    assert_eq!([3, 520, 599].map(|at| read(&checked, at, 1).unwrap()[0]), [1, 0, 0]);
    checked.set_len(512 * PAGE).unwrap();
    checked.set_len(2 * PAGE).unwrap();
    checked.set_len(600 * PAGE).unwrap();
    assert_eq!(read(&checked, 3, 1).unwrap(), page(0));
}

#[test]
fn two_pages_in_each_others_place_are_not_read() {
    let (medium, checked) = of_pages(4);
    checked.write(PAGE, &[page(1), page(2)].concat()).unwrap();
    medium.damage(|file| {
        let (one, two) = file.split_at_mut(3 * PAGE_BYTES);
        one[2 * PAGE_BYTES..].swap_with_slice(&mut two[..PAGE_BYTES]);
        let checks = &mut one[8..24];
        checks.rotate_left(8);
    });
    assert_eq!(DamagedPage::of(&read(&checked, 1, 1).unwrap_err()), Some(DamagedPage { page: 1 }));
}

#[test]
fn what_is_none_of_ours_is_left_alone() {
    let medium = Medium::holding(b"shopping list".to_vec());
    assert_eq!(Checked::new(medium.clone()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(medium.content(), b"shopping list");
    for other in [vec![1; 10_000], [[1; PAGE_BYTES], [0; PAGE_BYTES]].concat()] {
        assert_eq!(Checked::new(Medium::holding(other)).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
