//! Names of objects below a job's prefix. The one place that writes and reads them.
//!
//! ```text
//! manifest/<version, 20 digits>
//! data/<epoch, 20 digits>/<subtask, 5 digits>/<nonce of the instance>/<n, 10 digits>.<delta|pack|sst|base>
//! pin/<nonce>
//! savepoint/<name>[!<generation, 10 digits>]
//! probe/v<version, 20 digits>-<nonce>          (version 0.1: probe/<nonce>)
//! opened/<epoch, 20 digits>
//! ```
//!
//! Numbers are padded so that a listing, which every store sorts by bytes, returns them in order.
//! The nonce keeps apart two store instances that were given the same epoch and subtask by mistake.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

mod folder;
mod savepoint;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};
use crate::ids::{Epoch, Nonce, SubtaskIndex, Version};

use folder::Folder;
pub(crate) use savepoint::{Generation, SavepointName};

/// The name of an object, relative to the job's prefix. A value of numbers, formatted only for a
/// request or a message: manifests hold hundreds of thousands of names, and compare and hash them.
/// Ordered as listings are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ObjectName {
    /// Data that manifests refer to.
    Data {
        /// The attempt that wrote it.
        epoch: Epoch,
        /// The subtask whose state it holds.
        subtask: SubtaskIndex,
        /// The store instance that wrote it.
        instance: Nonce,
        /// Counted by the instance over all kinds.
        n: u64,
        /// What is inside.
        kind: DataKind,
    },
    /// One version of the manifest chain.
    Manifest(Version),
    /// An attempt's memo on the chain below it: which versions are open records.
    Opened(Epoch),
    /// A reader's claim on an old version.
    Pin(Nonce),
    /// An object left by the probe for conditional creates. The attempt wanted to create this
    /// version of the chain afterwards; 0 if it did not say.
    Probe(Version, Nonce),
    /// A user's claim on an old version, by name; or that the name was released.
    Savepoint(SavepointName, Generation),
}

/// What a data object holds; its file extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum DataKind {
    /// The index of a materialized RocksDB snapshot.
    Base,
    /// One sealed delta, or several that went up together.
    Delta,
    /// Several deltas.
    Pack,
    /// A file of a materialized RocksDB snapshot.
    Sst,
}

impl DataKind {
    const ALL: [Self; 4] = [Self::Base, Self::Delta, Self::Pack, Self::Sst];

    fn extension(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Delta => "delta",
            Self::Pack => "pack",
            Self::Sst => "sst",
        }
    }
}

impl ObjectName {
    /// Folder of the manifest chain.
    pub(crate) const MANIFESTS: &'static str = Folder::Manifests.name();
    /// Folder of everything that manifests refer to.
    pub(crate) const DATA: &'static str = Folder::Data.name();
    /// Folder of pins.
    pub(crate) const PINS: &'static str = Folder::Pins.name();
    /// Folder of savepoints.
    pub(crate) const SAVEPOINTS: &'static str = Folder::Savepoints.name();
    /// Folder of probes.
    #[cfg(test)]
    pub(crate) const PROBES: &'static str = Folder::Probes.name();
    /// Folder of what attempts have found out about the chain.
    #[cfg(test)]
    pub(crate) const OPENED: &'static str = Folder::Opened.name();
    /// The top-level folders of a job. Anything else beside them is not Alluvium's.
    pub(crate) const FOLDERS: [&'static str; Folder::NAMES.len()] = Folder::NAMES;

    pub(crate) fn manifest(version: Version) -> Self {
        Self::Manifest(version)
    }

    pub(crate) fn data(epoch: Epoch, subtask: SubtaskIndex, instance: Nonce, kind: DataKind, n: u64) -> Self {
        Self::Data { epoch, subtask, instance, n, kind }
    }

    pub(crate) fn pin(nonce: Nonce) -> Self {
        Self::Pin(nonce)
    }

    pub(crate) fn savepoint(name: &SavepointName, generation: Generation) -> Self {
        Self::Savepoint(name.clone(), generation)
    }

    pub(crate) fn probe(wanted: Version, nonce: Nonce) -> Self {
        Self::Probe(wanted, nonce)
    }

    /// What a listed name says; `None` if it is not exactly a name that this module writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = Self::read(text)?;
        // Numbers and nonces have several spellings ("1", "01", "+1"; "AB", "ab"); only ours
        // counts.
        (name.to_string() == text).then_some(name)
    }

