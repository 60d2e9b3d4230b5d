//! Every fuzz target: the program's own name says which parser it feeds.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "parsers.rs"]
mod parsers;

fuzz_target!(|data: &[u8]| parsers::named(env!("CARGO_BIN_NAME")).run(data));
