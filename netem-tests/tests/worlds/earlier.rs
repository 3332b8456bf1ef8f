//! Files of earlier formats are opened, and hold what they held: see `fixtures/README.md`.

use std::sync::Arc;

use thinpost_client::{Client, InboxNumber, MessageId, MessageState, ReceivedContent, WallClock};
use thinpost_gateway::store::{RedbStore, Store, StoreConfig};
use thinpost_wire::ids::Position;

use crate::fixtures::{FORMATS, unpacked};

/// The day on which they were made.
struct ThatDay;

impl WallClock for ThatDay {
    fn unix_ms(&self) -> u64 {
        1_795_797_500_000
    }
}

async fn texts(client: &Client) -> Vec<String> {
    let inbox = client.inbox(InboxNumber(0), usize::MAX).await.unwrap();
    let text = |content| match content {
        ReceivedContent::Text(text) => text,
        other => panic!("{other:?}"),
    };
    inbox.into_iter().map(|message| text(message.content)).collect()
}

#[tokio::test(start_paused = true)]
async fn homes_and_stores_of_earlier_formats_hold_what_they_held() {
    for format in FORMATS {
        let folder = unpacked(format);
        // Once as it was, and once as it became.
        for _ in 0..2 {
            let store =
                RedbStore::open(&folder.path().join("relay/store.redb"), StoreConfig::default()).unwrap();
            let counts = store.counts().unwrap();
            assert_eq!((counts.accounts, counts.devices, counts.entries), (2, 2, 1), "{format}");
            let open = |name: &str| {
                let builder = Client::builder(folder.path().join(name)).wall_clock(Arc::new(ThatDay));
                builder.open().unwrap_or_else(|error| panic!("{format}, {name}: {error}"))
            };
            let (ann, bob) = (open("ann"), open("bob"));
            assert_eq!(texts(&ann).await, ["an answer"]);
            assert_eq!(texts(&bob).await, ["first, and fetched"]);
            let mut states = Vec::new();
            for id in 1..=3 {
                states.push(ann.message_state(MessageId(id)).await.unwrap());
            }
            let expected = [MessageState::Delivered, MessageState::Custody, MessageState::Waiting];
            assert_eq!(states, expected.map(Some), "{format}");
            let account = bob.account();
            assert_eq!(store.read(&account, Position(0), 10, usize::MAX).unwrap().len(), 1, "{format}");
            ann.close().await;
            bob.close().await;
        }
    }
}
