//! The objects of `--json` that say how something ended.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::exit_code::ExitCode;
use crate::engine::failure::{Failure, Phase};
use crate::engine::pace::{self, Limit};
use crate::engine::report::{
    BeforeReport, CleanReport, MergedBy, PutReport, PutStatus, StatusReport, TargetState, VerifiedBy,
};

/// The last line of a host. Fields that are not known are null, and always there.
#[derive(Debug, Serialize)]
pub struct ResultEvent<'a> {
    event: &'static str,
    host: &'a str,
    status: &'static str,
    /// Of `put`: what was uploaded, escaped.
    source: Option<String>,
    target: Option<&'a str>,
    size: Option<u64>,
    sha256: Option<String>,
    verified_by: Option<&'static str>,
    merge: Option<&'static str>,
    chunks_total: Option<u64>,
    chunks_sent: Option<u64>,
    chunks_skipped: Option<u64>,
    bytes_sent: Option<u64>,
    resumed: Option<bool>,
    seconds: BTreeMap<&'static str, f64>,
    /// What went through a phase.
    bytes: BTreeMap<&'static str, u64>,
    connections: Option<u64>,
    /// At once, all connections together.
    bytes_in_flight: Option<u64>,
    /// In seconds, the shortest one.
    round_trip: Option<f64>,
    limited_by: Option<&'static str>,
    /// Four octal digits; with owner and group the target as it is now.
    mode: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    /// Content is the same; mode, owner or times were, or would be, set.
    attributes_changed: Option<bool>,
    before: Option<BeforeObject>,
    error: Option<String>,
    phase: Option<&'static str>,
    exit_code: u8,
}

/// What stood at the target before.
#[derive(Debug, Serialize)]
struct BeforeObject {
    size: Option<u64>,
    sha256: Option<String>,
    mode: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl BeforeObject {
    fn new(before: BeforeReport) -> BeforeObject {
        BeforeObject {
            size: before.attributes.size,
            sha256: before.sha256.map(|digest| digest.to_string()),
            mode: mode_text(before.attributes.mode),
            uid: before.attributes.owner.map(|owner| owner.uid),
            gid: before.attributes.owner.map(|owner| owner.gid),
        }
    }
}

fn mode_text(mode: Option<u32>) -> Option<String> {
    mode.map(|mode| format!("{mode:04o}"))
}

impl<'a> ResultEvent<'a> {
    pub fn done(host: &'a str, source: Option<String>, report: &'a PutReport) -> ResultEvent<'a> {
        ResultEvent {
            event: "result",
            host,
            status: put_status(report.status),
            source,
            target: Some(&report.target),
            size: Some(report.size),
            sha256: report.sha256.map(|digest| digest.to_string()),
            verified_by: report.verified_by.map(verified_by),
            merge: report.merge.map(merged_by),
            chunks_total: Some(report.chunks_total),
            chunks_sent: Some(report.chunks_sent),
            chunks_skipped: Some(report.chunks_skipped),
            bytes_sent: Some(report.bytes_sent),
            resumed: Some(report.resumed),
            seconds: report.seconds.iter().map(|(phase, time)| (*phase, time.as_secs_f64())).collect(),
            bytes: phase_bytes(report),
            connections: report.pace.map(|pace| pace.connections),
            bytes_in_flight: report.pace.map(|pace| pace.in_flight_peak),
            round_trip: report.pace.and_then(|pace| pace.round_trip).map(|time| time.as_secs_f64()),
            limited_by: report.pace.and_then(|pace| pace::limit(&pace)).map(Limit::name),
            mode: mode_text(report.attributes.mode),
            uid: report.attributes.owner.map(|owner| owner.uid),
            gid: report.attributes.owner.map(|owner| owner.gid),
            attributes_changed: Some(report.attributes.changed),
            before: report.attributes.before.map(BeforeObject::new),
            error: None,
            phase: None,
            exit_code: ExitCode::Done.number(),
        }
    }

    /// `target` is the path as it was asked for, escaped.
    pub fn failed(
        host: &'a str,
        source: Option<String>,
        target: &'a str,
        failure: &Failure,
    ) -> ResultEvent<'a> {
        ResultEvent {
            event: "result",
            host,
            status: "failed",
            source,
            target: Some(target),
            size: None,
            sha256: None,
            verified_by: None,
            merge: None,
            chunks_total: None,
            chunks_sent: None,
            chunks_skipped: None,
            bytes_sent: None,
            resumed: None,
            seconds: BTreeMap::new(),
            bytes: BTreeMap::new(),
            connections: None,
            bytes_in_flight: None,
            round_trip: None,
            limited_by: None,
            mode: None,
            uid: None,
            gid: None,
            attributes_changed: None,
            before: None,
            error: Some(failure.to_string()),
            phase: Some(failure.phase.name()),
            exit_code: ExitCode::of(failure.kind).number(),
        }
    }
}

