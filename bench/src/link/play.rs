//! The scenarios themselves.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use thinpost_client::{Message, MessageId};
use thinpost_gateway::Relay;
use thinpost_netem::Profile;
use tokio::time::{Instant, sleep, sleep_until};

use super::pair::{Pair, RECEIPT_DELAY_MAX, RECEIPT_DELAY_MIN, Stage};
use super::scenario::Scenario;
use super::script::{
    BLACKOUT, BLACKOUT_MESSAGES, CUTS, OBJECT_BYTES, OUTAGE, QUEUED_MESSAGES, STEADY_MESSAGES, TEXT,
    TEXT_GAP, blackout_pause, first_text_after, lines, noise, object_lasts, object_share_percent, one,
    steady_gaps, texts_beside_an_object,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// How long NATs remember.
const SHORT_MEMORY: Duration = Duration::from_secs(60);
const LONG_MEMORY: Duration = Duration::from_secs(300);

/// How long a device has been in reachable mode before the hour that counts.
const LEARNING: Duration = Duration::from_secs(2 * 3_600);

/// What a run gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    /// What each message took, or all together.
    pub(crate) seconds: Vec<f64>,
    /// IP bytes on the thin link, both ways.
    pub(crate) bytes: u64,
    pub(crate) messages: usize,
    /// What was of use of what the link could carry, if that was asked.
    pub(crate) share_percent: Option<f64>,
    /// The same bytes in an hour before, where there is one.
    pub(crate) hour_bytes: Option<u64>,
    /// Bytes of an object that came twice, for each time that the connection was cut.
    pub(crate) twice_bytes: Option<u64>,
}

impl Figures {
    pub(crate) fn new(seconds: Vec<f64>, bytes: u64, messages: usize) -> Self {
        Self { seconds, bytes, messages, share_percent: None, hour_bytes: None, twice_bytes: None }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.seconds.iter().copied().fold(0.0, f64::max);
        write!(f, "{longest:.3} s at most, {} B for {}", self.bytes, self.messages)?;
        self.hour_bytes.map_or(Ok(()), |bytes| write!(f, ", {bytes} B in the hour"))
    }
}

/// Plays a scenario, in a runtime whose clock is paused, or on the rung that the stage names.
pub(crate) async fn play(stage: &Stage<'_>, scenario: Scenario) -> Result<Figures> {
    let &Stage { link, seed, .. } = stage;
    match scenario {
        Scenario::Cold => send_offline(Pair::strangers_to_the_relay(stage).await?, one()).await,
        Scenario::Resumed => send_offline(Pair::apart(stage).await?, one()).await,
        Scenario::Warm => warm(Pair::acquainted(stage).await?).await,
        Scenario::Steady => steady(Pair::acquainted(stage).await?, seed, false).await,
        Scenario::SteadyVisible => steady(Pair::acquainted(stage).await?, seed, true).await,
        Scenario::SteadySaver => {
            let pair = Pair::acquainted(stage).await?;
            pair.ann().save_bytes(true);
            steady(pair, seed, false).await
        }
        Scenario::SteadyVisibleSaver => {
            let pair = Pair::acquainted(stage).await?;
            pair.ann().save_bytes(true);
            steady(pair, seed, true).await
        }
        Scenario::Queued => send_offline(Pair::apart(stage).await?, lines(QUEUED_MESSAGES)).await,
        Scenario::QueuedCold => {
            send_offline(Pair::strangers_to_the_relay(stage).await?, lines(QUEUED_MESSAGES)).await
        }
        Scenario::Fetched => fetched(Pair::apart(stage).await?).await,
        Scenario::Object => object(Pair::acquainted(stage).await?, link, seed).await,
        Scenario::ObjectTexts => object_texts(Pair::acquainted(stage).await?, link, seed).await,
        Scenario::ObjectCuts => object_cuts(Pair::acquainted(stage).await?, link, seed).await,
        Scenario::Outage => {
            let quietly = Stage { packets: false, ..*stage };
            let undisturbed = send_offline(Pair::apart(&quietly).await?, lines(QUEUED_MESSAGES)).await?;
            let middle = undisturbed.seconds[0] / 2.0;
            outage(Pair::apart(stage).await?, Duration::from_secs_f64(middle)).await
        }
        Scenario::Blackout => blackout(Pair::acquainted(stage).await?, 1, false).await,
        Scenario::BlackoutHint => blackout(Pair::acquainted(stage).await?, 1, true).await,
        Scenario::BlackoutMany => blackout(Pair::acquainted(stage).await?, BLACKOUT_MESSAGES, false).await,
        Scenario::BlackoutManyHint => blackout(Pair::acquainted(stage).await?, BLACKOUT_MESSAGES, true).await,
        Scenario::Silent60 => silent(Pair::behind_nat(stage, SHORT_MEMORY).await?).await,
        Scenario::Silent300 => silent(Pair::behind_nat(stage, LONG_MEMORY).await?).await,
        Scenario::Reachable60 => reachable(Pair::behind_nat(stage, SHORT_MEMORY).await?).await,
        Scenario::Reachable300 => reachable(Pair::behind_nat(stage, LONG_MEMORY).await?).await,
        Scenario::Fairness => bail!("fairness has figures of its own"),
    }
}

