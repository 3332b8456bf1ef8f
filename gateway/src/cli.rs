//! The command line: what it takes, and what its exit codes mean.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use thinpost_gateway::StartError;
use thinpost_gateway::backup::BackupError;
use thinpost_gateway::config::{Config, ConfigError, Conflict, Registration};
use thinpost_gateway::folder::FolderError;
use thinpost_gateway::store::StoreError;

/// Names the data folder where neither the command line nor the configuration does.
pub(crate) const DATA_VARIABLE: &str = "THINPOST_RELAY_DATA";

/// The data folder if nothing names one.
const DATA_DEFAULT: &str = "relay-data";

const AFTER_HELP: &str = "\
The data folder is --data, else $THINPOST_RELAY_DATA, else what the configuration says, else ./relay-data.
RUST_LOG sets what is logged to the standard error (default: warn, without anybody's address).

Exit codes, each with one line on the standard error:
   0  done; or stopped by SIGTERM or SIGINT, in good order
  64  the command line is wrong
  65  the store, the key or a backup is damaged, or of a version that this program does not know; the
      store's file is none, or a backup's; or a restore into the data folder did not finish
  66  there is no relay in the data folder, its store or its key is gone, or there is no finished backup
      where one should be
  69  the UDP address is in use, or not to be had; or the socket failed while the relay ran
  70  a fault of this program stopped the relay
  73  the data folder or the backup cannot be created; what should become one has something in it; or the
      data folder is a backup
  74  the disk failed, or is full, or a quota on it is used up
  75  the data folder is in use by another relay
  77  the key file can be read by others
  78  the configuration is wrong";

/// A Thinpost relay: keeps messages for people on thin links until they fetch them.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the relay until SIGTERM or SIGINT; the first run makes its key and its data folder
    Run(RunArgs),
    /// Print the relay's ticket: how to reach it, and the key it proves to hold
    Ticket(TicketArgs),
    /// Print a new invite: the relay's ticket, and leave to open accounts
    Invite(InviteArgs),
    /// Check a configuration, and print what holds, defaults included
    CheckConfig(ConfigArgs),
    /// Check the store of a relay that does not run, or a backup, and print what is wrong; nothing is changed
    Check(CheckArgs),
    /// Make a backup of a relay, which may run: its key, its addresses, and its store as it is now; and check it
    Backup(BackupArgs),
    /// Make a relay of a backup, in a data folder that holds none
    Restore(RestoreArgs),
}

/// Where the data are, for commands that need nothing else of the configuration.
#[derive(Args, Debug)]
pub(crate) struct DataArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Check this backup instead
    #[arg(long, value_name = "DIR", conflicts_with = "data")]
    pub(crate) backup: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// Folder for the backup; it must not exist, or be empty
    #[arg(value_name = "DIR")]
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Do not check what was made, which takes as long as to read it three times
    #[arg(long)]
    pub(crate) no_check: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// Folder of the backup
    #[arg(value_name = "DIR")]
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    /// TOML file; without it, the defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What every command needs that touches a relay's data.
#[derive(Args, Debug)]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Data folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Address and port for the ticket, instead of the configured ones; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) qr: QrArgs,
}

#[derive(Args, Debug)]
pub(crate) struct QrArgs {
    /// Print a QR code also where the output is no terminal
    #[arg(long, conflicts_with = "no_qr")]
    pub(crate) qr: bool,
    /// Print no QR code
    #[arg(long)]
    pub(crate) no_qr: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) relay: RelayArgs,
    /// UDP address to listen on, instead of the configured one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Who may open an account, instead of what is configured
    #[arg(long, value_name = "MODE")]
    pub(crate) registration: Option<Mode>,
    /// Begin an empty store where the relay's own is lost: accounts register again, and clients send again what was sealed
    /// and has no receipt
    #[arg(long)]
    pub(crate) new_store: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TicketArgs {
    #[command(flatten)]
    pub(crate) relay: RelayArgs,
}

