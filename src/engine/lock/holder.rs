//! Who this process is, and whether another process of this machine lives.
//!
//! What a system does not tell is absent, and others then have to watch the heartbeat.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::model::lock_file::{Here, Machine, ProcessId, ProcessState};

/// Identifies this process. `holder` is local `user@host`, for people.
pub fn here(holder: String) -> Here {
    Here { holder, process: process(std::process::id()), machine: machine() }
}

/// The process that has this pid now.
pub fn process(pid: u32) -> Option<ProcessId> {
    let stat = stat_fields(pid).ok()?;
    Some(ProcessId { pid, start: stat.start })
}

/// Seconds since the epoch by this machine's clock.
pub fn seconds_since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn machine() -> Option<Machine> {
    let first_line = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().next()?.trim().to_owned();
        (!line.is_empty()).then_some(line)
    };
    let namespace = |path: &str| fs::read_link(path).ok().map(|link| link.display().to_string());
    let mut namespaces = namespace("/proc/self/ns/pid")?;
    // A time namespace shifts the start times that processes are told apart by.
    if let Some(time) = namespace("/proc/self/ns/time") {
        namespaces = format!("{namespaces},{time}");
    }
    Some(Machine {
        machine_id: first_line("/etc/machine-id")?,
        boot_id: first_line("/proc/sys/kernel/random/boot_id")?,
        namespace: namespaces,
    })
}

struct Stat {
    state: u8,
    start: u64,
}

/// Fields 3 and 22 of `/proc/<pid>/stat` (proc_pid_stat(5)). The second field is the
/// program's name in parentheses, which may itself hold spaces and parentheses.
fn stat_fields(pid: u32) -> Result<Stat, ()> {
    let text = fs::read(format!("/proc/{pid}/stat")).map_err(drop)?;
    let after_name = text.iter().rposition(|b| *b == b')').ok_or(())? + 1;
    let mut fields = text[after_name..].split(|b| *b == b' ').filter(|field| !field.is_empty());
    let state = fields.next().and_then(|field| field.first()).copied().ok_or(())?;
    let start = fields.nth(18).and_then(|field| std::str::from_utf8(field).ok()).ok_or(())?;
    Ok(Stat { state, start: start.trim().parse().map_err(drop)? })
}

/// Whether `process` lives, asked of the kernel first: /proc may hide what belongs to
/// another account.
pub fn process_state(process: ProcessId) -> ProcessState {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
        return ProcessState::Unknown;
    };
    match test_kill_process(pid) {
        Err(Errno::SRCH) => return ProcessState::Gone,
        Ok(()) | Err(Errno::PERM) => {}
        Err(_) => return ProcessState::Unknown,
    }
    match stat_fields(process.pid) {
        Ok(stat) if stat.start != process.start => ProcessState::Gone,
        Ok(stat) if matches!(stat.state, b'Z' | b'X') => ProcessState::Gone,
        Ok(_) => ProcessState::Living,
        Err(()) => ProcessState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_its_like_with_another_start_does_not() {
        let me = here("a@b".to_owned()).process.expect("/proc is there");
        assert_eq!(process_state(me), ProcessState::Living);
        assert_eq!(process_state(ProcessId { start: me.start + 1, ..me }), ProcessState::Gone);
    }

    #[test]
    fn a_child_is_living_then_a_zombie_then_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let process = process(child.id()).expect("its stat");
        assert_eq!(process_state(process), ProcessState::Living);
        child.kill().expect("killed");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while process_state(process) != ProcessState::Gone {
            assert!(std::time::Instant::now() < deadline, "a zombie counts as living");
            std::thread::yield_now();
        }
        child.wait().expect("reaped");
        assert_eq!(process_state(process), ProcessState::Gone);
    }

    #[test]
    fn impossible_pids_are_unknown() {
        for pid in [0, u32::MAX] {
            assert_eq!(process_state(ProcessId { pid, start: 1 }), ProcessState::Unknown);
        }
    }
}
