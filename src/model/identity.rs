//! What makes a source file the same file as before.

use std::fmt;

/// Device, inode, size, and both times in nanoseconds since the epoch. The change time
/// cannot be set back by a program, so a source edited in place shows even when its
/// size and modification time were restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceIdentity {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub modified_ns: i128,
    pub changed_ns: i128,
}

impl SourceIdentity {
    /// The reverse of `Display`.
    pub fn parse(text: &str) -> Option<SourceIdentity> {
        let mut fields = text.split(':');
        let identity = SourceIdentity {
            device: fields.next()?.parse().ok()?,
            inode: fields.next()?.parse().ok()?,
            size: fields.next()?.parse().ok()?,
            modified_ns: fields.next()?.parse().ok()?,
            changed_ns: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(identity)
    }
}

impl fmt::Display for SourceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SourceIdentity { device, inode, size, modified_ns, changed_ns } = self;
        write!(f, "{device}:{inode}:{size}:{modified_ns}:{changed_ns}")
    }
}

#[cfg(test)]
mod tests {
    use super::SourceIdentity;

    #[test]
    fn reads_what_it_writes() {
        let identity = SourceIdentity {
            device: 1,
            inode: 2,
            size: 3,
            modified_ns: -4,
            changed_ns: 1_700_000_000_123_456_789,
        };
        assert_eq!(SourceIdentity::parse(&identity.to_string()), Some(identity));
        for bad in ["", "1:2:3:4", "1:2:3:4:5:6", "1:2:-3:4:5", "a:2:3:4:5"] {
            assert_eq!(SourceIdentity::parse(bad), None, "{bad}");
        }
    }
}
