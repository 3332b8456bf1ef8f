//! How long nothing has answered, and when to ask again.
//!
//! The first timer that runs out sends the oldest items again. Loss comes in bursts, and what follows a lost packet at
//! once is likely to be lost as well, so where losses are no exception further timers are short: they send small items, and *polls*, which cost a few
//! bytes, in turn. After [`SILENT_AFTER`] in a row the path is taken for dead: from then on only polls leave,
//! at pauses that grow with the silence. The first answer to one sets everything free, so that what waits leaves as soon
//! as the path is back, and little is spent while it is not. `docs/decisions/0013-repeats-and-silence.md` has the figures.

use std::time::Duration;

use super::Time;

/// So many quick timers in a row without an answer make a silence.
const SILENT_AFTER: u32 = 10;

/// A quick timer is this part of a resend timer, which counts for as many.
const QUICKER: u32 = 4;

/// How many bytes of items one timer sends again: about one datagram, when a whole resend timer has passed; or
/// else a short text's worth, sealed.
const AGAIN_BYTES: usize = 1_000;
const QUICK_BYTES: usize = 256;

/// A poll leaves when a sixteenth of the silence so far has passed since the last: the end of a silence is noticed within
/// a sixteenth of its length, for some sixty polls in each hundredfold of time.
const POLLS_IN_SILENCE: u32 = 16;

/// No timer is shorter, as in QUIC (RFC 9002, section 6.1.2): where an answer took no time at all, polls would else leave without end
/// before any has passed.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// What is to leave when a timer has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The oldest items on their way, as many as have so many bytes, or a chunk.
    Again(usize),
    /// The oldest items on their way, if any have so few bytes, or else a poll.
    Short(usize),
    /// A poll.
    Poll,
}

/// How long answers may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    /// To what has just left.
    pub(super) first: Duration,
    /// To what asks again.
    pub(super) next: Duration,
    /// To a poll, most often.
    pub(super) round_trip: Duration,
}

/// The state of waiting for answers.
#[derive(Debug)]
pub(super) struct Silence {
    /// The longest pause between two polls.
    pause_max: Duration,
    /// The first send after rest, or the last answer after that; none while nothing is awaited.
    since: Option<Time>,
    timed_out_at: Time,
    /// Timers that have run out in a row, counted as quick ones after the first.
    timeouts: u32,
    /// Whether anything was heard since the last timer ran out.
    heard: bool,
    /// See [`Silence::may_ask_unasked`].
    asked_unasked_at: Option<Time>,
}

impl Silence {
    pub(super) fn new(pause_max: Duration) -> Self {
        Self {
            pause_max,
            since: None,
            timed_out_at: Time::default(),
            timeouts: 0,
            heard: true,
            asked_unasked_at: None,
        }
    }

    /// Something has left that is to be answered.
    pub(super) fn sent(&mut self, now: Time) {
        self.since.get_or_insert(now);
    }

    /// An acknowledgement has come. `news`: it tells of something that was not known, or lets something go; `more`:
    /// there is more to be answered.
    pub(super) fn heard(&mut self, now: Time, news: bool, more: bool) {
        self.heard = true;
        if news || !more {
            self.timeouts = 0;
            self.asked_unasked_at = None;
            self.since = more.then_some(now);
        }
    }

    /// No answer is awaited any more.
    pub(super) fn ended(&mut self) {
        self.timeouts = 0;
        self.asked_unasked_at = None;
        self.since = None;
    }

    /// A timer has run out, as [`Silence::due`] has set it.
    pub(super) fn timed_out(&mut self, now: Time, is_quick: bool) -> Ask {
        self.timeouts += if is_quick || self.timeouts == 0 { 1 } else { QUICKER };
        self.timed_out_at = now;
        self.heard = false;
        match self.timeouts {
            SILENT_AFTER.. => Ask::Poll,
            nth if nth % QUICKER == 1 => Ask::Again(AGAIN_BYTES),
            nth if nth % 2 == 1 => Ask::Short(QUICK_BYTES),
            _ => Ask::Poll,
        }
    }

