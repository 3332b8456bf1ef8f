//! How soon a relay's store is open again after a kill, as the relay opens it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use thinpost_gateway::store::{
    Append, DeviceNo, Done, Op, Quota, RedbStore, Register, RelayTime, Store, StoreConfig,
};
use thinpost_wire::ids::{AccountKey, DeviceKey, Incarnation, Origin, Position, envelope_digest};
use thinpost_wire::token::{MailboxSecret, Token, TokenId};

use super::{FILLING_BYTES, median, milliseconds};
use crate::report::{Report, Row};

/// The longest that it may take, of a file of 1 GiB.
const BAR: Duration = Duration::from_secs(2);

/// From this size on it counts, MiB.
const BAR_FROM_MIB: u64 = 1_024;

/// Kills, each with a copy of the file: of what they take the median counts, as others use the disk, too.
const TIMES: usize = 3;

/// Envelopes in a commit.
const TOGETHER: u64 = 256;

const ACCOUNT: AccountKey = AccountKey([1; 32]);
const SECRET: MailboxSecret = MailboxSecret([2; 32]);

/// Fills a store, opens copies of it as a kill would leave it, and says if that took too long.
pub(super) fn reopen(folder: &Path, size_mib: u64, report: &mut Report) -> Result<Option<String>> {
    let [path, killed] = ["relay", "killed"].map(|name| folder.join(name));
    let store = RedbStore::open(&path, config())?;
    let device = register(&store)?;
    let mut envelopes = 0;
    while fs::metadata(&path)?.len() < size_mib << 20 {
        let numbers = envelopes + 1..=envelopes + TOGETHER;
        let ops: Vec<_> = numbers.map(|number| envelope(device, number)).collect();
        let verdicts = store.apply(&ops, RelayTime(1))?;
        ensure!(verdicts.iter().all(|verdict| matches!(verdict, Ok(Done::Accepted { .. }))), "no room");
        envelopes += TOGETHER;
    }
    let mut took = Vec::new();
    for _ in 0..TIMES {
        fs::copy(&path, &killed).with_context(|| killed.display().to_string())?;
        let began = Instant::now();
        let reopened = RedbStore::open(&killed, config())?;
        took.push(began.elapsed());
        let found = reopened.counts()?.entries;
        ensure!(found == envelopes, "{found} envelopes of {envelopes} are there");
        drop(reopened);
        fs::remove_file(&killed)?;
    }
    drop(store);
    fs::remove_file(&path)?;
    let took = median(took);
    let row = |metric, value| {
        let row = Row::new("store", metric, milliseconds(value), "ms");
        row.scenario(format!("{size_mib} MiB")).mode("a relay's store")
    };
    report.row(row("reopened after a kill", took))?;
    report.row(row("bar", BAR))?;
    let is_slow = size_mib >= BAR_FROM_MIB && took >= BAR;
    Ok(is_slow.then(|| {
        format!("a store of {size_mib} MiB was open after {took:.2?}, and less than {BAR:?} were wanted")
    }))
}

fn config() -> StoreConfig {
    let quota = Quota { entries_max: u32::MAX, bytes_max: u64::MAX };
    StoreConfig { quota, bytes_max: u64::MAX, ..StoreConfig::default() }
}

fn register(store: &RedbStore) -> Result<DeviceNo> {
    let register = Register {
        account: ACCOUNT,
        device: DeviceKey([1; 32]),
        invite: None,
        secret: SECRET,
        read: Position(0),
    };
    match store.apply(&[Op::Register(register)], RelayTime(1))?[..] {
        [Ok(Done::Registered { device, .. })] => Ok(device),
        ref verdicts => bail!("the first device is answered by {verdicts:?}"),
    }
}

fn envelope(device: DeviceNo, number: u64) -> Op {
    let body = vec![number as u8 | 1; FILLING_BYTES];
    Op::Append(Append {
        device,
        sender: None,
        origin: Origin { incarnation: Incarnation([1; 8]), sequence: number },
        mailbox: ACCOUNT,
        token: Token::mint(&SECRET, TokenId::personal(1)),
        flags: 0,
        lifetime_s: 1_000,
        age_s: 0,
        collapse: None,
        digest: envelope_digest(Incarnation([7; 8]), &ACCOUNT, &body),
        body: body.into(),
        repeat_only: false,
    })
}
