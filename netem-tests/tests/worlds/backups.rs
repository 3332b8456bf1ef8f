//! A relay that is put back to a backup: nothing is lost that it held or that people have, and nothing shown twice.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use thinpost_client::{Failure, Message, MessageState, Refusal};
use thinpost_gateway::config::Config;
use thinpost_gateway::store::{RedbStore, Store};
use thinpost_netem::{Leg, Person, World};
use tokio::time::sleep;

use crate::people::{A_WHILE, ann_and_bob, expected, go, inbox, introduce, line, profile, strays};

/// The relay's store, in a file, as that of a program is; and backups of it.
struct Disk {
    folder: TempDir,
    store: Arc<RedbStore>,
    stores: u32,
    backups: u32,
}

impl Disk {
    /// Gives a world's relay a store on a disk, before anybody has met it.
    fn of(world: &mut World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(open(&folder.path().join("store-0")));
        let disk = Self { folder, store, stores: 0, backups: 0 };
        disk.put_into(world);
        disk
    }

    fn put_into(&self, world: &mut World) {
        world.kill_relay();
        world.put_store(self.store.clone());
        world.start_relay();
    }

    fn back_up(&mut self) -> PathBuf {
        self.backups += 1;
        let path = self.folder.path().join(format!("backup-{}", self.backups));
        self.store.back_up(&path, &|| true).unwrap();
        path
    }

    /// Kills the relay, and starts another on a store that is made of a backup.
    fn restore(&mut self, world: &mut World, backup: &std::path::Path) {
        self.stores += 1;
        let path = self.folder.path().join(format!("store-{}", self.stores));
        RedbStore::restore(backup, &path).unwrap();
        let report = RedbStore::check(&path).unwrap();
        assert!(report.is_sound(), "{report:?}");
        self.store = Arc::new(open(&path));
        self.put_into(world);
    }
}

fn open(path: &std::path::Path) -> RedbStore {
    RedbStore::open(path, Config::default().store_config()).unwrap()
}

async fn town(seed: u64, link: &str) -> (World, Disk, Person, Person) {
    let mut world = World::new(seed);
    let disk = Disk::of(&mut world);
    let (ann, bob) = ann_and_bob(&mut world, link).await;
    (world, disk, ann, bob)
}

/// That nobody was told anything but messages, all has arrived once, and all is confirmed.
async fn assert_at_peace(people: [&Person; 2], received: u64) {
    for person in people {
        let status = person.client().status().await.unwrap();
        let what = (status.received.0, status.waiting, status.failed, status.unconfirmed);
        assert_eq!(what, (received, 0, 0, 0), "{}", person.name());
        assert_eq!(status.notices, [], "no home takes itself for a copy: {}", person.name());
    }
}