#[derive(Args, Debug)]
pub(crate) struct InviteArgs {
    #[command(flatten)]
    pub(crate) relay: RelayArgs,
    /// How many accounts it admits
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    /// For how long, as in 12h or 7d, or "never" to end
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_validity)]
    pub(crate) valid: Validity,
}

/// How long an invite is good for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity(pub(crate) Option<Duration>);

fn parse_validity(text: &str) -> Result<Validity, String> {
    if text == "never" {
        return Ok(Validity(None));
    }
    match humantime::parse_duration(text) {
        Ok(valid) if valid.as_secs() > 0 => Ok(Validity(Some(valid))),
        _ => Err("say a time of a second or more, as in 12h or 7d, or \"never\"".into()),
    }
}

/// [`Registration`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    Invite,
    Open,
    AllowList,
}

impl ConfigArgs {
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)
    }
}

impl RelayArgs {
    /// The configuration, with what the command line changes.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        let mut config = self.config.load()?;
        if !self.advertise.is_empty() {
            config.advertise.clone_from(&self.advertise);
        }
        config.check()?;
        Ok(config)
    }

    /// Where the relay's data are.
    pub(crate) fn data(&self, config: &Config) -> PathBuf {
        data_folder(self.data.as_ref(), config)
    }
}

impl DataArgs {
    /// Where the relay's data are.
    pub(crate) fn folder(&self) -> Result<PathBuf, ConfigError> {
        Ok(data_folder(self.data.as_ref(), &self.config.load()?))
    }
}

/// The data folder: what the command line says, else the environment, else the configuration.
fn data_folder(named: Option<&PathBuf>, config: &Config) -> PathBuf {
    let variable = || std::env::var_os(DATA_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let configured = || config.data.clone();
    named.cloned().or_else(variable).or_else(configured).unwrap_or_else(|| DATA_DEFAULT.into())
}

impl RunArgs {
    /// The configuration, with what the command line changes.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        let mut config = self.relay.load()?;
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(mode) = self.registration {
            config.registration = match mode {
                Mode::Invite => Registration::Invite,
                Mode::Open => Registration::Open,
                Mode::AllowList => Registration::AllowList,
            };
            // The list of the file stands ready for its mode, and counts for nothing in another.
            if config.registration != Registration::AllowList {
                config.allow_list.clear();
            }
        }
        config.check()?;
        Ok(config)
    }
}

/// What ends the program early: one line for a person, and a code for a script (see `sysexits.h`).
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    message: String,
}

impl Failure {
    pub(crate) const DATA: u8 = 65;
    pub(crate) const UNAVAILABLE: u8 = 69;
    pub(crate) const SOFTWARE: u8 = 70;
    pub(crate) const IO: u8 = 74;
    pub(crate) const CONFIG: u8 = 78;
    const USAGE: u8 = 64;
    const NO_INPUT: u8 = 66;
    const CANNOT_CREATE: u8 = 73;
    pub(crate) const IN_USE: u8 = 75;
    const PERMISSION: u8 = 77;

    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path or a system's message may hold line breaks.
        f.write_str(&self.message.replace(['\n', '\r'], " "))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Self::CONFIG, error)
    }
}

impl From<Conflict> for Failure {
    fn from(conflict: Conflict) -> Self {
        Self::new(Self::CONFIG, conflict)
    }
}

impl From<&FolderError> for Failure {
    fn from(error: &FolderError) -> Self {
        let code = match error {
            FolderError::Create { .. }
            | FolderError::NotEmpty { .. }
            | FolderError::IsBackup { .. }
            | FolderError::HoldsStore { .. }
            | FolderError::HoldsKey { .. } => Self::CANNOT_CREATE,
            FolderError::NoRelay { .. }
            | FolderError::NoStore { .. }
            | FolderError::StoreLost { .. }
            | FolderError::KeyLost { .. } => Self::NO_INPUT,
            FolderError::InUse { .. } => Self::IN_USE,
            FolderError::KeyExposed { .. } => Self::PERMISSION,
            FolderError::KeyDamaged { .. } | FolderError::Unfinished { .. } => Self::DATA,
            _ => Self::IO,
        };
        Self::new(code, error)
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        Self::from(&error)
    }
}

