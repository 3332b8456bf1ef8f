//! Which addresses a ticket holds: what the operator says, or the best guess.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Addresses for a ticket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Advertised {
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whether nobody has said them: behind a router they are not what the world sees.
    pub(crate) is_guess: bool,
}

/// Addresses of the networks for documentation (RFC 5737, RFC 3849): nobody is there, but a route to
/// them is a route to the world.
const FAR_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const FAR_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

impl Advertised {
    /// What the operator has named.
    pub(crate) fn named(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, is_guess: false }
    }

    /// What follows from the address that the relay listens on: itself, or if it listens on all, those
    /// from which this machine would speak to the world.
    pub(crate) fn of_listener(listen: SocketAddr) -> Self {
        if !listen.ip().is_unspecified() {
            return Self::named(vec![listen]);
        }
        // On [::] a socket serves IPv4 too, unless the system is set otherwise.
        let v6 = if listen.is_ipv6() { outgoing(FAR_V6) } else { None };
        let mut ips: Vec<_> = outgoing(FAR_V4).into_iter().chain(v6).collect();
        if ips.is_empty() {
            ips.push(Ipv4Addr::LOCALHOST.into());
        }
        let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, listen.port())).collect();
        Self { addresses, is_guess: true }
    }
}

/// The address that packets to `far` would come from. Connecting a UDP socket sends none.
fn outgoing(far: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(far).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_on_one_address_advertises_it() {
        let listen = "127.0.0.1:4433".parse().unwrap();
        assert_eq!(Advertised::of_listener(listen), Advertised::named(vec![listen]));
    }

    #[test]
    fn a_relay_on_all_addresses_advertises_some_that_can_be_reached_and_says_it_guessed() {
        for listen in ["0.0.0.0:4433", "[::]:4433"] {
            let Advertised { addresses, is_guess } = Advertised::of_listener(listen.parse().unwrap());
            assert!(is_guess);
            assert!(!addresses.is_empty());
            assert!(addresses.iter().all(|address| !address.ip().is_unspecified() && address.port() == 4433));
        }
    }
}
