//! What is tried out, and how much of it is enough.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A fault, what must hold, and the program that shows it.
pub(crate) struct Row {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    pub(crate) fault: &'static str,
    /// What must hold.
    pub(crate) bar: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// How much of it is enough.
    pub(crate) volume: u64,
    /// In one word each: the program, and what it is always told.
    command: &'static [&'static str],
    /// The option that says how much one run does.
    pub(crate) amount: &'static str,
    /// Whether runs go on at the seed where the one before ended.
    pub(crate) is_seeded: bool,
    /// How much the first run does, in the measure of `amount`.
    pub(crate) first: u64,
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "client-kills",
        fault: "kill of a client at every crash point, simulated, in virtual time",
        bar: "nothing lost, doubled or out of order; no session stuck",
        unit: "kills",
        volume: 1_000,
        command: &["crash", "--json"],
        amount: "--runs",
        is_seeded: true,
        first: 100,
    },
    Row {
        name: "process-kills",
        fault: "kill -9 of relay and clients, as processes, at random moments",
        bar: "nothing lost, doubled or out of order",
        unit: "kills",
        volume: 1_000,
        command: &["kills", "--json"],
        amount: "--count",
        is_seeded: true,
        first: 30,
    },
    Row {
        name: "point-kills",
        fault: "kill -9 of clients, as processes, at armed crash points",
        bar: "nothing lost, doubled or out of order",
        unit: "kills",
        volume: 1_000,
        command: &["kills", "--at-points", "--json"],
        amount: "--count",
        is_seeded: true,
        first: 40,
    },
    Row {
        name: "relay-power",
        fault: "power loss of a relay, torn and reordered writes; beside it a kill at each of the same places",
        bar: "what was claimed is there; opens clean, and goes on",
        unit: "cuts",
        volume: 100_000,
        command: &["store-faults", "cuts", "--json"],
        amount: "--count",
        is_seeded: true,
        first: 2_000,
    },
    Row {
        name: "client-power",
        fault: "power losses of a client, also while it recovers; torn and reordered writes",
        bar: "nothing lost, doubled or out of order; no session stuck",
        unit: "cuts",
        volume: 100_000,
        command: &["crash", "--power", "--json"],
        amount: "--runs",
        is_seeded: true,
        first: 200,
    },
    Row {
        name: "relay-calls",
        fault: "each call to a relay's disk fails: full, or broken",
        bar: "nothing false is claimed; no handle is used again",
        unit: "failures",
        volume: 10_000,
        command: &["store-faults", "calls", "--json"],
        amount: "--count",
        is_seeded: true,
        first: 500,
    },
    Row {
        name: "bit-rot",
        fault: "a bit of a relay's file flips",
        bar: "detected or harmless",
        unit: "flips",
        volume: 10_000,
        command: &["store-faults", "bits", "--json"],
        amount: "--count",
        is_seeded: true,
        first: 2_000,
    },
    Row {
        name: "durability",
        fault: "a wait for the disk, or a setting of the database about it, is taken out of the code",
        bar: "a test fails",
        unit: "settings",
        volume: 18,
        command: &["durability", "--json"],
        amount: "--count",
        is_seeded: true,
        first: 18,
    },
    Row {
        name: "cursors",
        fault: "cursors rolled back or forward, stale tokens, envelopes again, a store from a backup or a copy",
        bar: "nothing skipped; what comes again is known",
        unit: "sequences",
        volume: 1_000_000,
        command: &["store-faults", "cursors", "--json"],
        amount: "--count",
        is_seeded: true,
        first: 10_000,
    },
    Row {
        name: "storms",
        fault: "loss to 30 %, doubling, reordering, 2 s RTT, rebinding, outages, kills, lost disks, clocks",
        bar: "nothing lost, doubled or out of order",
        unit: "messages",
        volume: 1_000_000,
        command: &["world", "--json"],
        amount: "--seeds",
        is_seeded: true,
        first: 100,
    },
    Row {
        name: "replays",
        fault: "a 0-RTT first flight recorded and sent again, also after a restart and to another relay",
        bar: "nothing is delivered, registered or claimed by it; <= 3x",
        unit: "replays",
        volume: 1_000,
        command: &["flood", "replay"],
        amount: "--count",
        is_seeded: false,
        first: 1_000,
    },
    flood(
        "flood-handshakes",
        "forged and silent handshakes; amplification",
        "handshakes",
        20_000,
        &["flood", "handshakes"],
        NOBODY_WAITS_OR_IS_SENT_MORE,
    ),
    flood(
        "flood-retry",
        "the same, where each has to prove its address from the first on (QUIC's Retry)",
        "handshakes",
        20_000,
        &["flood", "handshakes", "--retry-from", "0"],
        "the same; no state for a forged address",
    ),
    flood(
        "flood-no-retry",
        "the same, where nobody has to",
        "handshakes",
        20_000,
        &["flood", "handshakes", "--retry-from", "65536"],
        "the same, but newcomers wait for places: all of them come in once it is over",
    ),
    flood(
        "flood-slow",
        "slow consumers and slow-loris at 1 B/s, half-open handshakes",
        "slow clients",
        5_000,
        &["flood", "slow"],
        NOBODY_WAITS,
    ),
    flood(
        "flood-mailbox",
        "one mailbox flooded by one sender and 10,000 strangers, and filled by friends",
        "envelopes",
        10_000,
        &["flood", "mailbox"],
        "the mailbox gets full; a word for what is refused; clients' and newcomers' p99 < 2x; memory as printed",
    ),
    flood(
        "flood-all",
        "forged and silent handshakes, slow clients and a flooded mailbox at once",
        "attacks",
        30_000,
        &["flood", "all"],
        NOBODY_WAITS_OR_IS_SENT_MORE,
    ),
    fuzz("fuzz-batch", &["fuzz/run", "batch"]),
    fuzz("fuzz-codec", &["fuzz/run", "codec"]),
    fuzz("fuzz-config", &["fuzz/run", "config"]),
    fuzz("fuzz-datagram", &["fuzz/run", "datagram"]),
    fuzz("fuzz-frame", &["fuzz/run", "frame"]),
    fuzz("fuzz-link", &["fuzz/run", "link"]),
    fuzz("fuzz-model", &["fuzz/run", "model"]),
    fuzz("fuzz-parcel", &["fuzz/run", "parcel"]),
    fuzz("fuzz-records", &["fuzz/run", "records"]),
    fuzz("fuzz-rows", &["fuzz/run", "rows"]),
    fuzz("fuzz-seal", &["fuzz/run", "seal"]),
    fuzz("fuzz-text", &["fuzz/run", "text"]),
    fuzz("fuzz-ticket", &["fuzz/run", "ticket"]),
];

