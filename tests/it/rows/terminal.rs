//! haul at a pseudo-terminal, with somebody who reads and answers.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::client::{LIMIT, quoted};

pub struct Terminal {
    child: Child,
    stdin: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Terminal {
    /// Runs `command` with a terminal of its own; `scratch` takes a small script.
    pub fn start(command: &Command, scratch: &Path) -> Terminal {
        let mut text = b"exec ".to_vec();
        for word in std::iter::once(command.get_program()).chain(command.get_args()) {
            text.extend(quoted(word));
            text.push(b' ');
        }
        let path = scratch.join(".at-terminal");
        std::fs::write(&path, text).expect("a script");
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--command"])
            .arg(format!("sh {}", path.display()))
            .arg("/dev/null");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        script.env("TERM", "xterm").current_dir(command.get_current_dir().expect("a directory"));
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = script.spawn().expect("script(1) runs");
        let (stdin, mut stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shared = screen.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                shared.lock().expect("no panic").extend_from_slice(&buffer[..length]);
            }
        });
        Terminal { child, stdin, screen, reader: Some(reader) }
    }

    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("no panic")).into_owned()
    }

    pub fn expect(&self, text: &str) {
        let begin = Instant::now();
        while !self.screen().contains(text) {
            assert!(begin.elapsed() < LIMIT, "not shown: {text}\n{}", self.screen());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    pub fn type_in(&mut self, text: &str) {
        self.stdin.write_all(text.as_bytes()).and_then(|()| self.stdin.flush()).expect("typed");
    }

    /// The exit code, and everything that was shown.
    pub fn finish(mut self) -> (Option<i32>, String) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            assert!(begin.elapsed() < LIMIT, "it hangs: {}", self.screen());
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader");
        }
        (status.code(), self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
