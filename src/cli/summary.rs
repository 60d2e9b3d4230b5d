//! What came out, in the lines that people read.

use std::fmt::Write;
use std::time::Duration;

use super::json::result::state_name;
use crate::engine::report::{CleanReport, PutReport, PutStatus, StatusReport, UploadStatus, VerifiedBy};
use crate::model::escape::printable;
use crate::model::units::{human_duration, human_rate, human_size, utc_time};

/// Of less the rate says nothing about the link.
const MIN_BYTES_FOR_RATE: u64 = 1 << 20;

/// How an upload or a merge ended, in one line. `verb` is "uploaded" or "merged".
pub fn put_line(host: &str, report: &PutReport, verb: &str, time: Duration) -> String {
    let place = format!("{}:{}", printable(host.as_bytes()), report.target);
    let size = human_size(report.size);
    let there = there_already(report);
    match report.status {
        PutStatus::Skipped => format!("{place}: skipped: other content is there and was kept"),
        PutStatus::Unchanged => {
            let set = if report.attributes.changed { "; mode, owner or times set as asked" } else { "" };
            format!("{place}: unchanged, {size}{}{set}", proof(report))
        }
        PutStatus::WouldUpload => format!("{place}: would upload {size}{there}; nothing was changed"),
        PutStatus::Uploaded => {
            let rate = match report.bytes_sent {
                ..MIN_BYTES_FOR_RATE => String::new(),
                bytes if bytes == report.size => format!(" ({})", human_rate(bytes, time)),
                bytes => format!(" ({} sent, {})", human_size(bytes), human_rate(bytes, time)),
            };
            format!("{place}: {verb} {size} in {}{rate}{there}{}", human_duration(time), proof(report))
        }
    }
}

fn there_already(report: &PutReport) -> String {
    match report.chunks_skipped {
        0 => String::new(),
        skipped => format!(", {skipped} of {} chunks were there already", report.chunks_total),
    }
}

fn proof(report: &PutReport) -> String {
    let mut text = String::new();
    if let Some(digest) = report.sha256 {
        // Writing to a String cannot fail.
        let _ = write!(text, ", sha256 {digest}");
    }
    if let Some(method) = report.verified_by {
        text.push_str(match method {
            VerifiedBy::Sha256Target => " verified on the target",
            VerifiedBy::Sha256Readback => " verified by reading back",
            VerifiedBy::MacTarget => ", verified by a keyed MAC on the target",
            VerifiedBy::MacReadback => ", verified by a keyed MAC of what was read back",
            VerifiedBy::CrcTarget => ", verified by a CRC on the target",
            VerifiedBy::CrcReadback => ", verified by a CRC of what was read back",
            VerifiedBy::Size => ", only the size was compared",
        });
    }
    text
}

/// `haul status` for people.
pub fn status_lines(host: &str, report: &StatusReport) -> String {
    let mut text = format!("{}:{}\n", printable(host.as_bytes()), report.target);
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {label:<7} {value}");
    };
    let state = match &report.upload {
        Some(upload) => format!("{}: {}", state_name(report.state), chunks(upload)),
        None => state_name(report.state).to_owned(),
    };
    line("state", state);
    let modified = report.modified.map(|time| format!(", modified {}", utc_time(u64::from(time))));
    line(
        "file",
        match report.size {
            Some(size) => format!("{} ({size} bytes){}", human_size(size), modified.unwrap_or_default()),
            None => "none".to_owned(),
        },
    );
    if let Some(upload) = &report.upload {
        let (size, chunk) = (human_size(upload.source_size), human_size(upload.chunk_size));
        line("upload", format!("{}, {size}, in chunks of {chunk}", upload.source_name));
    }
    let lock = report.lock.as_ref().map(|lock| {
        let alive = match lock.alive {
            Some(true) => "alive",
            Some(false) => "dead",
            None => "not known whether alive",
        };
        let (user, holder) = (&lock.user, &lock.holder);
        format!("{user}, held by {holder} since {}, {alive}", utc_time(lock.since))
    });
    line("lock", lock.unwrap_or_else(|| "none".to_owned()));
    text
}

