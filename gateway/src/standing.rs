//! How a running relay stands, for whoever asks from outside its runtime.

use std::fmt;
use std::sync::Weak;

use crate::relay::Shared;

/// What a relay is busy with at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Devices that are connected: their handshakes are complete.
    pub connected: usize,
    /// Connections of devices that are not known, or not yet: half-open handshakes, and those that have said too little.
    pub strangers: usize,
    /// What links hold beyond what each may, bytes.
    pub lent_bytes: usize,
    /// Connections that were ended so far for want of memory for what they held.
    pub called_in: u64,
}

/// Sees a relay from any thread, and keeps nothing of it alive.
#[derive(Clone)]
pub struct Observer(pub(crate) Weak<Shared>);

impl Observer {
    /// How the relay stands; `None` once it is gone.
    pub fn look(&self) -> Option<Standing> {
        self.0.upgrade().map(|shared| shared.standing())
    }
}

/// As one line, without its end.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connected, strangers, lent_bytes, called_in } = self;
        write!(f, "stands {connected} {strangers} {lent_bytes} {called_in}")
    }
}

impl Standing {
    /// What [`Standing`] shows as, read back.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let numbers: Vec<&str> = line.strip_prefix("stands ")?.split(' ').collect();
        let [connected, strangers, lent_bytes, called_in] = numbers[..] else { return None };
        Some(Self {
            connected: connected.parse().ok()?,
            strangers: strangers.parse().ok()?,
            lent_bytes: lent_bytes.parse().ok()?,
            called_in: called_in.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_reads_back() {
        let standing = Standing { connected: 1, strangers: 2, lent_bytes: 3, called_in: u64::MAX };
        assert_eq!(Standing::read(&standing.to_string()), Some(standing));
        for line in ["", "stands", "stands 1 2 3", "stands 1 2 3 4 5", "stands 1 2 3 x", "done 1 2 3 4"] {
            assert!(Standing::read(line).is_none(), "{line:?}");
        }
    }
}