/// Talk both ways, with a backup early in it, and the relay put back to it later; and again to the same backup, or to one of
/// the restored relay.
async fn day(seed: u64, link: &str, again_of_the_same: bool) {
    const COUNT: usize = 60;
    let (mut world, mut disk, mut ann, bob) = town(seed, link).await;
    ann.client().connect();
    bob.client().connect();
    let mut backup = PathBuf::new();
    for n in 0..COUNT {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
        bob.client().send("ann", line("bob", n).into()).await.unwrap();
        sleep(Duration::from_millis(900)).await;
        match n {
            12 => backup = disk.back_up(),
            // So that some wait for Bob in what is lost, and what he has not settled is said again.
            20 => bob.client().disconnect(),
            28 => disk.restore(&mut world, &backup),
            34 => bob.client().connect(),
            40 if !again_of_the_same => backup = disk.back_up(),
            44 => {
                ann.kill().await;
                ann.open().connect();
            }
            48 => disk.restore(&mut world, &backup),
            _ => {}
        }
    }
    let what = format!("{link} {seed}, again of the same: {again_of_the_same}");
    assert_eq!(strays(inbox(&ann, COUNT as u64).await, "bob"), [], "{what}: bob to ann");
    assert_eq!(strays(inbox(&bob, COUNT as u64).await, "ann"), [], "{what}: ann to bob");
    // Rule 4 of receipts asks for the last time after four days; nothing comes twice by then.
    sleep(Duration::from_secs(24 * 3_600)).await;
    assert_at_peace([&ann, &bob], COUNT as u64).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_put_back_while_people_write_loses_repeats_and_reorders_nothing() {
    for (seed, link) in ["gprs", "edge", "gprs-bad", "hspa-lossy"].into_iter().enumerate() {
        day(seed as u64, link, seed % 2 == 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_backup_held_arrives_though_its_sender_is_gone() {
    let (mut world, mut disk, mut ann, bob) = town(1, "gprs").await;
    go(&bob, true).await;
    go(&bob, false).await;
    go(&ann, true).await;
    for n in 0..5 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
    }
    sleep(A_WHILE).await;
    let backup = disk.back_up();
    ann.kill().await;
    disk.restore(&mut world, &backup);
    bob.client().connect();
    assert_eq!(inbox(&bob, 5).await, expected("ann", 5));
}

#[tokio::test(start_paused = true)]
async fn what_was_fetched_after_the_backup_is_not_shown_again_even_if_it_was_not_sealed() {
    let (mut world, mut disk, mut ann, mut bob) = town(2, "gprs").await;
    go(&bob, true).await;
    go(&bob, false).await;
    go(&ann, true).await;
    for n in 0..3 {
        ann.client().send("bob", Message::from(line("ann", n)).relay_visible()).await.unwrap();
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
    }
    sleep(A_WHILE).await;
    let backup = disk.back_up();
    go(&bob, true).await;
    inbox(&bob, 6).await;
    // Nobody can send again.
    ann.kill().await;
    assert_eq!(disk.store.counts().unwrap().entries, 0);
    disk.restore(&mut world, &backup);
    assert_eq!(disk.store.counts().unwrap().entries, 6);
    // Nor after another link, and another relay that begins where this one was.
    for _ in 0..2 {
        sleep(Duration::from_secs(600)).await;
        assert_eq!(disk.store.counts().unwrap().entries, 0, "they were let go");
        bob.kill().await;
        sleep(Duration::from_millis(2)).await;
        bob.open().connect();
    }
    sleep(Duration::from_secs(600)).await;
    let status = bob.client().status().await.unwrap();
    assert_eq!((status.received.0, status.notices), (6, vec![]));
    let place = disk.back_up();
    disk.restore(&mut world, &place);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bob.client().status().await.unwrap().received.0, 6);
}

#[tokio::test(start_paused = true)]
async fn a_token_revoked_after_the_backup_does_not_come_to_life() {
    let (mut world, mut disk, ann, bob) = town(3, "gprs").await;
    for person in [&ann, &bob] {
        go(person, true).await;
    }
    let backup = disk.back_up();
    bob.client().revoke_ticket("ann").await.unwrap();
    go(&bob, false).await;
    disk.restore(&mut world, &backup);
    let message = ann.client().send("bob", Message::from(line("ann", 0)).relay_visible()).await.unwrap();
    sleep(Duration::from_secs(3_600)).await;
    let state = async || ann.client().message_state(message).await.unwrap().unwrap();
    assert_eq!(state().await, MessageState::Waiting, "no mailbox is open before its owner is back");
    bob.client().connect();
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(state().await, MessageState::Failed(Failure::Refused(Refusal::NotWanted)));
    assert_eq!(bob.client().status().await.unwrap().received.0, 0);
}

#[tokio::test(start_paused = true)]
async fn who_came_after_the_backup_registers_again_and_is_written_to() {
    let (mut world, mut disk, ann, bob) = town(4, "gprs").await;
    for person in [&ann, &bob] {
        go(person, true).await;
    }
    let backup = disk.back_up();
    let mut carol = world.person("carol", &profile("gprs"));
    carol.open();
    introduce(&carol, &bob).await;
    go(&carol, true).await;
    bob.client().send("carol", line("bob", 0).into()).await.unwrap();
    inbox(&carol, 1).await;
    disk.restore(&mut world, &backup);
    sleep(A_WHILE).await;
    for (from, to) in [(&bob, "carol"), (&carol, "bob"), (&ann, "bob")] {
        from.client().send(to, line(from.name(), 1).into()).await.unwrap();
    }
    inbox(&carol, 2).await;
    inbox(&bob, 2).await;
    sleep(Duration::from_secs(24 * 3_600)).await;
    assert_at_peace([&carol, &bob], 2).await;
}

/// Ann's messages are in custody when it is lost, and she has written more before she knows. Bob is back before her.
async fn written_before_it_was_known(
    seed: u64,
    is_in_doubt: bool,
    lose: impl AsyncFnOnce(&mut World, &mut Disk, PathBuf),
) {
    let (mut world, mut disk, ann, bob) = town(seed, "gprs").await;
    for person in [&ann, &bob] {
        go(person, true).await;
    }
    let backup = disk.back_up();
    go(&bob, false).await;
    for n in 0..3 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
    }
    sleep(A_WHILE).await;
    assert_eq!(ann.client().status().await.unwrap().custody, 3);
    if is_in_doubt {
        world.net().set_outage(ann.ip(), true);
    } else {
        go(&ann, false).await;
    }
    for n in 3..6 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
        sleep(Duration::from_secs(2)).await;
    }
    lose(&mut world, &mut disk, backup).await;
    go(&bob, true).await;
    world.net().set_outage(ann.ip(), false);
    ann.client().connect();
    assert_eq!(inbox(&bob, 6).await, expected("ann", 6), "seed {seed}, in doubt: {is_in_doubt}");
    sleep(Duration::from_secs(24 * 3_600)).await;
    assert_eq!(bob.client().status().await.unwrap().received.0, 6);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_since_does_not_overtake_what_the_relay_no_longer_has() {
    for seed in 10..14 {
        let restored =
            async |world: &mut World, disk: &mut Disk, backup: PathBuf| disk.restore(world, &backup);
        written_before_it_was_known(seed, seed % 2 == 0, restored).await;
        let lost = async |world: &mut World, _: &mut Disk, _| {
            world.kill_relay();
            world.lose_store();
            world.start_relay();
        };
        written_before_it_was_known(seed, seed % 2 == 0, lost).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_registers_for_another_reason_does_not_overtake_what_is_lost_either() {
    let (mut world, mut disk, ann, bob) = town(15, "gprs").await;
    for person in [&ann, &bob] {
        go(person, true).await;
    }
    let mut backup = PathBuf::new();
    for n in 0..6 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
        if n == 0 {
            inbox(&bob, 1).await;
            // It knows where Ann's handle for Bob leads.
            backup = disk.back_up();
            go(&bob, false).await;
        } else if n == 2 {
            sleep(A_WHILE).await;
            assert_eq!(ann.client().status().await.unwrap().custody, 3);
            go(&ann, false).await;
            // With that she registers anew, and hears from no relay that it does not know her.
            ann.client().void_tickets().await.unwrap();
        }
    }
    disk.restore(&mut world, &backup);
    go(&bob, true).await;
    ann.client().connect();
    assert_eq!(inbox(&bob, 6).await, expected("ann", 6));
}

#[tokio::test(start_paused = true)]
async fn what_a_backup_holds_is_not_taken_again_from_who_heard_no_answer() {
    let (mut world, mut disk, ann, bob) = town(16, "gprs").await;
    for person in [&ann, &bob] {
        go(person, true).await;
    }
    // Only its number tells this from a repeat.
    world.net().set_outage_of(ann.ip(), Leg::Down, true);
    ann.client().send("bob", Message::from(line("ann", 0)).relay_visible()).await.unwrap();
    inbox(&bob, 1).await;
    let backup = disk.back_up();
    disk.restore(&mut world, &backup);
    world.net().set_outage_of(ann.ip(), Leg::Down, false);
    ann.client().send("bob", Message::from(line("ann", 1)).relay_visible()).await.unwrap();
    assert_eq!(inbox(&bob, 2).await, expected("ann", 2));
    sleep(A_WHILE).await;
    assert_eq!(bob.client().status().await.unwrap().received.0, 2);
    assert_eq!(ann.client().status().await.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_copy_was_put_back_nothing_that_comes_is_skipped() {
    let (mut world, mut disk, ann, bob) = town(5, "gprs").await;
    for person in [&ann, &bob] {
        go(person, true).await;
    }
    let copy = disk.folder.path().join("copy");
    std::fs::copy(disk.folder.path().join("store-0"), &copy).unwrap();
    let send = async |n| {
        // Nobody sends this again when a receipt is missed.
        ann.client().send("bob", Message::from(line("ann", n)).relay_visible()).await.unwrap();
    };
    for n in 0..3 {
        send(n).await;
    }
    inbox(&bob, 3).await;
    go(&bob, false).await;
    disk.store = Arc::new(open(&copy));
    disk.put_into(&mut world);
    for n in 3..6 {
        send(n).await;
    }
    sleep(A_WHILE).await;
    assert_eq!(disk.store.counts().unwrap().entries, 3);
    bob.client().connect();
    assert_eq!(inbox(&bob, 6).await, expected("ann", 6));
    assert_eq!(bob.client().status().await.unwrap().received.0, 6);
}
