//! The work that is done for every byte, piece or chunk of an upload: `cargo bench`.
//!
//! What a whole upload costs beside other programs, `compare.py` measures; these tell which
//! part of it became slower.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::io::Write;

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box_drop};

use haul::engine::source::{READ_BYTES, Source};
use haul::model::checksum::{Chain, Method};
use haul::model::chunk::{ChunkSize, Geometry};
use haul::model::gmac::Key;
use haul::model::identity::SourceIdentity;
use haul::model::lock_file;
use haul::model::manifest::{Baseline, Manifest, SourceDescription};
use haul::model::plan::{Found, Plan};
use haul::model::record::Record;
use haul::remote::sftp::request::Request;

const CHUNK_BYTES: u64 = 10 << 20;
/// As an upload of 1 TB has them.
const CHUNKS: u64 = 100_000;
const PIECE_BYTES: usize = 128 << 10;

fn main() {
    divan::main();
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

const METHODS: [(&str, Method); 3] =
    [("SHA-256", Method::Sha256), ("GMAC", Method::Gmac(Key([7; 16]))), ("CRC", Method::Crc)];

/// A chunk through a chain, as the reader takes it, and the state after it.
#[divan::bench(args = METHODS.map(|(name, _)| name))]
fn checksum_of_a_chunk(bencher: Bencher, name: &str) {
    let (_, method) = METHODS.into_iter().find(|(known, _)| *known == name).expect("one of them");
    let block = random_bytes(READ_BYTES);
    bencher.counter(BytesCount::new(CHUNK_BYTES)).bench_local(|| {
        let mut chain = Chain::new(method);
        for _ in 0..CHUNK_BYTES / READ_BYTES as u64 {
            chain.update(black_box(&block));
        }
        chain.state()
    });
}

/// The head of a write; its payload is not copied.
#[divan::bench]
fn write_request(bencher: Bencher) {
    let payload = Bytes::from(random_bytes(PIECE_BYTES));
    let handle = [0, 0, 0, 1];
    bencher.counter(ItemsCount::new(1u64)).bench_local(|| {
        let length = PIECE_BYTES as u32;
        let head = Request::Write { handle: &handle, offset: black_box(1 << 40), length }.encode(7);
        (head, payload.clone())
    });
}

/// A chunk of a file in the cache, read piece by piece, with its SHA-256 and without.
#[divan::bench(args = [true, false])]
fn read_a_chunk(bencher: Bencher, hashed: bool) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&random_bytes(CHUNK_BYTES as usize)).expect("its content");
    let source = Source::open(file.path()).expect("a source");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    bencher.counter(BytesCount::new(CHUNK_BYTES)).bench_local(|| {
        runtime.block_on(async {
            let mut chain = Chain::new(Method::Sha256);
            for at in (0..CHUNK_BYTES).step_by(READ_BYTES) {
                if hashed {
                    let (bytes, after) = source.read(at, READ_BYTES, chain).await.expect("read");
                    black_box_drop(bytes);
                    chain = after;
                } else {
                    black_box_drop(source.read_again(at, READ_BYTES).await.expect("read"));
                }
            }
            chain.hashed()
        })
    });
}

fn manifest() -> Manifest {
    let size = CHUNKS * 4096;
    let identity = SourceIdentity { device: 1, inode: 2, size, modified_ns: 3, changed_ns: 4 };
    let source = SourceDescription { name: b"disk.img".to_vec(), identity, mode: 0o644 };
    let chunk_size = ChunkSize::new(4096).expect("a size");
    let mut manifest = Manifest::new(source, chunk_size, Baseline::Absent, Method::Sha256);
    let (block, mut chain) = (random_bytes(4096), Chain::new(Method::Sha256));
    for n in 1..=CHUNKS {
        chain.update(&block);
        manifest.note(n, &chain).expect("its turn");
    }
    manifest
}

#[divan::bench]
fn manifest_of_100_000_chunks(bencher: Bencher) {
    let text = manifest().encode();
    bencher
        .counter(BytesCount::new(text.len()))
        .bench_local(|| Manifest::parse(black_box(text.as_bytes())).expect("a manifest"));
}

#[divan::bench]
fn record(bencher: Bencher) {
    const TEXT: &str = "haul-record: 1\nname: b.img\nsize: 31457280\nchunk: 3\ntotal-size: 60000002\nchunks: 6\n\
                        chunk-size: 10485760\nmerged: 9f799ce644928fd8\nend: 3\n";
    bencher.bench_local(|| Record::parse(black_box(TEXT.as_bytes())).expect("a record"));
}

#[divan::bench]
fn lock(bencher: Bencher) {
    const TEXT: &str = "haul-lock: 1\nuser: alice\nholder: root@vm\npid: 13915\nstart: 498585\n\
                        machine: 8f2b1c0d9e7a4b63a5d4c3b2a1908f7e\nboot: 4c1a9d2e-0b7f-4e55-9a3c-6d2e8f10b4a7\n\
                        namespace: pid:[4026531836],time:[4026531834]\nrun: aa15ad1d2a9e983c\n\
                        source: img.qcow2\nidentity: 65024:2162706:60000000:1795551750306890731:1\n\
                        since: 1795551750\nbeat: 00000000000000000006\n";
    assert!(matches!(lock_file::parse(TEXT.as_bytes()), lock_file::LockContent::Whole(_)));
    bencher.bench_local(|| lock_file::parse(black_box(TEXT.as_bytes())));
}

/// Every other chunk is there.
#[divan::bench]
fn plan_of_100_000_chunks(bencher: Bencher) {
    let geometry = Geometry::new(CHUNKS * CHUNK_BYTES, ChunkSize::new(CHUNK_BYTES).expect("a size"));
    let placed: BTreeSet<u64> = (1..=CHUNKS).step_by(2).collect();
    bencher
        .with_inputs(|| Found { placed: placed.clone(), ..Found::default() })
        .bench_local_values(|found| Plan::new(geometry, CHUNKS, found));
}
