//! What must hold in a storm.

use std::collections::BTreeSet;
use std::time::Duration;

use thinpost_client::{Event, InboxNumber, ObjectId, ReceivedContent, Status};
use tokio::time::{sleep, timeout};

use crate::models::with_greek;

use super::sent::Read;
use super::{LifeCounts, NAMES, Put, Storm};

/// How long nobody may have anything to say at the end, once they have been connected for so long: what QUIC says again it says at
/// pauses that double, and some links lose a third.
const REST: Duration = Duration::from_secs(2 * 3_600);
const SETTLING: Duration = Duration::from_secs(6 * 3_600);

/// What keep-alives every 20 s and what answers them may be in an hour, on a link that loses a third.
const KEPT_ALIVE_BYTES: u64 = 60_000;

/// What an object that somebody asks for may take to come. A censor may cut its way twice, and a client gives up a connection after an hour of silence
/// at the latest: on a link in a burst of losses a dozen knocks in a row, all it sends to find out sooner, may be lost.
const FETCHING_MAX: Duration = Duration::from_secs(3 * 3_600);

/// What a message may cost beside its text, with both its ways and its receipt; how often all content may go each way; and
/// what a fault may cost, with the connections that follow. What storms needed most, and half as much again.
const MESSAGE_BYTES: u64 = 400;
const TIMES: u64 = 4;
const FAULT_BYTES: u64 = 20_000;

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A message was sent and is not in the inbox.
    #[error("{0} was lost")]
    Lost(String),
    /// It is there, but where another belongs.
    #[error("{found} came where {expected} belongs")]
    OutOfPlace {
        /// What was sent as the next.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// More is there than was sent.
    #[error("{0} came after everything had come")]
    Extra(String),
    /// A client says that messages failed, still wait, or were never confirmed.
    #[error("{who} says that {failed} failed, {waiting} wait and {unconfirmed} are not confirmed")]
    Unfinished {
        /// Whose client.
        who: &'static str,
        /// Messages that failed or were abandoned.
        failed: u64,
        /// Messages in the outbox.
        waiting: u64,
        /// Messages in custody without a receipt.
        unconfirmed: u64,
    },
    /// A count that only grows has gone back.
    #[error("{who} had {had} {what} and says now that it is {has}")]
    WentBack {
        /// Whose client.
        who: &'static str,
        /// What is counted.
        what: &'static str,
        /// What they said before.
        had: u64,
        /// What they say now.
        has: u64,
    },
    /// An application was shown another message than the next of the inbox.
    #[error("{who} was shown message {found} of the inbox where {expected} is the next")]
    Shown {
        /// Whose application.
        who: &'static str,
        /// The number of the one that it is to be shown.
        expected: u64,
        /// The number of the one that it was shown, or of the last there is.
        found: u64,
    },
    /// An object is not where it was to be, or is another one.
    #[error("{who} has no object {id} as it was put: {what}")]
    Object {
        /// Whose client.
        who: &'static str,
        /// Which object.
        id: ObjectId,
        /// What there is instead.
        what: String,
    },
    /// More went on the air than everything together can have needed.
    #[error("{bytes} B went on the air, of {budget} at most")]
    OverBudget {
        /// What went on all links, both ways.
        bytes: u64,
        /// What it may have been.
        budget: u64,
    },
    /// Everything has arrived, and somebody still has something to say.
    #[error("no rest: {0}")]
    NoRest(String),
}

impl Storm {
    /// Nothing that only grows has become less, whoever was killed in between.
    pub(super) async fn check_counts(&mut self, who: usize) -> Result<(), Broken> {
        let life = &mut self.lives[who];
        if life.disk_is_full {
            return Ok(());
        }
        let status = life.person.client().status().await.expect("a home in memory can be read");
        let before = std::mem::replace(
            &mut life.counts,
            LifeCounts { received: status.received.0, custody: status.custody },
        );
        let counts = [
            ("received", before.received, status.received.0),
            ("in custody", before.custody, status.custody),
        ];
        match counts.into_iter().find(|(_, had, has)| has < had) {
            Some((what, had, has)) => Err(Broken::WentBack { who: life.person.name(), what, had, has }),
            None => Ok(()),
        }
    }

