//! The commands that do one thing and end.

use std::io::{Write, stdout};
use std::time::Duration;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::json;
use thinpost_client::ticket::Ticket;
use thinpost_client::{
    Budget, CreateError, Event, Failure as MessageFailure, Home, InboxNumber, LinkState, RenewError,
    Subscription, SyncEnd,
};
use tokio::time::timeout;

use crate::args::{Init, NewKey};
use crate::contacts;
use crate::failure::{Failure, exit};
use crate::place::{self, Place};
use crate::position;
use crate::show;

pub(crate) async fn init(home: &Place, args: Init) -> Result<(), Failure> {
    let ticket: Ticket = args.ticket.parse()?;
    let is_new = make_or_renew(home, &ticket)?;
    let client = home.open()?;
    let events = client.subscribe(InboxNumber(u64::MAX));
    if let Ticket::Guest(guest) = &ticket {
        contacts::meet(&client, guest).await?;
    }
    client.connect();
    let relay = client.relay().relay.key;
    let mut link = client.link_status();
    let is_decided = |state: &LinkState| *state == LinkState::Online || Failure::of_link(state).is_some();
    // What is awaited locks the status for as long as it is held.
    let state = match timeout(args.time, link.wait_for(|link| is_decided(&link.state))).await {
        Ok(Ok(link)) => Some(link.state.clone()),
        Ok(Err(_)) | Err(_) => None,
    };
    let mut is_all_said = false;
    if let (Ticket::Guest(_), Some(LinkState::Online)) = (&ticket, &state) {
        // So that the host learns of the guest now.
        let report = client.sync(Budget { time: args.time, bytes: u64::MAX }).await?;
        is_all_said = report.end == SyncEnd::Complete;
    }
    client.close().await;
    // A subscription keeps the home open.
    let why_untold = why_notes_failed(events).await;
    let refused = state.as_ref().and_then(Failure::of_link);
    if let Some(failure) = refused {
        if !is_new {
            return Err(failure);
        }
        // Nothing is in it but keys that nobody has seen.
        let _ = Home::wipe(&home.folder);
        let _ = std::fs::remove_dir(&home.folder);
        return Err(Failure::new(failure.code, format!("no home was made: {failure}")));
    }
    let mut out = stdout().lock();
    let folder = home.folder.display();
    match is_new {
        true => writeln!(out, "home made in {folder}")?,
        false => writeln!(out, "the home in {folder} is as it was, and has this ticket now")?,
    }
    match state {
        Some(_) => writeln!(out, "registered at relay {relay}")?,
        None => {
            writeln!(out, "relay {relay} was not reached; it will be when you next send, sync or listen")?
        }
    }
    if let Ticket::Guest(guest) = &ticket {
        let name = &guest.name;
        if let Some(reason) = why_untold {
            let problem = format!("{name} is your first contact, but cannot be told who you are: {reason}");
            return Err(Failure::new(exit::DATA, problem));
        }
        let when = if is_all_said { "knows" } else { "is told, when you next send, sync or listen," };
        writeln!(out, "{name} is your first contact, and {when} who you are")?;
    }
    writeln!(out, "`thinpost ticket` prints what others need to write to you")?;
    Ok(())
}

/// Whether a home was made; where there was one, it has another way in now.
fn make_or_renew(home: &Place, ticket: &Ticket) -> Result<bool, Failure> {
    let made = match &home.key {
        Some(key) => Home::create_with_key(&home.folder, ticket, key),
        None => Home::create(&home.folder, ticket),
    };
    let exists = match made {
        Ok(_) => {
            // Of a home that was wiped, perhaps: nothing of this one has been shown.
            position::forget(&home.folder);
            return Ok(true);
        }
        Err(error @ CreateError::Exists(_)) => error,
        Err(error) => return Err(error.into()),
    };
    // Made while the relay could not be reached, perhaps, and turned away since.
    match Home::renew(&home.folder, ticket, home.key.as_ref()) {
        Ok(()) => Ok(false),
        // An earlier try may have ended before host and guest knew each other.
        Err(RenewError::Unchanged) if matches!(ticket, Ticket::Guest(_)) => Ok(false),
        Err(RenewError::Open(why)) => Err(why.into()),
        Err(RenewError::Store(why)) => Err(why.into()),
        Err(why) => Err(Failure::new(exit::CANNOT_CREATE, format!("{exists}; {why}"))),
    }
}

/// Tells what was told, and why an introduction was not handed over, if it was not.
async fn why_notes_failed(mut events: Subscription) -> Option<MessageFailure> {
    let mut failed = None;
    while let Ok(Some(event)) = timeout(Duration::ZERO, events.next()).await {
        match event {
            Event::NotesFailed { reason, .. } => failed = Some(reason),
            other => show::news(&other),
        }
    }
    failed
}

