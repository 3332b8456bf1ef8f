//! Which packets a link loses on the air.
//!
//! Radio loss comes in bursts, so the model is a two-state Markov chain (Gilbert-Elliott with its simplest
//! parameters): in the good state nothing is lost, in the bad state everything is. Two clocks are offered for the
//! chain, because they punish different senders: a burst counted in *packets* goes on hurting a sender that
//! went quiet, a burst counted in *time* is over when the time is, however little was sent.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

/// How losses cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Burst {
    /// Each packet is lost or not regardless of the others.
    None,
    /// Bursts whose mean length is this many consecutive packets, at least 1.
    Packets(f64),
    /// Bursts whose mean length is this much time; what is on the air in that time is lost.
    Time(Duration),
}

/// Long-run share of packets that are lost, and how losses cluster. Always valid once made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    fraction: f64,
    burst: Burst,
}

/// A loss process that cannot be.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum LossError {
    /// The share of lost packets is not within 0 and 1.
    #[error("loss must be between 0 and 100 percent")]
    NotAFraction,
    /// A burst is shorter than one packet, or empty, or not a number.
    #[error("a mean burst must be at least 1 packet, or longer than 0 ms")]
    BurstTooShort,
    /// So much loss needs longer bursts: between two bursts at least one packet must pass.
    #[error("this loss needs a mean burst of at least {min:.2} packets")]
    BurstTooShortForLoss {
        /// The shortest mean burst, in packets, that gives this loss.
        min: f64,
    },
}

impl Loss {
    /// No loss at all.
    pub const NONE: Self = Self { fraction: 0.0, burst: Burst::None };

    /// Loses the share `fraction` (0 to 1) of packets, clustered as `burst` says.
    ///
    /// # Errors
    /// [`LossError`] when the numbers are out of range or contradict one another.
    pub fn new(fraction: f64, burst: Burst) -> Result<Self, LossError> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(LossError::NotAFraction);
        }
        match burst {
            Burst::None => {}
            Burst::Packets(mean) => {
                if !(mean.is_finite() && mean >= 1.0) {
                    return Err(LossError::BurstTooShort);
                }
                let min = fraction / (1.0 - fraction);
                if fraction < 1.0 && mean < min {
                    return Err(LossError::BurstTooShortForLoss { min });
                }
            }
            Burst::Time(mean) => {
                if mean.is_zero() {
                    return Err(LossError::BurstTooShort);
                }
            }
        }
        Ok(Self { fraction, burst })
    }

    /// Long-run share of lost packets, 0 to 1.
    pub fn fraction(&self) -> f64 {
        self.fraction
    }

    /// How losses cluster.
    pub fn burst(&self) -> Burst {
        self.burst
    }
}

/// The loss process at work: asked once per packet, in order of time.
#[derive(Debug)]
pub(crate) struct LossProcess {
    loss: Loss,
    rng: ChaCha8Rng,
    /// The chain's state for the packet asked about last; `None` before the first.
    last: Option<(Duration, bool)>,
}

impl LossProcess {
    pub(crate) fn new(loss: Loss, seed: u64) -> Self {
        Self { loss, rng: ChaCha8Rng::seed_from_u64(seed), last: None }
    }

    /// Whether the packet that is on the air at `at` is lost. Draws exactly one random number.
    pub(crate) fn strikes(&mut self, at: Duration) -> bool {
        let bad = self.rng.random::<f64>() < self.chance_of_bad(at);
        self.last = Some((at, bad));
        bad
    }

