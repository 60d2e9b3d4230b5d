//! The program on a real sshd, killed by SIGKILL at random moments; then once more.

use std::cell::{Cell, RefCell};

use crate::crash::cases::next_random;
use crate::crash::scene::Noted;
use crate::crash::verdict::Verdict;
use crate::kills::Scene;

const MERGES: [(&str, &str); 3] = [("sshd", "auto"), ("sshd-script", "script"), ("sshd-stored", "sftp")];

/// One sshd, and a way of merging.
pub struct Killing {
    server: &'static str,
    kind: String,
    scene: Scene,
    /// How long a whole run takes here, in milliseconds.
    whole: Cell<u64>,
    noted: RefCell<Noted>,
}

impl Killing {
    pub fn all() -> Vec<Killing> {
        MERGES.iter().map(|(server, merge)| Killing::new(server, merge)).collect()
    }

    fn new(server: &'static str, merge: &'static str) -> Killing {
        let kind = format!("{server}/old/killed");
        Killing { server, kind, scene: Scene::new(merge), whole: Cell::new(0), noted: RefCell::default() }
    }

    pub fn parse(name: &str) -> Option<(Killing, u64)> {
        let (server, number) = name.split_once("/old/killed/")?;
        let (server, merge) = MERGES.iter().find(|(known, _)| *known == server)?;
        Some((Killing::new(server, merge), number.parse().ok()?))
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn name(&self, number: u64) -> String {
        format!("{}/old/killed/{number}", self.server)
    }

    /// One to three kills, and a run that is let to its end.
    pub fn run(&self, number: u64) -> (Noted, Verdict) {
        self.noted.take();
        let verdict = self.run_noted(number);
        (self.noted.take(), verdict)
    }

    fn run_noted(&self, number: u64) -> Verdict {
        if self.whole.get() == 0 {
            self.whole.set(self.scene.whole_run().as_millis() as u64);
        }
        let mut random = number ^ 0x51_9c11;
        let target = self.scene.target(&format!("{number}.img"));
        let what = self.name(number);
        let mut what = format!("{what}, a whole run takes {} ms", self.whole.get());
        for _ in 0..1 + next_random(&mut random) % 2 {
            let after = next_random(&mut random) as u64 % self.whole.get().max(1);
            what = format!("{what}, killed after {after} ms");
            let at = self.scene.killed_after(&target, std::time::Duration::from_millis(after), &what)?;
            let mut noted = self.noted.borrow_mut();
            noted.runs += 1;
            if let Some(at) = at {
                noted.faults += 1;
                noted.operation.get_or_insert(at);
            }
        }
        self.noted.borrow_mut().runs += 1;
        self.scene.finish(&target, &what)
    }
}
