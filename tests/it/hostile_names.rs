//! Names that hurt, made by the thousand: as arguments and paths through every login shell,
//! and the worst of them as uploads. No byte of them runs as a command, and every one arrives
//! as it is or is refused in one clear line.

mod generate;
mod shells;
mod uploads;
