//! What a person is asked: whether to replace, whether to trust, and for secrets.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::askpass::{self, Asker};
use super::screen::Screen;
use super::tty;
use crate::engine::options::{AskReplace, Existing};
use crate::model::escape::printable;
use crate::model::units::{human_size, utc_time};
use crate::remote::ssh::{Prompter, Question};

/// How often a question is put again when the answer is neither yes nor no.
const MAX_ATTEMPTS: usize = 5;

/// A person looks at the output and can be asked.
pub fn person_is_there() -> bool {
    std::io::stderr().is_terminal() && tty::exists()
}

/// A question of a login can be put: at the terminal, or by SSH_ASKPASS's program.
pub fn somebody_can_be_asked() -> bool {
    person_is_there() || matches!(askpass::asker(), Asker::Program(_))
}

/// Asks at the terminal whether a file may be replaced.
pub struct TerminalAsk {
    screen: Arc<Screen>,
}

impl TerminalAsk {
    pub fn new(screen: Arc<Screen>) -> TerminalAsk {
        TerminalAsk { screen }
    }
}

impl AskReplace for TerminalAsk {
    fn replace(&self, existing: &Existing) -> bool {
        self.screen.suspended(|| yes(&replace_question(existing)))
    }
}

fn replace_question(existing: &Existing) -> String {
    let mut facts = human_size(existing.size);
    if let Some(modified) = existing.modified {
        facts.push_str(&format!(", modified {}", utc_time(u64::from(modified))));
    }
    if let Some(size) = existing.source_size {
        facts.push_str(&format!("; the source has {}", human_size(size)));
    }
    format!("{} exists with other content ({facts}). Replace it? [y/N] ", existing.target)
}

/// Only a plain yes is one.
fn yes(question: &str) -> bool {
    for _ in 0..MAX_ATTEMPTS {
        let Some(answer) = tty::ask(question, true) else { return false };
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => return true,
            "" | "n" | "no" => return false,
            _ => {}
        }
    }
    false
}

/// Which secrets may be asked for: `-o PasswordAuthentication=no` and its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedPrompts {
    pub password: bool,
    pub keyboard_interactive: bool,
}

/// Puts the questions of a login. Needs a terminal, but not on standard error, or the
/// program of SSH_ASKPASS.
pub struct TerminalPrompter {
    screen: Arc<Screen>,
    allowed: AllowedPrompts,
    verbose: bool,
}

impl TerminalPrompter {
    pub fn new(screen: Arc<Screen>, allowed: AllowedPrompts) -> TerminalPrompter {
        TerminalPrompter { screen, allowed, verbose: false }
    }

    /// Also says what only those want to know who asked for more (-v).
    pub fn verbose(self, verbose: bool) -> TerminalPrompter {
        TerminalPrompter { verbose, ..self }
    }

    fn ask(&self, question: &str, echo: bool) -> Option<Zeroizing<String>> {
        self.screen.suspended(|| askpass::ask(question, echo))
    }
}

impl Prompter for TerminalPrompter {
    fn password(&self, host: &str, user: &str) -> Option<Zeroizing<String>> {
        if !self.allowed.password {
            return None;
        }
        self.ask(
            &format!("{}@{}'s password: ", printable(user.as_bytes()), printable(host.as_bytes())),
            false,
        )
    }

    fn passphrase(&self, key: &Path) -> Option<Zeroizing<String>> {
        use std::os::unix::ffi::OsStrExt;
        self.ask(&format!("Passphrase of the key {}: ", printable(key.as_os_str().as_bytes())), false)
    }

    fn accept_host_key(&self, host: &str, fingerprint: &str, key_type: &str) -> bool {
        let question = format!(
            "The host key of {} is not known: {} {}.\nTrust it and connect? [yes/no] ",
            printable(host.as_bytes()),
            printable(key_type.as_bytes()),
            printable(fingerprint.as_bytes())
        );
        self.screen.suspended(|| {
            for _ in 0..MAX_ATTEMPTS {
                let Some(answer) = askpass::ask(&question, true) else { return false };
                let answer = answer.trim();
                // As ssh: the fingerprint itself, pasted from elsewhere, is the best yes.
                if answer.eq_ignore_ascii_case("yes") || answer == fingerprint {
                    return true;
                }
                if answer.eq_ignore_ascii_case("no") || answer.eq_ignore_ascii_case("n") {
                    return false;
                }
            }
            false
        })
    }

    fn keyboard_interactive(
        &self,
        host: &str,
        name: &str,
        instruction: &str,
        questions: &[Question],
    ) -> Option<Vec<Zeroizing<String>>> {
        if !self.allowed.keyboard_interactive {
            return None;
        }
        for text in [name, instruction].into_iter().filter(|text| !text.trim().is_empty()) {
            let text = printable(text.trim().as_bytes());
            self.screen.line(&format!("haul: {}: {text}", printable(host.as_bytes())));
        }
        let host = printable(host.as_bytes());
        let ask = |question: &Question| {
            self.ask(&format!("{host}: {}", printable(question.text.as_bytes())), question.echo)
        };
        questions.iter().map(ask).collect()
    }

    fn tell(&self, message: &str) {
        self.screen.remark(&format!("haul: {message}"));
    }

    fn detail(&self, message: &str) {
        if self.verbose {
            self.tell(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_what_is_at_stake() {
        let existing = Existing {
            target: "web1:/srv/img".into(),
            size: 5 << 30,
            modified: Some(951_782_400),
            source_size: Some(1 << 30),
        };
        assert_eq!(
            replace_question(&existing),
            "web1:/srv/img exists with other content (5.0 GiB, modified 2000-02-29 00:00:00 UTC; \
             the source has 1.0 GiB). Replace it? [y/N] "
        );
    }
}
