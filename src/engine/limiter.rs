//! `--bwlimit`: bytes a second, over everything that shares the limiter.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Bytes in one write where nothing limits the rate.
const PIECE_BYTES: usize = 128 << 10;
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
    pub fn piece_bytes(&self, write_limit: usize) -> usize {
        let by_rate = self.rate.map_or(PIECE_BYTES, |rate| {
            usize::try_from(rate / PIECES_A_SECOND).unwrap_or(PIECE_BYTES).max(SMALLEST_PIECE_BYTES)
        });
        by_rate.min(PIECE_BYTES).min(write_limit).max(1)
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
        let piece = limiter.piece_bytes(1 << 20) as u64;
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
        assert_eq!(Limiter::new(None).piece_bytes(32 << 10), 32 << 10);
        assert_eq!(Limiter::new(None).piece_bytes(1 << 20), PIECE_BYTES);
        assert_eq!(Limiter::new(Some(1)).piece_bytes(1 << 20), SMALLEST_PIECE_BYTES);
    }
}
