//! Damage between two runs.
