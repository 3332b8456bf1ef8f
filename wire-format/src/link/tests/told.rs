//! What leaves next, once a link was told something or has waited in vain, datagram by datagram.

use super::*;

/// What a datagram says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    items: Vec<u64>,
    poll: bool,
    ack: Option<u64>,
    is_chunk: bool,
}

impl Said {
    fn items(items: impl IntoIterator<Item = u64>) -> Option<Self> {
        Some(Self { items: items.into_iter().collect(), ..Self::default() })
    }

    fn poll() -> Option<Self> {
        Some(Self { poll: true, ..Self::default() })
    }
}

/// A link, and what it hears.
struct End {
    link: Link,
    now: Time,
}

impl End {
    fn new(is_rtt_measured: bool) -> Self {
        let link = Link::new(LinkConfig {
            initial_rtt: Duration::from_millis(700),
            is_rtt_measured,
            peer_has: DictionarySet::EMPTY,
            poll_pause_max: Duration::from_secs(45),
        });
        Self { link, now: Time::default() }
    }

    /// One that has sent so many frames of 60 bytes, a second apart.
    fn having_sent(count: u64) -> Self {
        let mut end = Self::new(false);
        for number in 1..=count {
            end.link.push(vec![number as u8; 60]);
            assert_eq!(end.next(), Said::items([number]));
            end.now = Time::after_start(Duration::from_secs(number));
        }
        end
    }

    fn next(&mut self) -> Option<Said> {
        let datagram = self.link.poll_transmit(self.now, 1_160)?;
        let content = codec::decode(&datagram, BATCH_DECODED_BYTES_MAX).unwrap();
        let batch = batch::decode(&content).unwrap();
        let items = batch.items.iter().map(|item| item.number).collect();
        let ack = batch.ack.map(|ack| ack.watermark);
        Some(Said { items, poll: batch.poll, ack, is_chunk: batch.chunk.is_some() })
    }

    fn hear(&mut self, batch: Batch<'_>) {
        let mut datagram = vec![0];
        batch.encode(&mut datagram);
        self.link.handle_datagram(self.now, &datagram).unwrap();
    }

    fn hear_ack(&mut self, watermark: u64, received: &[(u64, u64)]) {
        let ack = batch::Ack { watermark, received: received.to_vec() };
        self.hear(Batch { ack: Some(ack), ..Batch::default() });
    }

    fn hear_item(&mut self, number: u64) {
        self.hear(Batch {
            items: vec![batch::Item { number, more: false, bytes: b"x" }],
            ..Batch::default()
        });
    }

    /// Lets the next timer run out, and says after how long.
    fn wait(&mut self) -> Duration {
        let at = self.link.poll_timeout().unwrap();
        let waited = at.since(self.now);
        self.now = at;
        self.link.handle_timeout(at);
        waited
    }

    /// Hears nothing until the path is taken for dead.
    fn wait_for_silence(&mut self) {
        while self.link.silent_for(self.now).is_none() {
            self.wait();
            while self.next().is_some() {}
        }
    }

    /// One on a path whose round trip is known and that loses every other frame once.
    fn on_a_lossy_path() -> Self {
        let mut end = Self::new(true);
        for number in 1..=20 {
            end.link.push(vec![7; 60]);
            assert_eq!(end.next(), Said::items([number]));
            if number % 2 == 0 {
                end.wait();
                assert_eq!(end.next(), Said::items([number]));
            }
            end.now = end.now + Duration::from_millis(700);
            end.hear_ack(number, &[]);
        }
        end
    }

    /// Sends until no more may leave, and says how many datagrams that were.
    fn fill(&mut self) -> usize {
        std::iter::from_fn(|| self.next()).count()
    }
}

