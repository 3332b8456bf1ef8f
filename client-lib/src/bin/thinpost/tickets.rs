//! Tickets: making them and taking them back.

use std::io::{IsTerminal, Write, stdout};

use thinpost_client::ticket::{ContactTicket, Ticket};
use thinpost_client::{Client, Revocation};

use crate::args::{self, TicketCommand};
use crate::commands::qr_code;
use crate::failure::Failure;
use crate::place::Place;

/// Until then the relay goes on taking what comes under it.
const WHEN: &str = "the relay is told when you next send, sync or listen";

pub(crate) async fn ticket(home: &Place, args: args::Ticket) -> Result<(), Failure> {
    let client = home.open()?;
    let with_code = args.qr || stdout().is_terminal() && !args.no_qr;
    match args.command {
        None => print(&Ticket::Contact(given(&client, args.name).await?), with_code)?,
        Some(TicketCommand::List) => {
            let mut out = stdout().lock();
            for name in client.ticket_names() {
                writeln!(out, "{name}")?;
            }
        }
        Some(TicketCommand::Guest { name, invite, own_name }) => {
            let guest = client.guest_ticket(&name, invite.parse()?, &own_name).await?;
            print(&Ticket::Guest(guest), with_code)?;
        }
        Some(TicketCommand::Revoke { name }) => {
            let revoked = client.revoke_ticket(&name).await?;
            stdout().lock().write_all(revocation(&name, &revoked).as_bytes())?;
        }
        Some(TicketCommand::Renew { all }) => {
            let renewed = if all { client.void_tickets().await? } else { client.renew_ticket().await? };
            print(&Ticket::Contact(renewed), with_code)?;
            let what = if all { "every earlier ticket is void" } else { "the one before is revoked" };
            // Standard output is the ticket alone, for scripts.
            let _ = writeln!(std::io::stderr(), "{what}; {WHEN}");
        }
    }
    client.close().await;
    Ok(())
}

/// What was done, and what is left to a person who wants somebody turned away.
fn revocation(name: &str, revoked: &Revocation) -> String {
    let Revocation { tokens, shut_out, unclaimed } = revoked;
    let who = shut_out.join(" and ");
    let mut lines = match (tokens, shut_out.is_empty()) {
        (0, _) => vec![format!("{who} had no ticket of their own, and is given none when they write")],
        (_, false) => {
            vec![format!("what was given to {name} is revoked, and {who} is given no other; {WHEN}")]
        }
        (_, true) => vec![
            format!("the ticket for {name} is revoked; {WHEN}"),
            "nobody is known to have it: if they are a contact under another name, revoke that, too"
                .to_owned(),
        ],
    };
    if !unclaimed.is_empty() {
        let tickets = unclaimed.join(", ");
        lines.push(format!("nobody is known to have these tickets, which still hold: {tickets}"));
    }
    lines.push(
        "with your ticket for anybody they can still knock: `thinpost ticket renew` takes it back".to_owned(),
    );
    lines.join("\n") + "\n"
}

async fn given(client: &Client, name: Option<String>) -> Result<ContactTicket, Failure> {
    match name {
        Some(name) => Ok(client.ticket_for(&name).await?),
        None => Ok(client.ticket()),
    }
}

fn print(ticket: &Ticket, with_code: bool) -> Result<(), Failure> {
    let mut out = stdout().lock();
    writeln!(out, "{ticket}")?;
    if with_code {
        writeln!(out, "\n{}", qr_code(&ticket.to_qr_text())?)?;
    }
    Ok(())
}