    /// The chance of the bad state for a packet at `at`, given the state at the packet before.
    fn chance_of_bad(&self, at: Duration) -> f64 {
        let share = self.loss.fraction;
        let Some((before, was_bad)) = self.last else {
            return share; // the stationary state: a world may start within a burst
        };
        if share == 0.0 || share == 1.0 {
            return share; // the formulas below divide by both
        }
        match self.loss.burst {
            Burst::None => share,
            // Leave a burst with r = 1/mean, begin one with p = rL/(1-L): then the long-run share is L.
            Burst::Packets(mean) if was_bad => 1.0 - 1.0 / mean,
            Burst::Packets(mean) => share / (1.0 - share) / mean,
            // The same chain in continuous time: it forgets where it was at rate 1/mean + 1/(mean good time). The
            // closed form costs the same after a silence of hours as between two packets.
            Burst::Time(mean) => {
                let forgetting =
                    at.saturating_sub(before).as_secs_f64() / (mean.as_secs_f64() * (1.0 - share));
                let was = if was_bad { 1.0 } else { 0.0 };
                share + (was - share) * (-forgetting).exp()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share of lost packets and mean burst in packets, over `count` packets `spacing` apart.
    fn observe(loss: Loss, seed: u64, count: u32, spacing: Duration) -> (f64, f64) {
        let mut process = LossProcess::new(loss, seed);
        let (mut lost, mut bursts, mut before) = (0u32, 0u32, false);
        for index in 0..count {
            let struck = process.strikes(spacing * index);
            lost += u32::from(struck);
            bursts += u32::from(struck && !before);
            before = struck;
        }
        (f64::from(lost) / f64::from(count), f64::from(lost) / f64::from(bursts.max(1)))
    }

    #[test]
    fn long_run_loss_and_mean_burst_in_packets_are_what_was_asked_for() {
        for (fraction, mean) in [(0.005, 1.0), (0.02, 3.0), (0.15, 3.0), (0.30, 8.0)] {
            let loss = Loss::new(fraction, Burst::Packets(mean)).unwrap();
            for seed in 0..4 {
                let (share, burst) = observe(loss, seed, 200_000, Duration::from_millis(500));
                assert!((share / fraction - 1.0).abs() < 0.1, "loss {fraction}: {share} with seed {seed}");
                assert!((burst / mean - 1.0).abs() < 0.05, "burst {mean}: {burst} with seed {seed}");
            }
        }
    }

    #[test]
    fn a_burst_in_time_is_as_long_for_a_dense_sender_as_for_a_sparse_one() {
        let mean = Duration::from_millis(600);
        let loss = Loss::new(0.15, Burst::Time(mean)).unwrap();
        let spacing = Duration::from_millis(10);
        for seed in 0..4 {
            let (share, burst) = observe(loss, seed, 400_000, spacing);
            assert!((share / 0.15 - 1.0).abs() < 0.1, "dense loss {share} with seed {seed}");
            // A run of n packets 10 ms apart lasts about n * 10 ms.
            assert!((burst / 60.0 - 1.0).abs() < 0.1, "dense burst of {burst} packets with seed {seed}");

            // Ten means apart, packets know nothing of one another: runs are those of independent loss, 1/(1-L).
            let (share, burst) = observe(loss, seed, 100_000, mean * 10);
            assert!((share / 0.15 - 1.0).abs() < 0.1, "sparse loss {share} with seed {seed}");
            assert!((burst * 0.85 - 1.0).abs() < 0.05, "sparse burst of {burst} packets with seed {seed}");
        }
    }

    #[test]
    fn independent_loss_clusters_only_by_chance() {
        let loss = Loss::new(0.3, Burst::None).unwrap();
        let (share, burst) = observe(loss, 1, 200_000, Duration::ZERO);
        assert!((share / 0.3 - 1.0).abs() < 0.02, "{share}");
        assert!((burst * 0.7 - 1.0).abs() < 0.02, "{burst}");
    }

    #[test]
    fn no_loss_loses_nothing_and_total_loss_everything() {
        for burst in [Burst::None, Burst::Packets(3.0), Burst::Time(Duration::from_millis(600))] {
            let none = Loss::new(0.0, burst).unwrap();
            assert_eq!(observe(none, 7, 10_000, Duration::from_millis(20)).0, 0.0);
            let all = Loss::new(1.0, burst).unwrap();
            assert_eq!(observe(all, 7, 10_000, Duration::from_millis(20)).0, 1.0);
        }
    }

    #[test]
    fn impossible_loss_is_refused() {
        for fraction in [-0.01, 1.01, f64::NAN, f64::INFINITY] {
            assert_eq!(Loss::new(fraction, Burst::None), Err(LossError::NotAFraction));
        }
        assert_eq!(Loss::new(0.1, Burst::Packets(0.5)), Err(LossError::BurstTooShort));
        assert_eq!(Loss::new(0.1, Burst::Packets(f64::NAN)), Err(LossError::BurstTooShort));
        assert_eq!(Loss::new(0.1, Burst::Time(Duration::ZERO)), Err(LossError::BurstTooShort));
        let refused = Loss::new(0.75, Burst::Packets(2.0));
        assert!(matches!(refused, Err(LossError::BurstTooShortForLoss { min }) if (min - 3.0).abs() < 1e-9));
    }
}
