//! What was asked in so many words of the target's mode, owner and times, as opposed to
//! what a replaced file keeps; names of users and groups become numbers on the target.

use std::sync::Arc;
use std::time::Duration;

use super::commit::{baseline, target_now};
use super::failure::{Failure, FailureKind, Phase};
use super::guard::{Guard, Request};
use super::job::{JobError, JobLimits, run_script};
use super::leftovers;
use super::monitor::Monitor;
use super::options::{Chown, LockOptions, Principal, PutOptions};
use super::site::Site;
use super::source::Source;
use super::stop::Stop;
use crate::model::escape::printable;
use crate::model::lock_file::SourceNote;
use crate::model::shell::Script;
use crate::remote::files::{Attributes, Owner, SetAttributes, Times};

/// Names may come from a directory service that is slow.
const LOOKUP: JobLimits =
    JobLimits { timeout: Some(Duration::from_secs(30)), silence: None, max_output_bytes: 64 << 10 };

const FIND_USER: &str = "id -u \"$haul_name\"\n";
/// Either prints lines of group(5).
const FIND_GROUP: &str = "getent group \"$haul_name\" 2>/dev/null || cat /etc/group\n";

/// `None` was not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub times: Option<Times>,
}

impl Asked {
    /// `source` is `None` for `haul merge`.
    pub async fn find(
        site: &Site,
        options: &PutOptions,
        source: Option<&Source>,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Asked, Failure> {
        let preserved = source.filter(|_| options.preserve);
        let Chown { user, group } = &options.chown;
        Ok(Asked {
            mode: options.chmod.or(preserved.map(|source| source.description.mode)),
            uid: match user {
                Some(user) => Some(number(site, user, "user", monitor).await?),
                None => None,
            },
            gid: match group {
                Some(group) => Some(number(site, group, "group", monitor).await?),
                None => None,
            },
            times: preserved.map(|source| source.times),
        })
    }

    pub fn asks_owner(&self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }

    /// What `now` becomes.
    pub fn owner_from(&self, now: Owner) -> Owner {
        Owner { uid: self.uid.unwrap_or(now.uid), gid: self.gid.unwrap_or(now.gid) }
    }

    /// What has to be set on a file with these attributes; nothing where all is as asked.
    fn missing(&self, now: &Attributes) -> SetAttributes {
        let owner = now.owner.filter(|_| self.asks_owner()).map(|now| self.owner_from(now));
        SetAttributes {
            size: None,
            owner: owner.filter(|wanted| now.owner != Some(*wanted)),
            mode: self.mode.filter(|wanted| now.mode != Some(*wanted)),
            times: self.times.filter(|wanted| now.times.map(|times| times.modified) != Some(wanted.modified)),
        }
    }

    pub fn differs_from(&self, now: &Attributes) -> bool {
        self.missing(now) != SetAttributes::default()
    }

    /// What a file with these attributes will have.
    pub fn applied_to(&self, now: &Attributes) -> Attributes {
        let missing = self.missing(now);
        Attributes {
            owner: missing.owner.or(now.owner),
            mode: missing.mode.or(now.mode),
            times: missing.times.or(now.times),
            ..*now
        }
    }
}

/// The content is right: sets only what was asked, with the lock held, and cleans up what
/// an earlier run left. What stands there has to be what was looked at.
pub async fn adjust(
    request: &mut Request,
    site: &Site,
    asked: Asked,
    seen: Attributes,
    lock: &LockOptions,
    monitor: &Arc<dyn Monitor>,
    stop: &Stop,
) -> Result<Attributes, Failure> {
    let note = SourceNote { name: Vec::new(), identity: String::new() };
    let guard = Guard::acquire(request, site, note, lock, monitor, stop).await?;
    let work = async {
        guard.fence(site, monitor).await?;
        leftovers::remove_all(site, &guard).await?;
        let (now, _) = target_now(site).await?;
        if now != baseline(&seen) {
            return Err(Failure::new(
                FailureKind::Exists,
                Phase::Commit,
                site.place(),
                "the target changed meanwhile and was left as it is",
            )
            .next_step("run the same command again"));
        }
        set(site, asked, seen).await
    };
    let done = guard.watch(work).await;
    let released = guard.release(Some(site.files.clone())).await;
    let attributes = done?;
    released?;
    Ok(attributes)
}

/// Owner before mode: a change of owner takes the set-user-id bit away (chown(2)).
pub async fn set(site: &Site, asked: Asked, seen: Attributes) -> Result<Attributes, Failure> {
    let missing = asked.missing(&seen);
    let target = site.names.target();
    if let Some(owner) = missing.owner {
        let change = SetAttributes { owner: Some(owner), ..Default::default() };
        site.files.set_attributes(target, change).await.map_err(|error| {
            Failure::remote(Phase::Commit, site.place(), &error)
                .next_step(format!("only root may give a file to {}:{}", owner.uid, owner.gid))
        })?;
    }
    let mode = asked.mode.filter(|_| missing.mode.is_some() || missing.owner.is_some());
    let rest = SetAttributes { mode, times: missing.times, ..Default::default() };
    if rest != SetAttributes::default() {
        site.files.set_attributes(target, rest).await.map_err(site.failed(Phase::Commit))?;
    }
    site.files.lstat(target).await.map_err(site.failed(Phase::Commit))
}

async fn number(
    site: &Site,
    principal: &Principal,
    what: &str,
    monitor: &Arc<dyn Monitor>,
) -> Result<u32, Failure> {
    let name = match principal {
        Principal::Id(number) => return Ok(*number),
        Principal::Name(name) => name,
    };
    let shown = printable(name.as_bytes());
    let usage = |cause: String| Failure::new(FailureKind::Usage, Phase::Survey, site.place(), cause);
    if site.shell(monitor).await.is_none() {
        return Err(usage(format!(
            "the number of {what} '{shown}' can only be found with a shell on the target"
        ))
        .next_step("give the number itself"));
    }
    let text = if what == "user" { FIND_USER } else { FIND_GROUP };
    let script = Script::new(&[text]).set("haul_name", name);
    let output = match run_script(site.connection.as_ref(), &script, LOOKUP).await {
        Ok(output) => output,
        Err(JobError::Lost) => {
            return Err(Failure::new(FailureKind::Link, Phase::Survey, site.place(), JobError::Lost));
        }
        Err(error) => return Err(usage(format!("{what} '{shown}' could not be looked up: {error}"))),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let found = if what == "user" { said.trim().parse().ok() } else { group_number(&said, name) };
    found.ok_or_else(|| usage(format!("there is no {what} '{shown}' on the target")))
}

/// The number of `name` in lines of group(5).
fn group_number(lines: &str, name: &str) -> Option<u32> {
    lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::files::FileKind;

    fn file(uid: u32, gid: u32, mode: u32) -> Attributes {
        Attributes {
            kind: FileKind::File,
            size: Some(1),
            mode: Some(mode),
            owner: Some(Owner { uid, gid }),
            times: Some(Times { accessed: 1, modified: 2 }),
        }
    }

    #[test]
    fn only_what_differs_is_set() {
        let now = file(1, 2, 0o644);
        assert!(!Asked::default().differs_from(&now));
        let same = Asked {
            mode: Some(0o644),
            uid: Some(1),
            gid: Some(2),
            times: Some(Times { accessed: 9, modified: 2 }),
        };
        assert!(!same.differs_from(&now));
        for (asked, expected) in [
            (Asked { mode: Some(0o600), ..same }, file(1, 2, 0o600)),
            (Asked { uid: Some(7), ..Asked::default() }, file(7, 2, 0o644)),
            (Asked { gid: Some(7), ..Asked::default() }, file(1, 7, 0o644)),
        ] {
            assert!(asked.differs_from(&now), "{asked:?}");
            assert_eq!(asked.applied_to(&now), expected);
        }
    }

    #[test]
    fn groups_are_found_by_their_whole_name() {
        let lines = "root:x:0:\nwww-data:x:33:a,b\nwww:x:34:\nbroken\nodd:x:y:\n";
        assert_eq!(group_number(lines, "www"), Some(34));
        assert_eq!(group_number(lines, "www-data"), Some(33));
        for none in ["ww", "broken", "odd", ""] {
            assert_eq!(group_number(lines, none), None, "{none}");
        }
    }
}
