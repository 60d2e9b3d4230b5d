//! What set the pace of an upload: a judgement of what was measured while it ran, and no
//! more. Where something is inferred, it says "probably".

use std::fmt;
use std::time::Duration;

use crate::model::units::{human_rate, human_size};

/// Less says nothing of a rate.
const MIN_BYTES: u64 = 1 << 20;
/// Nor does what takes no longer than so many round trips.
const MIN_ROUND_TRIPS: u32 = 6;
/// From this share of the time on, a wait is what it waits for.
const MUCH: f64 = 0.4;
/// This share of what all processors can do is all of it: none is ever wholly free.
const BUSY: f64 = 0.8;
/// With a shorter round trip there is no link to speak of between the two.
const NEAR: Duration = Duration::from_millis(2);

/// What was measured. Times of lanes are sums over all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    pub bytes: u64,
    pub whole: Duration,
    pub lanes: LaneTimes,
    /// Of the whole, what the reader spent with the source, hashing included.
    pub reading: Duration,
    pub hashing: Duration,
    /// Of the whole, what the reader waited for the merge.
    pub merging: Duration,
    /// Processor time of this process, all threads.
    pub processor: Duration,
    pub processors: usize,
    pub connections: u64,
    pub in_flight_peak: u64,
    pub round_trip: Option<Duration>,
}

/// What lanes waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LaneTimes {
    /// Bytes to send.
    pub pieces: Duration,
    /// `--bwlimit`.
    pub limiter: Duration,
    /// Acknowledgements, with as much in flight as is of use.
    pub acknowledgements: Duration,
    /// Of these, with as much in flight as there may be at all.
    pub full_window: Duration,
    /// Room in the connection.
    pub connection: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    RoundTrips,
    Bwlimit,
    SourceDisk,
    OwnProcessor,
    Merge,
    Window,
    TargetProcessor,
    Link,
    Unknown,
}

impl Limit {
    /// For scripts.
    pub fn name(self) -> &'static str {
        match self {
            Limit::RoundTrips => "round-trips",
            Limit::Bwlimit => "bwlimit",
            Limit::SourceDisk => "source-disk",
            Limit::OwnProcessor => "own-processor",
            Limit::Merge => "merge",
            Limit::Window => "window",
            Limit::TargetProcessor => "target",
            Limit::Link => "link",
            Limit::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::RoundTrips => "so little to send is a matter of round trips",
            Limit::Bwlimit => "limited by --bwlimit",
            Limit::SourceDisk => "limited by the source's disk",
            Limit::OwnProcessor => "limited by this machine's processors",
            Limit::Merge => "limited by the merge on the target",
            Limit::Window => "limited by the window of a channel; more --connections would help",
            Limit::TargetProcessor => "probably limited by the target's processors or disk",
            Limit::Link => "probably limited by the link",
            Limit::Unknown => "limited by nothing in particular",
        })
    }
}

/// `None` where nothing was sent.
pub fn limit(measured: &Measured) -> Option<Limit> {
    let Measured { bytes, whole, lanes, round_trip, .. } = *measured;
    if bytes == 0 {
        return None;
    }
    let all = lanes.pieces + lanes.limiter + lanes.acknowledgements + lanes.connection;
    let far = round_trip.is_some_and(|time| time >= NEAR);
    let short = round_trip.is_some_and(|time| whole < time * MIN_ROUND_TRIPS);
    let judged = if is_much(lanes.limiter, all) {
        Limit::Bwlimit
    } else if bytes < MIN_BYTES || short {
        Limit::RoundTrips
    } else if is_much(measured.merging, whole) {
        Limit::Merge
    } else if share(measured.processor, whole) >= BUSY * measured.processors.max(1) as f64 {
        Limit::OwnProcessor
    } else if is_much(lanes.pieces, all) && is_much(measured.reading, whole) {
        let hashes = measured.hashing * 2 > measured.reading;
        if hashes { Limit::OwnProcessor } else { Limit::SourceDisk }
    } else if far && is_much(lanes.full_window, all) {
        Limit::Window
    } else if is_much(lanes.acknowledgements + lanes.connection, all) {
        if far { Limit::Link } else { Limit::TargetProcessor }
    } else {
        Limit::Unknown
    };
    Some(judged)
}

