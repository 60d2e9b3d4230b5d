//! The lines by which haul's scripts speak, found among whatever else a login says.

use super::Group;
use crate::model::run_id::RunId;

/// What the channel of a command says before its program starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Waits for [`GO`](super::GO), as process `leader`.
    Ready {
        leader: u32,
        group: Group,
    },
    /// The terminal is as it was; what is typed from now on is the program's.
    Started,
    DirectoryAbsent,
    DirectoryDenied,
    /// What is there is no directory.
    DirectoryFile,
    ProgramAbsent,
    /// It is there, and may not be executed.
    ProgramDenied,
    Detached {
        leader: u32,
    },
    /// The state of a detached command cannot be written.
    StateDenied,
    /// The input of a detached command did not come whole.
    StateInput,
    /// Nothing was detached by that id.
    StateAbsent,
    /// What was detached has ended already.
    Ended,
    /// The signal was sent.
    Sent,
    /// The signal was refused.
    Denied,
}

impl Said {
    /// Reads what follows the mark; `None` for what no script of haul's says.
    pub fn parse(text: &[u8]) -> Option<Said> {
        let text = std::str::from_utf8(text).ok()?;
        let mut words = text.split_ascii_whitespace();
        let said = match words.next()? {
            "ready" => Said::Ready {
                leader: words.next()?.parse().ok()?,
                group: match words.next()? {
                    "own" => Group::Own,
                    "later" => Group::Later,
                    "none" => Group::None,
                    _ => return None,
                },
            },
            "detached" => Said::Detached { leader: words.next()?.parse().ok()? },
            "started" => Said::Started,
            "directory-absent" => Said::DirectoryAbsent,
            "directory-denied" => Said::DirectoryDenied,
            "directory-file" => Said::DirectoryFile,
            "program-absent" => Said::ProgramAbsent,
            "program-denied" => Said::ProgramDenied,
            "state-denied" => Said::StateDenied,
            "state-input" => Said::StateInput,
            "state-absent" => Said::StateAbsent,
            "ended" => Said::Ended,
            "sent" => Said::Sent,
            "denied" => Said::Denied,
            _ => return None,
        };
        words.next().is_none().then_some(said)
    }

    pub fn mark(nonce: RunId) -> String {
        format!("haul-exec {nonce} ")
    }
}

/// What a guard says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardSaid {
    /// Takes orders.
    Ready,
    Done,
    /// There was nobody to do it to.
    Gone,
    /// The group is gone, or does not die.
    Ended,
}

impl GuardSaid {
    pub fn parse(text: &[u8]) -> Option<GuardSaid> {
        match text.trim_ascii() {
            b"ready" => Some(GuardSaid::Ready),
            b"ok" => Some(GuardSaid::Done),
            b"gone" => Some(GuardSaid::Gone),
            b"ended" => Some(GuardSaid::Ended),
            _ => None,
        }
    }

    pub fn mark(nonce: RunId) -> String {
        format!("haul-guard {nonce} ")
    }
}

/// Finds the first whole line part that begins with `mark`, wherever in a line: a login
/// may say something before it and not end the line. Gives what stands between the mark
/// and the line's end, and where the next line begins.
pub fn find_line<'a>(heard: &'a [u8], mark: &str) -> Option<(&'a [u8], usize)> {
    let begin = heard.windows(mark.len()).position(|window| window == mark.as_bytes())? + mark.len();
    let length = heard[begin..].iter().position(|byte| *byte == b'\n')?;
    Some((&heard[begin..begin + length], begin + length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_strictly() {
        assert_eq!(Said::parse(b"ready 12 own"), Some(Said::Ready { leader: 12, group: Group::Own }));
        assert_eq!(Said::parse(b"ready 12 own\r"), Some(Said::Ready { leader: 12, group: Group::Own }));
        assert_eq!(Said::parse(b"program-denied"), Some(Said::ProgramDenied));
        for bad in [&b""[..], b"ready", b"ready x own", b"ready 1 own more", b"nonsense", b"\xff"] {
            assert_eq!(Said::parse(bad), None);
        }
        assert_eq!(GuardSaid::parse(b"ok\r"), Some(GuardSaid::Done));
        assert_eq!(GuardSaid::parse(b"ok ok"), None);
    }

    #[test]
    fn a_mark_is_found_among_a_logins_noise() {
        let nonce = RunId::from_random(1);
        let mark = Said::mark(nonce);
        let heard = format!("Welcome!\nno newline{mark}ready 5 own\nrest");
        assert_eq!(find_line(heard.as_bytes(), &mark), Some((&b"ready 5 own"[..], heard.len() - 4)));
        assert_eq!(find_line(format!("{mark}ready 5 o").as_bytes(), &mark), None);
        assert_eq!(find_line(b"haul-exec 0000000000000002 ready 5 own\n", &mark), None);
    }

    #[test]
    fn every_word_of_the_scripts_is_known() {
        let scripts = [
            include_str!("start.sh"),
            include_str!("attached.sh"),
            include_str!("detached.sh"),
            include_str!("state.sh"),
            include_str!("attach.sh"),
            include_str!("signal.sh"),
        ];
        let mut count = 0;
        for script in scripts {
            for call in ["haul_say ", "haul_refuse "] {
                for rest in script.split(call).skip(1) {
                    let word =
                        rest.trim_start_matches('"').split([' ', '\n', '"', ';', ')']).next().unwrap_or("");
                    // Followed by a verdict, or the definition's own call.
                    if word.is_empty() || word.starts_with('$') || word == "program-$haul_found" {
                        continue;
                    }
                    let text = if word == "ready" { "ready 1 own" } else { word };
                    assert!(Said::parse(text.as_bytes()).is_some(), "{word}");
                    count += 1;
                }
            }
        }
        assert!(count > 8, "{count}");
    }
}
