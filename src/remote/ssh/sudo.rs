//! Working as another user of the target, by sudo(8) without a password.
//!
//! A login that uses it has no subsystem: the SFTP server, and every shell, are started
//! through sudo, so that whatever is asked of either is done as that user.

use std::fmt;

use bytes::Bytes;

use crate::model::escape::printable;

/// useradd(8) takes no longer name.
const MAX_NAME_BYTES: usize = 32;
/// What is kept of what sudo and the server's program say on standard error.
const MAX_COMPLAINT_BYTES: usize = 2 * 1024;
/// What the command below says where it finds no server.
const NO_SERVER: &str = "haul-no-sftp-server";

/// Where systems keep OpenSSH's SFTP server: Debian, Fedora, Arch and SUSE, the BSDs and
/// macOS, Alpine and others.
const SFTP_SERVERS: [&str; 8] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/lib64/ssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/sftp-server",
    "/usr/local/libexec/sftp-server",
    "/usr/libexec/ssh/sftp-server",
];

/// Whom sudo makes of the account that logs in. The name is a bare word in every shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SudoUser(String);

impl SudoUser {
    pub fn new(name: &str) -> Result<SudoUser, String> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if starts_well && is_plain && name.len() <= MAX_NAME_BYTES {
            return Ok(SudoUser(name.to_owned()));
        }
        Err(format!(
            "a user name begins with a letter or '_', holds only letters, digits, '.', '_' and '-', and has at \
             most {MAX_NAME_BYTES} bytes"
        ))
    }

    /// `command`, one of haul's own, as this user. `-n`: never asks. `-H`: with that user's
    /// home.
    pub fn command(&self, command: &str) -> String {
        let program = command.strip_prefix("exec ").unwrap_or(command);
        format!("exec sudo -n -H -u {self} -- {program}")
    }

    /// Starts an SFTP server in this user's home. Its words mean the same in every login
    /// shell, as those of `model::shell::COMMAND` do.
    pub fn sftp_command(&self) -> String {
        let look = format!(
            "exec sh -c 'cd || cd /; for server in {}; do test -x $server && exec $server; done; echo \
             {NO_SERVER} >&2; exit 127'",
            SFTP_SERVERS.join(" ")
        );
        self.command(&look)
    }

    /// Why there is no session, from what came on standard error.
    pub fn explain(&self, complaint: &[u8]) -> String {
        let text = String::from_utf8_lossy(complaint);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("");
        let shown = printable(line.as_bytes());
        if text.contains(NO_SERVER) {
            format!(
                "sudo works, but no SFTP server program is at {} or the other usual places; install it \
                 (openssh-sftp-server or openssh-server)",
                SFTP_SERVERS[0]
            )
        } else if text.contains("a password is required") || text.contains("a terminal is required to read") {
            format!(
                "sudo to {self} asks for a password, and haul gives none; allow it without one (NOPASSWD) in \
                 sudoers, or log in as {self}"
            )
        } else if text.contains("must have a tty") {
            format!(
                "sudo to {self} wants a terminal, which a file transfer cannot have; take 'requiretty' out \
                 of sudoers for this account"
            )
        } else if text.contains("sudo: not found")
            || text.contains("sudo: command not found")
            || text.contains("command not found: sudo")
            || text.contains("Unknown command: sudo")
        {
            format!("there is no sudo on the target; install it, or log in as {self}")
        } else if line.is_empty() {
            format!("sudo to {self} started no SFTP server and said nothing")
        } else {
            format!("sudo to {self} failed: {shown}")
        }
    }
}

impl fmt::Display for SudoUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What came on standard error, up to a limit.
#[derive(Debug, Default)]
pub struct Complaint(Vec<u8>);

impl Complaint {
    pub fn add(&mut self, data: &Bytes) {
        let room = MAX_COMPLAINT_BYTES - self.0.len();
        self.0.extend_from_slice(&data[..data.len().min(room)]);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::shell::{COMMAND, TERMINAL_COMMAND};

    #[test]
    fn a_name_is_a_bare_word() {
        for good in ["root", "_www", "www-data", "a.b_C-9"] {
            assert_eq!(SudoUser::new(good).map(|user| user.to_string()).as_deref(), Ok(good));
        }
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", "-u", "#0", "1", "a b", "a;b", "a$", "a'b", "ä", "a\nb", "%x", "~", &long] {
            assert!(SudoUser::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_stay_what_they_are() {
        let user = SudoUser::new("www-data").expect("a name");
        for command in [COMMAND, TERMINAL_COMMAND] {
            let rest = command.strip_prefix("exec ").expect("a command that replaces the shell");
            assert_eq!(user.command(command), format!("exec sudo -n -H -u www-data -- {rest}"));
        }
        // Inside the quotes nothing that fish or tcsh would take for something else.
        let sftp = user.sftp_command();
        assert!(!sftp.contains(['!', '\\', '\n', '"']) && sftp.matches('\'').count() == 2, "{sftp}");
    }

    #[test]
    fn reasons_are_told_apart() {
        let user = SudoUser::new("root").expect("a name");
        for (said, told) in [
            ("sudo: a password is required\n", "NOPASSWD"),
            ("sudo: sorry, you must have a tty to run sudo\n", "requiretty"),
            ("sh: 1: exec: sudo: not found\n", "there is no sudo"),
            ("haul-no-sftp-server\n", "no SFTP server program"),
            ("sudo: unknown user nobody2\nsudo: error\x1b\n", "failed: sudo: error\\x1b"),
            ("", "said nothing"),
        ] {
            let line = user.explain(said.as_bytes());
            assert!(line.contains(told) && !line.contains(['\n', '\x1b']), "{line}");
        }
    }

    #[test]
    fn a_complaint_is_bounded() {
        let mut complaint = Complaint::default();
        for _ in 0..3 {
            complaint.add(&Bytes::from(vec![b'x'; MAX_COMPLAINT_BYTES]));
        }
        assert_eq!(complaint.bytes().len(), MAX_COMPLAINT_BYTES);
    }
}
