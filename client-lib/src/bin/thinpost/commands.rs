//! The commands that do one thing and end.

use std::io::{IsTerminal, Write, stdout};
use std::path::Path;
use std::time::Duration;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::json;
use thinpost_client::ticket::{ContactTicket, Ticket};
use thinpost_client::{Budget, Client, ContactError, CreateError, Home, LinkState, RenewError, SyncEnd};
use tokio::time::timeout;

use crate::args::{Contact, Init};
use crate::failure::{Failure, exit};
use crate::show;

pub(crate) fn open(home: &Path) -> Result<Client, Failure> {
    Ok(Client::builder(home).open()?)
}

pub(crate) async fn init(home: &Path, args: Init) -> Result<(), Failure> {
    let ticket: Ticket = args.ticket.parse()?;
    let is_new = match Home::create(home, &ticket) {
        Ok(_) => true,
        Err(error @ CreateError::Exists(_)) => {
            // Made while the relay could not be reached, perhaps, and turned away since.
            Home::renew(home, &ticket).map_err(|why| match why {
                RenewError::Open(why) => Failure::from(why),
                RenewError::Store(why) => why.into(),
                why => Failure::new(exit::CANNOT_CREATE, format!("{error}; {why}")),
            })?;
            false
        }
        Err(error) => return Err(error.into()),
    };
    let client = open(home)?;
    client.connect();
    let relay = client.relay().relay.key;
    let mut link = client.link_status();
    let is_decided = |state: &LinkState| *state == LinkState::Online || Failure::of_link(state).is_some();
    // What is awaited locks the status for as long as it is held.
    let state = match timeout(args.time, link.wait_for(|link| is_decided(&link.state))).await {
        Ok(Ok(link)) => Some(link.state.clone()),
        Ok(Err(_)) | Err(_) => None,
    };
    client.close().await;
    let refused = state.as_ref().and_then(Failure::of_link);
    if let Some(failure) = refused {
        if !is_new {
            return Err(failure);
        }
        // Nothing is in it but keys that nobody has seen.
        let _ = std::fs::remove_file(home.join("client.redb"));
        let _ = std::fs::remove_dir(home);
        return Err(Failure::new(failure.code, format!("no home was made: {failure}")));
    }
    let mut out = stdout().lock();
    if is_new {
        writeln!(out, "home made in {}", home.display())?;
    }
    match state {
        Some(_) => writeln!(out, "registered at relay {relay}")?,
        None => {
            writeln!(out, "relay {relay} was not reached; it will be when you next send, sync or listen")?
        }
    }
    writeln!(out, "`thinpost ticket` prints what others need to write to you")?;
    Ok(())
}

pub(crate) fn qr_code(text: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|error| Failure::new(exit::DATA, format!("it fits no QR code: {error}")))?;
    Ok(code.render::<Dense1x2>().build())
}

pub(crate) async fn contact(home: &Path, command: Contact) -> Result<(), Failure> {
    // What a person typed is looked at before the home is.
    let ticket = match &command {
        Contact::Add { ticket, .. } => Some(ticket.parse::<ContactTicket>()?),
        Contact::List | Contact::Verify { .. } | Contact::Remove { .. } => None,
    };
    let client = open(home)?;
    match (command, ticket) {
        (Contact::Add { name, .. }, Some(ticket)) => client.add_contact(&name, &ticket).await?,
        (Contact::Remove { name }, _) => client.remove_contact(&name).await?,
        (Contact::Verify { name }, _) => {
            let number = client.safety_number(&name).ok_or(ContactError::Unknown(name))?;
            let mut out = stdout().lock();
            writeln!(out, "{number}")?;
            if out.is_terminal() {
                writeln!(out, "\n{}", qr_code(&number.digits())?)?;
            }
        }
        (Contact::List | Contact::Add { .. }, _) => {
            let mut out = stdout().lock();
            for contact in client.contacts() {
                writeln!(out, "{}\t{}", contact.name, contact.ticket.account)?;
            }
        }
    }
    client.close().await;
    Ok(())
}

pub(crate) async fn sync(home: &Path, time: Duration, budget: Option<u64>) -> Result<(), Failure> {
    let client = open(home)?;
    let report = client.sync(Budget { time, bytes: budget.unwrap_or(u64::MAX) }).await?;
    client.close().await;
    let mut out = stdout().lock();
    writeln!(
        out,
        "{} sent, {} failed, {} received, {} waiting, {} bytes on the air",
        report.custody, report.failed, report.received, report.waiting, report.bytes
    )?;
    match &report.end {
        SyncEnd::Complete if report.waiting == 0 => Ok(()),
        SyncEnd::Complete => {
            let why = report.delayed.map_or("the relay takes no more now".to_owned(), |why| why.to_string());
            Err(Failure::new(exit::TEMPORARY, format!("{} waiting; {why}", messages(report.waiting))))
        }
        SyncEnd::OutOfTime => Err(Failure::new(exit::TEMPORARY, "the time was used up before all was done")),
        SyncEnd::OutOfBytes => {
            Err(Failure::new(exit::TEMPORARY, "the bytes were used up before all was done"))
        }
        SyncEnd::NoLink(state) => Err(Failure::of_link(state).unwrap_or_else(|| unreachable_relay(state))),
        _ => Err(Failure::new(exit::TEMPORARY, "not all was done")),
    }
}

pub(crate) fn messages(count: u64) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

/// The relay cannot be reached now.
pub(crate) fn unreachable_relay(state: &LinkState) -> Failure {
    let why = state.detail().unwrap_or_else(|| "it did not answer in time".to_owned());
    Failure::new(exit::TEMPORARY, format!("the relay cannot be reached: {why}"))
}

pub(crate) async fn status(home: &Path, as_json: bool) -> Result<(), Failure> {
    let client = open(home)?;
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
        writeln!(out, "account   {account}")?;
        writeln!(out, "relay     {} at {}", relay.key, addresses.join(", "))?;
        writeln!(out, "contacts  {contacts}")?;
        writeln!(out, "waiting   {}", status.waiting)?;
        writeln!(out, "sent      {}", status.custody)?;
        writeln!(out, "failed    {}", status.failed)?;
        writeln!(out, "received  {}", status.received.0)?;
    }
    drop(out);
    client.close().await;
    Ok(())
}
