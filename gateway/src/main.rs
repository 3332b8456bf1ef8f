//! `gateway`: runs a relay, and makes what its operator hands out.

mod address;
mod cli;
mod log;
mod qr;
mod upkeep;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser;
use clap::error::ErrorKind;
use quinn::Runtime;
use quinn::udp::UdpSocketState;
use thinpost_gateway::config::{Config, Registration, memory};
#[cfg(unix)]
use thinpost_gateway::control::Control;
use thinpost_gateway::folder::{Folder, FolderError, RelayKeys};
use thinpost_gateway::invite::InviteParams;
use thinpost_gateway::store::{CommitMode, RedbStore};
use thinpost_gateway::{Relay, RelayParts, Stopped};
use thinpost_wire::ids::RelayKey;
use thinpost_wire::ticket::{RelayTicket, Ticket};

use self::address::Advertised;
use self::cli::{Cli, Command, Failure, InviteArgs, QrArgs, RelayArgs, RunArgs, TicketArgs};

/// A relay that was told to stop is gone after this long, even if the disk hangs: what it has not
/// written, it has not promised.
const STOP_MAX: Duration = Duration::from_millis(4_500);

/// Bytes that the system may hold for the relay's socket, outside of its own memory. Linux gives 208 KiB unasked, which a hundred
/// devices that all say something fill while one commit keeps the processor.
const RECEIVE_BYTES: usize = 4 << 20;

fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => perform(cli.command),
        Err(help) if matches!(help.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            help.print().map_err(stdout_failed)
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.code)
        }
    }
}

fn perform(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run(&args),
        Command::Ticket(args) => ticket(&args),
        Command::Invite(args) => invite(&args),
        Command::CheckConfig(args) => print(&args.load()?.to_toml()),
        Command::Check(args) => upkeep::check(&args),
        Command::Backup(args) => upkeep::back_up(&args),
        Command::Restore(args) => upkeep::restore(&args),
    }
}

fn run(args: &RunArgs) -> Result<(), Failure> {
    let config = args.load()?;
    log::begin();
    let folder = Folder::open(&args.relay.data(&config))?;
    // Held until the process ends.
    let lock = folder.lock()?;
    // Before anything that writes: it may be what makes room.
    let reserve = folder.reserve(&lock, config.store.reserve_bytes);
    let socket = bind(config.listen)?;
    let (keys, store) = keys_and_store(&folder, &config, args.new_store)?;
    folder.add_key_check(&lock);
    let store = Arc::new(match reserve {
        Some(reserve) => store.with_reserve(reserve),
        None => store,
    });

    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(memory::BLOCKING_THREADS)
        .thread_stack_size(memory::STACK_BYTES)
        .build()
        .map_err(|error| Failure::new(Failure::IO, format!("cannot start threads: {error}")))?;
    let outcome = executor.block_on(async {
        let stop = stop_signal()?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let relay = Relay::start(RelayParts {
            identity: keys.identity(),
            reset_key: keys.reset_key(),
            invites: keys.invites(),
            config: config.clone(),
            store: store.clone(),
            socket: runtime.wrap_udp_socket(socket).map_err(listen_failed(config.listen))?,
            runtime,
            commit_mode: CommitMode::Blocking,
            rng_seed: None,
            unix_time_s: Arc::new(unix_time_s),
        })?;
        take_requests(&folder, store, &relay);
        let local = relay.local_addr().map_err(listen_failed(config.listen))?;
        let addresses = publish(&config, &folder, local)?;
        let ticket = Ticket::Relay(relay_ticket(&keys, addresses));
        // A relay whose words nobody reads serves all the same.
        if let Err(failure) = announce(args, &config, &folder, local, &ticket) {
            complain(&failure);
        }
        let stopped = tokio::select! {
            biased;
            () = stop => None,
            stopped = relay.stopped() => Some(stopped),
        };
        let fault = match stopped {
            Some(Stopped::Store(error)) => return Err(Failure::from(&*error)),
            Some(Stopped::Panicked) => {
                return Err(Failure::new(Failure::SOFTWARE, "stopped by a fault of this program"));
            }
            Some(Stopped::Socket) => {
                Some(Failure::new(Failure::UNAVAILABLE, format!("the UDP socket at {local} failed")))
            }
            _ => None,
        };
        if tokio::time::timeout(STOP_MAX, relay.shutdown()).await.is_err() {
            return Err(Failure::new(Failure::IO, "stopped without waiting for the disk any longer"));
        }
        fault.map_or(Ok(()), Err)
    });
    // A thread that waits for a hanging disk must not hold up the end.
    executor.shutdown_background();
    outcome
}

/// A relay's key, and its store. The first run makes both, the store first: where there is one of them, and the other is not, it was
/// lost, and a new one in its place would be no help to anybody.
fn keys_and_store(
    folder: &Folder,
    config: &Config,
    new_store: bool,
) -> Result<(RelayKeys, RedbStore), Failure> {
    let (has_key, has_store) = (folder.has_key()?, folder.has_store()?);
    if has_key {
        // One that cannot be read says so before there is a store.
        folder.keys()?;
    }
    if has_key && !has_store && !new_store {
        return Err(FolderError::StoreLost { path: folder.path().to_owned() }.into());
    }
    let store = upkeep::quietly(|| RedbStore::open(&folder.store_path(), config.store_config()))
        .map_err(|error| Failure::from(&error))?;
    // A crash of the first run leaves one that nothing has happened to.
    if !has_key && has_store && !store.is_new().map_err(|error| Failure::from(&error))? {
        return Err(FolderError::KeyLost { path: folder.key_path() }.into());
    }
    Ok((folder.keys()?, store))
}