#[test]
fn what_has_left_once_is_no_backlog() {
    let mut end = End::new(false);
    for number in 1..=3 {
        end.link.push(vec![number; 60]);
        assert_eq!(end.link.backlog_bytes(), usize::from(number) * 60);
    }
    assert!(end.link.poll_transmit(end.now, 100).is_some(), "one of them");
    assert_eq!(end.link.backlog_bytes(), 120);
    assert_eq!(end.next(), Said::items(2..=3));
    assert_eq!(end.link.backlog_bytes(), 0);
    end.link.resend_all();
    assert_eq!((end.link.backlog_bytes(), end.link.resent_items()), (0, 0));
    assert_eq!(end.next(), Said::items(1..=3));
    assert_eq!((end.link.backlog_bytes(), end.link.resent_items()), (0, 3));
}

#[test]
fn what_had_left_by_a_moment_leaves_again_and_nothing_else() {
    let mut end = End::having_sent(3);
    assert_eq!(end.next(), None);
    end.link.lose_until(Time::after_start(Duration::from_secs(1)));
    assert_eq!(end.next(), Said::items([1, 2]));
    assert_eq!(end.next(), None);
    assert_eq!(end.link.resent_items(), 2);
}

#[test]
fn once_the_path_is_open_all_leaves_again_and_the_silence_is_over() {
    let mut end = End::having_sent(3);
    end.wait_for_silence();
    assert_eq!(end.next(), None);
    end.link.path_is_open(end.now);
    assert_eq!(end.next(), Said::items([1, 2, 3]));
    assert_eq!(end.link.silent_for(end.now), None);
}

#[test]
fn a_poked_link_asks_and_keeps_what_it_has_until_something_answers() {
    let mut end = End::having_sent(2);
    end.link.poke(end.now);
    assert_eq!(end.next(), Said::poll());
    assert_eq!(end.next(), None);
    assert_eq!(end.link.silent_for(end.now), Some(Duration::ZERO));
    end.hear_ack(0, &[(2, 2)]);
    assert_eq!(end.next(), Said::items([1]), "the other has arrived");
}

#[test]
fn a_link_that_is_to_ask_does_so_at_once_even_at_rest() {
    let mut end = End::new(false);
    assert!(end.link.is_at_rest());
    end.link.ask();
    assert_eq!(end.next(), Said::poll());
    assert_eq!(end.next(), None);
}

#[test]
fn the_oldest_that_fit_ride_even_in_a_silence() {
    let mut end = End::having_sent(4);
    end.wait_for_silence();
    let ride = |end: &mut End, bytes_max| {
        end.link.resend_all();
        end.link.path_is_open(end.now);
        assert_eq!(end.next(), Said::items([1, 2, 3, 4]));
        end.link.ride(bytes_max);
        let rode = end.next();
        assert_eq!(end.next(), None);
        rode
    };
    assert_eq!(ride(&mut end, 119), Said::items([1]));
    assert_eq!(ride(&mut end, 120), Said::items([1, 2]));
    end.wait_for_silence();
    end.link.ride(60);
    assert_eq!(end.next(), Said::items([1, 2, 3, 4]), "in a silence all of it waits already");
}

#[test]
fn whoever_is_heard_in_a_silence_and_does_not_answer_gets_one_datagram_of_what_waits() {
    let mut end = End::having_sent(2);
    end.hear_item(1);
    assert_eq!(end.next(), None, "it is no silence");
    end.wait_for_silence();
    end.now = end.now + Duration::from_secs(60);
    end.hear_item(2);
    let said = end.next().unwrap();
    assert_eq!((said.items, said.poll), (vec![1, 2], false));

    let mut end = End::having_sent(1);
    end.hear_ack(0, &[(1, 1)]);
    end.wait_for_silence();
    end.now = end.now + Duration::from_secs(60);
    end.hear_item(1);
    let said = end.next().unwrap();
    assert!(said.items.is_empty() && said.poll, "it has arrived and is not settled");
}

#[test]
fn what_leaves_for_the_first_time_repeats_no_acknowledgement_and_what_leaves_again_does() {
    let mut end = End::having_sent(1);
    end.hear_item(1);
    assert!(matches!(end.link.poll_event(), Some(Event::Frame { number: 1, .. })));
    end.link.settle(end.now, 1);
    assert_eq!(end.next(), Some(Said { ack: Some(1), ..Said::default() }));
    end.link.push(vec![2; 60]);
    assert_eq!(end.next(), Said::items([2]));
    end.link.resend_all();
    assert_eq!(end.next(), Some(Said { items: vec![1, 2], ack: Some(1), ..Said::default() }));
}

