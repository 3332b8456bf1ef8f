//! What happens on a virtual network, written down: a line a packet, or a capture that Wireshark opens.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::PacketBuilder;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

use crate::{Fate, Leg, Trace, Verdict};

/// How far packets go that a host sends.
const TTL: u8 = 64;

/// What happened to one packet, in a line: when, on which half of its way, from and to whom, how many IP bytes, and what became of it.
pub fn line(trace: &Trace) -> String {
    let Trace { at, leg, from, to, ip_bytes, fate, .. } = trace;
    let leg = match leg {
        Leg::Up => "up  ",
        Leg::Down => "down",
    };
    let mut line = format!("{:.6} {leg} {from} > {to} {ip_bytes} B ", at.as_secs_f64());
    let seconds = |at: &Duration| at.as_secs_f64();
    let written = match fate {
        Fate::Offered(Verdict::Deliver { at }) => write!(line, "arrives {:.6}", seconds(at)),
        Fate::Offered(Verdict::Damage { at }) => write!(line, "arrives damaged {:.6}", seconds(at)),
        Fate::Offered(Verdict::Double { at, again }) => {
            write!(line, "arrives {:.6} and {:.6}", seconds(at), seconds(again))
        }
        Fate::Offered(Verdict::Lost { cause }) => write!(line, "lost: {cause:?}"),
        fate => write!(line, "lost: {fate:?}"),
    };
    written.expect("a string takes what it is given");
    line
}

/// Writes what hosts send to a file in pcap's format, lost or not, with the addresses and at the time that the sender has.
pub struct Capture<W: Write> {
    writer: PcapWriter<W>,
}

impl<W: Write> Capture<W> {
    /// An empty capture.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(writer: W) -> io::Result<Self> {
        let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
        let writer = PcapWriter::with_header(writer, header).map_err(io::Error::other)?;
        Ok(Self { writer })
    }

    /// Takes in what happened to a packet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, trace: &Trace) -> io::Result<()> {
        if trace.leg != Leg::Up || !matches!(trace.fate, Fate::Offered(_) | Fate::Censored) {
            return Ok(());
        }
        let packet = packet(trace.from, trace.to, &trace.payload)?;
        let length = u32::try_from(packet.len()).map_err(io::Error::other)?;
        self.writer
            .write_packet(&PcapPacket::new(trace.at, length, &packet))
            .map(drop)
            .map_err(io::Error::other)
    }

    /// Ends it: what is left in the writer's buffer is written, too.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<()> {
        self.writer.into_writer().flush()
    }
}

fn packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), TTL),
        _ => return Err(io::Error::other("addresses of two kinds in one packet")),
    };
    let udp = ip.udp(from.port(), to.port());
    let mut packet = Vec::with_capacity(udp.size(payload.len()));
    udp.write(&mut packet, payload).map_err(io::Error::other)?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use etherparse::SlicedPacket;
    use pcap_file::pcap::PcapReader;

    use super::*;
    use crate::LossCause;

    #[test]
    fn a_capture_holds_what_was_sent_lost_or_not() {
        let sent = |leg, fate, payload: &'static [u8]| Trace {
            at: Duration::from_millis(1_500),
            leg,
            from: "10.0.0.1:40000".parse().unwrap(),
            to: "192.0.2.1:4433".parse().unwrap(),
            ip_bytes: payload.len() + 28,
            fate,
            payload: Bytes::from_static(payload),
        };
        let arrives = Fate::Offered(Verdict::Deliver { at: Duration::from_secs(2) });
        let lost = Fate::Offered(Verdict::Lost { cause: LossCause::Loss });
        let traces = [
            sent(Leg::Up, arrives, b"one"),
            sent(Leg::Down, arrives, b"one"),
            sent(Leg::Up, lost, b"another"),
            sent(Leg::Up, Fate::NoRoute, b"one"),
        ];
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file).unwrap();
        traces.iter().for_each(|trace| capture.record(trace).unwrap());
        capture.finish().unwrap();
        let mut reader = PcapReader::new(&file[..]).unwrap();
        let mut payloads = Vec::new();
        while let Some(packet) = reader.next_packet() {
            let packet = packet.unwrap();
            assert_eq!(packet.timestamp, Duration::from_millis(1_500));
            let sliced = SlicedPacket::from_ip(&packet.data).unwrap();
            let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
            assert_eq!((udp.source_port(), udp.destination_port()), (40_000, 4_433));
            payloads.push(udp.payload().to_vec());
        }
        assert_eq!(payloads, [b"one".to_vec(), b"another".to_vec()]);
        assert_eq!(line(&traces[2]), "1.500000 up   10.0.0.1:40000 > 192.0.2.1:4433 35 B lost: Loss");
    }
}