/// One line for a person; `None` where nothing was sent.
pub fn explained(measured: &Measured) -> Option<String> {
    let limit = limit(measured)?;
    let connections = match measured.connections {
        0 | 1 => "one connection".to_owned(),
        several => format!("{several} connections"),
    };
    let round_trip = measured
        .round_trip
        .map_or(String::new(), |time| format!(", round trip {:.1} ms", time.as_secs_f64() * 1e3));
    let in_flight = human_size(measured.in_flight_peak);
    let rate = human_rate(measured.bytes, measured.whole);
    Some(format!("{rate} over {connections}{round_trip}, up to {in_flight} in flight: {limit}"))
}

fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}

fn is_much(part: Duration, whole: Duration) -> bool {
    share(part, whole) >= MUCH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    /// A second of two lanes over a link of this round trip.
    fn second(round_trip: Duration, lanes: LaneTimes) -> Measured {
        Measured {
            bytes: 100 << 20,
            whole: ms(1000),
            lanes,
            processor: ms(300),
            processors: 2,
            connections: 2,
            in_flight_peak: 3 << 20,
            round_trip: Some(round_trip),
            ..Measured::default()
        }
    }

    #[test]
    fn what_lanes_wait_for_is_the_limit() {
        let window = LaneTimes { acknowledgements: ms(1900), ..LaneTimes::default() };
        let full = LaneTimes { full_window: ms(1800), ..window };
        let starved = LaneTimes { pieces: ms(1900), ..LaneTimes::default() };
        let limited = LaneTimes { limiter: ms(1500), pieces: ms(400), ..LaneTimes::default() };
        let blocked = LaneTimes { connection: ms(1900), ..LaneTimes::default() };
        let near = |lanes| second(Duration::from_micros(200), lanes);
        let far = |lanes| second(ms(50), lanes);
        for (measured, expected) in [
            (near(window), Limit::TargetProcessor),
            (near(full), Limit::TargetProcessor),
            (near(blocked), Limit::TargetProcessor),
            (far(window), Limit::Link),
            (far(blocked), Limit::Link),
            (far(full), Limit::Window),
            (far(limited), Limit::Bwlimit),
            (Measured { processor: ms(1700), ..near(window) }, Limit::OwnProcessor),
            (Measured { reading: ms(900), hashing: ms(100), ..near(starved) }, Limit::SourceDisk),
            (Measured { reading: ms(900), hashing: ms(700), ..near(starved) }, Limit::OwnProcessor),
            (Measured { merging: ms(700), ..near(starved) }, Limit::Merge),
            (near(starved), Limit::Unknown),
            (near(LaneTimes::default()), Limit::Unknown),
            (Measured { bytes: 1000, ..near(window) }, Limit::RoundTrips),
            (second(ms(200), window), Limit::RoundTrips),
            (Measured { round_trip: None, ..near(window) }, Limit::TargetProcessor),
            // Whatever is limited on purpose is limited by that.
            (Measured { bytes: 1000, ..far(limited) }, Limit::Bwlimit),
        ] {
            assert_eq!(limit(&measured), Some(expected), "{measured:?}");
        }
        assert_eq!(limit(&Measured { bytes: 0, ..near(window) }), None);
    }

    #[test]
    fn a_line_for_a_person() {
        let lanes = LaneTimes { acknowledgements: ms(1900), ..LaneTimes::default() };
        let line = explained(&second(ms(50), lanes)).expect("something was sent");
        assert_eq!(
            line,
            "100 MiB/s over 2 connections, round trip 50.0 ms, up to 3.0 MiB in flight: probably limited by the link"
        );
        let line = explained(&Measured { connections: 1, round_trip: None, ..second(ms(50), lanes) });
        assert!(line.expect("a line").contains("over one connection, up to"));
    }
}