#[test]
fn what_three_later_datagrams_have_overtaken_is_lost_and_leaves_again() {
    let mut end = End::new(false);
    for number in 1..=4 {
        end.link.push(vec![number; 60]);
        end.next();
    }
    end.now = Time::after_start(Duration::from_millis(700));
    end.hear_ack(0, &[(3, 3)]);
    assert_eq!(end.next(), None, "two may have overtaken it on the way");
    end.hear_ack(0, &[(3, 4)]);
    assert_eq!(end.next(), Said::items([1]));
}

#[test]
fn no_more_is_on_its_way_than_the_window_has_which_grows_with_what_arrives() {
    let mut end = End::new(true);
    for _ in 0..200 {
        end.link.push_noise(vec![7; 1_000]);
    }
    let first = end.fill();
    assert!((2..30).contains(&first), "{first}");
    end.link.resend_all();
    assert_eq!(end.fill(), first, "what is lost is not on its way");
    end.now = Time::after_start(Duration::from_millis(700));
    end.hear_ack(first as u64, &[]);
    let second = end.fill();
    assert!(second > first, "{second} after {first}");
}

#[test]
fn a_round_trip_is_timed_by_what_left_once() {
    let at = |ms| Time::after_start(Duration::from_millis(ms));
    let mut end = End::having_sent(1);
    assert_eq!((end.link.rtt(), end.link.least_rtt()), (Duration::from_millis(700), None));
    end.now = at(300);
    end.hear_ack(1, &[]);
    assert_eq!(end.link.least_rtt(), Some(Duration::from_millis(300)));
    let rtt = end.link.rtt();
    assert!(rtt >= Duration::from_millis(300) && rtt <= Duration::from_millis(700), "{rtt:?}");
    end.link.push(vec![2; 60]);
    end.next();
    end.link.resend_all();
    end.now = at(400);
    end.next();
    end.now = at(410);
    end.hear_ack(2, &[]);
    assert_eq!(
        (end.link.rtt(), end.link.least_rtt()),
        (rtt, Some(Duration::from_millis(300))),
        "of which one?"
    );
}

#[test]
fn items_that_are_settled_make_room_for_others() {
    let mut end = End::having_sent(3);
    assert_eq!(end.link.free_items(), WINDOW_ITEMS - 3);
    end.hear_ack(2, &[]);
    assert_eq!(end.link.free_items(), WINDOW_ITEMS - 1);
}

#[test]
fn only_news_begins_the_wait_anew() {
    let silent_after_four_timers = |acks: [&[(u64, u64)]; 3]| {
        let mut end = End::having_sent(2);
        for ack in acks {
            end.wait();
            while end.next().is_some() {}
            end.hear_ack(0, ack);
        }
        end.wait();
        end.link.silent_for(end.now).is_some()
    };
    assert!(silent_after_four_timers([&[], &[], &[]]));
    assert!(!silent_after_four_timers([&[], &[], &[(1, 1)]]));
    assert!(!silent_after_four_timers([&[(1, 1)], &[(1, 1)], &[(1, 1)]]), "three timers since the news");
    let mut end = End::having_sent(2);
    end.hear_ack(0, &[(1, 1)]);
    for _ in 0..3 {
        end.wait();
        while end.next().is_some() {}
        end.hear_ack(0, &[(1, 1)]);
    }
    end.wait();
    assert!(end.link.silent_for(end.now).is_some(), "it was said before");
}

#[test]
fn what_waits_for_the_window_makes_no_news_of_an_answer() {
    let mut end = End::new(true);
    for _ in 0..100 {
        end.link.push_noise(vec![7; 1_000]);
    }
    end.fill();
    for _ in 0..3 {
        end.wait();
        // Nor does that take away what the timer let go.
        end.hear_ack(0, &[]);
        assert!(end.next().is_some());
        end.fill();
    }
    end.wait();
    assert!(end.link.silent_for(end.now).is_some());
}

