//! SSH connections, on russh.
