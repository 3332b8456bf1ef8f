//! Two people and a relay: one of them behind the thin link, the other on a good one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use thinpost_client::{
    Client, Event, InboxNumber, Message, MessageId, ObjectId, ReceivedContent, Subscription,
};
use thinpost_netem::{Leg, Nat, Net, Profile, Trace};
use tokio::time::{Instant, sleep, timeout};

use super::On;
use super::place::{Place, VirtualPlace};
#[cfg(target_os = "linux")]
use super::real;
use super::script::TEXT;

/// What has not happened by then never will: hours of virtual time cost nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3 * 3600);

/// The longest that a scenario takes on real sockets.
pub(crate) const REAL_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// No receipt leaves alone sooner than this after what it is for, and none later than that.
pub(crate) const RECEIPT_DELAY_MIN: Duration = Duration::from_secs(14);
pub(crate) const RECEIPT_DELAY_MAX: Duration = Duration::from_secs(120);

/// Where Ann is seen when she is behind a NAT.
const NAT_OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// Where it is played.
#[derive(Clone, Copy)]
pub(crate) struct Stage<'a> {
    pub(crate) link: &'a Profile,
    pub(crate) seed: u64,
    /// Tell of every packet on the thin link.
    pub(crate) packets: bool,
    pub(crate) on: On,
}

impl Stage<'_> {
    fn place(&self) -> Result<Place> {
        #[cfg(target_os = "linux")]
        if let Some(rung) = self.on.rung() {
            return Ok(Place::Real(real::place(rung, self.link, self.seed)?));
        }
        Place::in_virtual_time(self.seed, self.link, |net, thin| self.watch(net, thin))
    }

    /// Tells of the packets of whoever is behind the thin link here, if that was asked for.
    pub(crate) fn watch(&self, net: &Net, thin: IpAddr) {
        if self.packets {
            net.set_trace(move |trace| tell(thin, trace));
        }
    }
}

/// One line for a packet that is offered to the thin link, and where it was lost.
fn tell(thin: IpAddr, trace: &Trace) {
    let Trace { at, leg, from, to, ip_bytes, fate, .. } = trace;
    let host = match leg {
        Leg::Up => from.ip(),
        Leg::Down => to.ip(),
    };
    if host == thin {
        eprintln!("{:10.3} s {leg:?} {ip_bytes} B {fate:?}", at.as_secs_f64());
    }
}

/// Who is behind the thin link is called Ann.
pub(crate) struct Pair {
    place: Place,
}

impl Pair {
    /// Both have each other's ticket, and neither has ever connected.
    pub(crate) async fn strangers_to_the_relay(stage: &Stage<'_>) -> Result<Self> {
        let pair = Self { place: stage.place()? };
        for (from, to, name) in
            [(pair.ann(), pair.bob(), ["ann", "bob"]), (pair.bob(), pair.ann(), ["bob", "ann"])]
        {
            let ticket = from.ticket_for(name[1]).await?;
            to.add_contact(name[0], &ticket).await?;
        }
        pair.bob().connect();
        sleep(Duration::from_secs(5)).await;
        Ok(pair)
    }

    pub(crate) fn ann(&self) -> &Client {
        self.place.ann()
    }

    pub(crate) fn bob(&self) -> &Client {
        self.place.bob()
    }

    /// See [`Place::simulated`].
    pub(crate) fn simulated(&self) -> Result<&VirtualPlace> {
        self.place.simulated()
    }

    /// The same, to change it.
    pub(crate) fn simulated_mut(&mut self) -> Result<&mut VirtualPlace> {
        self.place.simulated_mut()
    }

    /// Both are connected, each has written and answered, and all receipts are in.
    pub(crate) async fn acquainted(stage: &Stage<'_>) -> Result<Self> {
        let pair = Self::strangers_to_the_relay(stage).await?;
        pair.ann().connect();
        let mut news = pair.news();
        let sent = pair.send(vec![TEXT.into()]).await?;
        Self::custody(&mut news, &sent, 1).await?;
        pair.bob().send("ann", "yes".into()).await?;
        sleep(2 * RECEIPT_DELAY_MAX).await;
        Ok(pair)
    }