pub(crate) fn qr_code(text: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|error| Failure::new(exit::DATA, format!("it fits no QR code: {error}")))?;
    Ok(code.render::<Dense1x2>().build())
}

pub(crate) async fn sync(home: &Place, time: Duration, budget: Option<u64>) -> Result<(), Failure> {
    let client = home.open()?;
    let mut events = client.subscribe(InboxNumber(u64::MAX));
    let report = client.sync(Budget { time, bytes: budget.unwrap_or(u64::MAX) }).await?;
    let is_answered = client.link_status().borrow().received_bytes > 0;
    client.close().await;
    show::rest_of_news(&mut events).await;
    let said = writeln!(
        stdout().lock(),
        "{} sent, {} failed, {} received, {} waiting, {} bytes on the air",
        report.custody,
        report.failed,
        report.received,
        report.waiting,
        report.bytes
    );
    match &report.end {
        SyncEnd::Complete if report.waiting == 0 && report.failed == 0 => Ok(()),
        SyncEnd::Complete if report.waiting == 0 => {
            Err(Failure::new(exit::DATA, format!("{} not delivered", show::messages(report.failed))))
        }
        SyncEnd::Complete => {
            let why = report.delayed.map_or("the relay takes no more now".to_owned(), |why| why.to_string());
            Err(Failure::new(exit::TEMPORARY, format!("{} waiting; {why}", show::messages(report.waiting))))
        }
        SyncEnd::OutOfTime if !is_answered => Err(unreachable_relay(&LinkState::Connecting)),
        SyncEnd::OutOfTime => Err(Failure::new(exit::TEMPORARY, "the time was used up before all was done")),
        SyncEnd::OutOfBytes => {
            Err(Failure::new(exit::TEMPORARY, "the bytes were used up before all was done"))
        }
        SyncEnd::NoLink(state) => Err(Failure::of_link(state).unwrap_or_else(|| unreachable_relay(state))),
        _ => Err(Failure::new(exit::TEMPORARY, "not all was done")),
    }?;
    // What was not done counts for more than who reads of it.
    Ok(said?)
}

/// The relay cannot be reached now.
pub(crate) fn unreachable_relay(state: &LinkState) -> Failure {
    let why = state.detail().unwrap_or_else(|| "it did not answer in time".to_owned());
    Failure::new(exit::TEMPORARY, format!("the relay cannot be reached: {why}"))
}

pub(crate) async fn status(home: &Place, as_json: bool, acknowledge: bool) -> Result<(), Failure> {
    let client = home.open()?;
    let status = client.status().await?;
    let relay = &client.relay().relay;
    let (account, contacts) = (client.account(), client.contacts().len());
    let mut out = stdout().lock();
    if as_json {
        let mut value = show::status(&status);
        value["account"] = show::account(&account).into();
        value["contacts"] = contacts.into();
        value["relay"] = json!({
            "key": relay.key.to_string(),
            "addresses": relay.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        writeln!(out, "{value}")?;
    } else {
        let addresses: Vec<_> = relay.addresses.iter().map(ToString::to_string).collect();
        writeln!(out, "account      {account}")?;
        writeln!(out, "relay        {} at {}", relay.key, addresses.join(", "))?;
        writeln!(out, "contacts     {contacts}")?;
        writeln!(out, "waiting      {}", status.waiting)?;
        writeln!(out, "sent         {}", status.custody)?;
        writeln!(out, "unconfirmed  {}", status.unconfirmed)?;
        writeln!(out, "failed       {}", status.failed)?;
        writeln!(out, "abandoned    {}", status.abandoned)?;
        writeln!(out, "received     {}", status.received.0)?;
        for notice in &status.notices {
            writeln!(out, "{}", show::notice_line(notice))?;
        }
    }
    drop(out);
    if let Some(last) = status.notices.last().filter(|_| acknowledge) {
        client.acknowledge(last.number).await?;
    }
    client.close().await;
    Ok(())
}

pub(crate) fn set_key(home: &Place, new: NewKey) -> Result<(), Failure> {
    let key = new.new_passphrase_file.as_deref().map(place::key_of_file).transpose()?;
    Home::set_key(&home.folder, home.key.as_ref(), key.as_ref())?;
    let what = if key.is_some() { "has a new passphrase" } else { "has no passphrase any more" };
    writeln!(stdout().lock(), "the home in {} {what}", home.folder.display())?;
    Ok(())
}

pub(crate) fn wipe(Place { folder, .. }: &Place) -> Result<(), Failure> {
    Home::wipe(folder)?;
    position::forget(folder);
    // Unless a person keeps something else there.
    let _ = std::fs::remove_dir(folder);
    writeln!(stdout().lock(), "the home in {} is wiped", folder.display())?;
    Ok(())
}
