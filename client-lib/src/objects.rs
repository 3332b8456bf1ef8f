//! Objects: bytes too long for a message, at the relay under the name of their BLAKE3.
//!
//! They are handed over and fetched beside messages, which never wait for them, go on where they stopped after any number
//! of breaks and restarts, and are checked when they are whole. The relay can read them, and so can whoever has the
//! name: seal what is secret before, and put name and key into a message.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thinpost_wire::frame::ObjectRefusal;
use thinpost_wire::ids::ObjectId;
use thinpost_wire::limits::OBJECT_BYTES_MAX;

use crate::client::{Client, Shared};
use crate::driver::Told;
use crate::error::{ObjectError, StoreError};

/// How far an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObjectState {
    /// On its way to the relay. Its bytes are here.
    Putting,
    /// On its way from the relay.
    Fetching,
    /// It was fetched, and is here.
    Here,
}

/// Why an object is neither handed over nor fetched any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectFailure {
    /// The relay will not take it, or does not have it.
    #[error("{0}")]
    Refused(ObjectRefusal),
    /// What the relay has under this name are other bytes.
    #[error("what has come is not the object of that name")]
    Damaged,
}

/// A row of the home's file: what is to become of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectRow {
    pub(crate) id: ObjectId,
    /// Bytes; 0 while the relay has not said it.
    pub(crate) size: u64,
    pub(crate) aim: ObjectAim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ObjectAim {
    /// To hand it over.
    Put { lifetime_s: Option<u32> },
    /// To fetch it.
    Fetch,
    /// It was fetched.
    Keep,
}

/// Names an object within one home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ObjectNumber(pub(crate) u64);

impl Client {
    /// Hands an object over to the relay, to be kept there for `lifetime`, or as long as the relay keeps any. When this
    /// returns, it is on disk here; [`Event::ObjectStored`](crate::Event::ObjectStored) says that it is at the relay.
    ///
    /// # Errors
    /// When it is empty or longer than [`OBJECT_BYTES_MAX`], or the file cannot be written.
    pub async fn put_object(
        &self,
        bytes: impl Into<Bytes>,
        lifetime: Option<Duration>,
    ) -> Result<ObjectId, ObjectError> {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        if size == 0 || size > OBJECT_BYTES_MAX {
            return Err(ObjectError::Size(size));
        }
        let id = ObjectId::of(&bytes);
        let lifetime_s = lifetime.map(|lifetime| u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX));
        let row = ObjectRow { id, size, aim: ObjectAim::Put { lifetime_s } };
        let put = move |shared: &Shared| {
            let (number, before) = shared.store.put_object(&row, &bytes)?;
            if let Some(gone) = before {
                let _ = shared.driver.send(Told::ObjectGone(gone));
            }
            let _ = shared.driver.send(Told::Object(number, row));
            Ok(())
        };
        self.shared().on_disk(put).await?;
        self.tell_relay();
        Ok(id)
    }

    /// Fetches an object from the relay, unless it is here. [`Event::ObjectArrived`](crate::Event::ObjectArrived) says that
    /// [`Client::object`] has it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn fetch_object(&self, id: ObjectId) -> Result<(), StoreError> {
        let row = ObjectRow { id, size: 0, aim: ObjectAim::Fetch };
        let fetch = move |shared: &Shared| {
            if let Some(number) = shared.store.fetch_object(&row)? {
                let _ = shared.driver.send(Told::Object(number, row));
            }
            Ok(())
        };
        self.shared().on_disk(fetch).await?;
        self.tell_relay();
        Ok(())
    }

    /// An object's bytes, if all of them are here.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn object(&self, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared().on_disk(move |shared| shared.store.object(&id)).await
    }

    /// How far an object is; none if this home has nothing to do with it, as when the relay has it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn object_state(&self, id: ObjectId) -> Result<Option<ObjectState>, StoreError> {
        let found = self.shared().on_disk(move |shared| shared.store.find_object(&id)).await?;
        Ok(found.map(|(_, row)| match row.aim {
            ObjectAim::Put { .. } => ObjectState::Putting,
            ObjectAim::Fetch => ObjectState::Fetching,
            ObjectAim::Keep => ObjectState::Here,
        }))
    }

    /// Forgets an object here, and ends its transfer if there is one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn forget_object(&self, id: ObjectId) -> Result<(), StoreError> {
        let forget = move |shared: &Shared| {
            if let Some(number) = shared.store.forget_object(&id)? {
                let _ = shared.driver.send(Told::ObjectGone(number));
            }
            Ok(())
        };
        self.shared().on_disk(forget).await?;
        self.tell_relay();
        Ok(())
    }
}
