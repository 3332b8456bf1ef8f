//! The most memory that peers can make a relay take, as its configuration bounds it: a sum with a term for each thing that grows
//! with what they do.
//!
//! Each term multiplies a number of the configuration with a constant that stands where the thing is held, so that what is
//! changed there changes here. The terms are what is asked of the allocator; what it keeps beside is one of them, by
//! measurement.

use std::fmt::Write as _;

use thinpost_carrier::{FLOOR_BYTES, memory as carrier};
use thinpost_wire::ids::AccountKey;
use thinpost_wire::limits::{BATCH_DECODED_BYTES_MAX, BODY_BYTES_MAX, HANDLES_MAX};
use thinpost_wire::token::MailboxAddress;

use super::Config;
use crate::store::{BACKUP_BYTES, Op, TLS_SESSIONS_BYTES_MAX, Verdict};
use crate::{limits, session};

/// Threads that block on the disk. Each reads for one session at a time; one of them commits.
pub const BLOCKING_THREADS: usize = 16;

/// A thread's stack, bytes, as tokio makes it.
pub const STACK_BYTES: usize = 2 << 20;

/// What a relay takes without devices, its cache of pages aside, bytes: the program, its dictionaries, buffers of its socket.
/// `bench relay --scenario idle` finds 9.3 MB, the cache included.
const ALONE_BYTES: u64 = 12 << 20;

/// The allocator keeps what was given back in pieces that nothing fits, and whole pages in each thread's arena: a part of
/// everything that comes and goes.
const ALLOCATOR_SHARE: u64 = 10;

/// A key of the allow-list, with its share of the tree, bytes.
const LISTED_BYTES: usize = 64;

/// One thing that grows, and how far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Term {
    /// Most bytes.
    pub bytes: u64,
    /// Of what.
    pub what: String,
}

fn term(count: usize, bytes_each: usize, what: impl Into<String>) -> Term {
    Term { bytes: (count as u64).saturating_mul(bytes_each as u64), what: what.into() }
}

/// All terms on this machine, in no order.
pub fn terms(config: &Config) -> Vec<Term> {
    terms_with(config, std::thread::available_parallelism().map_or(1, usize::from))
}

/// All terms where tokio has so many threads for tasks.
fn terms_with(config: &Config, workers: usize) -> Vec<Term> {
    let limits = &config.limits;
    let (group, server) = (config.group_limits(), config.server_limits());
    // Of a session that is read in: both handle tables, as rows and as tables.
    let tables = 2 * usize::from(HANDLES_MAX) * (size_of::<MailboxAddress>() + size_of::<AccountKey>());
    let read = tables.max(session::READ_ROOM);
    let op = size_of::<Op>() + size_of::<Verdict>();
    let mut terms = vec![
        Term { bytes: ALONE_BYTES, what: "the relay without devices".into() },
        term(
            limits.connections_max,
            carrier::CONNECTION_BYTES + FLOOR_BYTES,
            format!(
                "{} connections, with what each link may hold in any case ({FLOOR_BYTES} bytes)",
                limits.connections_max
            ),
        ),
        term(1, limits.links_bytes_max, "what links hold beyond that"),
        term(
            limits.strangers_max,
            carrier::HANDSHAKE_BYTES,
            format!("handshakes of {} that are not known yet", limits.strangers_max),
        ),
        term(
            limits.incoming_max,
            carrier::INCOMING_BYTES,
            format!("first packets of {} handshakes that wait to be looked at", limits.incoming_max),
        ),
        Term { bytes: server.incoming_bytes_max.1, what: "what has come behind those".into() },
        term(1, carrier::SHARED_BYTES_MAX, "datagrams that wait for sessions, beyond the first of each"),
        // Twice: as they came, and as rows until they are on the disk.
        term(2, group.waiting_bytes_max as usize, "bodies that wait for the disk"),
        term(group.waiting_max * session::OPS_MAX, op, "operations that wait for the disk"),
        term(1, config.store.cache_bytes, "the store's cache"),
        term(1, TLS_SESSIONS_BYTES_MAX, "TLS sessions that wait for the disk"),
        term(
            1,
            limits::memory_bytes_max(limits.keys_max),
            format!("tables of rates ({} keys each)", limits.keys_max),
        ),
        term(1, BACKUP_BYTES, "a backup that is written meanwhile"),
        term(BLOCKING_THREADS, read, format!("{BLOCKING_THREADS} reads from the store at a time")),
        term(
            BLOCKING_THREADS + workers,
            STACK_BYTES + BATCH_DECODED_BYTES_MAX + BODY_BYTES_MAX,
            "threads, with what each has in hand",
        ),
        term(config.allow_list.len(), LISTED_BYTES, "the allow-list"),
    ];
    terms.retain(|term| term.bytes > 0);
    terms.push(Term { bytes: sum(&terms) / ALLOCATOR_SHARE, what: "what the allocator keeps beside".into() });
    terms
}

/// The whole relay, bytes.
pub fn bytes_max(config: &Config) -> u64 {
    sum(&terms(config))
}

fn sum(terms: &[Term]) -> u64 {
    terms.iter().fold(0, |sum, term| sum.saturating_add(term.bytes))
}

/// The terms and their sum as comments of a TOML file, the largest first.
pub(super) fn shown(terms: &[Term]) -> String {
    let mut terms = terms.to_vec();
    terms.sort_by_key(|term| std::cmp::Reverse(term.bytes));
    let whole = Term { bytes: sum(&terms), what: WHOLE.into() };
    terms.iter().chain([&whole]).fold(String::new(), |mut text, Term { bytes, what }| {
        let _ = writeln!(text, "# {bytes:>14}  {what}");
        text
    })
}

/// How the sum is called.
const WHOLE: &str = "the whole relay";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_as_it_comes_fits_a_gigabyte_on_four_processors() {
        let bytes = sum(&terms_with(&Config::default(), 4));
        assert!((500_000_000..1 << 30).contains(&bytes), "{bytes}");
    }

    #[test]
    fn the_printed_terms_add_up_to_the_printed_sum() {
        let printed = shown(&terms(&Config::default()));
        let numbers = printed.lines().map(|line| line[1..16].trim().parse::<u64>().unwrap());
        let numbers: Vec<_> = numbers.collect();
        let (whole, parts) = numbers.split_last().unwrap();
        assert_eq!((*whole, parts.iter().sum::<u64>()), (bytes_max(&Config::default()), *whole));
        assert!(printed.ends_with("  the whole relay\n"), "{printed}");
    }

    #[test]
    fn whatever_lets_peers_do_more_costs_more() {
        let base = bytes_max(&Config::default());
        let more: [fn(&mut Config); 9] = [
            |config| config.limits.connections_max += 1_000,
            |config| config.limits.strangers_max += 1_000,
            |config| config.limits.incoming_max += 1_000,
            |config| config.limits.links_bytes_max += 1 << 20,
            |config| config.limits.keys_max *= 2,
            |config| config.store.cache_bytes += 1 << 20,
            |config| config.allow_list = [AccountKey([1; 32])].into(),
            |config| {
                config.limits.connections_max *= 2;
                config.limits.strangers_max /= 2;
            },
            |config| config.limits.connections_max = 1_000_000,
        ];
        for (index, change) in more.into_iter().enumerate() {
            let mut config = Config::default();
            change(&mut config);
            assert!(bytes_max(&config) > base, "change {index}");
        }
    }
}
