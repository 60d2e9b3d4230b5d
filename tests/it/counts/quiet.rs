//! Whether anything is still at work: no clock says so, but the kernel's books.
//!
//! Every thread sleeps, none of them ran between two looks, and no byte waits in a socket.
//! Then nothing happens until somebody from outside sends something, or a timer ends. On a
//! loaded machine that takes longer to become true, and is as true then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::harness::sshd::{living_parent, processes};

/// Every thread of client and server with how often it was switched away from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Threads(BTreeMap<(u32, u32), String>);

impl Threads {
    /// `None` while one of them runs.
    fn asleep(processes: &BTreeSet<u32>) -> Option<Threads> {
        let mut threads = BTreeMap::new();
        for pid in processes {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let thread: u32 = task.file_name().to_str()?.parse().ok()?;
                // One that has just ended gave its work to somebody.
                let status = fs::read_to_string(task.path().join("status")).ok()?;
                let state = field(&status, "State:")?.chars().next()?;
                if !matches!(state, 'S' | 'I' | 'Z') {
                    return None;
                }
                let switches = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"]
                    .map(|name| field(&status, name).unwrap_or_default());
                threads.insert((*pid, thread), switches.join(" "));
            }
        }
        Some(Threads(threads))
    }
}

/// Client and server, by process, and the ports between them.
pub struct Watched {
    ports: [u16; 2],
    /// As last seen, and those that are not of them: to find out takes longer than to look.
    processes: BTreeSet<u32>,
    strangers: BTreeSet<u32>,
}

impl Watched {
    pub fn new(roots: [u32; 2], ports: [u16; 2]) -> Watched {
        Watched { ports, processes: BTreeSet::from(roots), strangers: BTreeSet::new() }
    }

    /// Whether there was a moment, while this looked, at which nobody had anything to do.
    pub fn is_quiet(&mut self) -> bool {
        let Some(before) = Threads::asleep(&self.processes) else { return false };
        if something_waits(&self.ports) {
            return false;
        }
        self.find_processes();
        Threads::asleep(&self.processes) == Some(before) && !something_waits(&self.ports)
    }

    fn find_processes(&mut self) {
        let all: BTreeSet<u32> = processes().collect();
        self.processes.retain(|pid| all.contains(pid));
        self.strangers.retain(|pid| all.contains(pid));
        let unknown =
            all.into_iter().filter(|pid| !self.processes.contains(pid) && !self.strangers.contains(pid));
        let mut unknown: Vec<(u32, Option<u32>)> = unknown.map(|pid| (pid, living_parent(pid))).collect();
        loop {
            let (ours, others): (Vec<_>, Vec<_>) = unknown
                .into_iter()
                .partition(|(_, parent)| parent.is_some_and(|parent| self.processes.contains(&parent)));
            unknown = others;
            if ours.is_empty() {
                break;
            }
            self.processes.extend(ours.iter().map(|(pid, _)| pid));
        }
        self.strangers.extend(unknown.iter().map(|(pid, _)| pid));
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Whether bytes or connections wait in sockets of these ports.
fn something_waits(ports: &[u16]) -> bool {
    const ESTABLISHED: &str = "01";
    const LISTEN: &str = "0A";
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, queues, ..] = fields[..] else { return false };
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap_or(""), 16);
        let ours = [local, remote].iter().any(|end| port(end).is_ok_and(|port| ports.contains(&port)));
        ours && (state == ESTABLISHED || state == LISTEN) && queues != "00000000:00000000"
    })
}
