//! Pure decisions and formats: no tokio, no files, no clock.

pub mod checksum;
pub mod chunk;
pub mod crc;
pub mod digest;
pub mod escape;
pub mod exec;
pub mod gmac;
pub mod identity;
pub mod lock_file;
pub mod manifest;
pub mod merge_script;
pub mod names;
pub mod plan;
pub mod record;
pub mod remote_path;
pub mod run_id;
pub mod shell;
pub mod signal;
pub mod units;