    /// The relay has every object that was handed over, unless it lost its disk, and gives it to another person as it was.
    pub(super) async fn check_objects(&self) -> Result<(), Broken> {
        if self.disks_lost > 0 {
            return Ok(());
        }
        for Put { who, id, bytes } in &self.objects {
            let other = &self.lives[(who + 1) % self.lives.len()].person;
            let broken = |what: String| Broken::Object { who: other.name(), id: *id, what };
            let mut news = other.client().subscribe(InboxNumber(u64::MAX));
            other.client().fetch_object(*id).await.expect("a home in memory can be written");
            let arrived = async {
                loop {
                    match news.next().await {
                        Some(Event::ObjectArrived { id: arrived }) if arrived == *id => return Ok(()),
                        Some(Event::ObjectFailed { id: failed, reason }) if failed == *id => {
                            return Err(broken(reason.to_string()));
                        }
                        Some(_) => {}
                        None => return Err(broken("the client has ended".to_owned())),
                    }
                }
            };
            timeout(FETCHING_MAX, arrived).await.map_err(|_| broken("it does not come".to_owned()))??;
            let found = other.client().object(*id).await.expect("a home in memory can be read");
            if found.as_ref() != Some(bytes) {
                return Err(broken(format!("{:?} B of other content", found.map(|found| found.len()))));
            }
        }
        Ok(())
    }

    /// Bytes that still go on the air when everyone is connected, without keep-alives, and everything has arrived. Whatever might
    /// come twice has this long to do so.
    pub(super) async fn rest(&mut self) -> u64 {
        for life in &mut self.lives {
            life.person.kill().await;
            sleep(Duration::from_millis(2)).await;
            let client = life.person.open_with(|builder| builder.models(with_greek()));
            life.shown.follow(client);
            client.connect();
        }
        sleep(SETTLING).await;
        let before = self.air_bytes();
        sleep(REST).await;
        self.air_bytes() - before
    }

    /// Nobody had anything to say, and the relay keeps no envelope.
    pub(super) fn check_rest(&self, bytes: u64) -> Result<(), Broken> {
        if bytes > 0 {
            return Err(Broken::NoRest(format!("{bytes} B in two hours")));
        }
        let counts = self.world.store().counts().expect("a store in memory can be read");
        if counts.entries > 0 {
            return Err(Broken::NoRest(format!("the relay still has {} envelopes", counts.entries)));
        }
        Ok(())
    }

    /// What went on the air until everything had arrived is what all that happened can account for.
    pub(super) fn check_budget(&self, took: Duration, bytes: u64) -> Result<(), Broken> {
        let texts: usize = self.sent.iter().flatten().flatten().map(|sent| sent.text.len()).sum();
        let objects: usize = self.objects.iter().map(|put| put.bytes.len()).sum();
        let content = texts as u64 + self.messages() * MESSAGE_BYTES + objects as u64;
        let hours = took.as_secs_f64() / 3_600.0;
        let kept_alive = (hours * (KEPT_ALIVE_BYTES * self.lives.len() as u64) as f64) as u64;
        let budget = content * TIMES + self.faults * FAULT_BYTES + kept_alive;
        if bytes > budget { Err(Broken::OverBudget { bytes, budget }) } else { Ok(()) }
    }

    /// Whether all arrived, once and in order, and everyone knows of it.
    pub(super) async fn check(&mut self) -> Result<(), Broken> {
        for who in 0..self.lives.len() {
            self.check_counts(who).await?;
        }
        for (who, person) in self.lives.iter().map(|life| &life.person).enumerate() {
            let status = person.client().status().await.expect("a home in memory can be read");
            self.lives[who].shown.check(person.name(), status.received)?;
            let Status { failed, abandoned, waiting, unconfirmed, .. } = status;
            if failed + abandoned + waiting + unconfirmed > 0 {
                let failed = failed + abandoned;
                return Err(Broken::Unfinished { who: person.name(), failed, waiting, unconfirmed });
            }
            for (from, read) in self.inbox(who).await?.into_iter().enumerate() {
                self.circumstances(who).check(&self.sent[from][who], &read)?;
            }
        }
        Ok(())
    }

    /// What stands in somebody's inbox, by who has sent it.
    async fn inbox(&self, who: usize) -> Result<Vec<Vec<Read>>, Broken> {
        let inbox = self.lives[who].person.client().inbox(InboxNumber(0), usize::MAX).await;
        let mut read = vec![Vec::new(); self.lives.len()];
        for message in inbox.expect("a home in memory can be read") {
            let text = match message.content {
                ReceivedContent::Text(text) => Some(text),
                ReceivedContent::Unreadable(_) => None,
                other => Some(format!("{other:?}")),
            };
            match NAMES.iter().position(|name| message.contact.as_deref() == Some(*name)) {
                Some(from) => read[from].push(Read { text, is_sealed: message.sealed }),
                None => return Err(Broken::Extra(text.unwrap_or_default())),
            }
        }
        Ok(read)
    }

    /// Whether all stands in somebody's inbox that must, wherever.
    pub(super) async fn has_all(&self, who: usize) -> bool {
        let Ok(read) = self.inbox(who).await else { return false };
        let circumstances = self.circumstances(who);
        self.sent.iter().zip(&read).all(|(by, read)| {
            let read: BTreeSet<_> = read.iter().filter_map(|read| read.text.as_ref()).collect();
            by[who].iter().filter(|sent| circumstances.must_come(sent)).all(|sent| read.contains(&sent.text))
        })
    }
}
