//! The collection in `ansible/`, driven by the real ansible-core over real OpenSSH servers.

mod becoming;
mod checking;
mod documented;
mod playbook;
mod refusals;
mod stage;
mod way;