/// Lets the operator ask for backups, and how the relay stands. A relay runs without, too.
#[cfg(unix)]
fn take_requests(folder: &Folder, store: Arc<RedbStore>, relay: &Relay) {
    let observer = relay.observer();
    match Control::listen(folder) {
        Ok(control) => control.serve(store, move || observer.look(), upkeep::code_of),
        Err(error) => tracing::warn!(%error, "this relay cannot be asked for a backup while it runs"),
    }
}

#[cfg(not(unix))]
fn take_requests(_: &Folder, _: Arc<RedbStore>, _: &Relay) {}

/// Notes where the relay can be reached, for the tickets that are made while it runs.
fn publish(config: &Config, folder: &Folder, local: SocketAddr) -> Result<Vec<SocketAddr>, Failure> {
    let advertised = if config.advertise.is_empty() {
        Advertised::of_listener(local)
    } else {
        Advertised::named(config.advertise.clone())
    };
    folder.publish_addresses(&advertised.addresses)?;
    warn_of_guess(&advertised);
    Ok(advertised.addresses)
}

/// Says where the relay is and how to let people in, once it can be reached.
fn announce(
    args: &RunArgs,
    config: &Config,
    folder: &Folder,
    local: SocketAddr,
    ticket: &Ticket,
) -> Result<(), Failure> {
    let how = match config.registration {
        Registration::Invite => {
            format!("to let somebody in: gateway invite --data {}", folder.path().display())
        }
        Registration::Open => "anybody may open an account with this ticket".to_owned(),
        Registration::AllowList => {
            format!("{} accounts are on the list, and open with this ticket", config.allow_list.len())
        }
    };
    print(&format!("listening on {local}\n"))?;
    print_ticket(ticket, &args.relay.qr)?;
    print(&format!("{how}\n"))
}

fn ticket(args: &TicketArgs) -> Result<(), Failure> {
    let (_, relay) = reach(&args.relay)?;
    print_ticket(&Ticket::Relay(relay), &args.relay.qr)
}

fn invite(args: &InviteArgs) -> Result<(), Failure> {
    let (keys, relay) = reach(&args.relay)?;
    let params = InviteParams { uses: args.uses, valid: args.valid.0 };
    let minted = keys.invites().mint(relay, params, unix_time_s());
    let invite = minted.map_err(|error| Failure::new(Failure::IO, error))?;
    print_ticket(&Ticket::Invite(invite), &args.relay.qr)
}

/// The keys and the ticket of a relay that may be running or stopped. One that never ran has none: a mistyped folder
/// would become another relay, whose invites admit nobody.
fn reach(args: &RelayArgs) -> Result<(RelayKeys, RelayTicket), Failure> {
    let config = args.load()?;
    let folder = Folder::of_relay(&args.data(&config))?;
    let keys = folder.keys()?;
    let published = folder.published_addresses();
    let advertised = if !config.advertise.is_empty() {
        Advertised::named(config.advertise)
    } else if !published.is_empty() {
        Advertised::named(published)
    } else if config.listen.port() == 0 {
        let problem = "listen: the port is chosen when the relay runs; run it first, or use --advertise";
        return Err(Failure::new(Failure::CONFIG, problem));
    } else {
        let advertised = Advertised::of_listener(config.listen);
        warn_of_guess(&advertised);
        advertised
    };
    let ticket = relay_ticket(&keys, advertised.addresses);
    Ok((keys, ticket))
}

fn relay_ticket(keys: &RelayKeys, addresses: Vec<SocketAddr>) -> RelayTicket {
    RelayTicket { key: RelayKey(keys.identity().public()), addresses }
}

fn warn_of_guess(advertised: &Advertised) {
    if advertised.is_guess {
        let addresses: Vec<_> = advertised.addresses.iter().map(ToString::to_string).collect();
        complain(format_args!(
            "the ticket holds a guessed address ({}); use --advertise if others reach you elsewhere",
            addresses.join(", ")
        ));
    }
}

/// Its socket holds what comes while the relay is at something else, as far as the system lets it.
fn bind(listen: SocketAddr) -> Result<UdpSocket, Failure> {
    let socket = UdpSocket::bind(listen).map_err(listen_failed(listen))?;
    let state = UdpSocketState::new((&socket).into()).map_err(listen_failed(listen))?;
    // A system that says no has less; what it loses then comes again.
    let _ = state.set_recv_buffer_size((&socket).into(), RECEIVE_BYTES);
    Ok(socket)
}

fn listen_failed(listen: SocketAddr) -> impl FnOnce(io::Error) -> Failure {
    move |error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "the port is in use".to_owned(),
            io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(Failure::UNAVAILABLE, format!("cannot listen on UDP {listen}: {why}"))
    }
}

/// Completes at SIGTERM or SIGINT. From the call on, neither ends the process by itself.
#[cfg(unix)]
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error| Failure::new(Failure::IO, format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Completes at Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// The ticket alone on its line, for scripts; before it the QR code, for people.
fn print_ticket(ticket: &Ticket, qr: &QrArgs) -> Result<(), Failure> {
    let is_terminal = io::stdout().is_terminal();
    let wants_image = qr.qr || (is_terminal && !qr.no_qr);
    if wants_image && let Some(image) = qr::draw(ticket, is_terminal) {
        print(&image)?;
    }
    print(&format!("{ticket}\n"))
}

/// Says what is wrong, if anybody listens: a standard error on a full disk is no reason to panic.
fn complain(what: impl Display) {
    let _ = writeln!(io::stderr(), "gateway: {what}");
}

/// Whoever reads the standard output and has had enough changes nothing about what was done.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(stdout_failed),
    }
}

fn stdout_failed(error: io::Error) -> Failure {
    Failure::new(Failure::IO, format!("cannot write to the standard output: {error}"))
}

fn unix_time_s() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
