//! The thin link as a router whose kernel delays and loses what it forwards, by `netem`.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::Deserialize;

use super::namespace::Namespace;
use super::{PHONE, RELAY};
use crate::link::LinkParams;
use crate::loss::{Burst, Loss};
use crate::{PathCounters, Profile, Tally};

/// The device's name at either end.
const DEVICE: &str = "thin";

/// What a packet has on such a device before its IP header, bytes; the emulated link knows nothing of it.
const ETHERNET_BYTES: u64 = 14;

/// The router's two sides.
const TO_PHONE: Side = Side {
    device: "to-phone",
    address: Ipv4Addr::new(10, 77, 1, 2),
    ends: ["02:00:00:00:01:01", "02:00:00:00:01:02"],
};
const TO_RELAY: Side = Side {
    device: "to-relay",
    address: Ipv4Addr::new(10, 77, 0, 2),
    ends: ["02:00:00:00:00:01", "02:00:00:00:00:02"],
};

struct Side {
    device: &'static str,
    address: Ipv4Addr,
    /// The hardware addresses of the host's end and of the router's. Asking for them would be counted, too.
    ends: [&'static str; 2],
}

/// The router, and the hosts, whose devices count what they send.
#[derive(Debug)]
pub(super) struct KernelPath {
    _router: Namespace,
    phone: Arc<Namespace>,
    relay: Arc<Namespace>,
}

impl KernelPath {
    pub(super) fn lay(phone: &Arc<Namespace>, relay: &Arc<Namespace>, profile: &Profile) -> io::Result<Self> {
        let router = Namespace::new()?;
        join(phone, PHONE, &router, &TO_PHONE)?;
        join(relay, RELAY, &router, &TO_RELAY)?;
        router.set("net/ipv4/ip_forward", "1")?;
        // What goes up leaves the router towards the relay.
        slow_down(&router, TO_RELAY.device, &profile.up)?;
        slow_down(&router, TO_PHONE.device, &profile.down)?;
        Ok(Self { _router: router, phone: phone.clone(), relay: relay.clone() })
    }

