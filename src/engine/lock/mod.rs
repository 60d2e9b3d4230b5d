//! The lock of one target: taken, kept, judged, taken over, given back.
//!
//! Only a link (or exclusive create) that fails when the name is there, a rename, and an
//! unlink are atomic on a target. So nothing is decided by reading first: every step acts,
//! and then looks at what it got. What is private to a run stands in its own directory in
//! the temp directory; whoever wins the lock renames all the others' directories away,
//! and from then on nothing that an older run still asks for by name can be found.

mod acquire;
mod alive;
mod decide;
mod fence;
mod held;
pub mod holder;
mod keeper;
mod look;
mod release;
mod small_file;
mod times;
mod win;

pub use acquire::{Acquirer, LockContext, Made};
pub use alive::is_alive;
pub use fence::{FencedDir, fence};
pub use held::{Held, LockKind};
pub use keeper::{Keeper, LockState};
pub use look::{LockSeen, look};
pub use release::release;
pub use times::LockTimes;
