//! Judges whether a link still moves. Pure: it is told what came and when time passed.
//!
//! No request has a timer of its own, since on a slow link a request rightly waits
//! behind megabytes. The link stalls when answers are awaited and for the whole of the
//! timeout nothing worth the name came in and nothing of ours went out. Time passes in
//! ticks; one that comes late, because this process or its machine was stopped, still
//! counts as one.

/// Ticks in a stall timeout.
pub const TICKS: u32 = 8;
/// A tick in which fewer bytes came does not count, unless they made a whole packet.
const MOVING_BYTES: usize = 512;
/// A packet whose few bytes took more ticks than this to come is dripped, not sent.
const PROMPT_TICKS: u32 = 1;

#[derive(Debug, Default)]
pub struct StallWatch {
    bytes: usize,
    prompt_packet: bool,
    /// Ticks since the packet that is half here began.
    partial_ticks: u32,
    sent: u64,
    quiet_ticks: u32,
}

impl StallWatch {
    pub fn received(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub fn packet_complete(&mut self) {
        self.prompt_packet |= self.partial_ticks <= PROMPT_TICKS;
        self.partial_ticks = 0;
    }

    /// An eighth of the timeout has passed. `sent` counts what went out since the
    /// session began. True when the link has stalled.
    pub fn tick(&mut self, awaiting: bool, half_a_packet: bool, sent: u64) -> bool {
        let moved = self.prompt_packet || self.bytes >= MOVING_BYTES || sent != self.sent;
        if half_a_packet {
            self.partial_ticks += 1;
        }
        (self.bytes, self.prompt_packet, self.sent) = (0, false, sent);
        self.quiet_ticks = if moved || !awaiting { 0 } else { self.quiet_ticks + 1 };
        // The first quiet tick may have begun long before the request did.
        self.quiet_ticks > TICKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks until the watch calls a stall, at most 100.
    fn stalls_after(mut step: impl FnMut(&mut StallWatch, u32) -> bool) -> Option<u32> {
        let mut watch = StallWatch::default();
        (1..=100).find(|tick| step(&mut watch, *tick))
    }

    #[test]
    fn silence_while_answers_are_awaited_is_a_stall() {
        assert_eq!(stalls_after(|watch, _| watch.tick(true, false, 0)), Some(TICKS + 1));
    }

    #[test]
    fn silence_while_nothing_is_asked_is_none() {
        assert_eq!(stalls_after(|watch, _| watch.tick(false, false, 0)), None);
    }

    #[test]
    fn what_goes_out_counts_as_moving() {
        assert_eq!(stalls_after(|watch, tick| watch.tick(true, false, u64::from(tick))), None);
        assert_eq!(
            stalls_after(|watch, tick| watch.tick(true, false, u64::from(tick.min(5)))),
            Some(5 + TICKS + 1)
        );
    }

    #[test]
    fn one_short_reply_in_a_while_is_enough() {
        let slow = |watch: &mut StallWatch, tick: u32| {
            if tick.is_multiple_of(TICKS) {
                watch.received(28);
                watch.packet_complete();
            }
            watch.tick(true, false, 0)
        };
        assert_eq!(stalls_after(slow), None);
    }

    #[test]
    fn a_long_reply_may_take_its_time() {
        let large = |watch: &mut StallWatch, _| {
            watch.received(MOVING_BYTES);
            watch.tick(true, true, 0)
        };
        assert_eq!(stalls_after(large), None);
    }

    #[test]
    fn replies_that_drip_are_a_stall() {
        let dripped = |watch: &mut StallWatch, tick: u32| {
            watch.received(4);
            if tick.is_multiple_of(7) {
                watch.packet_complete();
            }
            watch.tick(true, !tick.is_multiple_of(7), 0)
        };
        assert_eq!(stalls_after(dripped), Some(TICKS + 1));
    }
}