    /// The path may be back, or another one: polls start anew.
    pub(super) fn restart(&mut self, now: Time) {
        self.since = Some(now);
        self.timed_out_at = now;
        self.timeouts = self.timeouts.max(SILENT_AFTER);
        self.heard = false;
    }

    /// Whether the path is taken for dead.
    pub(super) fn is_on(&self) -> bool {
        self.timeouts >= SILENT_AFTER && !self.heard
    }

    /// Whether a timer has run out since the last answer.
    pub(super) fn is_awaiting_again(&self) -> bool {
        self.timeouts > 0
    }

    /// The other end was heard in a silence, and does not know of what it is to answer: whether to ask at once. It may be
    /// heard again and again where it does not hear us, so not more often than polls leave anyway.
    pub(super) fn may_ask_unasked(&mut self, now: Time) -> bool {
        let since = self.since.unwrap_or(now);
        let pause = now.since(since) / POLLS_IN_SILENCE;
        let may_ask = self.is_on() && self.asked_unasked_at.is_none_or(|at| at + pause <= now);
        if may_ask {
            self.asked_unasked_at = Some(now);
            self.timed_out_at = now;
        }
        may_ask
    }

    /// Since when an answer is awaited.
    pub(super) fn since(&self) -> Option<Time> {
        self.since
    }

