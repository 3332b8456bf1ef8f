//! A device without a home: keys, and a line to the relay on which frames go as they are.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use thinpost_carrier::{Channel, Endpoint, Identity, News, quic};
use thinpost_wire::codec::DictionarySet;
use thinpost_wire::frame::{Hello, Signature, ToDevice, ToRelay};
use thinpost_wire::ids::{AccountKey, DeviceKey, Handle, Incarnation, Origin, device_certificate_message};
use thinpost_wire::link::{Event, LinkConfig};
use thinpost_wire::table::HandleTable;
use thinpost_wire::ticket::{InviteToken, RelayTicket};
use thinpost_wire::token::{MailboxAddress, MailboxSecret, Token, TokenId};
use tokio::time::timeout;

/// What a round trip is taken for until one was measured.
const RTT: Duration = Duration::from_millis(700);

/// What a handshake and a registration may take, on a thin link and beside an attack.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A device with an account of its own. All of it follows from two numbers.
pub struct Device {
    identity: Identity,
    account: Identity,
    secret: MailboxSecret,
    number: u64,
    quic: quic::Client,
}

impl Device {
    /// The device of this number of those of a seed, for one relay.
    pub fn new(seed: u64, number: u64, relay: &RelayTicket) -> Self {
        let [device, account, secret] = [1_u8, 2, 3].map(|role| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[role]).update(&seed.to_be_bytes()).update(&number.to_be_bytes());
            *hasher.finalize().as_bytes()
        });
        let identity = Identity::from_seed(device);
        let quic = quic::Client::new(&identity, relay.key);
        Self { identity, account: Identity::from_seed(account), secret: MailboxSecret(secret), number, quic }
    }

    /// Whose it is.
    pub fn account(&self) -> AccountKey {
        AccountKey(self.account.public())
    }

    /// Its own key.
    pub fn key(&self) -> DeviceKey {
        DeviceKey(self.identity.public())
    }

    /// Its mailbox, and a right to it: as a stranger has it, or a friend.
    pub fn address(&self, token: TokenId) -> MailboxAddress {
        MailboxAddress { mailbox: self.account(), token: Token::mint(&self.secret, token) }
    }

    /// Begins a connection from this socket. With a session from before it can speak early, and nothing has left; else the
    /// handshake is complete.
    ///
    /// # Errors
    /// When there is no way there, or nobody who answers.
    pub async fn begin(&self, relay: SocketAddr, socket: Arc<dyn AsyncUdpSocket>) -> Result<Line> {
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        let mut connecting = Endpoint::connect(&self.quic, RTT, None, relay, socket, &runtime)?;
        let speaks_early = connecting.speaks_early();
        if !speaks_early {
            connecting.connected().await?;
        }
        let channel = connecting.open(LinkConfig {
            initial_rtt: RTT,
            is_rtt_measured: false,
            peer_has: DictionarySet::EMPTY,
            poll_pause_max: Duration::from_secs(45),
        });
        Ok(Line {
            channel,
            speaks_early,
            bound: 0,
            numbering: None,
            next_incarnation: self.number << 20,
            settles: true,
        })
    }

    /// What it says first, with a registration or for a device that is known.
    pub fn hello(&self, registers: bool) -> ToRelay<'static> {
        let nothing = HandleTable::<AccountKey>::default().state();
        ToRelay::Hello(Hello {
            dictionaries: DictionarySet::compiled_in().bits(),
            registers,
            deliver: true,
            mailboxes: nothing,
            senders: nothing,
            have: None,
        })
    }

    /// Asks to be let in.
    pub fn register(&self) -> ToRelay<'static> {
        self.register_into(self.account(), self.certificate(self.key()), None)
    }

    /// What its account says of a device: that it is one of its own.
    pub fn certificate(&self, device: DeviceKey) -> Signature {
        self.account.sign(&device_certificate_message(&device))
    }

    /// Asks to be let in as a device of any account, by any word of it.
    pub fn register_into(
        &self,
        account: AccountKey,
        certificate: Signature,
        invite: Option<InviteToken>,
    ) -> ToRelay<'static> {
        ToRelay::Register { account, certificate, invite, secret: self.secret }
    }

    /// A line on which the device is registered and has read its mailbox.
    ///
    /// # Errors
    /// When it is not let in, or not in time.
    pub async fn enter(&self, relay: SocketAddr, socket: UdpSocket) -> Result<Line> {
        socket.set_nonblocking(true)?;
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        self.enter_on(relay, socket).await
    }

    /// The same on any socket.
    ///
    /// # Errors
    /// As [`Device::enter`].
    pub async fn enter_on(&self, relay: SocketAddr, socket: Arc<dyn AsyncUdpSocket>) -> Result<Line> {
        let entering = async {
            let mut line = self.begin(relay, socket).await?;
            line.say(&self.hello(true));
            line.say(&self.register());
            line.caught_up().await?;
            Ok(line)
        };
        match timeout(PATIENCE, entering).await {
            Ok(line) => line,
            Err(_) => bail!("a device was not let in within {PATIENCE:?}"),
        }
    }
}

