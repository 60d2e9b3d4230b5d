//! Notes what an upload waits for while it runs, for [`pace`](crate::engine::pace).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::engine::pace::{LaneTimes, Measured};

/// All attempts together.
#[derive(Debug, Default)]
pub struct Meter {
    in_flight: AtomicU64,
    in_flight_peak: AtomicU64,
    connections: AtomicU64,
    /// In nanoseconds.
    times: [AtomicU64; Time::COUNT],
}

/// What time was spent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// From the begin of an upload to its end.
    Whole,
    /// Processor time in that.
    Processor,
    Reading,
    Merging,
    Pieces,
    Limiter,
    Acknowledgements,
    FullWindow,
    Connection,
}

impl Time {
    const COUNT: usize = 9;
}

impl Meter {
    pub fn add(&self, what: Time, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.times[what as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn time(&self, what: Time) -> Duration {
        Duration::from_nanos(self.times[what as usize].load(Ordering::Relaxed))
    }

    pub fn departed(&self, bytes: u64) {
        let in_flight = self.in_flight.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.in_flight_peak.fetch_max(in_flight, Ordering::Relaxed);
    }

    /// Acknowledged, or lost with a lane.
    pub fn landed(&self, bytes: u64) {
        self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// So many carry at once.
    pub fn carried_by(&self, connections: u64) {
        self.connections.fetch_max(connections, Ordering::Relaxed);
    }

    /// Without what it knows nothing of: bytes, hashing, round trip.
    pub fn measured(&self) -> Measured {
        Measured {
            whole: self.time(Time::Whole),
            lanes: LaneTimes {
                pieces: self.time(Time::Pieces),
                limiter: self.time(Time::Limiter),
                acknowledgements: self.time(Time::Acknowledgements) + self.time(Time::FullWindow),
                full_window: self.time(Time::FullWindow),
                connection: self.time(Time::Connection),
            },
            reading: self.time(Time::Reading),
            merging: self.time(Time::Merging),
            processor: self.time(Time::Processor),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            connections: self.connections.load(Ordering::Relaxed),
            in_flight_peak: self.in_flight_peak.load(Ordering::Relaxed),
            ..Measured::default()
        }
    }
}

/// Of this process, all threads.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_of_all_at_once() {
        let meter = Meter::default();
        meter.departed(3);
        meter.departed(4);
        meter.landed(3);
        meter.departed(1);
        meter.add(Time::FullWindow, Duration::from_secs(1));
        meter.add(Time::Acknowledgements, Duration::from_secs(2));
        let measured = meter.measured();
        assert_eq!(measured.in_flight_peak, 7);
        assert_eq!(measured.lanes.acknowledgements, Duration::from_secs(3));
        assert_eq!(measured.lanes.full_window, Duration::from_secs(1));
    }
}