fn messages(texts: &[String]) -> Vec<Message> {
    texts.iter().map(|text| Message::from(text.as_str())).collect()
}

/// Ann is offline and has written; how long from the connect until the relay answers for all.
async fn send_offline(pair: Pair, texts: Vec<String>) -> Result<Figures> {
    let after = Pair::inbox_head(pair.bob()).await?;
    let mut news = pair.news();
    let sent = pair.send(messages(&texts)).await?;
    sleep(Duration::from_secs(1)).await;
    let (began, bytes) = (Instant::now(), pair.air_bytes()?);
    pair.ann().connect();
    Pair::custody(&mut news, &sent, sent.len()).await?;
    let seconds = began.elapsed().as_secs_f64();
    sleep(RECEIPT_DELAY_MIN).await;
    let bytes = pair.air_bytes()? - bytes;
    Pair::received(pair.bob(), after, &texts).await?;
    Ok(Figures::new(vec![seconds], bytes, texts.len()))
}

async fn warm(pair: Pair) -> Result<Figures> {
    let mut news = pair.news();
    let (began, bytes) = (Instant::now(), pair.air_bytes()?);
    let sent = pair.send(vec![TEXT.into()]).await?;
    Pair::custody(&mut news, &sent, 1).await?;
    let seconds = began.elapsed().as_secs_f64();
    sleep(RECEIPT_DELAY_MIN).await;
    Ok(Figures::new(vec![seconds], pair.air_bytes()? - bytes, 1))
}

/// Ann writes now and then; how long until Bob has each.
async fn steady(pair: Pair, seed: u64, relay_visible: bool) -> Result<Figures> {
    let texts = lines(STEADY_MESSAGES);
    let after = Pair::inbox_head(pair.bob()).await?;
    let bytes = pair.air_bytes()?;
    let writes = async {
        let mut times = Vec::new();
        let mut at = Instant::now();
        for (text, gap) in texts.iter().zip(steady_gaps(seed)) {
            at += gap;
            sleep_until(at).await;
            let message = Message::from(text.as_str());
            pair.send(vec![if relay_visible { message.relay_visible() } else { message }]).await?;
            times.push(at);
        }
        Ok(times)
    };
    let (written, read) = tokio::try_join!(writes, Pair::received(pair.bob(), after, &texts))?;
    sleep(RECEIPT_DELAY_MAX).await;
    let seconds = read.iter().zip(&written).map(|(read, written)| (*read - *written).as_secs_f64()).collect();
    Ok(Figures::new(seconds, pair.air_bytes()? - bytes, texts.len()))
}

/// Bob has written while Ann was away; how long from the connect until she has all.
async fn fetched(pair: Pair) -> Result<Figures> {
    let texts = lines(QUEUED_MESSAGES);
    let after = Pair::inbox_head(pair.ann()).await?;
    pair.bob().send_all("ann", messages(&texts)).await?;
    sleep(Duration::from_secs(60)).await;
    let (began, bytes) = (Instant::now(), pair.air_bytes()?);
    pair.ann().connect();
    Pair::received(pair.ann(), after, &texts).await?;
    let seconds = began.elapsed().as_secs_f64();
    sleep(RECEIPT_DELAY_MIN).await;
    Ok(Figures::new(vec![seconds], pair.air_bytes()? - bytes, texts.len()))
}

/// Ann hands over an object; how long until the relay has it.
async fn object(pair: Pair, link: &Profile, seed: u64) -> Result<Figures> {
    let mut news = pair.news();
    let (began, bytes) = (Instant::now(), pair.air_bytes()?);
    let id = pair.ann().put_object(noise(seed, OBJECT_BYTES), None).await?;
    Pair::object_stored(&mut news, id).await?;
    let seconds = began.elapsed().as_secs_f64();
    let share_percent = object_share_percent(link, seconds);
    Ok(Figures { share_percent, ..Figures::new(vec![seconds], pair.air_bytes()? - bytes, 1) })
}

/// Ann writes while she hands over an object; how long until Bob has each text.
async fn object_texts(pair: Pair, link: &Profile, seed: u64) -> Result<Figures> {
    let texts = texts_beside_an_object(link);
    let after = Pair::inbox_head(pair.bob()).await?;
    let mut news = pair.news();
    let bytes = pair.air_bytes()?;
    let id = pair.ann().put_object(noise(seed, OBJECT_BYTES), None).await?;
    let writes = async {
        let mut times = Vec::new();
        sleep(first_text_after(seed)).await;
        for text in &texts {
            times.push(Instant::now());
            pair.send(vec![text.as_str().into()]).await?;
            sleep(TEXT_GAP).await;
        }
        Ok(times)
    };
    let (written, read) = tokio::try_join!(writes, Pair::received(pair.bob(), after, &texts))?;
    Pair::object_stored(&mut news, id).await?;
    let seconds = read.iter().zip(&written).map(|(read, written)| (*read - *written).as_secs_f64()).collect();
    Ok(Figures::new(seconds, pair.air_bytes()? - bytes, texts.len()))
}