fn chunks(upload: &UploadStatus) -> String {
    let UploadStatus { chunks_total, chunks_present, chunks_merged, .. } = upload;
    format!("{chunks_present} of {chunks_total} chunks there, {chunks_merged} merged")
}

/// `haul clean` for people.
pub fn clean_line(host: &str, report: &CleanReport) -> String {
    let place = format!("{}:{}", printable(host.as_bytes()), report.target);
    if !report.removed_anything {
        return format!("{place}: nothing to clean");
    }
    let owner = report
        .forced_owner
        .as_ref()
        .map(|owner| format!(", which belonged to {}", printable(owner.as_bytes())));
    format!(
        "{place}: removed temp directory and lock, {} chunks{}",
        report.removed_chunks,
        owner.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::report::{AttributesReport, LockStatus, TargetState};
    use crate::model::digest::Digest;
    use std::collections::BTreeMap;

    fn report(status: PutStatus) -> PutReport {
        PutReport {
            status,
            target: "/srv/img".into(),
            size: 5 << 30,
            sha256: Some(Digest([0xab; 32])),
            verified_by: Some(VerifiedBy::Sha256Target),
            merge: None,
            chunks_total: 512,
            chunks_sent: 312,
            chunks_skipped: 200,
            bytes_sent: 312 * (10 << 20),
            resumed: true,
            seconds: BTreeMap::new(),
            pace: None,
            attributes: AttributesReport::default(),
        }
    }

    #[test]
    fn one_line_says_how_it_went() {
        let time = Duration::from_millis(12_300);
        let digest = "ab".repeat(32);
        for (status, expected) in [
            (
                PutStatus::Uploaded,
                format!(
                    "web1:/srv/img: uploaded 5.0 GiB in 12.3 s (3.0 GiB sent, 254 MiB/s), 200 of 512 chunks were there already, \
                     sha256 {digest} verified on the target"
                ),
            ),
            (
                PutStatus::Unchanged,
                format!("web1:/srv/img: unchanged, 5.0 GiB, sha256 {digest} verified on the target"),
            ),
            (PutStatus::Skipped, "web1:/srv/img: skipped: other content is there and was kept".to_owned()),
            (
                PutStatus::WouldUpload,
                "web1:/srv/img: would upload 5.0 GiB, 200 of 512 chunks were there already; nothing was changed"
                    .to_owned(),
            ),
        ] {
            assert_eq!(put_line("web1", &report(status), "uploaded", time), expected);
        }
    }

    #[test]
    fn a_status_is_a_few_aligned_lines() {
        let report = StatusReport {
            target: "/srv/img".into(),
            state: TargetState::Partial,
            size: Some(10),
            modified: Some(0),
            upload: Some(UploadStatus {
                chunks_total: 3,
                chunks_present: 2,
                chunks_merged: 1,
                chunk_size: 10 << 20,
                source_name: "img".into(),
                source_size: 25 << 20,
                source_identity: "1:2:3:4:5".into(),
            }),
            lock: Some(LockStatus {
                user: "alice".into(),
                holder: "alice@laptop".into(),
                run: "0".into(),
                since: 0,
                alive: Some(false),
            }),
        };
        assert_eq!(
            status_lines("web1", &report),
            "web1:/srv/img\n\
             \x20 state   partial: 2 of 3 chunks there, 1 merged\n\
             \x20 file    10 B (10 bytes), modified 1970-01-01 00:00:00 UTC\n\
             \x20 upload  img, 25.0 MiB, in chunks of 10.0 MiB\n\
             \x20 lock    alice, held by alice@laptop since 1970-01-01 00:00:00 UTC, dead\n"
        );
    }
}
