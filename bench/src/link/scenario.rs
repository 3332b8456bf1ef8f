//! What is played, and what it may take.

use clap::ValueEnum;

use super::Figure;

/// What happens on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// The first connect of a fresh home, with one message.
    Cold,
    /// A connect of a process that knows the relay, with one message.
    Resumed,
    /// One message on an open link.
    Warm,
    /// A hundred messages, three seconds apart on average.
    Steady,
    /// The same where the relay may read.
    SteadyVisible,
    /// `steady` in saver mode.
    SteadySaver,
    /// `steady-visible` in saver mode.
    SteadyVisibleSaver,
    /// Two hundred messages that waited offline, by a process that knows the relay.
    Queued,
    /// The same by a fresh home.
    QueuedCold,
    /// Two hundred messages that wait at the relay.
    Fetched,
    /// An object of 200 kB, on an open link.
    Object,
    /// The same, and a text every ten seconds: how long until it has arrived.
    ObjectTexts,
    /// `object`, and the link is cut fifty times; what is on its way is lost, and the client connects anew.
    ObjectCuts,
    /// `queued`, with the link dead for 20 s in the middle of what the same seed takes without; seconds from when it is back.
    Outage,
    /// One message written while the link is dead for half an hour; seconds from when it is back.
    Blackout,
    /// The same, and the client is told when the link is back.
    BlackoutHint,
    /// 240 messages written meanwhile.
    BlackoutMany,
    /// The same, and the client is told when the link is back.
    BlackoutManyHint,
    /// An hour at rest behind a NAT that forgets after a minute, and then one message.
    #[value(name = "silent-60")]
    Silent60,
    /// The same where the NAT forgets after five minutes.
    #[value(name = "silent-300")]
    Silent300,
    /// An hour in reachable mode behind a NAT that forgets after a minute, and then one message comes.
    #[value(name = "reachable-60")]
    Reachable60,
    /// The same where the NAT forgets after five minutes.
    #[value(name = "reachable-300")]
    Reachable300,
    /// Two uploads at a time on one link: two clients, a client beside plain quinn with Cubic, and two of those. Only if asked for.
    Fairness,
}

/// A figure that a scenario is to reach on a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub(crate) figure: Figure,
    /// At most, or at least where [more is better](Figure::more_is_better).
    pub(crate) bound: f64,
}

impl Scenario {
    /// What is played if none is asked for.
    pub(crate) const ALL: &[Self] = &[
        Self::Cold,
        Self::Resumed,
        Self::Warm,
        Self::Steady,
        Self::SteadyVisible,
        Self::SteadySaver,
        Self::SteadyVisibleSaver,
        Self::Queued,
        Self::QueuedCold,
        Self::Fetched,
        Self::Object,
        Self::ObjectTexts,
        Self::ObjectCuts,
        Self::Outage,
        Self::Blackout,
        Self::BlackoutHint,
        Self::BlackoutMany,
        Self::BlackoutManyHint,
        Self::Silent60,
        Self::Silent300,
        Self::Reachable60,
        Self::Reachable300,
    ];

    /// Whether it is nothing but sending and waiting, so that it can be played on real sockets.
    pub(crate) fn needs_no_simulation(self) -> bool {
        use Scenario::{Cold, Fetched, Object, ObjectTexts, Queued, QueuedCold, Resumed, Steady, Warm};
        let is_steady =
            matches!(self, Steady | Self::SteadyVisible | Self::SteadySaver | Self::SteadyVisibleSaver);
        is_steady
            || matches!(self, Cold | Resumed | Warm | Queued | QueuedCold | Fetched | Object | ObjectTexts)
    }

    /// As it is called on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// As it is called in tables: with its number among the ten that the project is judged by.
    pub(crate) fn title(self) -> String {
        let number = match self {
            Self::Fairness => return self.name(),
            Self::Cold => 1,
            Self::Resumed | Self::Warm => 2,
            Self::Steady | Self::SteadyVisible | Self::SteadySaver | Self::SteadyVisibleSaver => 3,
            Self::Queued | Self::QueuedCold => 4,
            Self::Fetched => 5,
            Self::Object | Self::ObjectCuts => 6,
            Self::Outage => 7,
            Self::ObjectTexts => 8,
            Self::Blackout | Self::BlackoutHint | Self::BlackoutMany | Self::BlackoutManyHint => 9,
            Self::Silent60 | Self::Silent300 | Self::Reachable60 | Self::Reachable300 => 10,
        };
        format!("S{number} {}", self.name())
    }