    fn read(text: &str) -> Option<Self> {
        let (folder, rest) = text.split_once('/')?;
        match Folder::of(folder)? {
            Folder::Manifests => Some(Self::Manifest(Version(rest.parse().ok()?))),
            Folder::Pins => Some(Self::Pin(read_nonce(rest)?)),
            Folder::Savepoints => {
                let (name, generation) = rest.split_once('!').unwrap_or((rest, "0"));
                Some(Self::Savepoint(name.parse().ok()?, Generation(generation.parse().ok()?)))
            }
            Folder::Probes => match rest.strip_prefix('v').and_then(|rest| rest.split_once('-')) {
                Some((version, nonce)) => {
                    Some(Self::Probe(Version(version.parse().ok()?), read_nonce(nonce)?))
                }
                None => Some(Self::Probe(Version(0), read_nonce(rest)?)),
            },
            Folder::Opened => Some(Self::Opened(Epoch(rest.parse().ok()?))),
            Folder::Data => {
                let mut parts = rest.split('/');
                let epoch = Epoch(parts.next()?.parse().ok()?);
                let subtask = SubtaskIndex(parts.next()?.parse().ok()?);
                let instance = read_nonce(parts.next()?)?;
                let (n, extension) = parts.next()?.split_once('.')?;
                let kind = DataKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
                let n = n.parse().ok()?;
                parts.next().is_none().then_some(Self::Data { epoch, subtask, instance, n, kind })
            }
        }
    }

    /// Where it lies.
    fn folder(&self) -> Folder {
        match self {
            Self::Data { .. } => Folder::Data,
            Self::Manifest(_) => Folder::Manifests,
            Self::Opened(_) => Folder::Opened,
            Self::Pin(_) => Folder::Pins,
            Self::Probe(..) => Folder::Probes,
            Self::Savepoint(..) => Folder::Savepoints,
        }
    }

    /// The store instance that wrote it, if it is a data object.
    pub(crate) fn instance(&self) -> Option<Nonce> {
        match self {
            Self::Data { instance, .. } => Some(*instance),
            Self::Manifest(_) | Self::Opened(_) | Self::Pin(_) | Self::Probe(..) | Self::Savepoint(..) => {
                None
            }
        }
    }

    /// Whether this is a version of the manifest chain, and not a data object.
    pub(crate) fn is_manifest(&self) -> bool {
        matches!(self, Self::Manifest(_))
    }
}

/// Reads the 32 hexadecimal digits of a nonce.
fn read_nonce(text: &str) -> Option<Nonce> {
    // `from_str_radix` alone would take "+1" as well.
    let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = hex.then(|| u128::from_str_radix(text, 16).ok())??;
    Some(Nonce(number.to_be_bytes()))
}

impl TryFrom<&str> for ObjectName {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::parse(text)
            .ok_or_else(|| Error::corrupt(format!("{text:?} is not the name of an object of a job")))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder().name())?;
        match self {
            Self::Data { epoch, subtask, instance, n, kind } => {
                write!(f, "/{:020}/{:05}/{instance}/{n:010}.{}", epoch.0, subtask.0, kind.extension())
            }
            Self::Manifest(version) => write!(f, "/{:020}", version.0),
            Self::Opened(epoch) => write!(f, "/{:020}", epoch.0),
            Self::Pin(nonce) | Self::Probe(Version(0), nonce) => write!(f, "/{nonce}"),
            Self::Probe(version, nonce) => write!(f, "/v{:020}-{nonce}", version.0),
            // As the first version of this crate wrote it.
            Self::Savepoint(name, Generation(0)) => write!(f, "/{name}"),
            Self::Savepoint(name, Generation(n)) => write!(f, "/{name}!{n:010}"),
        }
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectName {
    /// Refuses a name that is not well-formed. It may come from a damaged manifest, and the object
    /// that it names will be fetched, and some day deleted.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = ObjectName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an object of a job")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ObjectName, E> {
                ObjectName::try_from(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}
