//! Contacts: whom a person writes to.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stdout};

use data_encoding::HEXLOWER_PERMISSIVE;
use thinpost_client::ticket::{ContactTicket, GuestTicket};
use thinpost_client::{AccountKey, Client, ContactError, InboxNumber, Received, SafetyNumber};

use crate::args::Contact;
use crate::commands::qr_code;
use crate::failure::{Failure, exit};
use crate::place::Place;
use crate::show;

/// Messages read from the inbox at a time.
const INBOX_AT_ONCE: usize = 256;

pub(crate) async fn contact(home: &Place, command: Contact) -> Result<(), Failure> {
    // What a person typed is looked at before the home is.
    let ticket = match &command {
        Contact::Add { ticket, .. } => Some(ticket.parse::<ContactTicket>()?),
        _ => None,
    };
    let client = home.open()?;
    match (command, ticket) {
        (Contact::Add { name, .. }, Some(ticket)) => client.add_contact(&name, &ticket).await?,
        (Contact::Remove { name }, _) => client.remove_contact(&name).await?,
        (Contact::Verify { name, number }, _) => verify(&client, &name, number)?,
        (Contact::Receipts { name, receipts }, _) => client.set_receipts(&name, receipts.is_on()).await?,
        (Contact::Introduce { name }, _) => {
            client.introduce(&name).await?;
            writeln!(stdout(), "{name} is told who you are when you next send, sync or listen")?;
        }
        (Contact::Requests, _) => {
            requests(&client).await?;
        }
        (Contact::Accept { account, name }, _) => client.accept(&account, &name).await?,
        (Contact::Dismiss { account }, _) => client.dismiss(&account).await?,
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

/// Who has told who they are, and what they said last: an account's key alone tells nobody anything.
async fn requests(client: &Client) -> Result<(), Failure> {
    let mut said: BTreeMap<AccountKey, (u64, Option<Received>)> =
        client.requests().iter().map(|ticket| (ticket.account, (0, None))).collect();
    let mut after = InboxNumber::default();
    loop {
        let messages = client.inbox(after, INBOX_AT_ONCE).await?;
        let Some(last) = messages.last() else { break };
        after = last.number;
        for message in messages {
            if let Some((count, last)) = message.from.and_then(|from| said.get_mut(&from)) {
                *count += 1;
                *last = Some(message);
            }
        }
    }
    let mut out = stdout().lock();
    for (account, (count, last)) in said {
        let said = match last {
            Some(last) => format!("{}, the last: {}", show::messages(count), show::content(&last.content)),
            None => "no message".to_owned(),
        };
        writeln!(out, "{}\t{said}", show::account(&account))?;
    }
    Ok(())
}

/// The host of a guest becomes a contact, and is told who the guest is.
pub(crate) async fn meet(client: &Client, guest: &GuestTicket) -> Result<(), ContactError> {
    client.add_contact(&guest.name, &guest.host).await?;
    client.introduce(&guest.name).await
}

/// Sixty-four hex digits.
pub(crate) fn parse_account(text: &str) -> Result<AccountKey, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    key.map(AccountKey).ok_or_else(|| "an account has 64 hex digits".to_owned())
}

fn verify(client: &Client, name: &str, theirs: Option<SafetyNumber>) -> Result<(), Failure> {
    let number = client.safety_number(name).ok_or_else(|| ContactError::Unknown(name.to_owned()))?;
    let mut out = stdout().lock();
    match theirs {
        None => {
            writeln!(out, "{number}")?;
            if out.is_terminal() {
                writeln!(out, "\n{}", qr_code(&number.digits())?)?;
            }
        }
        Some(theirs) if theirs == number => writeln!(out, "nobody stands between you and {name}")?,
        Some(_) => {
            let problem = format!("{name} sees another number: do not trust this contact's ticket");
            return Err(Failure::new(exit::DATA, problem));
        }
    }
    Ok(())
}
