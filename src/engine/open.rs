//! Opens the site of a destination that names a file, for jobs without a source.

use super::connect::Link;
use super::failure::Failure;
use super::site::Site;
use super::target::{Meaning, Target, resolve};
use crate::model::names::{Names, UserId};

pub async fn open_named(
    link: &mut Link,
    destination: &[u8],
    user: &UserId,
) -> Result<(Site, Target), Failure> {
    let (connection, files) = link.get().await?;
    let meaning = Meaning { source_name: None, into_directory: false };
    let target = resolve(files.as_ref(), &link.host(), destination, meaning).await?;
    let names = Names::new(&target.path, user);
    Ok((Site::new(&link.host(), names, connection, files), target))
}
