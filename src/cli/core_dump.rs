//! Keeps passwords and keys out of core dumps.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For this process; programs that it starts are not touched by the first of both. It is
/// done before any secret is there. Where the system refuses, haul works all the same.
pub fn forbid() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let limit = getrlimit(Resource::Core);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit });
}
