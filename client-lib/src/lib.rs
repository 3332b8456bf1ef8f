//! Thinpost for applications: a durable outbox and inbox over the thinnest link.
//!
//! A person's keys, contacts and messages live in a *home*: made once with [`Home::create`], opened by
//! one process at a time with [`Client::builder`]. [`Client::send`] returns when the message is durable
//! in the home, with or without a network; from then on it goes out as soon as the link allows, over
//! crashes and restarts. What arrives gets a number in the inbox, gapless from 1: an application that
//! keeps the last number it has dealt with sees every message exactly once.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use thinpost_client::{Client, Event, Home, InboxNumber};
//!
//! Home::create("/home/ann/.thinpost", &"tpi1...".parse()?)?;
//! let client = Client::builder("/home/ann/.thinpost").open()?;
//! client.add_contact("bob", &"tpc1...".parse()?).await?;
//! client.connect();
//! client.send("bob", "are you there?".into()).await?;
//! let mut events = client.subscribe(InboxNumber(0));
//! while let Some(event) = events.next().await {
//!     if let Event::Received(message) = event {
//!         println!("{:?}", message.content);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A home is encrypted. The application may hand over the key, a [`HomeKey`] from the system's keystore or a
//! passphrase, with [`Home::create_with_key`] and [`Builder::key`]; [`Home::set_key`] changes it, and
//! [`Home::wipe`] makes an end. Without one, the key lies beside what it encrypts, and protects nothing.
//!
//! Inside: [`Client`] is the face, `store` the one file that everything durable lives in, `outbox` decides
//! what may go next, and `driver` is the shell around one link: datagrams and time in, commits and
//! events out.

mod builder;
mod client;
mod clock;
mod contacts;
mod driver;
mod error;
mod event;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod grants;
mod home;
mod home_clock;
mod kept;
mod message;
mod network;
mod notices;
mod objects;
mod outbox;
mod points;
mod random;
mod reach;
mod requests;
mod safety;
mod seal;
mod store;
mod sync;

pub use builder::{BlockingMode, Builder};
pub use client::{Client, Status};
pub use clock::{SystemClock, WallClock};
pub use contacts::Contact;
pub use error::{
    ContactError, CreateError, GrantError, ObjectError, OpenError, RenewError, SendError, SetKeyError,
    StoreError, WipeError,
};
pub use event::{Event, LinkState, LinkStatus, Subscription};
pub use grants::Revocation;
pub use home::{Home, RelayAccess};
pub use message::{
    Abandonment, Content, Failure, InboxNumber, Message, MessageId, MessageState, Received, ReceivedContent,
};
pub use network::{Network, Udp};
pub use notices::{Matter, Notice};
pub use objects::{ObjectFailure, ObjectState};
#[cfg(feature = "crash-points")]
pub use points::CRASH_POINTS;
pub use safety::{BadSafetyNumber, SafetyNumber};
pub use store::key::HomeKey;
pub use store::storage::{MemoryStorage, Storage};
pub use sync::{Budget, SYNC_BYTES_MIN, SyncEnd, SyncReport};
pub use thinpost_wire::frame::{Denial, ObjectRefusal, Refusal};
pub use thinpost_wire::ids::{AccountKey, AppId, DeviceKey, ObjectId, RelayKey};
pub use thinpost_wire::letter::CONTENT_BYTES_MAX;
pub use thinpost_wire::limits::OBJECT_BYTES_MAX;
pub use thinpost_wire::text::{ModelName, ModelSet, Models, PartsError};
pub use thinpost_wire::ticket;
pub use thinpost_wire::token::Token;
