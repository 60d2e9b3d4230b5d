//! The merge script: the text that merges on the target, and what it says of itself.
//!
//! The script takes the contiguous chunks after what is merged in batches: it checks their
//! sizes, writes them at their place in the merged file, syncs, replaces the record, and
//! only then removes them. It waits for chunks that are to come while its client lives,
//! which is shown by the beat in the run's lock. It never commits. Whenever it is stopped,
//! the record says where to go on.

use super::names::{Names, RunNames};
use super::record::Record;
use super::remote_path::RemotePath;
use super::run_id::RunId;
use super::shell::Script;

/// Bytes that are merged and synced at once, unless one chunk has more.
const BATCH_BYTES: u64 = 40 << 20;
/// Chunks that are merged at once, whatever their size: a command line has its limit.
const BATCH_CHUNKS: u64 = 64;

/// What a merge is about.
#[derive(Debug, Clone, Copy)]
pub struct MergeScriptInputs<'a> {
    pub names: &'a Names,
    pub run: RunId,
    /// Where to go on: chunks in it count as merged into `merged.<generation>` of `run`.
    pub record: &'a Record,
}

/// The text of `run.<id>/merge.sh`.
pub fn merge_script(inputs: &MergeScriptInputs<'_>) -> String {
    let MergeScriptInputs { names, run, record } = inputs;
    let geometry = record.geometry();
    let chunk_size = geometry.chunk_size().bytes();
    let merged = names.run(*run).merged(record.generation());
    Script::new(&[include_str!("merge.sh")])
        .set("temp", names.temp().as_bytes())
        .set("run", names.run(*run).directory().file_name())
        .set("merged_file", [names.run(*run).directory().file_name(), b"/", merged.file_name()].concat())
        .set("prefix", names.chunk_prefix())
        .set("record", names.record_name())
        .set("record_head", record.head())
        .set("record_tail", record.tail())
        .number("chunks", geometry.chunks())
        .number("chunk_size", chunk_size)
        .number("last_size", geometry.length(geometry.chunks()))
        .number("total_size", geometry.size())
        .number("merged", record.merged_chunks())
        .number("batch", (BATCH_BYTES / chunk_size).clamp(1, BATCH_CHUNKS))
        .text()
}

/// Starts the run's `merge.sh`, which stands there already, apart from the connection,
/// and ends at once. Does nothing when that script still runs. Its standard output is
/// for [`Started::parse`].
pub fn start_script(names: &Names, run: RunId) -> Script {
    Script::new(&[START])
        .set("temp", names.temp().as_bytes())
        .set("run", names.run(run).directory().file_name())
}

/// What the script writes about itself, in the run's private directory.
pub fn state_path(run: &RunNames) -> RemotePath {
    run.directory().join("merge.state")
}

/// What the script's commands said on standard error.
pub fn messages_path(run: &RunNames) -> RemotePath {
    run.directory().join("merge.err")
}

/// A file of this name asks the script to stop after what it is doing.
pub fn stop_path(run: &RunNames) -> RemotePath {
    run.directory().join("merge.stop")
}

const START: &str = r#"
started() {
    printf 'haul-merge %s\n' "$*"
    exit 0
}
cd "$temp" && [ -f "$run/merge.sh" ] || started absent
if read -r word pid rest <"$run/merge.state" && [ "$word" = running ] && kill -0 "$pid"; then
    # A pid is given out again some day: the process must be the one that runs the script.
    if [ -r "/proc/$pid/cmdline" ]; then
        case $(tr '\000' ' ' <"/proc/$pid/cmdline") in
            *"$run/merge.sh"*) started alive "$pid" ;;
        esac
    else
        started alive "$pid"
    fi
fi 2>/dev/null
rm -f "$run/merge.stop"
# Now, while there is space: later it is only overwritten.
printf '%-99s\n' starting >"$run/merge.state" || started unable
detach=
command -v setsid >/dev/null 2>&1 && detach=setsid
(
    trap '' HUP
    exec $detach sh "./$run/merge.sh" </dev/null >/dev/null 2>"$run/merge.err"
) &
started started "$!"
"#;

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It runs now, as this process.
    Now(u32),
    /// It ran already, as this process.
    Before(u32),
    /// The run's private directory has no `merge.sh`, or is gone: it was fenced.
    Absent,
    /// Nothing can be written there: no space, or no permission.
    Unable,
}

impl Started {
    /// Reads the output of [`start_script`]; `None` when it did not get that far.
    pub fn parse(output: &[u8]) -> Option<Started> {
        let line = output.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"haul-merge "))?;
        let line = std::str::from_utf8(line).ok()?;
        match line.split_once(' ') {
            None if line == "absent" => Some(Started::Absent),
            None if line == "unable" => Some(Started::Unable),
            Some(("started", pid)) => pid.parse().ok().map(Started::Now),
            Some(("alive", pid)) => pid.parse().ok().map(Started::Before),
            _ => None,
        }
    }
}

/// What `merge.state` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeState {
    /// It has written nothing yet.
    Starting,
    /// `tick` grows with every batch and, while waiting, at least once a second. One that
    /// stands still is a script that is dead or whose disk does not answer.
    Running {
        pid: u32,
        tick: u64,
    },
    /// All chunks are merged, synced and recorded.
    Done,
    /// Asked to, with the chunks it had already taken merged and recorded.
    Stopped,
    /// The client was gone; the contiguous chunks are merged and recorded.
    Left,
    Failed(MergeCause),
}

