//! What a relay itself says of its connections while it is attacked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use thinpost_gateway::config::{Config, LimitsConfig, memory};
use thinpost_gateway::folder::Folder;
use thinpost_gateway::limits::memory_bytes_max;
use thinpost_gateway::{Standing, control};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::is_most;

/// How often it is asked.
const EVERY: Duration = Duration::from_millis(250);

/// What comes and goes with whatever a relay does, bytes: bodies and operations on their way to the disk, what is read, pages of stacks.
/// By measurement: half of it.
const IN_HAND_BYTES: usize = 8 << 20;

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Census {
    /// Before it was attacked.
    pub first: Standing,
    /// The last before its attackers went.
    pub last: Standing,
    /// The most of each, whenever that was.
    pub most: Standing,
    /// How often it has answered.
    pub looks: u64,
}

/// How the relay with this folder stands.
///
/// # Errors
/// When it does not answer.
pub async fn look(folder: &Folder) -> Result<Standing> {
    let folder = folder.clone();
    let standing = spawn_blocking(move || control::status(&folder)).await??;
    standing.context("the relay does not say how it stands")
}

/// Asks it again and again until then.
///
/// # Errors
/// When it does not answer.
pub async fn take(folder: Folder, until: Instant) -> Result<Census> {
    let first = look(&folder).await?;
    let mut census = Census { first, last: first, most: first, looks: 1 };
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let standing = look(&folder).await?;
        // Its attackers may be gone.
        if Instant::now() >= until {
            break;
        }
        census.last = standing;
        let most = &mut census.most;
        *most = Standing {
            connected: most.connected.max(standing.connected),
            strangers: most.strangers.max(standing.strangers),
            lent_bytes: most.lent_bytes.max(standing.lent_bytes),
            called_in: most.called_in.max(standing.called_in),
        };
        census.looks += 1;
    }
    ensure!(census.looks > 1, "the relay was not asked how it stands");
    Ok(census)
}

impl Census {
    /// Whether most attackers were there by the relay's count: so many that are known and so many that say nothing at the end,
    /// beside those who were there before, and so many half-open at a time, as far as there are places for them.
    ///
    /// # Errors
    /// When they were not: then nobody was attacked.
    pub fn check(&self, known: u64, silent: u64, half_open: u64, limits: &LimitsConfig) -> Result<()> {
        let places = half_open.min(limits.strangers_max as u64);
        let connected = known + silent * places / half_open.max(1);
        let there = self.last.connected.saturating_sub(self.first.connected) as u64;
        ensure!(is_most(there, connected), "of {connected} attackers the relay counts {there} at the end");
        let open = self.most.strangers as u64;
        ensure!(is_most(open, places), "of {places} half-open connections the relay counts {open} at most");
        Ok(())
    }

    /// What these may make a relay with this configuration take beside what it had before, bytes: what `check-config` says for as
    /// many, and what fills up by and by.
    pub fn growth_bytes_max(&self, config: &Config) -> u64 {
        let bytes_max = |standing: &Standing, others: usize| {
            let mut counted = config.clone();
            counted.limits.connections_max = standing.connected + standing.strangers + others;
            counted.limits.strangers_max = standing.strangers;
            counted.limits.links_bytes_max = standing.lent_bytes;
            memory::bytes_max(&counted)
        };
        // Connections that are ending, which the relay counts as nobody.
        let ending = (config.limits.connections_max / 16).max(16);
        let fills = config.store.cache_bytes + memory_bytes_max(config.limits.keys_max);
        bytes_max(&self.most, ending) - bytes_max(&self.first, 0) + (fills + IN_HAND_BYTES) as u64
    }
}