    pub(super) fn counters(&self) -> io::Result<PathCounters> {
        let mut counters = PathCounters::default();
        counters.up.offered = sent(&self.phone)?;
        counters.down.offered = sent(&self.relay)?;
        Ok(counters)
    }
}

/// Lays a cable between a host and the router.
fn join(host: &Namespace, address: Ipv4Addr, router: &Namespace, side: &Side) -> io::Result<()> {
    let Side { device, ends: [ours, theirs], .. } = side;
    let pid = router.pid();
    let cable = ["link", "add", DEVICE, "address", ours, "type", "veth", "peer", "name", device];
    host.ip(&[&cable[..], &["address", theirs, "netns", &pid]].concat())?;
    for (namespace, device) in [(host, DEVICE), (router, *device)] {
        // A packet that stands for several would count as one.
        namespace.ip(&["link", "set", "dev", device, "gso_max_segs", "1"])?;
    }
    router.set_up(device, side.address, &[address])?;
    host.set_up(DEVICE, address, &[side.address])?;
    host.ip(&["route", "add", "default", "via", &side.address.to_string(), "dev", DEVICE])?;
    let neighbours = [(host, side.address, theirs, DEVICE), (router, address, ours, *device)];
    for (namespace, address, hardware, device) in neighbours {
        let address = address.to_string();
        namespace.ip(&[
            "neigh",
            "replace",
            &address,
            "lladdr",
            hardware,
            "dev",
            device,
            "nud",
            "permanent",
        ])?;
    }
    Ok(())
}

/// Puts one direction of a link in front of a device.
fn slow_down(router: &Namespace, device: &str, link: &LinkParams) -> io::Result<()> {
    let netem = netem(link)?;
    let words: Vec<&str> = netem.iter().map(String::as_str).collect();
    let added = router.run("tc", &[&["qdisc", "add", "dev", device, "root", "netem"], &words[..]].concat());
    added.map(drop).map_err(|error| {
        if !error.to_string().contains("qdisc kind is unknown") {
            return error;
        }
        let text = format!("{error}; this kernel has no netem: netem-tests/run-netem finds one");
        io::Error::new(io::ErrorKind::Unsupported, text)
    })
}

/// The words that netem understands a link by. It has no jitter that reorders beside a rate.
fn netem(link: &LinkParams) -> io::Result<Vec<String>> {
    let cannot = |what| {
        let text = format!(
            "the kernel's netem has no {what}: use a profile without, or the emulator on TUN devices"
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    };
    let LinkParams { steps, reorders, mtu_bytes, sleep, gaps, .. } = link;
    if !steps.is_empty() {
        return cannot("rate steps");
    } else if *reorders {
        return cannot("reordering beside a rate");
    } else if mtu_bytes.is_some() || sleep.is_some() || gaps.is_some() {
        return cannot("MTU holes, sleeping radios or gaps");
    }
    let us = |time: std::time::Duration| format!("{}us", time.as_micros());
    let mut words = vec!["rate".to_owned(), format!("{}bit", link.rate_bit_s), format!("-{ETHERNET_BYTES}")];
    words.extend(["delay".to_owned(), us(link.delay), us(link.jitter)]);
    words.extend(["limit".to_owned(), link.queue_packets.to_string()]);
    words.extend(loss(link.loss)?);
    for (word, share) in [("duplicate", link.doubled), ("corrupt", link.damaged)] {
        if share > 0.0 {
            words.extend([word.to_owned(), percent(share)]);
        }
    }
    Ok(words)
}

fn loss(loss: Loss) -> io::Result<Vec<String>> {
    let fraction = loss.fraction();
    let words = match loss.burst() {
        _ if fraction <= 0.0 => return Ok(Vec::new()),
        Burst::None => vec!["loss".to_owned(), "random".to_owned(), percent(fraction)],
        Burst::Packets(mean) => {
            // Gilbert's chain: from bad to good once in a mean burst, and to bad so often that the shares come out.
            let ends = 1.0 / mean;
            let begins = ends * fraction / (1.0 - fraction);
            vec!["loss".to_owned(), "gemodel".to_owned(), percent(begins), percent(ends)]
        }
        Burst::Time(_) => {
            let text = "the kernel's netem counts bursts in packets: use a profile that does";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
    };
    Ok(words)
}

fn percent(share: f64) -> String {
    format!("{:.4}%", share * 100.0)
}

/// What a host has sent through its device.
fn sent(host: &Namespace) -> io::Result<Tally> {
    #[derive(Deserialize)]
    struct Device {
        stats64: Stats,
    }
    #[derive(Deserialize)]
    struct Stats {
        tx: Sent,
    }
    #[derive(Deserialize)]
    struct Sent {
        packets: u64,
        bytes: u64,
    }
    let said = host.ip(&["-json", "-statistics", "link", "show", "dev", DEVICE])?;
    let devices: [Device; 1] = serde_json::from_str(&said).map_err(io::Error::other)?;
    let Sent { packets, bytes } = devices[0].stats64.tx;
    Ok(Tally { packets, ip_bytes: bytes - packets * ETHERNET_BYTES })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(profile: &str) -> io::Result<String> {
        Ok(netem(&Profile::named(profile).unwrap().up)?.join(" "))
    }

    #[test]
    fn a_profile_is_put_into_netems_words() {
        let gprs = "rate 20000bit -14 delay 300000us 80000us limit 30 loss gemodel 0.6803% 33.3333%";
        assert_eq!(words("gprs").unwrap(), gprs);
        let umts = "rate 128000bit -14 delay 75000us 20000us limit 100 loss random 0.5000%";
        assert_eq!(words("umts").unwrap(), umts);
    }

    #[test]
    fn what_netem_cannot_do_is_refused() {
        for profile in ["train", "sleepy", "mangled", "gprs-bad-t"] {
            assert_eq!(words(profile).unwrap_err().kind(), io::ErrorKind::Unsupported, "{profile}");
        }
    }
}
