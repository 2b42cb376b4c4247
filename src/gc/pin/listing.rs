//! Lists pins, and removes those that count for nothing.

use super::record::{Holder, decode};
use crate::error::{ErrorKind, Result};
use crate::ids::{Epoch, Nonce, Version};
use crate::remote::{ObjectName, Remote};

/// A pin as a listing finds it.
#[derive(Debug)]
pub(crate) struct ListedPin {
    pub(crate) name: ObjectName,
    pub(crate) nonce: Nonce,
    /// When it was made, by the clock of the store, in milliseconds since 1970.
    pub(crate) unix_millis: u64,
    /// What it keeps, and its holder; an error if the pin is damaged.
    pub(crate) content: Result<(Version, Holder)>,
}

/// All pins, damaged ones as well.
pub(crate) async fn list(remote: &Remote) -> Result<Vec<ListedPin>> {
    let mut pins = Vec::new();
    for listed in remote.list(ObjectName::PINS).await? {
        let Some(name @ ObjectName::Pin(nonce)) = ObjectName::parse(&listed.name) else { continue };
        let content = match find(remote, &name).await {
            // It was taken away meanwhile.
            Ok(None) => continue,
            Ok(Some(content)) => Ok(content),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
                Err(error)
            }
            Err(error) => return Err(error),
        };
        pins.push(ListedPin { name, nonce, unix_millis: listed.unix_millis, content });
    }
    Ok(pins)
}

pub(super) async fn names(remote: &Remote) -> Result<Vec<ObjectName>> {
    let listed = remote.list(ObjectName::PINS).await?;
    let names = listed.iter().filter_map(|listed| ObjectName::parse(&listed.name));
    Ok(names.filter(|name| matches!(name, ObjectName::Pin(_))).collect())
}

/// What a pin says; None if it is gone by now, that is, withdrawn.
pub(super) async fn find(remote: &Remote, name: &ObjectName) -> Result<Option<(Version, Holder)>> {
    let bytes = remote.get_optional(name).await?;
    bytes
        .map(|bytes| decode(&bytes))
        .transpose()
        .map_err(|error| error.object(name).advise("release it if no reader is at work"))
}

/// Releases the pins of attempts of `job`, another one, before `epoch`: they were fenced or have ended.
pub(crate) async fn release_earlier(remote: &Remote, job: Nonce, epoch: Epoch) -> Result<()> {
    let mut earlier = Vec::new();
    for name in names(remote).await? {
        let found = find(remote, &name).await?;
        if matches!(found, Some((_, Holder::Other(other, owner))) if other == job && owner < epoch) {
            earlier.push(name);
        }
    }
    if !earlier.is_empty() {
        remote.withdraw(earlier).await?;
    }
    Ok(())
}
