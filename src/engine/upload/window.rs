//! How many bytes a lane keeps in flight: what the link holds in one round trip, and little
//! more.
//!
//! Measured as BBR does (Cardwell et al., 2016): the highest rate of delivery lately, times
//! the shortest time an acknowledgement took. More in flight gains nothing on a long link
//! and costs the cache on a fast local one; fewer leave the link idle. What is in flight on
//! a slow connection is also what the end of the file waits for.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// In flight at first, before anything is known.
const FIRST_BYTES: usize = 512 << 10;
/// Never fewer: two writes that overlap.
const FEWEST_BYTES: usize = 256 << 10;
/// Never more: the window of OpenSSH's channels.
const MOST_BYTES: usize = 2 << 20;
/// Over bandwidth times delay: acknowledgements come in gusts, and a rate that has grown
/// shows only where there is more to send.
const GAIN: f64 = 2.0;
/// A rate that was reached counts for so many round trips.
const RATE_ROUND_TRIPS: u32 = 10;
/// What a write knows of the lane when it leaves; handed back with its acknowledgement.
#[derive(Debug, Clone, Copy)]
pub struct Departure {
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
}

#[derive(Debug)]
pub struct Window {
    delivered: u64,
    delivered_at: Instant,
    in_flight: usize,
    /// Bytes a second, falling, and when they were seen.
    rates: VecDeque<(Instant, f64)>,
    /// Of all so far. To forget it would let a queue that stands pass for a longer way, and
    /// the window grow on it.
    shortest: Option<Duration>,
}

impl Window {
    pub fn new(now: Instant) -> Window {
        Window { delivered: 0, delivered_at: now, in_flight: 0, rates: VecDeque::new(), shortest: None }
    }

    /// Whether another write may leave.
    pub fn is_open(&self) -> bool {
        self.in_flight < self.limit()
    }

    /// As much is in flight as there may be at all.
    pub fn is_full(&self) -> bool {
        self.in_flight >= MOST_BYTES
    }

    pub fn limit(&self) -> usize {
        let (Some((_, rate)), Some(round_trip)) = (self.rates.front(), self.shortest) else {
            return FIRST_BYTES;
        };
        // A float past the range saturates.
        ((rate * round_trip.as_secs_f64() * GAIN) as usize).clamp(FEWEST_BYTES, MOST_BYTES)
    }

    pub fn depart(&mut self, now: Instant, bytes: usize) -> Departure {
        if self.in_flight == 0 {
            // An idle time is no slow link.
            self.delivered_at = now;
        }
        self.in_flight += bytes;
        Departure { at: now, delivered: self.delivered, delivered_at: self.delivered_at }
    }

    pub fn arrive(&mut self, now: Instant, bytes: usize, departure: Departure) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.delivered += bytes as u64;
        self.delivered_at = now;

        let round_trip = now.saturating_duration_since(departure.at);
        let shortest = self.shortest.map_or(round_trip, |shortest| shortest.min(round_trip));
        self.shortest = Some(shortest);

        let took = now.saturating_duration_since(departure.delivered_at);
        if took.is_zero() {
            return;
        }
        let rate = (self.delivered - departure.delivered) as f64 / took.as_secs_f64();
        while self.rates.back().is_some_and(|(_, slower)| *slower <= rate) {
            self.rates.pop_back();
        }
        self.rates.push_back((now, rate));
        let memory = shortest * RATE_ROUND_TRIPS;
        let is_old = |seen: &(Instant, f64)| now.saturating_duration_since(seen.0) > memory;
        while self.rates.len() > 1 && self.rates.front().is_some_and(is_old) {
            self.rates.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 128 << 10;

    /// A link that carries `rate` bytes a second behind `delay`, and a sender that always
    /// fills the window. Returns the window's limit in the end and the rate it came to.
    fn drive(rate: f64, delay: Duration, seconds: f64) -> (usize, f64) {
        let start = Instant::now();
        let mut window = Window::new(start);
        let (mut now, mut free_at) = (start, start);
        let mut flying: VecDeque<(Instant, Departure)> = VecDeque::new();
        let mut arrived = 0;
        while (now - start).as_secs_f64() < seconds {
            while window.is_open() {
                free_at = free_at.max(now) + Duration::from_secs_f64(PIECE as f64 / rate);
                flying.push_back((free_at + delay, window.depart(now, PIECE)));
            }
            let (at, departure) = flying.pop_front().expect("something is in flight");
            now = at;
            window.arrive(now, PIECE, departure);
            arrived += PIECE;
        }
        (window.limit(), arrived as f64 / seconds)
    }

    #[test]
    fn a_long_link_is_filled() {
        // What 2 MiB in flight can carry, or the link itself.
        for (rate, delay) in [(125e6, 10), (12.5e6, 200), (1e6, 50), (40e6, 50)] {
            let (_, reached) = drive(rate, Duration::from_millis(delay), 20.0);
            let possible = rate.min(MOST_BYTES as f64 / (delay as f64 / 1e3));
            assert!(reached > 0.85 * possible.min(rate), "{reached} of {possible} at {delay} ms");
        }
    }

    #[test]
    fn a_fast_local_link_is_not_flooded() {
        let (limit, reached) = drive(500e6, Duration::from_micros(200), 1.0);
        assert!(limit < 1 << 20, "{limit}");
        assert!(reached > 0.9 * 500e6, "{reached}");
    }

    #[test]
    fn a_slow_connection_holds_little() {
        let (limit, _) = drive(200e3, Duration::from_millis(100), 20.0);
        assert!(limit < MOST_BYTES / 3, "{limit}");
    }
}