    /// The same, but Ann has disconnected a minute ago.
    pub(crate) async fn apart(stage: &Stage<'_>) -> Result<Self> {
        let pair = Self::acquainted(stage).await?;
        pair.ann().disconnect();
        sleep(Duration::from_secs(60)).await;
        Ok(pair)
    }

    /// Both are acquainted, and a NAT that remembers for so long is between Ann's link and everybody else.
    pub(crate) async fn behind_nat(stage: &Stage<'_>, memory: Duration) -> Result<Self> {
        let pair = Self::acquainted(stage).await?;
        let nat = Nat::forgetting_after(NAT_OUTSIDE, memory);
        let place = pair.simulated()?;
        place.world.net().set_nat(place.ann.ip(), Some(nat));
        // Nobody knows her there yet.
        pair.ann().send("bob", "still here".into()).await?;
        sleep(2 * RECEIPT_DELAY_MAX).await;
        Ok(pair)
    }

    /// Ann writes to Bob.
    pub(crate) async fn send(&self, messages: Vec<Message>) -> Result<Vec<MessageId>> {
        Ok(self.ann().send_all("bob", messages).await?)
    }

    /// IP bytes on Ann's link so far, both ways.
    pub(crate) fn air_bytes(&self) -> Result<u64> {
        self.place.air_bytes()
    }

    /// Ann's link is cut, or mended.
    pub(crate) fn set_outage(&self, outage: bool) -> Result<()> {
        let place = self.simulated()?;
        place.world.net().set_outage(place.ann.ip(), outage);
        Ok(())
    }

    /// What Ann is told from now on, but for what is in her inbox.
    pub(crate) fn news(&self) -> Subscription {
        self.ann().subscribe(InboxNumber(u64::MAX))
    }

    /// Waits until the relay answers for so many of these messages.
    pub(crate) async fn custody(
        news: &mut Subscription,
        messages: &[MessageId],
        enough: usize,
    ) -> Result<()> {
        let mut open: BTreeSet<_> = messages.iter().copied().collect();
        let all = async {
            while messages.len() - open.len() < enough {
                match news.next().await.context("the client has ended")? {
                    Event::Custody { message, .. } => drop(open.remove(&message)),
                    Event::Failed { message, reason, .. } => bail!("{message:?} failed: {reason}"),
                    Event::Missed(count) => bail!("{count} events missed"),
                    _ => {}
                }
            }
            Ok(())
        };
        timeout(PATIENCE, all).await.context("no custody")?
    }

    /// Waits until the relay has an object.
    pub(crate) async fn object_stored(news: &mut Subscription, object: ObjectId) -> Result<()> {
        let stored = async {
            loop {
                match news.next().await.context("the client has ended")? {
                    Event::ObjectStored { id } if id == object => return Ok(()),
                    Event::ObjectFailed { reason, .. } => bail!("the object failed: {reason}"),
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, stored).await.context("the object is not stored")?
    }

    /// What somebody has received behind this number, with the times, once it is so many; an error if any comes twice
    /// or out of order.
    pub(crate) async fn received(
        person: &Client,
        after: InboxNumber,
        texts: &[String],
    ) -> Result<Vec<Instant>> {
        let mut events = person.subscribe(after);
        let mut times = Vec::new();
        let all = async {
            for text in texts {
                let message = loop {
                    if let Event::Received(message) = events.next().await.context("the client has ended")? {
                        break message;
                    }
                };
                ensure!(
                    message.content == ReceivedContent::Text(text.clone()),
                    "message {} is not what was sent as that: {text:?}",
                    times.len()
                );
                times.push(Instant::now());
            }
            Ok(())
        };
        timeout(PATIENCE, all).await.context("not all has arrived")??;
        Ok(times)
    }

    /// The number of the newest message in somebody's inbox.
    pub(crate) async fn inbox_head(person: &Client) -> Result<InboxNumber> {
        let inbox = person.inbox(InboxNumber(0), usize::MAX).await?;
        Ok(inbox.last().map_or(InboxNumber(0), |message| message.number))
    }
}
