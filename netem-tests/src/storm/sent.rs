//! What was sent to somebody, and what of it must have come, in which order.
//!
//! The submits of one device to one mailbox come in the order in which they were written, whether a relay may read them or not,
//! as long as the relay keeps its disk (PROTOCOL.md, "Custody and repeats"). What is sealed comes again, in its order, after a relay has lost its
//! disk; what a relay may read is then lost, or, if its sender had no answer for it, may come twice, as nothing but the relay tells it from a
//! repeat. And who had no text model for something sealed gets it again, later; something that the relay may read stays unreadable then.

use std::collections::BTreeMap;

use super::Broken;

/// A message that somebody's home has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) text: String,
    /// Whether the relay may read it.
    pub(super) is_visible: bool,
    /// How many disks the relay had lost by then.
    pub(super) disks_lost: u64,
}

/// A message that stands in somebody's inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// None if it could not be read.
    pub(super) text: Option<String>,
    pub(super) is_sealed: bool,
}

/// What has befallen those between whom messages went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// Whether the recipient has the same text models all along.
    pub(super) keeps_models: bool,
    /// How many disks the relay has lost.
    pub(super) disks_lost: u64,
}

impl Circumstances {
    /// Whether it must come, and can be read.
    pub(super) fn must_come(self, sent: &Sent) -> bool {
        !sent.is_visible || self.keeps_models && sent.disks_lost == self.disks_lost
    }

    /// Whether all came that had to, and nothing else, in the order in which it was sent as far as that is promised.
    pub(super) fn check(self, sent: &[Sent], read: &[Read]) -> Result<(), Broken> {
        if self.keeps_models && self.disks_lost == 0 {
            return compare(&sent.iter().collect::<Vec<_>>(), read.iter().collect(), true);
        }
        let (visible, sealed): (Vec<_>, Vec<_>) = sent.iter().partition(|sent| sent.is_visible);
        let (sealed_read, visible_read): (Vec<_>, Vec<_>) = read.iter().partition(|read| read.is_sealed);
        compare(&sealed, sealed_read, self.keeps_models)?;
        self.check_visible(&visible, &visible_read)
    }

    /// Of what the relay may read nothing comes that was not sent, nor out of order. It comes, and once, if the relay lost no disk since.
    fn check_visible(self, sent: &[&Sent], read: &[&Read]) -> Result<(), Broken> {
        let places: BTreeMap<&str, usize> = sent.iter().map(|sent| sent.text.as_str()).zip(0..).collect();
        let mut has_come = vec![false; sent.len()];
        let (mut next, mut unreadable) = (0, 0);
        for read in read {
            let Some(text) = &read.text else {
                unreadable += 1;
                continue;
            };
            let place = *places.get(text.as_str()).ok_or_else(|| Broken::Extra(short(text)))?;
            if has_come[place] {
                if sent[place].disks_lost == self.disks_lost {
                    return Err(Broken::Extra(short(text)));
                }
            } else if place < next {
                let [expected, found] = [&sent[place].text, &sent[next - 1].text].map(|text| short(text));
                return Err(Broken::OutOfPlace { expected, found });
            } else {
                has_come[place] = true;
                next = place + 1;
            }
        }
        let missing = sent.iter().zip(&has_come).filter(|(_, has_come)| !**has_come).map(|(sent, _)| sent);
        // One that cannot be read may be any of those, or, after a loss, one that has come before.
        let missing: Vec<_> = missing.collect();
        let unreadable_max = match self.keeps_models {
            true => 0,
            false if self.disks_lost > 0 && !sent.is_empty() => usize::MAX,
            false => missing.len(),
        };
        if unreadable > unreadable_max {
            return Err(Broken::Extra(UNREADABLE.to_owned()));
        }
        let lost = missing.into_iter().filter(|sent| sent.disks_lost == self.disks_lost).nth(unreadable);
        lost.map_or(Ok(()), |sent| Err(Broken::Lost(short(&sent.text))))
    }
}

/// What a message is called that cannot be read.
const UNREADABLE: &str = "something unreadable";

