//! Uploads that are all there but for the commit, and chunks that nobody has merged: for
//! the list of `everywhere`.

use std::path::Path;

use super::client::{CHUNK, Client, content, sha256};
use super::place::{Place, beside, number_in, record, temp_of};

/// Two chunks a second.
pub const VERY_SLOW: &str = "--bwlimit=128KiB";

/// Leaves `chunks` of an upload in alice's temp directory, merged into one file there.
pub fn leave_all_but_the_commit(place: &Place, client: &Client, source: &Path, target: &Path) {
    let mut run = client.start_put(source, target, &[VERY_SLOW]);
    run.until("a chunk", || !place.published(target).is_empty());
    run.signal("STOP");
    place.run(&format!("printf other >'{}'", target.display()));
    run.signal("CONT");
    run.wait().expect(4).says("appeared at the target during the upload");
}

/// Takes the merged file of an upload apart into stored chunks, as `split` would: no chunk
/// is merged then.
fn unmerge(place: &Place, target: &Path, chunks: u64) {
    let temp = temp_of(target);
    let stem = target.file_stem().expect("a stem").display();
    place.run(&format!(
        "cd '{}' && merged=$(find . -name 'merged.*') && for n in $(seq {chunks}); do \
         dd if=\"$merged\" of=\"alice-{stem}:$n\" bs={CHUNK} skip=$((n - 1)) count=1 2>/dev/null || exit 1; done && \
         rm -f \"$merged\" alice-'{stem}':*.* && rm '{stem}.txt'",
        temp.display()
    ));
}

pub fn gaps_in_the_middle_are_filled_and_half_written_parts_never_count(place: &Place) {
    let client = Client::of(place.host());
    let chunks = 12;
    let source = client.source("source", (chunks - 1) * CHUNK + 5, 1);
    let target = place.path("disk.img");
    for merge in place.merges() {
        leave_all_but_the_commit(place, &client, &source, &target);
        unmerge(place, &target, chunks);
        // Two are missing, one is half, one is too long, one is empty.
        let temp = temp_of(&target);
        place.run(&format!(
            "cd '{}' && rm alice-disk:3 alice-disk:7 && truncate -s 1000 alice-disk:5 && \
             echo more >>alice-disk:9 && : >alice-disk:10 && rm '{}'",
            temp.display(),
            target.display()
        ));
        let status = client.on("status", &target, &[]).expect(0);
        assert_eq!(status.last()["state"], "partial", "{merge}");
        assert_eq!(status.number("chunks_present"), chunks - 5, "{merge}");
        let outcome = client.put(&source, &target, &["--merge", merge]).expect(0);
        assert_eq!(outcome.number("chunks_sent"), 5, "{merge}");
        assert_eq!(outcome.number("chunks_skipped"), chunks - 5, "{merge}");
        assert_eq!(outcome.number("bytes_sent"), 5 * CHUNK, "{merge}");
        assert!(place.read(&target) == content((chunks - 1) * CHUNK + 5, 1), "{merge}");
        assert_eq!(place.beside(&target), Vec::<String>::new(), "{merge}");
        place.run(&format!("rm '{}'", target.display()));
    }
}

pub fn a_merge_alone_finishes_stored_chunks(place: &Place) {
    let client = Client::of(place.host());
    let chunks = 12;
    let (source, target) = (client.source("source", chunks * CHUNK - 9, 1), place.path("disk.img"));
    client.on("merge", &target, &[]).expect(1).says("there is no upload to finish");
    for merge in place.merges() {
        leave_all_but_the_commit(place, &client, &source, &target);
        client.on("merge", &target, &[]).expect(4).says("--if-exists replace");
        place.run(&format!("rm '{}'", target.display()));
        unmerge(place, &target, chunks);
        // One is missing: said, and nothing is lost.
        let temp = temp_of(&target);
        place.run(&format!("cd '{}' && mv alice-disk:4 ../aside", temp.display()));
        client.on("merge", &target, &["--merge", merge]).expect(1).says("1 of 12 chunks are missing");
        assert_eq!(record(place.host(), &target).map(|text| number_in(&text, "chunk")), Some(0));
        place.run(&format!("cd '{}' && mv ../aside alice-disk:4", temp.display()));
        let outcome = client.on("merge", &target, &["--merge", merge]).expect(0);
        assert_eq!(outcome.status(), "uploaded", "{merge}");
        assert_eq!(outcome.last()["sha256"], sha256(&content(chunks * CHUNK - 9, 1)), "{merge}");
        assert_eq!((outcome.number("chunks_sent"), outcome.number("bytes_sent")), (0, 0), "{merge}");
        assert_eq!(outcome.number("chunks_skipped"), chunks, "{merge}");
        assert!(place.read(&target) == content(chunks * CHUNK - 9, 1), "{merge}");
        assert_eq!(beside(place.host(), &target), Vec::<String>::new(), "{merge}");
        place.run(&format!("rm '{}'", target.display()));
    }
}
