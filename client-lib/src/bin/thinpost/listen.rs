//! `listen`: prints messages as they arrive.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use thinpost_client::{Client, Event, InboxNumber, Subscription};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::args::Listen;
use crate::failure::{Failure, exit};
use crate::input;
use crate::place::Place;
use crate::position::{self, Position};
use crate::show;

/// How long a line that was begun may take when the program is told to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far the printing of a message has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    Nothing,
    ALine,
    /// No other is to follow.
    TheLast,
}

pub(crate) async fn listen(home: &Place, args: Listen) -> Result<(), Failure> {
    let builder = home.builder();
    let builder = if args.reachable { builder } else { builder.keepalive(args.keepalive) };
    let client = builder.open()?;
    client.stay_reachable(args.reachable);
    client.save_bytes(args.saver);
    let mut position = match args.after {
        Some(_) => None,
        None => Some(Position::open(&home.folder, position::LISTEN, client.status().await?.received)?),
    };
    let after = args.after.map(InboxNumber).or(position.as_ref().map(Position::get)).unwrap_or_default();
    let events = client.subscribe(after);
    client.connect();
    let begun = Cell::new(Begun::Nothing);
    let listened = {
        let mut printing = pin!(print(&client, events, &args, position.as_mut(), &begun));
        tokio::select! {
            biased;
            interrupted = input::asked_to_end() => {
                if begun.replace(Begun::TheLast) == Begun::ALine {
                    // Whoever reads it may be slow.
                    let _ = timeout(PATIENCE, &mut printing).await;
                }
                interrupted
            }
            printed = &mut printing => printed,
        }
    };
    client.close().await;
    listened
}

async fn print(
    client: &Client,
    mut events: Subscription,
    args: &Listen,
    mut position: Option<&mut Position>,
    begun: &Cell<Begun>,
) -> Result<(), Failure> {
    // Whoever asks for the end need not have read all.
    let mut out = tokio::io::stdout();
    while let Some(event) = events.next().await {
        match event {
            Event::Received(message) => {
                let line = if args.json {
                    show::received(&message).to_string()
                } else {
                    show::received_line(&message)
                };
                begun.set(Begun::ALine);
                out.write_all(format!("{line}\n").as_bytes()).await?;
                out.flush().await?;
                if let Some(position) = &mut position {
                    position.set(message.number)?;
                }
                if begun.replace(Begun::Nothing) == Begun::TheLast {
                    return Ok(());
                }
                if let Some(contact) = message.contact.as_ref().filter(|_| args.mark_read) {
                    client.mark_read(contact, message.number).await?;
                }
            }
            Event::Link(state) => {
                if let Some(failure) = Failure::of_link(&state) {
                    return Err(failure);
                }
            }
            other => show::news(&other),
        }
    }
    Err(Failure::new(exit::IO, "the client has ended by itself"))
}