/// A link to the relay.
#[derive(Debug)]
pub struct Line {
    channel: Channel,
    /// Whether what it says first travels as 0-RTT data.
    pub speaks_early: bool,
    bound: u16,
    numbering: Option<Origin>,
    next_incarnation: u64,
    settles: bool,
}

/// What has come.
#[derive(Debug)]
pub enum Heard {
    /// A frame, which is settled.
    /// Unless [`Line::settle_nothing`] was called.
    Frame(Told),
    /// All of our frames up to this number are settled.
    Settled(u64),
}

/// What matters here of a relay's frames.
#[derive(Debug)]
pub enum Told {
    /// An envelope's body.
    Delivered(Vec<u8>),
    /// The submit of this sequence was refused.
    Refused(u64, thinpost_wire::frame::Refusal),
    /// All that waited is delivered.
    CaughtUp,
    /// Something else.
    Other,
}

impl Line {
    /// Says a frame. Returns its number.
    pub fn say(&mut self, frame: &ToRelay<'_>) -> u64 {
        self.channel.link().push(frame.encode())
    }

    /// Gives a handle to a mailbox.
    pub fn bind(&mut self, address: MailboxAddress) -> Handle {
        self.bound += 1;
        let handle = Handle(self.bound);
        self.say(&ToRelay::Bind { handle, address });
        handle
    }

    /// Submits an envelope. Returns the number of the frame, with which custody comes, and the envelope's sequence.
    pub fn submit(&mut self, to: Handle, body: &[u8]) -> (u64, u64) {
        let origin = match self.numbering {
            Some(origin) => Origin { sequence: origin.sequence + 1, ..origin },
            None => {
                let origin =
                    Origin { incarnation: Incarnation(self.next_incarnation.to_be_bytes()), sequence: 1 };
                self.say(&ToRelay::Numbering(origin));
                origin
            }
        };
        self.numbering = Some(origin);
        (self.say(&ToRelay::Submit { to, body }), origin.sequence)
    }

    /// From here on it settles nothing of what it is told.
    pub fn settle_nothing(&mut self) {
        self.settles = false;
    }

    /// What comes next.
    ///
    /// # Errors
    /// When the line has ended.
    pub async fn next(&mut self) -> Result<Heard> {
        loop {
            match self.channel.next().await? {
                News::Link(Event::Frame { number, bytes }) => {
                    let heard = match ToDevice::decode(&bytes)? {
                        ToDevice::Deliver { body, .. } | ToDevice::DeliverWith { body, .. } => {
                            Told::Delivered(body.to_vec())
                        }
                        ToDevice::Refused { origin, reason } => Told::Refused(origin.sequence, reason),
                        ToDevice::CaughtUp => Told::CaughtUp,
                        _ => Told::Other,
                    };
                    if self.settles {
                        self.channel.settle(number);
                    }
                    return Ok(Heard::Frame(heard));
                }
                News::Link(Event::Settled { upto }) => return Ok(Heard::Settled(upto)),
                _ => {}
            }
        }
    }

    /// Sends what there is, and looks at nothing.
    ///
    /// # Errors
    /// When the line has ended.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.channel.flush()?)
    }

    /// Waits until what waited in the mailbox has come, which is thrown away.
    ///
    /// # Errors
    /// When the line has ended.
    pub async fn caught_up(&mut self) -> Result<()> {
        while !matches!(self.next().await?, Heard::Frame(Told::CaughtUp)) {}
        Ok(())
    }

    /// Waits until a frame of ours is settled.
    ///
    /// # Errors
    /// When the line has ended.
    pub async fn settled(&mut self, number: u64) -> Result<()> {
        while !matches!(self.next().await?, Heard::Settled(upto) if upto >= number) {}
        Ok(())
    }
}
