//! How an application is tested against a simulated relay and thin links, in virtual time:
//!
//! ```text
//! cargo run -p thinpost-netem --example own_app
//! ```
//!
//! The application here is a buddy list: whoever comes online tells everyone. What is tested is that this arrives through a GPRS link that
//! is dead for a minute, and what it costs. Relay and clients are the real ones; only sockets, disks and the clock are not.

use std::time::Duration;

use thinpost_client::{Client, Event, InboxNumber, Message, ReceivedContent, SendError};
use thinpost_netem::{Profile, World};
use tokio::time::timeout;

/// The application under test. It knows nothing of simulations.
struct Buddies<'a>(&'a Client);

impl Buddies<'_> {
    async fn tell(&self, who: &str, what: &str) -> Result<(), SendError> {
        self.0.send(who, Message::from(what)).await.map(drop)
    }

    async fn next(&self) -> Option<(String, String)> {
        let mut events = self.0.subscribe(InboxNumber(0));
        loop {
            if let Event::Received(message) = events.next().await?
                && let ReceivedContent::Text(text) = message.content
            {
                return Some((message.contact.unwrap_or_default(), text));
            }
        }
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<()> {
    let mut world = World::builder().seed(7).build();
    let mut ann = world.person("ann", &Profile::named("gprs")?);
    let mut bob = world.person("bob", &Profile::named("train")?);
    ann.open();
    bob.open();
    for (from, to) in [(&ann, &bob), (&bob, &ann)] {
        let ticket = from.client().ticket_for(to.name()).await?;
        to.client().add_contact(from.name(), &ticket).await?;
    }
    ann.client().connect();
    bob.client().connect();

    // Ann's link dies, and comes back a minute later.
    world.net().schedule_outage(ann.ip(), Duration::ZERO, Duration::from_secs(60));
    Buddies(ann.client()).tell("bob", "ann is here").await?;
    let told = timeout(Duration::from_secs(300), Buddies(bob.client()).next()).await?;
    anyhow::ensure!(told == Some(("ann".to_owned(), "ann is here".to_owned())), "bob was told {told:?}");

    let path = world.net().counters(ann.ip());
    println!("bob knows after {:.1} s", world.age().as_secs_f64());
    println!(
        "ann's link carried {} B up and {} B down",
        path.up.offered.ip_bytes, path.down.offered.ip_bytes
    );
    Ok(())
}