    /// What it is to reach on the link of this name.
    pub(crate) fn bars(self, profile: &str) -> Vec<Bar> {
        use Figure::{Bytes, BytesEach, Hour, P50, P95, P99, Share, Twice};
        let bars: &[(Figure, f64)] = match (self, profile) {
            (Self::Cold, "gprs") => &[(P50, 2.9), (Bytes, 4_200.0)],
            (Self::Cold, "gprs-bad") => &[(P50, 5.0), (P95, 14.0)],
            (Self::Resumed, "gprs") => &[(P50, 1.6)],
            (Self::Resumed, "gprs-bad") => &[(P50, 2.8), (P95, 10.0)],
            (Self::Warm, "gprs") => &[(P50, 0.75), (Bytes, 200.0)],
            (Self::Steady, "gprs") => &[(P50, 0.36), (P95, 0.45), (P99, 1.0), (BytesEach, 250.0)],
            (Self::Steady, "gprs-bad") => &[(P50, 0.52), (P95, 2.2), (P99, 4.5), (BytesEach, 340.0)],
            (Self::SteadyVisible, "gprs") => &[(P50, 0.36), (P95, 0.45), (P99, 1.0), (BytesEach, 188.0)],
            (Self::SteadyVisible, "gprs-bad") => &[(P50, 0.52), (P95, 2.2), (P99, 4.5), (BytesEach, 235.0)],
            (Self::SteadySaver, "gprs") => &[(BytesEach, 212.0)],
            (Self::SteadySaver, "gprs-bad") => &[(BytesEach, 300.0)],
            (Self::SteadyVisibleSaver, "gprs") => &[(BytesEach, 150.0)],
            (Self::SteadyVisibleSaver, "gprs-bad") => &[(BytesEach, 190.0)],
            (Self::Queued, "gprs") => &[(P50, 3.7), (BytesEach, 48.0)],
            (Self::QueuedCold, "gprs") => &[(P50, 5.3), (BytesEach, 60.0)],
            (Self::Fetched, "gprs") => &[(P50, 4.3), (BytesEach, 48.0)],
            (Self::Queued | Self::Fetched, "gprs-bad") => &[(P50, 11.0)],
            (Self::Object, "gprs") => &[(Share, 94.0)],
            (Self::Object, "gprs-bad") => &[(Share, 90.0)],
            // What fits into a round trip, and two packets.
            (Self::ObjectCuts, "gprs") => &[(Twice, 2_500.0 * 0.6 + 2.0 * 1_228.0)],
            (Self::ObjectCuts, "gprs-bad") => &[(Twice, 1_500.0 * 0.8 + 2.0 * 1_228.0)],
            (Self::ObjectTexts, "gprs") => &[(P50, 0.9), (P95, 1.3)],
            (Self::ObjectTexts, "gprs-bad") => &[(P50, 1.6), (P95, 4.0)],
            (Self::Outage, "gprs") => &[(P50, 2.0)],
            (Self::Outage, "gprs-bad") => &[(P50, 4.0)],
            (Self::BlackoutHint | Self::BlackoutManyHint, "gprs") => &[(P50, 2.0)],
            (Self::BlackoutHint | Self::BlackoutManyHint, "gprs-bad") => &[(P50, 4.0)],
            (Self::Blackout | Self::BlackoutMany, "gprs" | "gprs-bad") => &[(P50, 60.0), (Bytes, 15_000.0)],
            (Self::Silent60 | Self::Silent300, "gprs") => &[(P50, 1.6), (Bytes, 3_900.0), (Hour, 0.0)],
            (Self::Silent60 | Self::Silent300, "gprs-bad") => &[(P50, 2.8), (Hour, 0.0)],
            (Self::Reachable60, "gprs") => &[(P50, 1.5)],
            (Self::Reachable60, "gprs-bad") => &[(P50, 3.0)],
            (Self::Reachable300, "gprs") => &[(P50, 1.5), (Hour, 3_000.0)],
            (Self::Reachable300, "gprs-bad") => &[(P50, 3.0), (Hour, 3_000.0)],
            _ => &[],
        };
        bars.iter().map(|&(figure, bound)| Bar { figure, bound }).collect()
    }
}
