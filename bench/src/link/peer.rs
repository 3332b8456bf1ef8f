//! The scenarios as plain quinn plays them, to compare with: a message is a stream, and the receiver answers it on the same.
//!
//! Texts and times are those of `play.rs`. Who is on the other side of the thin link is the server itself: there are no mailboxes, so that
//! a message has arrived when the server has it. The texts are not sealed, in no order across streams, and kept nowhere. The
//! settings are in [`host`].

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quinn::Connection;
use thinpost_netem::{Net, Profile};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pair::{PATIENCE, RECEIPT_DELAY_MAX, RECEIPT_DELAY_MIN, Stage};
use super::place::offered_bytes;
use super::play::Figures;
use super::scenario::Scenario;
use super::script::{
    BLACKOUT, BLACKOUT_MESSAGES, OBJECT_BYTES, OUTAGE, QUEUED_MESSAGES, STEADY_MESSAGES, TEXT_GAP,
    blackout_pause, first_text_after, lines, noise, object_share_percent, one, steady_gaps,
    texts_beside_an_object,
};
use host::{Arrivals, Device, Sent, Server};

pub(crate) mod host;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// Priorities of streams: an object lets texts pass.
pub(crate) const TEXTS: i32 = 0;
pub(crate) const OBJECTS: i32 = -1;

/// What a plain client can play. The others are about what it has not: saver mode, reachability, resumed objects, hints.
pub(crate) fn plays(scenario: Scenario) -> bool {
    matches!(
        scenario,
        Scenario::Cold
            | Scenario::Resumed
            | Scenario::Warm
            | Scenario::Steady
            | Scenario::Queued
            | Scenario::QueuedCold
            | Scenario::Fetched
            | Scenario::Object
            | Scenario::ObjectTexts
            | Scenario::Outage
            | Scenario::Blackout
            | Scenario::BlackoutMany
    )
}

/// Plays a scenario, in a runtime whose clock is paused.
///
/// # Errors
/// When a message is lost or altered, and for a scenario that it [does not play](plays).
pub(crate) async fn play(stage: &Stage<'_>, scenario: Scenario) -> Result<Figures> {
    let &Stage { link, seed, .. } = stage;
    match scenario {
        Scenario::Cold => cold(Peers::strangers(stage)?, &one()).await,
        Scenario::QueuedCold => cold(Peers::strangers(stage)?, &lines(QUEUED_MESSAGES)).await,
        Scenario::Resumed => resumed(Peers::apart(stage).await?, &one()).await,
        Scenario::Queued => resumed(Peers::apart(stage).await?, &lines(QUEUED_MESSAGES)).await,
        Scenario::Warm => warm(Peers::acquainted(stage).await?).await,
        Scenario::Steady => steady(Peers::acquainted(stage).await?, seed).await,
        Scenario::Fetched => fetched(Peers::apart(stage).await?).await,
        Scenario::Object => object(Peers::acquainted(stage).await?, link, seed).await,
        Scenario::ObjectTexts => object_texts(Peers::acquainted(stage).await?, link, seed).await,
        Scenario::Outage => {
            let quietly = Stage { packets: false, ..*stage };
            let undisturbed = resumed(Peers::apart(&quietly).await?, &lines(QUEUED_MESSAGES)).await?;
            let middle = undisturbed.seconds[0] / 2.0;
            outage(Peers::apart(stage).await?, Duration::from_secs_f64(middle)).await
        }
        Scenario::Blackout => blackout(Peers::acquainted(stage).await?, 1).await,
        Scenario::BlackoutMany => blackout(Peers::acquainted(stage).await?, BLACKOUT_MESSAGES).await,
        _ => bail!("plain quinn does not play {}", scenario.name()),
    }
}

/// A client behind the thin link and a server on a good one, not connected.
struct Peers {
    net: Net,
    client: Device,
    server: Server,
}

impl Peers {
    /// Neither has ever heard of the other.
    fn strangers(stage: &Stage<'_>) -> Result<Self> {
        let net = Net::new(stage.seed);
        net.attach_profile(CLIENT, stage.link);
        stage.watch(&net, CLIENT);
        let server = Server::start(&net, stage.seed)?;
        let client = Device::new(&net, CLIENT, stage.seed)?;
        Ok(Self { net, client, server })
    }

    /// Both are connected, each has written, and all is answered.
    async fn acquainted(stage: &Stage<'_>) -> Result<(Self, Connection)> {
        let mut peers = Self::strangers(stage)?;
        let at_client = peers.client.connect().await?;
        let at_server = peers.accepted().await?;
        peers.hand_over(&at_client, &one()).await?;
        let yes = ["yes".to_owned()];
        send(&at_server, &yes).await?.answered().await?;
        received(&mut peers.client.arrivals, &yes).await?;
        sleep(2 * RECEIPT_DELAY_MAX).await;
        Ok((peers, at_client))
    }

