//! ssh's own configuration: what `~/.ssh/config` and `/etc/ssh/ssh_config` say of a host.
//!
//! Read as OpenSSH 9.2 reads them, which the tests hold against `ssh -G`. Text goes in
//! and values come out: whatever the machine is asked on the way (files, variables, a
//! command of `Match exec`) is behind [`World`].
//!
//! - `words`, `values`, `pattern`, `jump`, `expand`: the parts of a line;
//! - `keyword`: what each keyword means, into [`settings`];
//! - `reader`: a file, with its Host, Match and Include;
//! - [`resolve`]: everything that holds for one host, defaults filled in;
//! - [`chain`]: that as [`SshOptions`](super::SshOptions), jump hosts included;
//! - [`machine`]: the real [`World`].

mod address;
pub mod chain;
mod expand;
pub mod jump;
mod keyword;
pub mod machine;
pub(super) mod pattern;
mod reader;
pub mod resolve;
pub mod settings;
mod values;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::remote::ssh::options::AddressFamily;

/// What is wrong with the configuration, where, in one escaped line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Who asks, and where.
#[derive(Debug, Clone, Default)]
pub struct Local {
    pub login: String,
    pub uid: u32,
    pub home: String,
    /// What this machine calls itself.
    pub machine: String,
}

/// What is asked of this machine while the configuration is resolved.
pub trait World {
    /// `None` where there is no such file. With `trusted_only` a file that others could
    /// have written is an error.
    fn read(&self, path: &Path, trusted_only: bool) -> Result<Option<Vec<u8>>, String>;
    /// The names that fit a pattern of a shell, sorted.
    fn glob(&self, pattern: &Path) -> Result<Vec<PathBuf>, String>;
    /// Of the environment.
    fn variable(&self, name: &str) -> Option<String>;
    fn home_of(&self, user: &str) -> Option<String>;
    /// Whether the resolver knows an address of this name.
    fn has_address(&self, name: &str, family: AddressFamily) -> bool;
    /// Whether a command of the local shell succeeds.
    fn succeeds(&self, command: &str) -> Result<bool, String>;
}

/// Which files are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Files {
    /// The person's and the system's.
    #[default]
    Usual,
    /// This one in place of both; it has to be there.
    Only(PathBuf),
    None,
}

#[cfg(test)]
mod tests;
