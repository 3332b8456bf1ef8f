//! Counts how often rare paths are taken, so that a run of storms that never takes one of them does not pass.
//!
//! Client, relay and storms say in their logs what happens to them. [`Sometimes`] is a layer of [`tracing`] that counts what
//! is said, by its words; [`MUST_HAPPEN`] and [`RARE`] are the words that must be said at least once. A message that is
//! worded otherwise one day is missed at once.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// In the first so many storms that are left to their seeds, all of [`MUST_HAPPEN`] do.
pub const FIRST_STORMS: u64 = 200;

/// In any so many storms in a row that are, all of [`RARE`] do as well: in the first 1,000 the rarest was said six times. A turn of the
/// campaign has about as many.
pub const STORMS: u64 = 1_000;

/// What must be said in so many storms, by whom.
pub const MUST_HAPPEN: &[(&str, &str)] = &[
    ("thinpost_carrier", "early data was refused"),
    ("thinpost_carrier", "items are sent again"),
    ("thinpost_carrier", "the end of a handshake is confirmed again"),
    ("thinpost_carrier", "the handshake is said again"),
    ("thinpost_carrier", "the other end has another address"),
    ("thinpost_client", "a contact has coded with a text model that is not here"),
    ("thinpost_client", "messages are sent again"),
    ("thinpost_client", "refused: the recipient's mailbox is full"),
    ("thinpost_client", "refused: too many messages for now; again in # s"),
    ("thinpost_client", "the home's file failed"),
    ("thinpost_client", "the relay's store is another one"),
    ("thinpost_gateway", "a session takes the place of another one of its device"),
    ("thinpost_gateway", "an envelope was submitted again"),
    ("thinpost_netem", "UDP was blocked"),
    ("thinpost_netem", "a NAT had forgotten a socket"),
    ("thinpost_netem", "a client was killed"),
    ("thinpost_netem", "a commit of the relay failed: After"),
    ("thinpost_netem", "a commit of the relay failed: Before"),
    ("thinpost_netem", "a flow was cut"),
    ("thinpost_netem", "a home took no message: its disk is full"),
    ("thinpost_netem", "a link changed its rate"),
    ("thinpost_netem", "a link damaged packets"),
    ("thinpost_netem", "a link doubled packets"),
    ("thinpost_netem", "a link had gaps"),
    ("thinpost_netem", "a link lost packets on the air"),
    ("thinpost_netem", "a link's packets overtook each other"),
    ("thinpost_netem", "a link was dead when packets came"),
    ("thinpost_netem", "a link's queue was full"),
    ("thinpost_netem", "a link's radio had to wake up"),
    ("thinpost_netem", "a phone went into another network"),
    ("thinpost_netem", "a phone's clock was set back"),
    ("thinpost_netem", "a phone's clock was set forth"),
    ("thinpost_netem", "an object was handed over"),
    ("thinpost_netem", "one direction of a link is dead"),
    ("thinpost_netem", "the relay lost its disk"),
    ("thinpost_netem", "the relay's clock was set back"),
    ("thinpost_netem", "the relay's clock was set forth"),
    ("thinpost_netem", "the relay was killed"),
    ("thinpost_netem", "the relay was stopped"),
];

/// What must be said in [`STORMS`], by whom.
pub const RARE: &[(&str, &str)] = &[("thinpost_client", "an envelope came again")];

/// How often each thing was said, by the crate that said it.
pub type Counts = BTreeMap<(String, String), u64>;

/// Counts what is said. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Sometimes(Arc<Mutex<Counts>>);

impl Sometimes {
    /// The layer for a subscriber, which passes over all that is not ours.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        self.clone().with_filter(Targets::new().with_target("thinpost", LevelFilter::DEBUG))
    }

    /// What was counted since the last call.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What has not happened in so many storms, and must.
pub fn missing(
    counts: &Counts,
    storms: u64,
) -> impl Iterator<Item = &'static (&'static str, &'static str)> + use<'_> {
    let rare = if storms < STORMS { &[] } else { RARE };
    MUST_HAPPEN.iter().chain(rare).filter(|(who, what)| {
        let said = (String::from(*who), String::from(*what));
        counts.get(&said).is_none_or(|&count| count == 0)
    })
}

impl<S: Subscriber> Layer<S> for Sometimes {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let who = event.metadata().target().split("::").next().unwrap_or_default();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((who.to_owned(), words.together())).or_default() += 1;
    }
}

/// What an event says, and why.
#[derive(Default)]
struct Words {
    message: String,
    reason: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let words = match field.name() {
            "message" => &mut self.message,
            "reason" => &mut self.reason,
            _ => return,
        };
        let _ = write!(words, "{value:?}");
    }
}

impl Words {
    /// Both, with `#` in the place of each number.
    fn together(self) -> String {
        let Self { mut message, reason } = self;
        if !reason.is_empty() {
            let _ = write!(message, ": {reason}");
        }
        let mut words = String::new();
        for letter in message.chars() {
            match letter {
                '0'..='9' if words.ends_with('#') => {}
                '0'..='9' => words.push('#'),
                _ => words.push(letter),
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn what_is_said_is_counted_by_its_words() {
        let sometimes = Sometimes::default();
        let subscriber = tracing_subscriber::registry().with(sometimes.layer());
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "thinpost_client::driver", reason = %"again in 17 s", "refused");
            tracing::debug!(target: "thinpost_client::outbox", reason = %"again in 2 s", id = 7, "refused");
            tracing::debug!(target: "quinn", "refused");
            tracing::trace!(target: "thinpost_client", "refused");
        });
        let counts = sometimes.take();
        let said = ("thinpost_client".to_owned(), "refused: again in # s".to_owned());
        assert_eq!(missing(&counts, FIRST_STORMS).count(), MUST_HAPPEN.len());
        assert_eq!(missing(&counts, STORMS).count(), MUST_HAPPEN.len() + RARE.len());
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(said, 2)]);
        assert_eq!(sometimes.take(), Counts::new());
    }
}