fn phase_bytes(report: &PutReport) -> BTreeMap<&'static str, u64> {
    let mut bytes = BTreeMap::new();
    for phase in report.seconds.keys() {
        let through = match *phase {
            name if name == Phase::Upload.name() => report.bytes_sent,
            name if name == Phase::Verify.name() => report.size,
            // Placed chunks are where they belong.
            name if name == Phase::Merge.name() && report.merge != Some(MergedBy::Placed) => report.size,
            _ => continue,
        };
        bytes.insert(*phase, through);
    }
    bytes
}

pub fn put_status(status: PutStatus) -> &'static str {
    match status {
        PutStatus::Uploaded => "uploaded",
        PutStatus::Unchanged => "unchanged",
        PutStatus::Skipped => "skipped",
        PutStatus::WouldUpload => "would-upload",
    }
}

fn verified_by(method: VerifiedBy) -> &'static str {
    match method {
        VerifiedBy::Sha256Target => "sha256-target",
        VerifiedBy::Sha256Readback => "sha256-readback",
        VerifiedBy::MacTarget => "mac-target",
        VerifiedBy::MacReadback => "mac-readback",
        VerifiedBy::CrcTarget => "crc-target",
        VerifiedBy::CrcReadback => "crc-readback",
        VerifiedBy::Size => "size",
    }
}

fn merged_by(method: MergedBy) -> &'static str {
    match method {
        MergedBy::Placed => "placed",
        MergedBy::Script => "script",
        MergedBy::Sftp => "sftp",
    }
}

/// The last line of `haul clean --json`.
#[derive(Debug, Serialize)]
pub struct CleanEvent<'a> {
    event: &'static str,
    host: &'a str,
    status: &'static str,
    target: &'a str,
    removed_chunks: u64,
    forced_owner: Option<&'a str>,
    exit_code: u8,
}

impl<'a> CleanEvent<'a> {
    pub fn new(host: &'a str, report: &'a CleanReport) -> CleanEvent<'a> {
        CleanEvent {
            event: "result",
            host,
            status: if report.removed_anything { "cleaned" } else { "unchanged" },
            target: &report.target,
            removed_chunks: report.removed_chunks,
            forced_owner: report.forced_owner.as_deref(),
            exit_code: ExitCode::Done.number(),
        }
    }
}

/// `haul status --json`.
#[derive(Debug, Serialize)]
pub struct StatusEvent<'a> {
    event: &'static str,
    host: &'a str,
    target: &'a str,
    state: &'static str,
    size: Option<u64>,
    chunks_total: Option<u64>,
    chunks_present: Option<u64>,
    chunks_merged: Option<u64>,
    chunk_size: Option<u64>,
    source: Option<SourceObject<'a>>,
    lock: Option<LockObject<'a>>,
}

#[derive(Debug, Serialize)]
struct SourceObject<'a> {
    name: &'a str,
    size: u64,
    identity: &'a str,
}

#[derive(Debug, Serialize)]
struct LockObject<'a> {
    user: &'a str,
    holder: &'a str,
    run: &'a str,
    since: u64,
    alive: Option<bool>,
}

impl<'a> StatusEvent<'a> {
    pub fn new(host: &'a str, report: &'a StatusReport) -> StatusEvent<'a> {
        let upload = report.upload.as_ref();
        StatusEvent {
            event: "status",
            host,
            target: &report.target,
            state: state_name(report.state),
            size: report.size,
            chunks_total: upload.map(|upload| upload.chunks_total),
            chunks_present: upload.map(|upload| upload.chunks_present),
            chunks_merged: upload.map(|upload| upload.chunks_merged),
            chunk_size: upload.map(|upload| upload.chunk_size),
            source: upload.map(|upload| SourceObject {
                name: &upload.source_name,
                size: upload.source_size,
                identity: &upload.source_identity,
            }),
            lock: report.lock.as_ref().map(|lock| LockObject {
                user: &lock.user,
                holder: &lock.holder,
                run: &lock.run,
                since: lock.since,
                alive: lock.alive,
            }),
        }
    }
}

