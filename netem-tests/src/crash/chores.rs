//! What people do besides talking: everything else that changes a home. Each thing that was done when the client returned must be as
//! it was left when all is over.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use thinpost_client::ticket::{ContactTicket, RelayTicket, Ticket};
use thinpost_client::{Client, Home, MessageId, MessageState, ObjectId, ObjectState, RenewError};
use tokio::time::{Instant, sleep};

use super::Broken;
use super::talk::{TALK_MAX, Talk, texts};
use crate::world::KEEPALIVE;

/// More than a packet, and soon over on every link.
const OBJECT_BYTES: usize = 1_500;

const TO_CAROL: &str = "carol, this was written for the keys that you had";

/// What somebody hands over.
fn object(who: usize) -> Vec<u8> {
    (0..OBJECT_BYTES).map(|n| (n * 7 + n / 251 + who) as u8).collect()
}

impl Talk {
    /// The victim learns where the relay is, makes tickets and contacts, and writes to one whose keys change before that leaves. From
    /// the first of these on they may be struck. Then they are connected.
    pub(super) async fn prepare(&mut self) -> Result<(), Broken> {
        let (victim, other) = (self.victim, 1 - self.victim);
        let [own, others] = [victim, other].map(|who| self.people[who].name());
        self.wake().await?;
        self.act(victim, |client| async move { client.void_tickets().await }).await?;
        let ticket = self.ticket_for(victim, others).await?;
        let for_carol = self.ticket_for(victim, "carol").await?;
        self.ticket_for(victim, "nobody").await?;
        self.act(victim, |client| async move { client.revoke_ticket("nobody").await }).await?;
        self.add_contact(other, own, ticket).await?;
        let ticket = self.ticket_for(other, own).await?;
        self.add_contact(victim, others, ticket).await?;
        // Without receipts, the other would never know.
        for receipts in [false, true] {
            self.act(victim, move |client| async move { client.set_receipts(others, receipts).await })
                .await?;
        }
        self.write_for_other_keys(own, &for_carol).await?;
        self.is_online = true;
        self.client(victim).connect();
        Ok(())
    }

    /// Opens the victim's home, which was made with a ticket that leads nowhere, and has another by now.
    async fn wake(&mut self) -> Result<(), Broken> {
        let right = Ticket::Relay(self.world.relay_ticket());
        let nowhere = vec![([192, 0, 2, 99], 4433).into()];
        let wrong = Ticket::Relay(RelayTicket { addresses: nowhere, ..self.world.relay_ticket() });
        let renewed = Home::renew(self.people[self.victim].storage(), &wrong, None);
        renewed.expect("a home in memory can be renewed");
        self.trap.arm();
        let trap = self.trap.clone();
        let points = Arc::new(move |name| trap.pass(name));
        let person = &mut self.people[self.victim];
        let woken = catch_unwind(AssertUnwindSafe(|| {
            let renewed = Home::renew_with_crash_points(person.storage(), &right, None, points.clone());
            renewed.map_err(|error| error.to_string())?;
            let opened = person.try_open(|builder| builder.keepalive(KEEPALIVE).crash_points(points));
            opened.map_err(|error| error.to_string())
        }));
        if self.is_dying() {
            self.bury().await;
            let person = &mut self.people[self.victim];
            let renewed = Home::renew(person.storage(), &right, None);
            if !matches!(renewed, Ok(()) | Err(RenewError::Unchanged)) {
                return Err(self.undone(self.victim, format!("{renewed:?}")));
            }
            self.reopen();
            self.revive().await;
            return Ok(());
        }
        woken.unwrap_or_else(|panic| resume_unwind(panic)).map_err(|error| self.undone(self.victim, error))
    }

    /// The victim writes to Carol, who has lost her home when it leaves, and sees that her keys have changed.
    async fn write_for_other_keys(&mut self, own: &str, for_carol: &ContactTicket) -> Result<(), Broken> {
        let victim = self.victim;
        let carols = |talk: &Self| {
            let client = talk.carol.client().clone();
            async move { client.ticket_for("the victim").await.expect("a home in memory gives tickets") }
        };
        let before = carols(self).await;
        self.add_contact(victim, "carol", before).await?;
        self.send(victim, "carol", TO_CAROL.to_owned(), MessageId(1)).await?;
        self.elsewhere[victim] = 1;
        self.carol.kill().await;
        self.carol.lose_home(self.world.relay_ticket());
        sleep(Duration::from_millis(2)).await;
        self.carol.open().connect();
        let added = self.carol.client().add_contact(own, for_carol).await;
        added.expect("a home in memory takes a contact");
        let after = carols(self).await;
        self.add_contact(victim, "carol", after).await?;
        let known = self.client(victim).status().await.expect("a home in memory can be read").notices;
        let [notice] = &known[..] else {
            return Err(self.undone(victim, format!("of Carol's keys, this is known: {known:?}")));
        };
        let upto = notice.number;
        self.act(victim, move |client| async move { client.acknowledge(upto).await }).await?;
        Ok(())
    }

    async fn ticket_for(&mut self, who: usize, name: &'static str) -> Result<ContactTicket, Broken> {
        let ticket = self.act(who, move |client| async move { client.ticket_for(name).await }).await?;
        ticket.ok_or_else(|| self.undone(who, "no ticket"))
    }

