//! A person whose answers are known beforehand, and who remembers what was asked.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use haul::remote::ssh::{Prompter, Question};
use zeroize::Zeroizing;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Password,
    Passphrase,
    /// With the fingerprint.
    HostKey(String),
    /// With the questions.
    Interactive(Vec<String>),
}

#[derive(Default)]
pub struct ScriptedPrompter {
    passwords: Mutex<VecDeque<String>>,
    passphrases: Mutex<VecDeque<String>>,
    answers: Mutex<VecDeque<String>>,
    host_key: bool,
    thinks: Duration,
    asked: Mutex<Vec<Asked>>,
    told: Mutex<Vec<String>>,
}

impl ScriptedPrompter {
    pub fn new() -> ScriptedPrompter {
        ScriptedPrompter::default()
    }

    pub fn passwords(self, list: &[&str]) -> Self {
        fill(&self.passwords, list);
        self
    }

    pub fn passphrases(self, list: &[&str]) -> Self {
        fill(&self.passphrases, list);
        self
    }

    /// One for each round of keyboard-interactive questions.
    pub fn answers(self, list: &[&str]) -> Self {
        fill(&self.answers, list);
        self
    }

    pub fn host_key(mut self, accept: bool) -> Self {
        self.host_key = accept;
        self
    }

    /// How long an answer on a host key takes.
    pub fn thinks(mut self, time: Duration) -> Self {
        self.thinks = time;
        self
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("lock").clone()
    }

    pub fn told(&self) -> Vec<String> {
        self.told.lock().expect("lock").clone()
    }

    fn note(&self, asked: Asked) {
        self.asked.lock().expect("lock").push(asked);
    }
}

fn fill(queue: &Mutex<VecDeque<String>>, list: &[&str]) {
    queue.lock().expect("lock").extend(list.iter().map(|item| item.to_string()));
}

fn take(queue: &Mutex<VecDeque<String>>) -> Option<Zeroizing<String>> {
    queue.lock().expect("lock").pop_front().map(Zeroizing::new)
}

impl Prompter for ScriptedPrompter {
    fn password(&self, _host: &str, _user: &str) -> Option<Zeroizing<String>> {
        self.note(Asked::Password);
        take(&self.passwords)
    }

    fn passphrase(&self, _key: &Path) -> Option<Zeroizing<String>> {
        self.note(Asked::Passphrase);
        take(&self.passphrases)
    }

    fn accept_host_key(&self, _host: &str, fingerprint: &str, _key_type: &str) -> bool {
        self.note(Asked::HostKey(fingerprint.to_string()));
        std::thread::sleep(self.thinks);
        self.host_key
    }

    fn keyboard_interactive(
        &self,
        _host: &str,
        _name: &str,
        _instruction: &str,
        questions: &[Question],
    ) -> Option<Vec<Zeroizing<String>>> {
        self.note(Asked::Interactive(questions.iter().map(|question| question.text.clone()).collect()));
        Some(vec![take(&self.answers)?])
    }

    fn tell(&self, message: &str) {
        self.told.lock().expect("lock").push(message.to_string());
    }
}
