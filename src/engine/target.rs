//! Finds the file that a destination names: the home, directories, symbolic links.

use super::failure::{Failure, FailureKind, Phase};
use super::site::place;
use crate::model::remote_path::RemotePath;
use crate::remote::files::{Attributes, FileKind};
use crate::remote::{Files, RemoteError, RemoteErrorKind};

/// As many links in a row as Linux follows (path_resolution(7)).
const MAX_LINKS: usize = 40;
const STICKY_AND_WRITABLE_BY_ALL: u32 = 0o1002;
/// No file system in use takes a longer name, and servers hide that cause.
const NAME_MAX_BYTES: usize = 255;
/// What POSIX systems take as one path, without the NUL at its end.
const PATH_MAX_BYTES: usize = 4095;

/// The target as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Absolute; a symbolic link at its end is followed.
    pub path: RemotePath,
    /// `None`: nothing is there.
    pub attributes: Option<Attributes>,
}

/// How a destination is meant.
#[derive(Debug, Clone, Copy)]
pub struct Meaning<'a> {
    /// The name that a directory takes; `None`: the destination names the file itself.
    pub source_name: Option<&'a [u8]>,
    /// The destination has to be a directory.
    pub into_directory: bool,
}

/// Several requests; changes nothing.
pub async fn resolve(
    files: &dyn Files,
    host: &str,
    destination: &[u8],
    meaning: Meaning<'_>,
) -> Result<Target, Failure> {
    let written = absolute(files, host, destination).await?;
    resolve_written(files, host, &written, meaning).await
}

/// As [`resolve`], with what [`absolute`] gave.
pub async fn resolve_written(
    files: &dyn Files,
    host: &str,
    written: &RemotePath,
    meaning: Meaning<'_>,
) -> Result<Target, Failure> {
    // The parent counts only where nothing is found; to ask for both costs one round trip.
    let (found, parent) = tokio::join!(look(files, host, written), check_parent(files, host, written));
    let found = found?;
    let is_directory = found.attributes.is_some_and(|a| a.kind == FileKind::Directory);
    let at = |path: &RemotePath| place(host, path);
    if is_directory || written.names_directory() || meaning.into_directory {
        if !is_directory {
            return Err(Failure::new(
                FailureKind::Usage,
                Phase::Survey,
                at(written),
                "there is no such directory",
            )
            .next_step("make it first, or name a file"));
        }
        let Some(name) = meaning.source_name else {
            return Err(Failure::new(FailureKind::Usage, Phase::Survey, at(written), "is a directory")
                .next_step("name the file in it"));
        };
        let inside = look(files, host, &found.path.join(name)).await?;
        if inside.attributes.is_some_and(|a| a.kind == FileKind::Directory) {
            return Err(Failure::new(
                FailureKind::Usage,
                Phase::Survey,
                at(&inside.path),
                "is a directory and is not replaced by a file",
            )
            .next_step("choose another name"));
        }
        return check_kind(host, inside);
    }
    if found.attributes.is_none() {
        match found.path == *written {
            true => parent?,
            false => check_parent(files, host, &found.path).await?,
        }
    }
    check_kind(host, found)
}

/// Only regular files are replaced.
fn check_kind(host: &str, target: Target) -> Result<Target, Failure> {
    match target.attributes.map(|a| a.kind) {
        Some(FileKind::Other | FileKind::Symlink) => Err(Failure::new(
            FailureKind::Usage,
            Phase::Survey,
            place(host, &target.path),
            "is not a regular file, and only such a one is replaced",
        )
        .next_step("choose another name")),
        _ => Ok(target),
    }
}

async fn check_parent(files: &dyn Files, host: &str, path: &RemotePath) -> Result<(), Failure> {
    let parent = path.parent();
    let problem = match files.stat(&parent).await {
        Ok(attributes) if matches!(attributes.kind, FileKind::Directory | FileKind::Unknown) => return Ok(()),
        Ok(_) => "is not a directory",
        Err(error) if error.is_not_found() => "there is no such directory",
        Err(error) => return Err(Failure::remote(Phase::Survey, place(host, &parent), &error)),
    };
    Err(Failure::new(FailureKind::Usage, Phase::Survey, place(host, &parent), problem)
        .next_step("make it first, or name another path"))
}