    async fn add_contact(
        &mut self,
        who: usize,
        name: &'static str,
        ticket: ContactTicket,
    ) -> Result<(), Broken> {
        let add = move |client: Client| {
            let ticket = ticket.clone();
            async move { client.add_contact(name, &ticket).await }
        };
        self.act(who, add).await.map(drop)
    }

    /// Both hand an object over, and fetch the other's. Then the victim lets go of what they have read.
    pub(super) async fn exchange_objects(&mut self) -> Result<(), Broken> {
        for who in 0..2 {
            let put = move |client: Client| async move { client.put_object(object(who), None).await };
            self.act(who, put).await?;
        }
        for who in 0..2 {
            let id = ObjectId::of(&object(who));
            self.until(who, "an object was not handed over", move |client| async move {
                client.object_state(id).await.map(|state| state.is_none())
            })
            .await?;
        }
        for who in 0..2 {
            let id = ObjectId::of(&object(1 - who));
            self.act(who, move |client| async move { client.fetch_object(id).await }).await?;
        }
        for who in 0..2 {
            let id = ObjectId::of(&object(1 - who));
            self.until(who, "an object was not fetched", move |client| async move {
                client.object_state(id).await.map(|state| state == Some(ObjectState::Here))
            })
            .await?;
            let found = self.act(who, move |client| async move { client.object(id).await }).await?.flatten();
            if found != Some(object(1 - who)) {
                return Err(self.undone(who, "an object is not what was handed over"));
            }
        }
        let victim = self.victim;
        let release = |client: Client| async move {
            let upto = client.status().await?.received;
            client.release_inbox(upto).await.map(|()| upto)
        };
        let released = self.act(victim, release).await?;
        self.released[victim] = released.map_or(0, |upto| upto.0 as usize);
        Ok(())
    }

    /// The victim forgets what they do not need any more: the object, Carol, and a stranger who has told who she is.
    pub(super) async fn tidy(&mut self) -> Result<(), Broken> {
        let (victim, other) = (self.victim, 1 - self.victim);
        let id = ObjectId::of(&object(other));
        self.act(victim, move |client| async move { client.forget_object(id).await }).await?;
        self.until(victim, "Carol has not confirmed her message", |client| async move {
            client.message_state(MessageId(1)).await.map(|state| state == Some(MessageState::Delivered))
        })
        .await?;
        self.carol.client().disconnect();
        self.act(victim, |client| async move { client.remove_contact("carol").await }).await?;
        let open = self.client(victim).ticket();
        let added = self.eve.client().add_contact("the victim", &open).await;
        added.expect("a home in memory takes a contact");
        let introduced = self.eve.client().introduce("the victim").await;
        introduced.expect("a home in memory takes an introduction");
        self.eve.client().connect();
        let eve = self.eve.client().account();
        self.until(victim, "a stranger did not make herself known", |client| async move {
            Ok::<_, Broken>(!client.requests().is_empty())
        })
        .await?;
        self.eve.client().disconnect();
        self.act(victim, move |client| async move { client.dismiss(&eve).await }).await?;
        Ok(())
    }

    async fn until<E, F>(
        &mut self,
        who: usize,
        otherwise: &str,
        is_it: impl Fn(Client) -> F,
    ) -> Result<(), Broken>
    where
        E: std::fmt::Display + Send + 'static,
        F: Future<Output = Result<bool, E>> + Send + 'static,
    {
        let began = Instant::now();
        while self.act(who, &is_it).await? != Some(true) {
            if began.elapsed() > TALK_MAX {
                return Err(self.undone(who, otherwise));
            }
            self.rest(Duration::from_secs(1)).await;
        }
        Ok(())
    }

    /// All that the victim did is as they left it.
    pub(super) async fn check_chores(&self) -> Result<(), Broken> {
        let (victim, other) = (self.victim, 1 - self.victim);
        let client = self.client(victim);
        let name = self.people[other].name();
        let contacts: Vec<_> = client.contacts().into_iter().map(|contact| contact.name).collect();
        let notices = client.status().await.expect("a home in memory can be read").notices;
        let mut objects = Vec::new();
        for whose in 0..2 {
            let state = client.object_state(ObjectId::of(&object(whose))).await;
            objects.push(state.expect("a home in memory can be read"));
        }
        let carols = texts(self.carol.client()).await;
        let mut expected_names = [name, "carol"];
        expected_names.sort_unstable();
        let holds = [
            ("contacts", contacts == [name], format!("{contacts:?}")),
            ("tickets", client.ticket_names() == expected_names, format!("{:?}", client.ticket_names())),
            ("requests", client.requests().is_empty(), format!("{:?}", client.requests())),
            ("notices", notices.is_empty(), format!("{notices:?}")),
            ("objects", objects == [None, None], format!("{objects:?}")),
            ("Carol's inbox", carols == [TO_CAROL], format!("{carols:?}")),
            ("the relay", client.relay().relay == self.world.relay_ticket(), format!("{:?}", client.relay())),
        ];
        match holds.into_iter().find(|(_, holds, _)| !holds) {
            Some((what, _, found)) => Err(self.undone(victim, format!("{what}: {found}"))),
            None => Ok(()),
        }
    }
}