pub fn state_name(state: TargetState) -> &'static str {
    match state {
        TargetState::Absent => "absent",
        TargetState::Partial => "partial",
        TargetState::Merging => "merging",
        TargetState::Complete => "complete",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::failure::{FailureKind, Phase};
    use crate::engine::pace::{LaneTimes, Measured};
    use crate::engine::report::{AttributesReport, LockStatus, UploadStatus};
    use crate::model::digest::Digest;
    use crate::remote::files::Owner;
    use std::time::Duration;

    fn report() -> PutReport {
        PutReport {
            status: PutStatus::Uploaded,
            target: "/srv/img".into(),
            size: 30,
            sha256: Some(Digest([0xab; 32])),
            verified_by: Some(VerifiedBy::Sha256Target),
            merge: Some(MergedBy::Script),
            chunks_total: 3,
            chunks_sent: 2,
            chunks_skipped: 1,
            bytes_sent: 20,
            resumed: true,
            seconds: [("upload", 1500), ("merge", 2), ("verify", 3), ("commit", 4)]
                .map(|(phase, time)| (phase, Duration::from_millis(time)))
                .into(),
            pace: Some(Measured {
                bytes: 20 << 20,
                whole: Duration::from_secs(1),
                connections: 4,
                in_flight_peak: 5 << 20,
                round_trip: Some(Duration::from_millis(50)),
                lanes: LaneTimes { acknowledgements: Duration::from_secs(4), ..LaneTimes::default() },
                ..Measured::default()
            }),
            attributes: AttributesReport {
                mode: Some(0o640),
                owner: Some(Owner { uid: 7, gid: 8 }),
                ..AttributesReport::default()
            },
        }
    }

    #[test]
    fn a_result_has_every_field_of_the_contract() {
        let object = serde_json::to_value(ResultEvent::done("web1", None, &report())).expect("JSON");
        let expected = serde_json::json!({
            "event": "result", "host": "web1", "status": "uploaded", "source": null, "target": "/srv/img",
            "size": 30, "sha256": "ab".repeat(32), "verified_by": "sha256-target", "merge": "script",
            "chunks_total": 3, "chunks_sent": 2, "chunks_skipped": 1, "bytes_sent": 20, "resumed": true,
            "seconds": {"upload": 1.5, "merge": 0.002, "verify": 0.003, "commit": 0.004},
            "bytes": {"upload": 20, "merge": 30, "verify": 30}, "connections": 4,
            "bytes_in_flight": 5 << 20, "round_trip": 0.05, "limited_by": "link",
            "mode": "0640", "uid": 7, "gid": 8,
            "attributes_changed": false, "before": null, "error": null, "phase": null, "exit_code": 0,
        });
        assert_eq!(object, expected);
        let failure = Failure::new(FailureKind::Locked, Phase::Lock, "web1:/srv/img", "bob has it");
        let event = ResultEvent::failed("web1", Some("img".into()), "/srv/img", &failure);
        let object = serde_json::to_value(event).expect("JSON");
        assert_eq!(object["status"], "failed");
        assert_eq!((&object["phase"], &object["exit_code"]), (&"lock".into(), &11.into()));
        assert_eq!(object["error"], "web1:/srv/img: lock: bob has it");
        assert_eq!(object["source"], "img");
    }

    #[test]
    fn a_status_has_every_field_of_the_contract() {
        let mut report = StatusReport {
            target: "/srv/img".into(),
            state: TargetState::Partial,
            size: None,
            modified: None,
            upload: Some(UploadStatus {
                chunks_total: 3,
                chunks_present: 2,
                chunks_merged: 1,
                chunk_size: 10,
                source_name: "img".into(),
                source_size: 30,
                source_identity: "1:2:30:4:5".into(),
            }),
            lock: Some(LockStatus {
                user: "alice".into(),
                holder: "alice@laptop".into(),
                run: "00".into(),
                since: 7,
                alive: None,
            }),
        };
        let object = serde_json::to_value(StatusEvent::new("web1", &report)).expect("JSON");
        let expected = serde_json::json!({
            "event": "status", "host": "web1", "target": "/srv/img", "state": "partial", "size": null,
            "chunks_total": 3, "chunks_present": 2, "chunks_merged": 1, "chunk_size": 10,
            "source": {"name": "img", "size": 30, "identity": "1:2:30:4:5"},
            "lock": {"user": "alice", "holder": "alice@laptop", "run": "00", "since": 7, "alive": null},
        });
        assert_eq!(object, expected);
        (report.upload, report.lock, report.state) = (None, None, TargetState::Absent);
        let object = serde_json::to_value(StatusEvent::new("web1", &report)).expect("JSON");
        assert_eq!(
            (&object["lock"], &object["source"], &object["state"]),
            (&serde_json::Value::Null, &serde_json::Value::Null, &"absent".into())
        );
    }
}