/// What did not work. Chunks that are not in the record are still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeCause {
    /// The shell cannot count past 32 bits.
    Arithmetic,
    /// The merged file cannot be opened.
    Open,
    /// The merged file is shorter than what is recorded, or not as long as the whole.
    Size,
    /// This chunk's file does not have its size.
    Chunk(u64),
    /// Nothing here writes in the middle of a file.
    Seek,
    /// A chunk could not be copied whole: no space, or a read or write error.
    Cat,
    Sync,
    /// The record could not be written or put in its place.
    Record,
    /// A chunk that is merged and recorded could not be removed.
    Remove,
    /// Nothing here tells a file's size.
    Sizes,
}

impl std::fmt::Display for MergeCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MergeCause::Arithmetic => "the target's shell cannot count past 32 bits",
            MergeCause::Open => "the merged file cannot be opened",
            MergeCause::Size => "the merged file does not have the size it should have",
            MergeCause::Chunk(n) => return write!(f, "chunk {n} does not have its size"),
            MergeCause::Seek => "the target's dd does not position in a file",
            MergeCause::Cat => "a chunk could not be copied whole into the merged file",
            MergeCause::Sync => "the merged file could not be synced",
            MergeCause::Record => "the record could not be written",
            MergeCause::Remove => "a merged chunk could not be removed",
            MergeCause::Sizes => "the target has no program that tells a file's size",
        })
    }
}

impl MergeState {
    /// Bytes that no state exceeds.
    pub const MAX_BYTES: usize = 200;

    /// Reads the content of `merge.state`; `None` when the script did not write it.
    pub fn parse(content: &[u8]) -> Option<MergeState> {
        let text = std::str::from_utf8(content).ok()?;
        let mut words = text.split_ascii_whitespace();
        let state = match words.next() {
            None | Some("starting") => MergeState::Starting,
            Some("running") => {
                MergeState::Running { pid: words.next()?.parse().ok()?, tick: words.next()?.parse().ok()? }
            }
            Some("done") => MergeState::Done,
            Some("stopped") => MergeState::Stopped,
            Some("left") => MergeState::Left,
            Some("failed") => MergeState::Failed(match words.next()? {
                "arithmetic" => MergeCause::Arithmetic,
                "open" => MergeCause::Open,
                "size" => {
                    words.next();
                    MergeCause::Size
                }
                "chunk" => MergeCause::Chunk(words.next()?.parse().ok()?),
                "seek" => MergeCause::Seek,
                "cat" => MergeCause::Cat,
                "sync" => MergeCause::Sync,
                "record" => MergeCause::Record,
                "remove" => MergeCause::Remove,
                "sizes" => MergeCause::Sizes,
                _ => return None,
            }),
            Some(_) => return None,
        };
        words.next().is_none().then_some(state)
    }

    /// Whether the script has ended, by its own word.
    pub fn is_final(&self) -> bool {
        !matches!(self, MergeState::Starting | MergeState::Running { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chunk::{ChunkSize, Geometry};
    use crate::model::names::UserId;

    #[test]
    fn states_are_read_strictly() {
        for (text, state) in [
            ("", Some(MergeState::Starting)),
            ("starting   \n", Some(MergeState::Starting)),
            ("running 12 7      \n", Some(MergeState::Running { pid: 12, tick: 7 })),
            ("done   \n", Some(MergeState::Done)),
            ("left\n", Some(MergeState::Left)),
            ("failed chunk 3 \n", Some(MergeState::Failed(MergeCause::Chunk(3)))),
            ("failed size 17\n", Some(MergeState::Failed(MergeCause::Size))),
            ("failed size\n", Some(MergeState::Failed(MergeCause::Size))),
            ("failed\n", None),
            ("running x 1\n", None),
            ("done done\n", None),
            ("nonsense\n", None),
        ] {
            assert_eq!(MergeState::parse(text.as_bytes()), state, "{text:?}");
        }
    }

    #[test]
    fn every_cause_in_the_script_is_known() {
        let script = include_str!("merge.sh");
        let causes: Vec<&str> = script
            .split("fail ")
            .skip(1)
            .map(|rest| rest.trim_start_matches('"').split([' ', '\n', '"', ';']).next().unwrap_or(""))
            .collect();
        assert!(causes.len() > 10, "{causes:?}");
        for cause in causes {
            let text = if cause == "chunk" { "failed chunk 1" } else { &format!("failed {cause}") };
            assert!(MergeState::parse(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn starts_are_read() {
        assert_eq!(Started::parse(b"welcome\nhaul-merge started 17\n"), Some(Started::Now(17)));
        assert_eq!(Started::parse(b"haul-merge alive 3\n"), Some(Started::Before(3)));
        assert_eq!(Started::parse(b"haul-merge absent\n"), Some(Started::Absent));
        assert_eq!(Started::parse(b"haul-merge unable\n"), Some(Started::Unable));
        assert_eq!(Started::parse(b"haul-merge started\n"), None);
        assert_eq!(Started::parse(b""), None);
    }

    #[test]
    fn names_are_never_syntax() {
        let names = Names::new(
            &RemotePath::new(&b"/srv/a'b\n$(touch x);`y` \"*\xff.img"[..]).expect("a path"),
            &UserId::new("o'neil").expect("a user id"),
        );
        let geometry = Geometry::new(100 << 20, ChunkSize::DEFAULT);
        let run = RunId::from_random(1);
        let record = Record::new(b"a'b", geometry, 0, run).expect("a record");
        let text = merge_script(&MergeScriptInputs { names: &names, run, record: &record });
        let assigned = text.strip_suffix(include_str!("merge.sh")).expect("the constant text at the end");
        assert!(
            !assigned.contains("touch x") && !assigned.contains('`') && !assigned.contains('*'),
            "{assigned}"
        );
        assert!(assigned.lines().any(|line| line == "batch=4"));
    }
}
