//! What the fuzz targets do for hours, for a few seconds: every parser that reads what a
//! server or a file says, fed with good input that was damaged, always in the same ways.

#[path = "../../fuzz/parsers.rs"]
mod list;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Damaged inputs for each parser.
const INPUTS: u32 = 2000;
/// No input of some kilobytes takes so long, on any machine.
const LIMIT: Duration = Duration::from_secs(20);
/// What numbers, ends and escapes are made of.
const TOKENS: [&[u8]; 16] = [
    b"\n",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\0",
    b"%",
    b"%00",
    b"\\",
    b"\"",
    b"-1",
    b"18446744073709551616",
    b"99999999",
    b"[1-999999999]",
    b"\x1b[31m",
    b"..",
    b"\xc3",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }

    fn damage(&mut self, data: &mut Vec<u8>) {
        let (at, length) = (self.below(data.len() + 1), self.below(12));
        let end = (at + length).min(data.len());
        match self.below(7) {
            0 => data.truncate(at),
            1 => drop(data.drain(at..end)),
            2 => {
                let piece = data[at..end].to_vec();
                let to = self.below(data.len() + 1);
                drop(data.splice(to..to, piece));
            }
            3 => drop(data.splice(at..at, TOKENS[self.below(TOKENS.len())].iter().copied())),
            4 => drop(data.splice(at..end, TOKENS[self.below(TOKENS.len())].iter().copied())),
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
        }
    }
}

#[test]
fn no_damaged_input_panics_or_hangs() {
    let mut random = Random(7);
    for parser in &list::PARSERS {
        for seed in parser.seeds.iter().chain([&&b""[..]]) {
            parser.run(seed);
        }
        for _ in 0..INPUTS {
            let mut input = parser.seeds[random.below(parser.seeds.len())].to_vec();
            (0..=random.below(4)).for_each(|_| random.damage(&mut input));
            let begin = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| parser.run(&input)));
            assert!(outcome.is_ok(), "{}: {}", parser.name, input.escape_ascii());
            assert!(
                begin.elapsed() < LIMIT,
                "{}: {:?}: {}",
                parser.name,
                begin.elapsed(),
                input.escape_ascii()
            );
        }
    }
}

/// Good input is taken, or the test above shows nothing.
#[test]
fn every_parser_has_a_fuzz_target() {
    let manifest = include_str!("../../fuzz/Cargo.toml");
    let targets: Vec<&str> =
        manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(targets, list::PARSERS.map(|parser| parser.name));
}