fn compare(sent: &[&Sent], mut read: Vec<&Read>, in_order: bool) -> Result<(), Broken> {
    if !in_order {
        // What was never sent, or was read already, goes to the end.
        let mut places: BTreeMap<_, _> = sent.iter().map(|sent| Some(&sent.text)).zip(0..).collect();
        read.sort_by_cached_key(|read| places.remove(&read.text.as_ref()).unwrap_or(usize::MAX));
    }
    let is_it = |sent: &Sent, read: &Read| {
        read.text.as_ref() == Some(&sent.text) && read.is_sealed != sent.is_visible
    };
    for (place, expected) in sent.iter().enumerate() {
        match read.get(place) {
            Some(found) if is_it(expected, found) => {}
            Some(found) if read.iter().any(|read| is_it(expected, read)) => {
                let (expected, found) = (short(&expected.text), found.name());
                return Err(Broken::OutOfPlace { expected, found });
            }
            _ => return Err(Broken::Lost(short(&expected.text))),
        }
    }
    read.get(sent.len()).map_or(Ok(()), |extra| Err(Broken::Extra(extra.name())))
}

impl Read {
    fn name(&self) -> String {
        self.text.as_deref().map_or_else(|| UNREADABLE.to_owned(), short)
    }
}

fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(24).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str, is_visible: bool, disks_lost: u64) -> Sent {
        Sent { text: text.to_owned(), is_visible, disks_lost }
    }

    /// Capital letters are what the relay may read, and "?" is what could not be read of that.
    fn read(texts: &str) -> Vec<Read> {
        let read = |text: char| Read {
            text: (text != '?').then(|| text.to_string()),
            is_sealed: text.is_ascii_lowercase(),
        };
        texts.chars().map(read).collect()
    }

    fn lost(text: &str) -> Result<(), Broken> {
        Err(Broken::Lost(format!("{text:?}")))
    }

    fn extra(text: &str) -> Result<(), Broken> {
        Err(Broken::Extra(format!("{text:?}")))
    }

    #[test]
    fn the_checker_tells_what_is_wrong() {
        let sent = ["a", "b", "c"].map(|text| sent(text, false, 0));
        for (keeps_models, disks_lost) in [(true, 0), (false, 0), (true, 2), (false, 2)] {
            let check = |texts| Circumstances { keeps_models, disks_lost }.check(&sent, &read(texts));
            assert_eq!(check("abc"), Ok(()));
            assert_eq!(check("ac"), lost("b"));
            assert_eq!(check("abcc"), extra("c"));
            assert!(check("aabc").is_err(), "a repeat in the middle");
            assert!(check("abcX").is_err() && check("abc?").is_err());
            let expected = Broken::OutOfPlace { expected: "\"a\"".into(), found: "\"b\"".into() };
            assert_eq!(check("bac"), if keeps_models { Err(expected) } else { Ok(()) });
        }
    }

    #[test]
    fn what_a_relay_may_read_keeps_its_place_among_the_others_as_long_as_the_relay_keeps_its_disk() {
        let sent = [sent("a", false, 0), sent("B", true, 0), sent("c", false, 0), sent("D", true, 0)];
        let check = |texts| Circumstances { keeps_models: true, disks_lost: 0 }.check(&sent, &read(texts));
        assert_eq!(check("aBcD"), Ok(()));
        assert!(check("BacD").is_err() && check("aDcB").is_err());
        assert!(check("ac").is_err() && check("aBcDD").is_err() && check("a?cD").is_err());
        let mut unsealed = read("aBcD");
        unsealed[0].is_sealed = false;
        let circumstances = Circumstances { keeps_models: true, disks_lost: 0 };
        assert!(circumstances.check(&sent, &unsealed).is_err(), "what was sealed came open");
    }

    #[test]
    fn a_lost_disk_excuses_what_a_relay_could_read_before_it_and_no_more() {
        let sent = [sent("a", false, 0), sent("B", true, 0), sent("C", true, 0), sent("D", true, 1)];
        let check = |texts| Circumstances { keeps_models: true, disks_lost: 1 }.check(&sent, &read(texts));
        for fine in ["aBCD", "BCDa", "aBCBCD", "aCD", "aD"] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        assert_eq!(check("aBC"), lost("D"));
        assert_eq!(check("BCD"), lost("a"));
        assert_eq!(check("aDD"), extra("D"));
        assert!(check("aCBD").is_err() && check("aDC").is_err() && check("a?D").is_err());
        assert_eq!(check("aDE"), extra("E"));
    }

    #[test]
    fn without_the_model_what_a_relay_may_read_may_be_unreadable() {
        let sent = [sent("a", false, 0), sent("b", false, 0), sent("C", true, 0), sent("D", true, 0)];
        let check = |texts| Circumstances { keeps_models: false, disks_lost: 0 }.check(&sent, &read(texts));
        for fine in ["abCD", "CDba", "b?aD", "??ab"] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        assert!(check("abDC").is_err() && check("abC").is_err() && check("abCD?").is_err());
        assert!(check("aCD?").is_err(), "what is sealed is read in the end");
    }
}