#[test]
fn timers_are_quick_after_the_first_where_losses_are_no_exception() {
    let mut end = End::on_a_lossy_path();
    end.link.push(vec![7; 60]);
    end.next();
    let first = end.wait();
    while end.next().is_some() {}
    let second = end.wait();
    assert!(second * 2 < first, "{second:?} after {first:?}");
}

#[test]
fn a_quick_timer_is_a_poll_where_nothing_short_is_on_its_way() {
    let mut end = End::on_a_lossy_path();
    for _ in 0..100 {
        end.link.push_noise(vec![7; 1_000]);
    }
    end.fill();
    let mut asked = Vec::new();
    for _ in 0..3 {
        end.wait();
        asked.extend(std::iter::from_fn(|| end.next()));
    }
    assert_eq!(
        asked.iter().map(|said| (said.items.len(), said.poll)).collect::<Vec<_>>(),
        [(1, false), (0, true), (0, true)]
    );
}

#[test]
fn what_may_not_leave_yet_makes_no_timer_a_vain_one() {
    let mut end = End::new(true);
    for _ in 0..WINDOW_ITEMS + 1 {
        end.link.push(b"x".to_vec());
    }
    end.fill();
    end.hear_ack(0, &[(1, WINDOW_ITEMS)]);
    end.wait();
    assert_eq!(end.next(), Said::poll());
}

/// How many texts of these lengths leave between chunks before anything is answered, again and again.
fn sent_between_chunks(lengths: &[usize]) -> usize {
    let mut end = End::on_a_lossy_path();
    end.link.send_object(OBJECT, 200_000, RangeSet::new());
    for &length in lengths {
        end.link.push(vec![8; length]);
    }
    let (mut sent, mut chunks, mut chunks_before) = (0, 0, None);
    let until = end.now + Duration::from_secs(3);
    while end.now <= until {
        while let Some(Want { transfer, bytes }) = end.link.want() {
            let supply = vec![9; (bytes.end - bytes.start) as usize];
            end.link.supply(transfer, bytes.start, supply.into());
        }
        while let Some(said) = end.next() {
            sent += said.items.len();
            chunks += usize::from(said.is_chunk);
            if !said.items.is_empty() {
                assert_ne!(
                    chunks_before.replace(chunks),
                    Some(chunks),
                    "no copy before a chunk has left since"
                );
            }
        }
        end.now = end.now + Duration::from_millis(5);
    }
    assert!(chunks >= 5, "{chunks}");
    sent
}

#[test]
fn a_chunk_that_cannot_be_made_sets_no_timer() {
    let mut end = End::new(true);
    end.link.send_object(OBJECT, 40_000, RangeSet::new());
    end.link.supply(OBJECT, 0, vec![7; 1_000].into());
    assert_eq!(end.next(), None, "the rest of a datagram is to be handed over");
    assert_eq!(end.link.poll_timeout(), None);
    end.link.supply(OBJECT, 1_000, vec![7; 1_000].into());
    assert!(end.next().unwrap().is_chunk);
    end.link.supply(OBJECT, 2_000, vec![7; 8_000].into());
    end.next();
    let at = end.link.poll_timeout().unwrap();
    assert!(at > end.now && at < end.now + Duration::from_millis(700), "{at:?}");

    // Where there is no room for any.
    end.now = at;
    assert_eq!(end.link.poll_transmit(end.now, 4), None);
    assert!(end.link.poll_timeout().is_some_and(|at| at > end.now));
    assert!(end.next().unwrap().is_chunk);
}