/// Ann hands over an object, and her link is cut again and again: what is on its way is lost, and she connects anew.
async fn object_cuts(pair: Pair, link: &Profile, seed: u64) -> Result<Figures> {
    let mut news = pair.news();
    let (began, bytes) = (Instant::now(), pair.air_bytes()?);
    let id = pair.ann().put_object(noise(seed, OBJECT_BYTES), None).await?;
    for _ in 0..CUTS {
        sleep(object_lasts(link) / CUTS).await;
        pair.set_outage(true)?;
        pair.ann().disconnect();
        sleep(Duration::from_secs(10)).await;
        pair.set_outage(false)?;
        pair.ann().connect();
    }
    Pair::object_stored(&mut news, id).await?;
    let figures = Figures::new(vec![began.elapsed().as_secs_f64()], pair.air_bytes()? - bytes, 1);
    // A relay counts when a session ends.
    pair.ann().disconnect();
    sleep(Duration::from_secs(60)).await;
    let repeated = pair.simulated()?.world.relay().map(Relay::repeated_chunk_bytes);
    Ok(Figures { twice_bytes: repeated.map(|bytes| bytes / u64::from(CUTS)), ..figures })
}

async fn outage(pair: Pair, after: Duration) -> Result<Figures> {
    let texts = lines(QUEUED_MESSAGES);
    let head = Pair::inbox_head(pair.bob()).await?;
    let mut news = pair.news();
    let sent = pair.send(messages(&texts)).await?;
    let (began, bytes) = (Instant::now(), pair.air_bytes()?);
    let place = pair.simulated()?;
    place.world.net().schedule_outage(place.ann.ip(), after, OUTAGE);
    pair.ann().connect();
    Pair::custody(&mut news, &sent, sent.len()).await?;
    let seconds = began.elapsed().saturating_sub(after + OUTAGE).as_secs_f64();
    sleep(RECEIPT_DELAY_MIN).await;
    let bytes = pair.air_bytes()? - bytes;
    Pair::received(pair.bob(), head, &texts).await?;
    Ok(Figures::new(vec![seconds], bytes, texts.len()))
}

/// Ann writes while her link is dead; how long from its return until the relay answers for the first, and what went
/// on the air until then.
async fn blackout(pair: Pair, count: usize, hint: bool) -> Result<Figures> {
    let texts = lines(count);
    let after = Pair::inbox_head(pair.bob()).await?;
    let mut news = pair.news();
    pair.set_outage(true)?;
    let bytes = pair.air_bytes()?;
    let mut sent: Vec<MessageId> = Vec::new();
    let pause = blackout_pause(count);
    for message in messages(&texts) {
        sleep(pause).await;
        sent.extend(pair.send(vec![message]).await?);
    }
    sleep(BLACKOUT - pause * count as u32).await;
    let bytes = pair.air_bytes()? - bytes;
    pair.set_outage(false)?;
    let began = Instant::now();
    if hint {
        pair.ann().network_changed();
    }
    Pair::custody(&mut news, &sent, 1).await?;
    let seconds = began.elapsed().as_secs_f64();
    Pair::received(pair.bob(), after, &texts).await?;
    Ok(Figures::new(vec![seconds], bytes, 1))
}

/// Ann is connected and at rest for an hour, and then writes; how long until the relay answers for it, and what it takes.
async fn silent(pair: Pair) -> Result<Figures> {
    let bytes = pair.air_bytes()?;
    sleep(HOUR).await;
    let hour_bytes = Some(pair.air_bytes()? - bytes);
    Ok(Figures { hour_bytes, ..warm(pair).await? })
}

/// Ann is at rest, but stays reachable. After the hour Bob writes; how long until she has it.
async fn reachable(pair: Pair) -> Result<Figures> {
    pair.ann().stay_reachable(true);
    sleep(LEARNING).await;
    let bytes = pair.air_bytes()?;
    sleep(HOUR).await;
    let hour_bytes = Some(pair.air_bytes()? - bytes);
    let after = Pair::inbox_head(pair.ann()).await?;
    let (began, bytes) = (Instant::now(), pair.air_bytes()?);
    pair.bob().send_all("ann", messages(&one())).await?;
    Pair::received(pair.ann(), after, &one()).await?;
    let seconds = began.elapsed().as_secs_f64();
    sleep(RECEIPT_DELAY_MIN).await;
    let figures = Figures::new(vec![seconds], pair.air_bytes()? - bytes, 1);
    Ok(Figures { hour_bytes, ..figures })
}