// docs/reliability.md says what each of these asks for.
const NOBODY_WAITS: &str =
    "attackers are there by the relay's count; clients' and newcomers' p99 < 2x; memory as printed";
const NOBODY_WAITS_OR_IS_SENT_MORE: &str = "attackers are there by the relay's count; clients' and newcomers' p99 < 2x; memory as printed; <= 3x to forged addresses";

/// An attack on a relay that runs: seconds of quiet, then of attack.
const fn flood(
    name: &'static str,
    fault: &'static str,
    unit: &'static str,
    volume: u64,
    command: &'static [&'static str],
    bar: &'static str,
) -> Row {
    Row { name, fault, bar, unit, volume, command, amount: "--seconds", is_seeded: false, first: 90 }
}

/// A target of fuzzing: fuzz/README.md says what each reads and holds.
const fn fuzz(name: &'static str, command: &'static [&'static str]) -> Row {
    Row {
        name,
        fault: "hostile bytes, or operations, by coverage-guided fuzzing",
        bar: "no panic, 256 MiB, 10 s; and what fuzz/README.md says of each",
        unit: "executions",
        volume: 100_000_000,
        command,
        amount: "--execs",
        is_seeded: false,
        first: 100_000,
    }
}

impl Row {
    /// How this much of it is run, from a seed on.
    pub(crate) fn command(&self, programs: &Path, from: u64, amount: u64) -> Command {
        let [program, always @ ..] = self.command else { unreachable!("every row has a program") };
        let mut command = Command::new(program_at(programs, program));
        command.args(always).arg(self.amount).arg(amount.to_string());
        if self.is_seeded {
            command.arg("--from").arg(from.to_string());
        }
        command
    }

    /// The file of its program.
    pub(crate) fn program(&self, programs: &Path) -> PathBuf {
        program_at(programs, self.command[0])
    }
}

/// A program stands beside this one; what has a folder is a script of the repository.
fn program_at(programs: &Path, program: &str) -> PathBuf {
    if program.contains('/') {
        return Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(program);
    }
    programs.join(program).with_extension(std::env::consts::EXE_EXTENSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_to_be_taken_out() {
        let settings = include_str!("../../../durability.toml").matches("[[settings]]").count();
        let volumes = ROWS.iter().filter(|row| row.name == "durability").map(|row| row.volume);
        assert!(volumes.eq([settings as u64]));
    }
}
