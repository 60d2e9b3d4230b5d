//! How a person is asked. The questions are put by the first connection only.

use std::path::Path;

use zeroize::Zeroizing;

/// One question of keyboard-interactive authentication, as the server words it: not
/// escaped. Without `echo` the answer must not be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub text: String,
    pub echo: bool,
}

/// Asks a person. All methods may block for as long as a person takes; they are called
/// where that holds nobody up. `None` means that nobody can or wants to answer. What
/// comes from the server (names, instructions, questions) has to be escaped before it
/// is shown.
pub trait Prompter: Send + Sync {
    fn password(&self, host: &str, user: &str) -> Option<Zeroizing<String>>;

    fn passphrase(&self, key: &Path) -> Option<Zeroizing<String>>;

    /// Whether to trust a host key that no file knows. `fingerprint` is as `ssh` shows
    /// it: `SHA256:` and base64.
    fn accept_host_key(&self, host: &str, fingerprint: &str, key_type: &str) -> bool;

    /// One answer a question, in their order. There may be no question at all.
    fn keyboard_interactive(
        &self,
        host: &str,
        name: &str,
        instruction: &str,
        questions: &[Question],
    ) -> Option<Vec<Zeroizing<String>>>;

    /// Something that a person may want to know, in one escaped line.
    fn tell(&self, _message: &str) {}

    /// As [`Prompter::tell`], for those who want to know everything (-v).
    fn detail(&self, _message: &str) {}
}

/// Nobody is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPrompter;

impl Prompter for NoPrompter {
    fn password(&self, _host: &str, _user: &str) -> Option<Zeroizing<String>> {
        None
    }

    fn passphrase(&self, _key: &Path) -> Option<Zeroizing<String>> {
        None
    }

    fn accept_host_key(&self, _host: &str, _fingerprint: &str, _key_type: &str) -> bool {
        false
    }

    fn keyboard_interactive(
        &self,
        _host: &str,
        _name: &str,
        _instruction: &str,
        _questions: &[Question],
    ) -> Option<Vec<Zeroizing<String>>> {
        None
    }
}
