//! What to do on a target: survey, lock, upload, merge, verify, commit.

pub mod clean;
pub mod failure;
pub mod finish;
pub mod job;
pub mod lock;
pub mod monitor;
pub mod options;
pub mod probe;
pub mod put;
pub mod report;
pub mod status;
pub mod stop;

mod board;
mod commit;
mod connect;
mod decide;
mod guard;
mod hash;
mod io;
mod leftovers;
mod limiter;
mod merge;
mod open;
mod prepare;
mod random;
mod receipts;
mod repair;
mod retry;
mod site;
mod source;
mod space;
mod target;
mod temp;
mod transfer;
mod upload;
mod verify;
