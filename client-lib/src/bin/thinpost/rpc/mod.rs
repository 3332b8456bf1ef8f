//! `rpc`: JSON-RPC 2.0 over standard input and output, a line a message. `docs/rpc.md` is its manual.

mod lines;
mod output;
mod protocol;

use std::io;
use std::path::Path;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};
use thinpost_client::ticket::{ContactTicket, Ticket};
use thinpost_client::{
    AppId, Budget, Client, Event, Home, InboxNumber, Message, OpenError, Revocation, SYNC_BYTES_MIN,
    Subscription,
};
use tokio::io::{BufReader, Stdout};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::args::parse_app_id;
use crate::contacts::{self, parse_account};
use crate::failure::{Failure, exit};
use crate::input;
use crate::place::Place;
use crate::position::{self, Position};
use crate::show;
use lines::{Line, Lines};
use output::Output;
use protocol::{Call, ConnectParams, InboxParams, LINE_BYTES_MAX, Request, RpcError, SendParams};

/// Most messages in one answer of `inbox`.
const INBOX_MAX: u16 = 1_000;

/// Whoever asks for the end reads within this what was said before.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves until standard input ends, then finishes what was asked.
pub(crate) async fn serve(home: Place) -> Result<(), Failure> {
    let output = Output::new(tokio::io::stdout());
    let mut server = Server { home, open: None, syncs: JoinSet::new(), output };
    // A home that another process has open is an error of each request, not of this program.
    let _ = server.client().await;
    let mut lines = Lines::new(BufReader::new(tokio::io::stdin()), LINE_BYTES_MAX);
    let mut asked_to_end = std::pin::pin!(input::asked_to_end());
    let served = loop {
        tokio::select! {
            biased;
            interrupted = &mut asked_to_end => {
                // Who does not read what was said is not waited for.
                let _ = timeout(PATIENCE, server.drain()).await;
                break interrupted;
            }
            written = server.output.write() => if let Err(failure) = server.told(written) {
                break Err(failure);
            },
            Some(done) = server.syncs.join_next() => {
                if let Ok((id, result)) = done {
                    server.answer(id, result);
                }
            }
            line = lines.next(), if server.output.has_room() => match line {
                Ok(Some(line)) => server.handle(line).await,
                // Whoever asks a second time wants no more answers.
                Ok(None) => break tokio::select! {
                    biased;
                    interrupted = &mut asked_to_end => interrupted,
                    finished = server.finish() => finished,
                },
                Err(error) => break Err(Failure::of_file(input::STDIN, &error)),
            },
            // What is told waits with the home, not here.
            event = next_event(&mut server.open), if server.output.is_empty() => match event {
                Some(event) => server.tell(event),
                None => break Err(Failure::new(exit::IO, "the client has ended by itself")),
            },
        }
    };
    if let Some(Open { client, .. }) = server.open {
        client.close().await;
    }
    served
}

/// An open home, and what is told of it.
struct Open {
    client: Client,
    events: Subscription,
    position: Option<Position>,
}

struct Server {
    home: Place,
    open: Option<Open>,
    /// Requests that take their time; others are answered in the order in which they came.
    syncs: JoinSet<(Option<Value>, Result<Value, RpcError>)>,
    output: Output<Stdout>,
}

impl Server {
    /// The client, opened if it is not.
    async fn client(&mut self) -> Result<&mut Open, OpenError> {
        if self.open.is_none() {
            let client = self.home.open()?;
            // Messages are told once `connect` has said from where on.
            let events = client.subscribe(InboxNumber(u64::MAX));
            self.open = Some(Open { client, events, position: None });
        }
        self.open.as_mut().ok_or(OpenError::InUse)
    }

