//! `send`: into the outbox, and then until the relay has taken custody.

use std::collections::BTreeSet;
use std::io::{Write, stdout};

use thinpost_client::{
    AccountKey, Client, Event, Failure as MessageFailure, InboxNumber, LinkState, Message, MessageId,
    MessageState, Refusal, Subscription,
};
use tokio::time::{Instant, sleep_until};

use crate::args::Send;
use crate::commands;
use crate::failure::{Failure, exit};
use crate::input;
use crate::place::Place;
use crate::show;

pub(crate) async fn send(home: &Place, args: Send) -> Result<(), Failure> {
    // The home is looked for before a person types a message for nothing.
    let client = home.open()?;
    let contact = client.contacts().into_iter().find(|contact| contact.name == args.name);
    let Some(contact) = contact else {
        return Err(thinpost_client::SendError::UnknownContact(args.name).into());
    };
    let messages: Vec<Message> = match (&args.lines, args.text) {
        (Some(path), _) => input::lines(path)?.into_iter().map(Message::from).collect(),
        (None, Some(text)) if text != "-" => vec![Message { app_id: args.id, ..text.into() }],
        (None, _) => vec![Message { app_id: args.id, ..input::text()?.into() }],
    };
    let messages: Vec<_> = messages
        .into_iter()
        .map(|message| Message { relay_visible: args.relay_visible, ..message })
        .collect();
    if messages.is_empty() {
        return Err(Failure::new(exit::DATA, "there is nothing to send"));
    }
    let mut events = client.subscribe(InboxNumber(u64::MAX));
    let ids = client.send_all(&args.name, messages).await?;
    let count = show::messages(ids.len() as u64);
    if args.offline {
        client.close().await;
        return say(&format!("{count} queued"));
    }
    client.connect();
    let waited = tokio::select! {
        biased;
        waited = wait(&client, &mut events, ids, contact.ticket.account, Instant::now() + args.time) => waited,
        interrupted = input::asked_to_end() => {
            interrupted?;
            Err(Failure::new(exit::TEMPORARY, "queued; interrupted before the relay had it"))
        }
    };
    client.close().await;
    // As that this home is an old copy: whoever only sends must learn of it, too.
    show::rest_of_news(&mut events).await;
    waited?;
    say(&format!("{count} in the relay's custody"))
}

/// Says what was done. It is done though nobody hears it.
fn say(done: &str) -> Result<(), Failure> {
    writeln!(stdout().lock(), "{done}").map_err(|error| Failure::from(error).after(done))
}

/// Until each message has met its fate.
async fn wait(
    client: &Client,
    events: &mut Subscription,
    ids: Vec<MessageId>,
    recipient: AccountKey,
    deadline: Instant,
) -> Result<(), Failure> {
    let mut open: BTreeSet<_> = ids.into_iter().collect();
    let mut failed: Option<MessageFailure> = None;
    let mut delayed: Option<Refusal> = None;
    while !open.is_empty() {
        let event = tokio::select! {
            biased;
            event = events.next() => event,
            () = sleep_until(deadline) => None,
        };
        match event {
            Some(Event::Custody { message, .. }) => drop(open.remove(&message)),
            // Perhaps of an older message to the same contact, behind which ours wait.
            Some(Event::Delayed { to, reason, .. }) if to == recipient => delayed = Some(reason),
            Some(Event::Failed { message, reason, .. }) => {
                if open.remove(&message) {
                    failed = Some(reason);
                }
            }
            Some(Event::Link(state)) => {
                if let Some(failure) = Failure::of_link(&state) {
                    return Err(failure.after("queued"));
                }
            }
            Some(Event::Missed(_)) => {
                for id in open.clone() {
                    match client.message_state(id).await? {
                        Some(MessageState::Waiting) => {}
                        Some(MessageState::Failed(reason)) => {
                            failed = Some(reason);
                            open.remove(&id);
                        }
                        // What is done for so long that it was forgotten has not failed within this wait.
                        _ => drop(open.remove(&id)),
                    }
                }
            }
            Some(other) => show::news(&other),
            None => return Err(queued(client, open.len(), delayed)),
        }
    }
    failed.map_or(Ok(()), |reason| Err(Failure::of_message(reason)))
}

/// Time is up.
fn queued(client: &Client, waiting: usize, delayed: Option<Refusal>) -> Failure {
    let state = client.link_status().borrow().state.clone();
    let why = match (state, delayed) {
        (LinkState::Online, Some(reason)) => reason.to_string(),
        (LinkState::Online, None) => "the link is slow".to_owned(),
        (state, _) => commands::unreachable_relay(&state).to_string(),
    };
    Failure::new(exit::TEMPORARY, format!("queued, {} waiting; {why}", show::messages(waiting as u64)))
}
