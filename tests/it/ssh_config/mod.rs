//! ssh's configuration files, with `ssh` itself as the judge.

mod generated;
mod judge;
mod real;
mod way;
mod written;
