//! Many devices, each no more than a key, a socket and a link.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quinn::{Runtime, TokioRuntime};
use thinpost_carrier::{Endpoint, Identity, News, quic};
use thinpost_wire::codec::DictionarySet;
use thinpost_wire::frame::{Hello, ToDevice, ToRelay};
use thinpost_wire::ids::{AccountKey, DeviceKey, device_certificate_message};
use thinpost_wire::link::{Event, LinkConfig};
use thinpost_wire::table::HandleTable;
use thinpost_wire::ticket::RelayTicket;
use thinpost_wire::token::MailboxSecret;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// How many connect at a time.
const AT_ONCE: usize = 64;

/// What a handshake and a registration may take on a machine that is busy with others of them.
const PATIENCE: Duration = Duration::from_secs(60);

const RTT: Duration = Duration::from_millis(50);

/// A device that is registered and has read its mailbox. Its link is kept up until it is dropped.
pub(crate) struct Device {
    driver: JoinHandle<()>,
}

impl Device {
    pub(crate) fn is_connected(&self) -> bool {
        !self.driver.is_finished()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects so many devices and registers an account for each.
///
/// # Errors
/// When one of them is not admitted.
pub(crate) async fn connect(relay: &RelayTicket, count: u32) -> Result<Vec<Device>> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let relay = Arc::new(relay.clone());
    let mut all = JoinSet::new();
    for number in 0..count {
        let (places, relay) = (places.clone(), relay.clone());
        all.spawn(async move {
            let _place = places.acquire().await?;
            let device = timeout(PATIENCE, connect_one(&relay, number)).await;
            device.unwrap_or_else(|_| bail!("no answer")).with_context(|| format!("device {number}"))
        });
    }
    let mut devices = Vec::with_capacity(count as usize);
    while let Some(device) = all.join_next().await {
        devices.push(device??);
    }
    Ok(devices)
}

async fn connect_one(relay: &RelayTicket, number: u32) -> Result<Device> {
    let [device, account] = [0, 1].map(|role| {
        let mut seed = [role; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Identity::from_seed(seed)
    });
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no socket")?;
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
    let socket = runtime.wrap_udp_socket(socket)?;
    let quic = quic::Client::new(&device, relay.key);
    let mut connecting = Endpoint::connect(&quic, RTT, None, relay.addresses[0], socket, &runtime)?;
    connecting.connected().await?;
    let initial_rtt = connecting.rtt();
    let mut channel = connecting.open(LinkConfig {
        initial_rtt,
        is_rtt_measured: true,
        peer_has: DictionarySet::EMPTY,
        poll_pause_max: Duration::from_secs(45),
    });
    let nothing = HandleTable::<AccountKey>::default().state();
    let hello = Hello {
        dictionaries: DictionarySet::compiled_in().bits(),
        registers: true,
        deliver: true,
        mailboxes: nothing,
        senders: nothing,
        have: None,
    };
    let certificate = account.sign(&device_certificate_message(&DeviceKey(device.public())));
    let register = ToRelay::Register {
        account: AccountKey(account.public()),
        certificate,
        invite: None,
        secret: MailboxSecret(*account.seed()),
    };
    channel.link().push(ToRelay::Hello(hello).encode());
    channel.link().push(register.encode());
    loop {
        if let News::Link(Event::Frame { number, bytes }) = channel.next().await? {
            channel.settle(number);
            if ToDevice::decode(&bytes)? == ToDevice::CaughtUp {
                break;
            }
        }
    }
    let driver = tokio::spawn(async move { while channel.next().await.is_ok() {} });
    Ok(Device { driver })
}