    /// When the timer runs out: so long after the oldest send on its way, the last answer and the last timer.
    /// After the first, timers may be quick.
    pub(super) fn due(
        &self,
        oldest_on_its_way: Option<Time>,
        pauses: Pauses,
        is_quick: bool,
    ) -> Option<Time> {
        let since = self.since?;
        let base = oldest_on_its_way.unwrap_or(since).max(since).max(self.timed_out_at);
        let pause = match self.timeouts {
            0 => pauses.first,
            SILENT_AFTER.. => {
                let silence = self.timed_out_at.since(since);
                (silence / POLLS_IN_SILENCE).min(self.pause_max).max(pauses.round_trip)
            }
            _ if is_quick => pauses.next / QUICKER,
            _ => pauses.next,
        };
        Some(base + pause.max(PAUSE_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMER: Duration = Duration::from_secs(1);
    const PAUSES: Pauses = Pauses { first: TIMER, next: TIMER, round_trip: TIMER };

    /// The moments at which timers run out in a silence of this length.
    fn polls(pause_max: Duration, silence: Duration) -> Vec<Duration> {
        let mut silent = Silence::new(pause_max);
        silent.sent(Time::default());
        let mut moments = Vec::new();
        loop {
            let at = silent.due(None, PAUSES, true).unwrap();
            if at.since_start() > silence {
                return moments;
            }
            silent.timed_out(at, true);
            moments.push(at.since_start());
        }
    }

    #[test]
    fn polls_get_rarer_with_the_silence_up_to_a_bound() {
        let moments = polls(Duration::from_secs(45), Duration::from_secs(30 * 60));
        assert!(moments.len() < 120, "{}", moments.len());
        for pair in moments.windows(2) {
            let pause = pair[1] - pair[0];
            assert!(pause <= (pair[1] / 15).max(TIMER).min(Duration::from_secs(45)), "{pair:?}");
        }
        let hours = polls(Duration::from_secs(3600), Duration::from_secs(12 * 3600));
        assert!(hours.len() < 160, "half a day: {}", hours.len());
    }

    #[test]
    fn without_quick_timers_all_is_sent_again_each_time_until_the_silence() {
        let mut silence = Silence::new(Duration::from_secs(45));
        silence.sent(Time::default());
        for n in 1..=3 {
            let at = silence.due(None, PAUSES, false).unwrap();
            assert_eq!(at.since_start(), TIMER * n);
            assert_eq!(silence.timed_out(at, false), Ask::Again(AGAIN_BYTES));
            assert!(!silence.is_on());
        }
        assert_eq!(silence.timed_out(Time::after_start(TIMER * 4), false), Ask::Poll);
        assert!(silence.is_on());
    }

    #[test]
    fn an_answer_ends_a_silence_and_one_without_news_keeps_its_pauses() {
        let mut silence = Silence::new(Duration::from_secs(45));
        silence.sent(Time::default());
        for n in 1..=SILENT_AFTER {
            assert!(!silence.is_on());
            silence.timed_out(Time::after_start(TIMER * n), true);
        }
        assert!(silence.is_on());
        let now = Time::after_start(TIMER * 100);
        silence.heard(now, false, true);
        assert!(!silence.is_on(), "what is pushed now need not wait");
        assert_eq!(silence.since(), Some(Time::default()));
        silence.heard(now, true, true);
        assert_eq!((silence.timeouts, silence.since()), (0, Some(now)));
        silence.heard(now, true, false);
        assert_eq!(silence.due(None, PAUSES, true), None);
    }

    #[test]
    fn small_items_and_polls_take_turns_until_the_silence() {
        let mut silence = Silence::new(Duration::from_secs(45));
        silence.sent(Time::default());
        let mut asked = Vec::new();
        for _ in 0..SILENT_AFTER {
            let at = silence.due(None, PAUSES, true).unwrap();
            asked.push((at.since_start().as_millis(), silence.timed_out(at, true)));
        }
        let (full, quick) = (Ask::Again(AGAIN_BYTES), Ask::Short(QUICK_BYTES));
        assert_eq!(
            asked[..5],
            [(1000, full), (1250, Ask::Poll), (1500, quick), (1750, Ask::Poll), (2000, full)]
        );
        assert_eq!(asked[9], (3250, Ask::Poll));
    }

    #[test]
    fn whoever_is_heard_in_a_silence_is_asked_at_once_and_not_too_often() {
        let mut silence = Silence::new(Duration::from_secs(45));
        silence.sent(Time::default());
        let at = |seconds: u64| Time::after_start(Duration::from_secs(seconds));
        assert!(!silence.may_ask_unasked(at(1)), "it is no silence yet");
        for n in 1..=SILENT_AFTER {
            silence.timed_out(Time::after_start(TIMER * n), true);
        }
        assert!(silence.may_ask_unasked(at(160)));
        assert!(!silence.may_ask_unasked(at(169)));
        assert!(silence.may_ask_unasked(at(171)));
        silence.heard(at(171), true, true);
        assert!(!silence.may_ask_unasked(at(200)), "it is none any more");
    }

    #[test]
    fn polls_in_a_silence_need_not_wait_for_the_timer() {
        let mut silence = Silence::new(Duration::from_secs(45));
        silence.sent(Time::default());
        for n in 1..=SILENT_AFTER {
            silence.timed_out(Time::after_start(TIMER * n), true);
        }
        let due = silence.due(None, Pauses { round_trip: TIMER / 2, ..PAUSES }, true).unwrap();
        assert_eq!(due, Time::after_start(TIMER * SILENT_AFTER + TIMER * SILENT_AFTER / 16));
    }

    #[test]
    fn some_time_passes_between_polls_where_answers_take_none() {
        let mut silence = Silence::new(Duration::from_secs(45));
        let now = Time::after_start(TIMER);
        silence.restart(now);
        let pauses = Pauses { first: Duration::ZERO, next: Duration::ZERO, round_trip: Duration::ZERO };
        assert_eq!(silence.due(None, pauses, true), Some(now + PAUSE_MIN));
    }

    #[test]
    fn a_restart_polls_as_if_the_silence_had_just_begun() {
        let mut silence = Silence::new(Duration::from_secs(45));
        silence.sent(Time::default());
        for n in 1..=30 {
            silence.timed_out(Time::after_start(TIMER * 100 * n), true);
        }
        let now = Time::after_start(TIMER * 1_000);
        silence.restart(now);
        assert!(silence.is_on());
        assert_eq!(silence.due(None, PAUSES, true), Some(now + TIMER));
    }
}