    async fn handle(&mut self, line: Line) {
        let request = match line {
            Line::Whole(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => return,
            Line::Whole(bytes) => protocol::parse(&bytes),
            Line::TooLong => Err(RpcError::parse(format!("a line has more than {LINE_BYTES_MAX} bytes"))),
        };
        match request {
            Ok(Request { id, call: Ok(call) }) => {
                if let Some(result) = self.call(call, &id).await {
                    self.answer(id, result);
                }
            }
            Ok(Request { id, call: Err(error) }) => self.answer(id, Err(error)),
            // The standard wants an answer even where no id could be read.
            Err(error) => self.answer(Some(Value::Null), Err(error)),
        }
    }

    fn answer(&mut self, id: Option<Value>, result: Result<Value, RpcError>) {
        if let Some(id) = id {
            self.output.say(&protocol::response(&id, result), None);
        }
    }

    /// Nothing is returned for what is answered later.
    async fn call(&mut self, call: Call, id: &Option<Value>) -> Option<Result<Value, RpcError>> {
        if let Call::Sync(params) = call {
            let client = match self.client().await {
                Ok(open) => open.client.clone(),
                Err(error) => return Some(Err(error.into())),
            };
            let budget = Budget {
                time: Duration::from_secs(params.for_s.into()),
                bytes: params.bytes.unwrap_or(u64::MAX),
            };
            if budget.bytes < SYNC_BYTES_MIN {
                let problem = format!("\"bytes\": a connection alone takes {SYNC_BYTES_MIN}");
                return Some(Err(RpcError::params(problem)));
            }
            let id = id.clone();
            self.syncs.spawn(async move {
                let report = client.sync(budget).await;
                (id, report.map(|report| show::sync_report(&report)).map_err(RpcError::from))
            });
            return None;
        }
        Some(self.call_at_once(call).await)
    }

    async fn call_at_once(&mut self, call: Call) -> Result<Value, RpcError> {
        if let Call::Init(params) = call {
            let ticket: Ticket = params.ticket.parse().map_err(RpcError::ticket)?;
            match &self.home.key {
                Some(key) => Home::create_with_key(&self.home.folder, &ticket, key)?,
                None => Home::create(&self.home.folder, &ticket)?,
            };
            let client = &self.client().await?.client;
            if let Ticket::Guest(guest) = &ticket {
                contacts::meet(client, guest).await?;
            }
            return Ok(whoami(client, &client.ticket()));
        }
        let folder = self.home.folder.clone();
        let open = self.client().await?;
        let client = &open.client;
        match call {
            Call::Ticket(params) => Ok(match params.name {
                Some(name) => whoami(client, &client.ticket_for(&name).await?),
                None => whoami(client, &client.ticket()),
            }),
            Call::TicketList => Ok(json!({ "names": client.ticket_names() })),
            Call::TicketRevoke(params) => {
                let Revocation { tokens, shut_out, unclaimed } = client.revoke_ticket(&params.name).await?;
                Ok(json!({ "tokens": tokens, "shut_out": shut_out, "unclaimed": unclaimed }))
            }
            Call::TicketRenew(params) => {
                let renewed =
                    if params.all { client.void_tickets().await? } else { client.renew_ticket().await? };
                Ok(whoami(client, &renewed))
            }
            Call::ContactAdd(params) => {
                let ticket: ContactTicket = params.ticket.parse().map_err(RpcError::ticket)?;
                client.add_contact(&params.name, &ticket).await?;
                Ok(json!({}))
            }
            Call::ContactReceipts(params) => {
                client.set_receipts(&params.name, params.receipts).await?;
                Ok(json!({}))
            }
            Call::ContactIntroduce(params) => {
                client.introduce(&params.name).await?;
                Ok(json!({}))
            }
            Call::ContactRequests => {
                let request = |ticket: ContactTicket| json!({ "account": show::account(&ticket.account), "ticket": ticket.to_string() });
                Ok(json!({ "requests": client.requests().into_iter().map(request).collect::<Vec<_>>() }))
            }
            Call::ContactAccept(params) => {
                let account = parse_account(&params.account).map_err(RpcError::params)?;
                client.accept(&account, &params.name).await?;
                Ok(json!({}))
            }
            Call::ContactDismiss(params) => {
                client.dismiss(&parse_account(&params.account).map_err(RpcError::params)?).await?;
                Ok(json!({}))
            }
            Call::TicketGuest(params) => {
                let invite = params.invite.parse().map_err(RpcError::ticket)?;
                let guest = client.guest_ticket(&params.name, invite, &params.own_name).await?;
                Ok(json!({ "ticket": guest.to_string() }))
            }
            Call::ContactRemove(params) => {
                client.remove_contact(&params.name).await?;
                Ok(json!({}))
            }
            Call::ContactList => {
                let contact = |contact: thinpost_client::Contact| {
                    json!({
                        "name": contact.name,
                        "account": show::account(&contact.ticket.account),
                        "ticket": contact.ticket.to_string(),
                        "safety_number": client.safety_number(&contact.name).map(|number| number.to_string()),
                    })
                };
                Ok(json!({ "contacts": client.contacts().into_iter().map(contact).collect::<Vec<_>>() }))
            }
            Call::Send(params) => {
                let to = params.to.clone();
                let message = client.send(&to, message(params)?).await?;
                Ok(json!({ "message": message }))
            }
            Call::Read(params) => {
                client.mark_read(&params.contact, InboxNumber(params.upto)).await?;
                Ok(json!({}))
            }
            Call::Acknowledge(params) => {
                client.acknowledge(params.upto).await?;
                Ok(json!({}))
            }
            Call::Status => Ok(show::status(&client.status().await?)),
            Call::Connect(params) => connect(&folder, open, params).await,
            Call::Disconnect => {
                client.disconnect();
                Ok(json!({}))
            }
            Call::Inbox(InboxParams { after, max }) => {
                let messages = client.inbox(InboxNumber(after), max.min(INBOX_MAX).into()).await?;
                Ok(json!({ "messages": messages.iter().map(show::received).collect::<Vec<_>>() }))
            }
            Call::Init(_) | Call::Sync(_) => Err(RpcError::invalid_request("answered elsewhere")),
        }
    }

    fn tell(&mut self, event: Event) {
        let hex = |id: Option<AppId>| id.map(|id| id.to_string());
        let line = match &event {
            Event::Link(state) => protocol::notification("link", show::link(state)),
            Event::Custody { message, app_id } => {
                protocol::notification("custody", json!({ "message": message, "id": hex(*app_id) }))
            }
            Event::Delivered { message, app_id } => {
                protocol::notification("delivered", json!({ "message": message, "id": hex(*app_id) }))
            }
            Event::Read { message, app_id } => {
                protocol::notification("read", json!({ "message": message, "id": hex(*app_id) }))
            }
            Event::Delayed { message, app_id, reason, .. } => protocol::notification(
                "delayed",
                json!({ "message": message, "id": hex(*app_id), "reason": reason.to_string() }),
            ),
            Event::Failed { message, app_id, reason } => protocol::notification(
                "failed",
                json!({ "message": message, "id": hex(*app_id), "reason": reason.to_string() }),
            ),
            Event::Abandoned { message, app_id, contact, reason } => protocol::notification(
                "abandoned",
                json!({
                    "message": message,
                    "id": hex(*app_id),
                    "contact": contact,
                    "reason": reason.to_string(),
                }),
            ),
            Event::NotesFailed { contact, reason } => protocol::notification(
                "notes-failed",
                json!({ "contact": contact, "reason": reason.to_string() }),
            ),
            Event::KeysChanged { contact } => {
                protocol::notification("keys-changed", json!({ "contact": contact }))
            }
            Event::ContactAdded { contact } => {
                protocol::notification("contact-added", json!({ "contact": contact }))
            }
            Event::Introduced { account } => {
                protocol::notification("introduced", json!({ "account": show::account(account) }))
            }
            Event::Unopened => protocol::notification("unopened", json!({})),
            Event::Restored => protocol::notification("restored", json!({})),
            Event::AskedAgain { contact } => {
                protocol::notification("asked-again", json!({ "contact": contact }))
            }
            Event::RevocationsFull => protocol::notification("revocations-full", json!({})),
            Event::Received(message) => protocol::notification("received", show::received(message)),
            Event::Missed(count) => protocol::notification("missed", json!({ "count": count })),
            _ => return,
        };
        let number = match &event {
            Event::Received(message) => Some(message.number),
            _ => None,
        };
        self.output.say(&line, number);
    }

    /// A line was written, which told the message of this number.
    fn told(&mut self, written: io::Result<Option<InboxNumber>>) -> Result<(), Failure> {
        let position = self.open.as_mut().and_then(|open| open.position.as_mut());
        match (written?, position) {
            (Some(number), Some(position)) => position.set(number),
            _ => Ok(()),
        }
    }

    /// Until all that was said is written.
    async fn drain(&mut self) -> Result<(), Failure> {
        while !self.output.is_empty() {
            let written = self.output.write().await;
            self.told(written)?;
        }
        Ok(())
    }

    /// Standard input has ended: what was asked is answered, and what has happened is told.
    async fn finish(&mut self) -> Result<(), Failure> {
        loop {
            tokio::select! {
                biased;
                written = self.output.write() => self.told(written)?,
                done = self.syncs.join_next() => match done {
                    Some(Ok((id, result))) => self.answer(id, result),
                    Some(Err(_)) => {}
                    None => return self.drain().await,
                },
                Some(event) = next_event(&mut self.open), if self.output.is_empty() => self.tell(event),
            }
        }
    }
}

async fn next_event(open: &mut Option<Open>) -> Option<Event> {
    match open {
        Some(open) => open.events.next().await,
        None => std::future::pending().await,
    }
}

fn whoami(client: &Client, ticket: &ContactTicket) -> Value {
    json!({ "account": show::account(&client.account()), "ticket": ticket.to_string() })
}

fn message(params: SendParams) -> Result<Message, RpcError> {
    let message = match (params.text, params.data) {
        (Some(text), None) => Message::from(text),
        (None, Some(data)) => Message::data(
            BASE64.decode(data.as_bytes()).map_err(|error| RpcError::params(format!("\"data\": {error}")))?,
        ),
        _ => return Err(RpcError::params("exactly one of \"text\" and \"data\" is needed")),
    };
    let message = Message { relay_visible: params.relay_visible, ..message };
    match params.id {
        Some(id) => Ok(message.with_app_id(parse_app_id(&id).map_err(RpcError::params)?)),
        None => Ok(message),
    }
}

/// From here on messages are told: after the place that is given, or after the last one that was told.
async fn connect(folder: &Path, open: &mut Open, params: ConnectParams) -> Result<Value, RpcError> {
    match params.after {
        Some(after) => {
            open.position = None;
            open.events.seek(InboxNumber(after));
        }
        None if open.position.is_none() => {
            let head = open.client.status().await?.received;
            let position = Position::open(folder, position::RPC, head)
                .map_err(|failure| RpcError::new(-32000, Some("store-failed"), failure))?;
            open.events.seek(position.get());
            open.position = Some(position);
        }
        // They are being told already.
        None => {}
    }
    if let Some(reachable) = params.reachable {
        open.client.stay_reachable(reachable);
    }
    if let Some(saver) = params.saver {
        open.client.save_bytes(saver);
    }
    open.client.connect();
    Ok(json!({ "state": open.client.link_status().borrow().state.name() }))
}
