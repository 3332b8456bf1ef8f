//! What an application is shown: each message of the inbox once, in the order of their numbers, over all restarts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thinpost_client::{Client, Event, InboxNumber};

use super::Broken;

/// What somebody's application was shown so far.
#[derive(Clone, Default)]
pub(super) struct Shown(Arc<Mutex<Log>>);

#[derive(Clone, Copy, Default)]
struct Log {
    last: u64,
    /// The first message that was not the next.
    stray: Option<u64>,
}

impl Shown {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads along until the client ends, from where the application was.
    pub(super) fn follow(&self, client: &Client) {
        let mut news = client.subscribe(InboxNumber(self.log().last));
        let shown = self.clone();
        tokio::spawn(async move {
            while let Some(event) = news.next().await {
                if let Event::Received(message) = event {
                    shown.log().show(message.number);
                }
            }
        });
    }

    /// Whether all that was received was shown, once and in order.
    pub(super) fn check(&self, who: &'static str, received: InboxNumber) -> Result<(), Broken> {
        let Log { last, stray } = *self.log();
        match stray.or((last != received.0).then_some(received.0)) {
            Some(found) => Err(Broken::Shown { who, expected: last + 1, found }),
            None => Ok(()),
        }
    }
}

impl Log {
    fn show(&mut self, InboxNumber(number): InboxNumber) {
        if number == self.last + 1 && self.stray.is_none() {
            self.last = number;
        } else {
            self.stray.get_or_insert(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_to_be_shown_once_and_in_order() {
        let check = |numbers: &[u64]| {
            let shown = Shown::default();
            numbers.iter().for_each(|number| shown.log().show(InboxNumber(*number)));
            shown.check("ann", InboxNumber(3))
        };
        let stray = |expected, found| Err(Broken::Shown { who: "ann", expected, found });
        assert_eq!(check(&[1, 2, 3]), Ok(()));
        assert_eq!(check(&[1, 2]), stray(3, 3));
        assert_eq!(check(&[1, 2, 2, 3]), stray(3, 2));
        assert_eq!(check(&[1, 3, 2]), stray(2, 3));
        assert_eq!(check(&[1, 2, 3, 4]), stray(5, 3));
    }
}
