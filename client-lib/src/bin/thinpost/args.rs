//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use thinpost_client::{AccountKey, AppId, SYNC_BYTES_MIN, SafetyNumber};

use crate::contacts::parse_account;
use crate::failure::{Failure, exit};

/// What each exit code means; `docs/rpc.md` and scripts rely on it.
const EXIT_CODES: &str = "\
Exit codes:
   0  done
  64  wrong usage
  65  a ticket, a message or a file that cannot be used; or messages were not delivered, and never will be
  66  no such home, contact or file
  73  the home exists already, or cannot be made
  74  reading or writing failed, or the disk is full
  75  not now: the message is queued, the relay cannot be reached, or the home is in use
  76  the relay holds another key than its ticket says, or broke the protocol
  77  the relay does not admit this device, or the home's passphrase is missing or wrong

Logs go to standard error, as THINPOST_LOG says (for example THINPOST_LOG=debug).";

/// Messages over the thinnest link.
#[derive(Debug, Parser)]
#[command(name = "thinpost", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// The folder with keys, contacts and messages [default: $THINPOST_HOME or ~/.thinpost]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// A file with the passphrase that the home is encrypted under [default: $THINPOST_PASSPHRASE_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// A file with a text model, beside those in this program; may be given several times. Contacts are told, and send what
    /// needs it: give the same ones each time
    #[arg(long = "model", global = true, value_name = "FILE")]
    pub(crate) models: Vec<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a home, and register at the relay if it can be reached
    Init(Init),
    /// Print your ticket: what others need to write to you
    Ticket(Ticket),
    /// Whom you write to
    #[command(subcommand)]
    Contact(Contact),
    /// Send a message, and wait until the relay has taken custody of it
    Send(Send),
    /// Print messages as they arrive, each once
    Listen(Listen),
    /// Send and receive all there is, then stop
    Sync {
        /// How long it may take
        #[arg(long = "for", value_name = "TIME", default_value = "25s", value_parser = humantime::parse_duration)]
        time: Duration,
        /// How many bytes it may use, as in 16KB; a connection alone takes 5KB [default: no bound]
        #[arg(long, value_name = "BYTES", value_parser = parse_budget)]
        budget: Option<u64>,
    },
    /// Print how much is waiting, sent and received, and what there is to know
    Status {
        /// As one line of JSON
        #[arg(long)]
        json: bool,
        /// What there is to know is known: print it this last time
        #[arg(long)]
        acknowledge: bool,
    },
    /// What the home is encrypted under
    #[command(subcommand)]
    Key(Key),
    /// Destroy the home with its keys, contacts and messages, whatever its passphrase
    Wipe {
        /// It cannot be undone
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Serve JSON-RPC 2.0 on standard input and output, for programs
    Rpc,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// An invite or a relay's ticket, as its operator gave it to you, or a guest's ticket from somebody there
    pub(crate) ticket: String,
    /// How long to try to reach the relay
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) time: Duration,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Ticket {
    #[command(subcommand)]
    pub(crate) command: Option<TicketCommand>,
    /// Make it for one person: it can be revoked alone, and they are no stranger
    #[arg(long = "for", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print the QR code even if the output is not a terminal
    #[arg(long, conflicts_with = "no_qr")]
    pub(crate) qr: bool,
    /// Leave out the QR code even if it is
    #[arg(long)]
    pub(crate) no_qr: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TicketCommand {
    /// Print the names that tickets were made for
    List,
    /// Print one link that brings a newcomer a relay and you as the first contact
    Guest {
        /// Your name for the guest
        name: String,
        /// An invite, as the relay's operator made it for the guest
        #[arg(long, value_name = "INVITE")]
        invite: String,
        /// The guest's name for you
        #[arg(long = "as", value_name = "NAME")]
        own_name: String,
    },
    /// Take back what one person was given
    Revoke {
        /// A contact, or the name that a ticket was made for
        name: String,
    },
    /// Take back the ticket for anybody, and print the next
    Renew {
        /// Take back every ticket ever made: nobody can write to you before they have a new one
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Contact {
    /// Give a name to the person a ticket leads to
    Add {
        /// Your name for them
        name: String,
        /// Their ticket
        ticket: String,
    },
    /// Print all contacts
    List,
    /// Print the safety number: the same on both sides if nobody stands between
    Verify {
        /// Your name for them
        name: String,
        /// The number that they see, from their screen or its QR code: says whether it is the same
        #[arg(value_parser = str::parse::<SafetyNumber>)]
        number: Option<SafetyNumber>,
    },
    /// Tell a contact what has arrived of theirs and what was read, or not; they are told by default
    Receipts {
        /// Your name for them
        name: String,
        /// Whether they are told
        receipts: Switch,
    },
    /// Tell a contact who you are, so that they can accept you
    Introduce {
        /// Your name for them
        name: String,
    },
    /// Print the accounts of strangers who have told who they are
    Requests,
    /// Make a contact of one of them
    Accept {
        /// As `requests` prints it
        #[arg(value_parser = parse_account)]
        account: AccountKey,
        /// Your name for them
        name: String,
    },
    /// Forget that one of them has told who they are
    Dismiss {
        /// As `requests` prints it
        #[arg(value_parser = parse_account)]
        account: AccountKey,
    },
    /// Forget a contact
    Remove {
        /// Your name for them
        name: String,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

impl Switch {
    pub(crate) fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Change the passphrase; --passphrase-file names the one until now, if there is one
    Set(NewKey),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct NewKey {
    /// A file with the passphrase from now on
    #[arg(long, value_name = "FILE")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
    /// None from now on: whoever can read the home's files can read everything in them
    #[arg(long)]
    pub(crate) none: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    /// A contact
    pub(crate) name: String,
    /// What to say; read from standard input if neither this nor --lines is given
    pub(crate) text: Option<String>,
    /// Send each line of a file as a message (- for standard input)
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) lines: Option<PathBuf>,
    /// Your own id for the message, 32 hex digits; it reaches the recipient
    #[arg(long, value_name = "HEX", value_parser = parse_app_id, conflicts_with = "lines")]
    pub(crate) id: Option<AppId>,
    /// Not end-to-end encrypted: the relay may read it, and learns who wrote it
    #[arg(long)]
    pub(crate) relay_visible: bool,
    /// Only put it in the outbox
    #[arg(long)]
    pub(crate) offline: bool,
    /// How long to wait for the relay
    #[arg(long = "for", value_name = "TIME", default_value = "25s", value_parser = humantime::parse_duration)]
    pub(crate) time: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Listen {
    /// Print a line of JSON for each message
    #[arg(long)]
    pub(crate) json: bool,
    /// Tell contacts that their messages were read
    #[arg(long)]
    pub(crate) mark_read: bool,
    /// Ask the relay for a sign of life when it was silent for so long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) keepalive: Duration,
    /// Only keep the way open for messages, in as few bytes as the network's NAT allows; learned in the first half hour there
    #[arg(long, conflicts_with = "keepalive")]
    pub(crate) reachable: bool,
    /// Let the relay gather what it answers for, to save bytes: what was sent is known to be in custody some seconds later
    #[arg(long)]
    pub(crate) saver: bool,
    /// Start after this place in the inbox instead of where the last `listen` stopped
    #[arg(long, value_name = "N")]
    pub(crate) after: Option<u64>,
}

/// A path in an environment variable.
fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The home's folder.
pub(crate) fn home(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    given
        .or_else(|| set("THINPOST_HOME"))
        .or_else(|| set("HOME").map(|home| home.join(".thinpost")))
        .ok_or_else(|| {
            Failure::new(exit::USAGE, "neither --home, $THINPOST_HOME nor $HOME says where the home is")
        })
}

/// The file with the home's passphrase.
pub(crate) fn passphrase_file(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| set("THINPOST_PASSPHRASE_FILE"))
}

/// Thirty-two hex digits.
pub(crate) fn parse_app_id(text: &str) -> Result<AppId, String> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let id = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    id.map(AppId).ok_or_else(|| "an id has 32 hex digits".to_owned())
}

/// What a sync may use up.
fn parse_budget(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        ..SYNC_BYTES_MIN => Err(format!("a connection alone takes {SYNC_BYTES_MIN} bytes")),
        enough => Ok(enough),
    }
}

/// A number with a unit of bytes: B, KB, MB (thousands), KiB, MiB.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let unit = match text.trim()[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        other => return Err(format!("{other:?} is no unit of bytes")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{digits:?} is not a whole number"))?;
    number.checked_mul(unit).ok_or_else(|| "that is too much".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_budget_that_no_connection_fits_is_none() {
        assert_eq!(parse_budget("5KB"), Ok(5_000));
        assert_eq!(parse_budget("4KB"), Err("a connection alone takes 5000 bytes".to_owned()));
    }

    #[test]
    fn budgets_have_units() {
        assert_eq!(parse_bytes("16KB"), Ok(16_000));
        assert_eq!(parse_bytes("2 MiB"), Ok(2 << 20));
        assert_eq!(parse_bytes("512"), Ok(512));
        for bad in ["", "KB", "1.5KB", "16 parsecs", "99999999999999999999"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_have_thirty_two_digits() {
        assert_eq!(parse_app_id(&"aB".repeat(16)), Ok(AppId([0xab; 16])));
        for bad in ["", "ab", &"g".repeat(32), &"a".repeat(33)] {
            assert!(parse_app_id(bad).is_err(), "{bad}");
        }
    }
}
