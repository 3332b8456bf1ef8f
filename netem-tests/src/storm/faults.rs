//! What fails in a storm.

use std::io;
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_client::ObjectId;
use tokio::time::sleep;
use tracing::debug;

use super::link::draw_link;
use super::{Put, Storm};
use crate::disk::Failure;
use crate::{Censorship, Leg};

/// How far a clock may be set forth or back, seconds.
const CLOCK_STEPS_S: [i64; 5] = [1, 60, 3_600, 12 * 3_600, 365 * 24 * 3_600];

/// Sizes of objects, bytes.
const OBJECT_BYTES: [usize; 3] = [900, 5_000, 30_000];

fn clock_step_s(random: &mut ChaCha8Rng) -> i64 {
    let step_s = *CLOCK_STEPS_S.choose(random).expect("there are steps");
    if random.random() { -step_s } else { step_s }
}

impl Storm {
    pub(super) fn set_outage(&mut self, who: usize, outage: bool) {
        self.faults += u64::from(outage);
        self.lives[who].has_outage = outage;
        let (net, ip) = (self.world.net(), self.lives[who].person.ip());
        if outage && self.odd.random_ratio(1, 3) {
            debug!("one direction of a link is dead");
            let leg = if self.odd.random() { Leg::Up } else { Leg::Down };
            net.set_outage_of(ip, leg, true);
        } else {
            net.set_outage(ip, outage);
        }
    }

    pub(super) async fn turn_relay(&mut self) {
        if !self.relay_is_up {
            if self.loses_disks && self.random.random_ratio(1, 2) {
                debug!("the relay lost its disk");
                self.world.lose_store();
                self.disks_lost += 1;
                self.faults += 1;
            }
            self.world.start_relay();
        } else if self.random.random() {
            debug!("the relay was killed");
            self.world.kill_relay();
        } else {
            debug!("the relay was stopped");
            self.world.stop_relay().await;
        }
        self.faults += u64::from(self.relay_is_up);
        self.relay_is_up = !self.relay_is_up;
    }

    /// The relay's next commit fails, and the relay stops; somebody starts it again one day.
    pub(super) fn fail_relay_disk(&mut self) {
        self.faults += 1;
        let failure = if self.odd.random() { Failure::Before } else { Failure::After };
        self.world.fail_disk(failure);
    }

    /// Ends somebody's client, and opens it anew; there is room on the disk then.
    pub(super) async fn kill(&mut self, who: usize) {
        self.faults += 1;
        debug!("a client was killed");
        let life = &mut self.lives[who];
        life.person.kill().await;
        life.person.storage().medium().mend();
        life.disk_is_full = false;
        // A seeded client opened twice in one millisecond would draw the same numbers twice.
        sleep(Duration::from_millis(2)).await;
        self.open(who);
    }

    pub(super) fn fill_disk(&mut self, who: usize) {
        self.faults += 1;
        self.lives[who].person.storage().medium().fail(io::ErrorKind::StorageFull);
        self.lives[who].disk_is_full = true;
    }

    pub(super) fn step_clock(&mut self, who: usize) {
        self.faults += 1;
        let step_s = clock_step_s(&mut self.odd);
        debug!("a phone's clock was set {}", if step_s < 0 { "back" } else { "forth" });
        self.lives[who].person.step_clock(step_s);
    }

    pub(super) fn step_relay_clock(&mut self) {
        self.faults += 1;
        let step_s = clock_step_s(&mut self.more);
        debug!("the relay's clock was set {}", if step_s < 0 { "back" } else { "forth" });
        self.world.step_relay_clock(step_s);
    }

    /// Somebody's phone finds itself in another network, and is told so now and then.
    pub(super) fn move_house(&mut self, who: usize) {
        self.faults += 1;
        let mut odd = ChaCha8Rng::seed_from_u64(self.odd.random());
        let link = draw_link(&mut self.odd, &mut odd, &mut self.more);
        debug!("a phone went into another network");
        let life = &mut self.lives[who];
        life.blocks_udp = false;
        life.censorship = link.censorship;
        self.world.net().attach_profile(life.person.ip(), &link);
        self.world.net().set_outage(life.person.ip(), life.has_outage);
        if self.odd.random() {
            life.person.client().network_changed();
        }
    }

    /// Somebody's network begins to let no UDP through, or ends it.
    pub(super) fn block_udp(&mut self, who: usize, blocks: bool) {
        let life = &mut self.lives[who];
        self.faults += u64::from(blocks && !life.blocks_udp);
        life.blocks_udp = blocks;
        let censorship = if blocks { Censorship::NoUdp } else { life.censorship };
        self.world.net().set_censorship(life.person.ip(), censorship);
    }

    pub(super) async fn put_object(&mut self, who: usize) {
        let len = *OBJECT_BYTES.choose(&mut self.odd).expect("there are sizes");
        let mut bytes = vec![0; len];
        self.odd.fill(&mut bytes[..]);
        let id = ObjectId::of(&bytes);
        let put = self.lives[who].person.client().put_object(bytes.clone(), None).await;
        if let Err(error) = put {
            assert!(self.lives[who].disk_is_full, "a home in memory takes an object: {error}");
            self.kill(who).await;
            let state = self.lives[who].person.client().object_state(id).await;
            if state.expect("a home in memory can be read").is_none() {
                return;
            }
        }
        debug!("an object was handed over");
        self.objects.push(Put { who, id, bytes });
    }

    /// Says what has happened to packets, once for each direction of each link.
    pub(super) fn tell_of_links(&self) {
        for life in &self.lives {
            let path = self.world.net().counters(life.person.ip());
            for link in [path.up, path.down] {
                let happened = [
                    (link.lost_loss, "a link lost packets on the air"),
                    (link.lost_queue, "a link's queue was full"),
                    (link.lost_outage, "a link was dead when packets came"),
                    (link.lost_size, "a link took no large packets"),
                    (link.overtook, "a link's packets overtook each other"),
                    (link.doubled, "a link doubled packets"),
                    (link.damaged, "a link damaged packets"),
                    (link.woke, "a link's radio had to wake up"),
                    (link.gapped, "a link had gaps"),
                    (link.stepped, "a link changed its rate"),
                ];
                for (_, what) in happened.iter().filter(|(tally, _)| tally.packets > 0) {
                    debug!("{what}");
                }
            }
        }
    }
}