/// Relative paths and `~/` start at the remote home, which is where a session starts.
pub async fn absolute(files: &dyn Files, host: &str, destination: &[u8]) -> Result<RemotePath, Failure> {
    let below_home = match destination {
        [b'~'] => &b""[..],
        [b'~', b'/', rest @ ..] => rest,
        other => other,
    };
    if let Ok(path) = RemotePath::new(below_home)
        && path.is_absolute()
        && below_home.len() == destination.len()
    {
        return Ok(path);
    }
    if below_home.contains(&0) {
        return Err(Failure::new(FailureKind::Usage, Phase::Survey, host, "the path contains a NUL byte"));
    }
    let here = RemotePath::new(&b"."[..])
        .map_err(|error| Failure::new(FailureKind::Usage, Phase::Survey, host, error))?;
    let home = files
        .real_path(&here)
        .await
        .map_err(|error| Failure::remote(Phase::Survey, host, &error).next_step("give an absolute path"))?;
    Ok(if below_home.is_empty() {
        home
    } else {
        home.join(below_home.strip_prefix(b"/").unwrap_or(below_home))
    })
}

/// Follows symbolic links at the end of `path`, also to where nothing is yet.
async fn look(files: &dyn Files, host: &str, path: &RemotePath) -> Result<Target, Failure> {
    let mut path = path.clone();
    for _ in 0..MAX_LINKS {
        let attributes = match files.lstat(&path).await {
            Ok(attributes) => attributes,
            Err(error) if error.is_not_found() => return Ok(Target { path, attributes: None }),
            Err(error) => return Err(cannot_look(host, &path, &error)),
        };
        if attributes.kind != FileKind::Symlink {
            return Ok(Target { path, attributes: Some(attributes) });
        }
        check_link(files, host, &path, attributes).await?;
        let link = files.read_link(&path).await.map_err(|error| cannot_look(host, &path, &error))?;
        // A directory is entered, not replaced: only a link to a file is followed here.
        if let Ok(behind) = files.stat(&path).await
            && behind.kind == FileKind::Directory
        {
            return Ok(Target { path, attributes: Some(behind) });
        }
        path = path.parent().join(link.as_bytes());
    }
    Err(Failure::new(
        FailureKind::Failed,
        Phase::Survey,
        place(host, &path),
        "symbolic links lead in a circle",
    )
    .next_step("mend the link, or name the file itself"))
}

/// Where everybody may make names, a link of somebody else's may lead this account to any
/// file of its own. Linux does not follow such links either where protected_symlinks is set
/// (proc_sys_fs(5)), but haul asks for what is behind a link by its name.
async fn check_link(
    files: &dyn Files,
    host: &str,
    path: &RemotePath,
    link: Attributes,
) -> Result<(), Failure> {
    let cannot_look = |error: RemoteError| cannot_look(host, path, &error);
    let directory = files.stat(&path.parent()).await.map_err(cannot_look)?;
    let (Some(mode), Some(directory), Some(link)) = (directory.mode, directory.owner, link.owner) else {
        return Ok(());
    };
    if mode & STICKY_AND_WRITABLE_BY_ALL != STICKY_AND_WRITABLE_BY_ALL || link.uid == directory.uid {
        return Ok(());
    }
    // A session starts in the account's home, which is its own.
    let here = RemotePath::new(&b"."[..])
        .map_err(|error| Failure::new(FailureKind::Usage, Phase::Survey, host, error))?;
    let home = files.stat(&here).await.map_err(cannot_look)?;
    if home.owner.is_some_and(|home| home.uid == link.uid) {
        return Ok(());
    }
    let text = "is another account's symbolic link in a directory that everybody may write to, and is \
                not followed";
    Err(Failure::new(FailureKind::Failed, Phase::Survey, place(host, path), text)
        .next_step("name the file behind it if you trust it"))
}

fn cannot_look(host: &str, path: &RemotePath, error: &RemoteError) -> Failure {
    for (what, bytes, limit) in
        [("name", path.file_name().len(), NAME_MAX_BYTES), ("path", path.as_bytes().len(), PATH_MAX_BYTES)]
    {
        if bytes > limit && !error.is_link() {
            let text = format!("the {what} has {bytes} bytes, and {limit} are what most systems take");
            return Failure::new(FailureKind::Usage, Phase::Survey, place(host, path), text)
                .next_step("choose a shorter one");
        }
    }
    let failure = Failure::remote(Phase::Survey, place(host, path), error);
    match error.kind {
        RemoteErrorKind::PermissionDenied => failure.next_step("check the directory's permissions"),
        _ => failure,
    }
}