    /// The same, but the client has disconnected a minute ago.
    async fn apart(stage: &Stage<'_>) -> Result<Self> {
        let (peers, connection) = Self::acquainted(stage).await?;
        connection.close(0u32.into(), b"");
        sleep(Duration::from_secs(60)).await;
        Ok(peers)
    }

    async fn accepted(&mut self) -> Result<Connection> {
        self.server.connections.recv().await.context("the server has ended")
    }

    fn air_bytes(&self) -> u64 {
        offered_bytes(self.net.counters(CLIENT))
    }

    /// Hands texts over; returns when all are answered.
    async fn hand_over(&mut self, connection: &Connection, texts: &[String]) -> Result<()> {
        send(connection, texts).await?.answered().await?;
        received(&mut self.server.arrivals, texts).await.map(drop)
    }
}

async fn send(connection: &Connection, texts: &[String]) -> Result<Sent> {
    let mut sent = Sent::default();
    for text in texts {
        sent.send(connection, text.as_bytes(), TEXTS).await?;
    }
    Ok(sent)
}

/// When each of these messages has come, once all have, in the order in which their streams were opened; an error if one
/// came altered, or more than these.
async fn received(arrivals: &mut Arrivals, messages: &[impl AsRef<[u8]>]) -> Result<Vec<Instant>> {
    let mut came = Vec::new();
    let all = async {
        while came.len() < messages.len() {
            came.push(arrivals.recv().await.context("the receiver has ended")?);
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(PATIENCE, all).await.context("not all has arrived")??;
    ensure!(arrivals.is_empty(), "more has arrived than was sent");
    came.sort_by_key(|arrived| arrived.stream);
    for (arrived, message) in came.iter().zip(messages) {
        ensure!(
            arrived.bytes == message.as_ref(),
            "what stream {} brought is not what was sent",
            arrived.stream
        );
    }
    Ok(came.into_iter().map(|arrived| arrived.at).collect())
}

/// The first connect, with texts that wait for it; how long until all are answered.
async fn cold(mut peers: Peers, texts: &[String]) -> Result<Figures> {
    let (began, bytes) = (Instant::now(), peers.air_bytes());
    let connection = peers.client.connect().await?;
    peers.hand_over(&connection, texts).await?;
    let seconds = began.elapsed().as_secs_f64();
    sleep(RECEIPT_DELAY_MIN).await;
    Ok(Figures::new(vec![seconds], peers.air_bytes() - bytes, texts.len()))
}

/// The same where early data may leave.
async fn resumed(mut peers: Peers, texts: &[String]) -> Result<Figures> {
    let (began, bytes) = (Instant::now(), peers.air_bytes());
    let connection = peers.client.resume()?;
    peers.hand_over(&connection, texts).await?;
    let seconds = began.elapsed().as_secs_f64();
    sleep(RECEIPT_DELAY_MIN).await;
    Ok(Figures::new(vec![seconds], peers.air_bytes() - bytes, texts.len()))
}

async fn warm((mut peers, connection): (Peers, Connection)) -> Result<Figures> {
    let (began, bytes) = (Instant::now(), peers.air_bytes());
    peers.hand_over(&connection, &one()).await?;
    let seconds = began.elapsed().as_secs_f64();
    sleep(RECEIPT_DELAY_MIN).await;
    Ok(Figures::new(vec![seconds], peers.air_bytes() - bytes, 1))
}

/// How long until the server has each.
async fn steady((mut peers, connection): (Peers, Connection), seed: u64) -> Result<Figures> {
    let texts = lines(STEADY_MESSAGES);
    let bytes = peers.air_bytes();
    let mut written = Vec::new();
    let mut sent = Sent::default();
    let mut at = Instant::now();
    for (text, gap) in texts.iter().zip(steady_gaps(seed)) {
        at += gap;
        sleep_until(at).await;
        sent.send(&connection, text.as_bytes(), TEXTS).await?;
        written.push(at);
    }
    let read = received(&mut peers.server.arrivals, &texts).await?;
    sleep(RECEIPT_DELAY_MAX).await;
    sent.answered().await?;
    Ok(Figures::new(seconds(&written, &read), peers.air_bytes() - bytes, texts.len()))
}

fn seconds(written: &[Instant], read: &[Instant]) -> Vec<f64> {
    read.iter().zip(written).map(|(read, written)| (*read - *written).as_secs_f64()).collect()
}

/// The server hands over what it has as soon as it hears of the client.
async fn fetched(mut peers: Peers) -> Result<Figures> {
    let texts = lines(QUEUED_MESSAGES);
    let (began, bytes) = (Instant::now(), peers.air_bytes());
    let _connection = peers.client.resume()?;
    let at_server = peers.accepted().await?;
    let sent = send(&at_server, &texts).await?;
    let read = received(&mut peers.client.arrivals, &texts).await?;
    let last = read.into_iter().max().context("nothing was sent")?;
    sleep(RECEIPT_DELAY_MIN).await;
    let figures = Figures::new(vec![(last - began).as_secs_f64()], peers.air_bytes() - bytes, texts.len());
    sent.answered().await?;
    Ok(figures)
}

/// How long until the server answers for an object.
async fn object((mut peers, connection): (Peers, Connection), link: &Profile, seed: u64) -> Result<Figures> {
    let object = noise(seed, OBJECT_BYTES);
    let (began, bytes) = (Instant::now(), peers.air_bytes());
    let mut sent = Sent::default();
    sent.send(&connection, &object, OBJECTS).await?;
    sent.answered().await?;
    let seconds = began.elapsed().as_secs_f64();
    received(&mut peers.server.arrivals, &[object]).await?;
    let share_percent = object_share_percent(link, seconds);
    Ok(Figures { share_percent, ..Figures::new(vec![seconds], peers.air_bytes() - bytes, 1) })
}

/// How long until the server has each text that is written meanwhile.
async fn object_texts(
    (mut peers, connection): (Peers, Connection),
    link: &Profile,
    seed: u64,
) -> Result<Figures> {
    let texts = texts_beside_an_object(link);
    let bytes = peers.air_bytes();
    let mut messages = vec![noise(seed, OBJECT_BYTES)];
    messages.extend(texts.iter().map(|text| text.as_bytes().to_vec()));
    let mut sent = Sent::default();
    sent.send(&connection, &messages[0], OBJECTS).await?;
    sleep(first_text_after(seed)).await;
    let mut written = Vec::new();
    for text in &texts {
        written.push(Instant::now());
        sent.send(&connection, text.as_bytes(), TEXTS).await?;
        sleep(TEXT_GAP).await;
    }
    let read = received(&mut peers.server.arrivals, &messages).await?;
    sent.answered().await?;
    Ok(Figures::new(seconds(&written, &read[1..]), peers.air_bytes() - bytes, texts.len()))
}

/// The link dies `after` so long, and comes back.
async fn outage(mut peers: Peers, after: Duration) -> Result<Figures> {
    let texts = lines(QUEUED_MESSAGES);
    let (began, bytes) = (Instant::now(), peers.air_bytes());
    peers.net.schedule_outage(CLIENT, after, OUTAGE);
    let connection = peers.client.resume()?;
    peers.hand_over(&connection, &texts).await?;
    let seconds = began.elapsed().saturating_sub(after + OUTAGE).as_secs_f64();
    sleep(RECEIPT_DELAY_MIN).await;
    Ok(Figures::new(vec![seconds], peers.air_bytes() - bytes, texts.len()))
}

/// Texts are written while the link is dead; how long from its return until the first is answered, and what went on the
/// air until then.
async fn blackout((mut peers, connection): (Peers, Connection), count: usize) -> Result<Figures> {
    let texts = lines(count);
    let bytes = peers.air_bytes();
    peers.net.set_outage(CLIENT, true);
    let ends = Instant::now() + BLACKOUT;
    let writes = async {
        let mut sent = Sent::default();
        for text in &texts {
            sleep(blackout_pause(count)).await;
            sent.send(&connection, text.as_bytes(), TEXTS).await?;
        }
        sent.answered().await
    };
    let link = async {
        sleep_until(ends).await;
        let bytes = peers.air_bytes() - bytes;
        peers.net.set_outage(CLIENT, false);
        Ok(bytes)
    };
    let (answered, bytes) = tokio::try_join!(writes, link)?;
    received(&mut peers.server.arrivals, &texts).await?;
    let first = *answered.first().context("nothing was sent")?;
    Ok(Figures::new(vec![(first - ends).as_secs_f64()], bytes, 1))
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::host::Arrived;
    use super::*;

    /// Whether these texts are taken for what was sent when streams bring others, in the order of the others.
    async fn taken(texts: &[&str], came: &[(u64, &str)]) -> bool {
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        for &(stream, text) in came {
            let bytes = text.as_bytes().to_vec();
            arrived.send(Arrived { stream, bytes, at: Instant::now() }).unwrap();
        }
        received(&mut arrivals, texts).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn each_message_must_come_once_and_in_full() {
        assert!(taken(&["a", "b"], &[(0, "a"), (1, "b")]).await);
        assert!(taken(&["a", "b"], &[(1, "b"), (0, "a")]).await, "streams are in no order");
        assert!(!taken(&["a", "b"], &[(0, "a"), (1, "")]).await);
        assert!(!taken(&["a", "b"], &[(0, "a"), (1, "b"), (2, "b")]).await);
        assert!(!taken(&["a", "b"], &[(0, "a")]).await);
    }
}
