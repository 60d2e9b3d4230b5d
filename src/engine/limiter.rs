//! `--bwlimit`: bytes a second, over everything that shares the limiter.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::source::READ_BYTES;

/// Bytes in one write where nothing limits the rate: what is read at once, or half of it.
const LARGE_PIECE_BYTES: usize = READ_BYTES;
const PIECE_BYTES: usize = READ_BYTES / 2;
/// On so short a way what a request costs both sides counts for more than how evenly it flows.
const SHORT_WAY: Duration = Duration::from_millis(2);
const SMALLEST_PIECE_BYTES: usize = 1 << 10;
/// A limited rate is kept over times as short as this.
const PIECES_A_SECOND: u64 = 16;

pub struct Limiter {
    rate: Option<u64>,
    /// When the next byte may go.
    next: Mutex<Instant>,
}

impl Limiter {
    /// `None`: no limit.
    pub fn new(bytes_a_second: Option<u64>) -> Limiter {
        Limiter { rate: bytes_a_second.map(|rate| rate.max(1)), next: Mutex::new(Instant::now()) }
    }

    /// How many bytes to write at a time, so that a low rate does not come in gusts.
    pub fn piece_bytes(&self, write_limit: usize, round_trip: Option<Duration>) -> usize {
        let most = match round_trip {
            Some(time) if time < SHORT_WAY && write_limit >= LARGE_PIECE_BYTES => LARGE_PIECE_BYTES,
            _ => PIECE_BYTES,
        };
        let by_rate = self.rate.map_or(most, |rate| {
            usize::try_from(rate / PIECES_A_SECOND).unwrap_or(most).max(SMALLEST_PIECE_BYTES)
        });
        by_rate.min(most).min(write_limit).max(1)
    }

    /// Returns when `bytes` may go. What is not used is not saved up.
    pub async fn take(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let go = {
            let mut next = self.next.lock().await;
            let go = (*next).max(Instant::now());
            *next = go + Duration::from_secs_f64(bytes as f64 / rate as f64);
            go
        };
        tokio::time::sleep_until(go).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rate_is_never_passed() {
        let limiter = Limiter::new(Some(100_000));
        let piece = limiter.piece_bytes(1 << 20, None) as u64;
        let start = Instant::now();
        let mut sent = 0;
        while sent < 50_000 {
            limiter.take(piece).await;
            sent += piece;
            let allowed = start.elapsed().as_secs_f64() * 100_000.0 + piece as f64;
            assert!(sent as f64 <= allowed + 1.0, "{sent} of {allowed}");
        }
    }

    #[test]
    fn pieces_suit_rate_and_server() {
        let (short, long) = (Some(Duration::from_micros(200)), Some(Duration::from_millis(20)));
        let unlimited = Limiter::new(None);
        assert_eq!(unlimited.piece_bytes(32 << 10, short), 32 << 10);
        assert_eq!(unlimited.piece_bytes(1 << 20, long), PIECE_BYTES);
        assert_eq!(unlimited.piece_bytes(255 << 10, short), LARGE_PIECE_BYTES);
        assert_eq!(unlimited.piece_bytes(128 << 10, short), PIECE_BYTES);
        assert_eq!(Limiter::new(Some(1)).piece_bytes(1 << 20, short), SMALLEST_PIECE_BYTES);
    }
}