#[test]
fn nothing_is_awaited_for_an_object_that_is_not_sent_any_more() {
    let mut end = End::new(true);
    end.link.send_object(OBJECT, 1_000, RangeSet::new());
    end.link.supply(OBJECT, 0, vec![7; 1_000].into());
    assert!(end.next().unwrap().is_chunk);
    end.hear_ack(0, &[]);
    end.link.stop_object(OBJECT);
    assert!(end.link.is_at_rest());
    assert_eq!(end.link.poll_timeout(), None);

    end.link.push(vec![7; 60]);
    end.next();
    end.link.send_object(Transfer(2), 1_000, RangeSet::new());
    end.link.stop_object(Transfer(2));
    assert!(end.link.poll_timeout().is_some(), "an item is");
}

#[test]
fn short_texts_leave_a_few_times_between_chunks_where_losses_are_no_exception() {
    assert_eq!(sent_between_chunks(&[60]), 4);
    assert_eq!(sent_between_chunks(&[128, 128]), 8);
    assert_eq!(sent_between_chunks(&[257]), 1);
}

#[test]
fn a_dictionary_that_was_not_used_is_no_reason_to_send_anything_again() {
    let unreadable = |tag| Batch { unreadable: Some(tag), ..Batch::default() };
    let mut end = End::new(true);
    end.link.set_peer_dictionaries(DictionarySet::compiled_in());
    for _ in 0..100 {
        end.link.push_noise(vec![7; 1_000]);
    }
    let filled = end.fill();
    for tag in [0, 1, 3, 16 + 31, 48, 64, 255] {
        end.hear(unreadable(tag));
        assert_eq!(end.next(), None, "{tag}");
    }
    end.hear(unreadable(16));
    assert_eq!(end.fill(), filled, "everything leaves again without it");
    end.hear(unreadable(16));
    assert_eq!(end.next(), None, "it is not used any more");
    end.link.set_peer_dictionaries(DictionarySet::compiled_in());
    end.hear(unreadable(16));
    assert_eq!(end.next(), None, "nor is it again");
}

#[test]
fn what_has_left_many_times_is_coded_no_more() {
    let mut end = End::new(true);
    end.link.set_peer_dictionaries(DictionarySet::compiled_in());
    end.link.push("See you at eight, bring the keys. ".repeat(20));
    let raw: Vec<_> = (0..9)
        .map(|_| {
            end.link.resend_all();
            end.link.poll_transmit(end.now, 1_160).unwrap()[0] == 0
        })
        .collect();
    assert_eq!(raw, [false, false, false, false, false, false, false, false, true]);
}

#[test]
fn texts_that_shrink_fill_datagrams() {
    let mut end = End::new(true);
    end.link.set_peer_dictionaries(DictionarySet::compiled_in());
    let mut dice = Dice(5);
    for _ in 0..100 {
        let digits: String = (0..12).map(|_| format!("{:08x}", dice.roll())).collect();
        end.link.push(digits);
    }
    let datagrams: Vec<_> = std::iter::from_fn(|| end.link.poll_transmit(end.now, 1_160)).take(4).collect();
    let lens: Vec<_> = datagrams.iter().map(Vec::len).collect();
    assert!(lens[1] > 900, "{lens:?}");
}

#[test]
fn timers_are_not_quick_where_losses_are_rare_or_no_answer_was_ever_timed() {
    for is_rtt_measured in [false, true] {
        let mut end = End::new(is_rtt_measured);
        end.link.push(vec![7; 60]);
        end.next();
        let first = end.wait();
        assert_eq!(end.next(), Said::items([1]));
        let second = end.wait();
        assert!(second >= first, "{second:?} after {first:?}");
        assert_eq!(end.next(), Said::items([1]));
    }
}

#[test]
fn polls_do_not_leave_without_end_where_answers_take_no_time() {
    let mut end = End::having_sent(1);
    let ack = Batch { ack: Some(batch::Ack { watermark: 1, received: vec![] }), ..Batch::default() };
    let mut datagram = vec![0];
    ack.encode(&mut datagram);
    end.now = Time::default();
    end.link.handle_datagram(end.now, &datagram).unwrap();
    assert_eq!(end.link.rtt(), Duration::ZERO);
    end.link.poke(end.now);
    assert_eq!(end.next(), Said::poll());
    assert!(end.link.poll_timeout().is_some_and(|at| at > end.now));
}