impl From<&BackupError> for Failure {
    fn from(error: &BackupError) -> Self {
        match error {
            BackupError::Folder(error) => error.into(),
            BackupError::Store(error) => error.into(),
            BackupError::NotABackup { .. } => Self::new(Self::NO_INPUT, error),
            BackupError::Full { .. } | BackupError::Low => Self::new(Self::IO, error),
            _ => Self::new(Self::DATA, error),
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::from(&error)
    }
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        let code = match error {
            StoreError::InUse => Self::IN_USE,
            StoreError::NotAStore
            | StoreError::IsBackup
            | StoreError::UnknownFormat { .. }
            | StoreError::Unknown(_)
            | StoreError::Corrupt(_) => Self::DATA,
            _ => Self::IO,
        };
        Self::new(code, error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store(error) => Self::from(&error),
            error => Self::new(Self::UNAVAILABLE, error),
        }
    }
}

/// clap explains over many lines; what matters is in the first paragraph.
impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        let message = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            "say what to do: run, ticket, invite, check-config, check, backup or restore".to_owned()
        } else {
            let text = error.to_string();
            let paragraph: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            paragraph.join(" ").trim_start_matches("error: ").to_owned()
        };
        Self::new(Self::USAGE, format!("{message}; see gateway --help"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn failure(args: &[&str]) -> Failure {
        Cli::try_parse_from(args).map(drop).map_err(Failure::from).unwrap_err()
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_is_one_line_that_says_what_is_allowed() {
        let cases = [
            (&["gateway"][..], "say what to do: run, ticket, invite, check-config, check, backup or restore"),
            (&["gateway", "fly"], "unrecognized subcommand 'fly'"),
            (
                &["gateway", "run", "--registration", "closed"],
                "invalid value 'closed' for '--registration <MODE>' \
                 [possible values: invite, open, allow-list]",
            ),
            (
                &["gateway", "invite", "--valid", "0s"],
                "invalid value '0s' for '--valid <TIME>': \
                 say a time of a second or more, as in 12h or 7d, or \"never\"",
            ),
            (
                &["gateway", "invite", "--uses", "0"],
                "invalid value '0' for '--uses <N>': 0 is not in 1..=4294967295",
            ),
        ];
        for (args, expected) in cases {
            let failure = failure(args);
            assert_eq!((failure.code, failure.to_string()), (64, format!("{expected}; see gateway --help")));
        }
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        let key = "ab".repeat(32);
        let text = format!(
            "listen = \"192.0.2.1:1\"\ndata = \"of-the-file\"\n\
             registration = \"allow-list\"\nallow_list = [\"{key}\"]\n"
        );
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let run =
            |more: &[&str]| match Cli::parse_from([&["gateway", "run", "--config", file], more].concat())
                .command
            {
                Command::Run(args) => args,
                other => panic!("{other:?}"),
            };
        let config = run(&[]).load().unwrap();
        assert_eq!(config.registration, Registration::AllowList);

        let args = run(&["--listen", "192.0.2.2:2", "--registration", "open", "--data", "of-the-line"]);
        let config = args.load().unwrap();
        assert_eq!(config.listen, "192.0.2.2:2".parse().unwrap());
        assert_eq!(config.registration, Registration::Open);
        assert_eq!(args.relay.data(&config), PathBuf::from("of-the-line"));

        let error = run(&["--advertise", "0.0.0.0:1"]).load().unwrap_err();
        assert!(error.to_string().starts_with("advertise: nobody can reach 0.0.0.0:1"), "{error}");
    }
}
