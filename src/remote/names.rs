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

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};
use crate::ids::{Epoch, Nonce, SubtaskIndex, Version};

/// The name of an object, relative to the job's prefix. A value of numbers, formatted only for a request or a
/// message: manifests hold hundreds of thousands of names, and compare and hash them. Ordered as listings are.
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
    pub(crate) const MANIFESTS: &'static str = "manifest";
    /// Folder of everything that manifests refer to.
    pub(crate) const DATA: &'static str = "data";
    /// Folder of pins.
    pub(crate) const PINS: &'static str = "pin";
    /// Folder of savepoints.
    pub(crate) const SAVEPOINTS: &'static str = "savepoint";
    /// Folder of probes.
    pub(crate) const PROBES: &'static str = "probe";
    /// Folder of what attempts have found out about the chain.
    pub(crate) const OPENED: &'static str = "opened";
    /// The top-level folders of a job. Anything else beside them is not Alluvium's.
    pub(crate) const FOLDERS: [&'static str; 6] =
        [Self::MANIFESTS, Self::DATA, Self::PINS, Self::SAVEPOINTS, Self::PROBES, Self::OPENED];

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
        // Numbers and nonces have several spellings ("1", "01", "+1"; "AB", "ab"); only ours counts.
        (name.to_string() == text).then_some(name)
    }

    fn read(text: &str) -> Option<Self> {
        let (folder, rest) = text.split_once('/')?;
        match folder {
            Self::MANIFESTS => Some(Self::Manifest(Version(rest.parse().ok()?))),
            Self::PINS => Some(Self::Pin(read_nonce(rest)?)),
            Self::SAVEPOINTS => {
                let (name, generation) = rest.split_once('!').unwrap_or((rest, "0"));
                Some(Self::Savepoint(name.parse().ok()?, Generation(generation.parse().ok()?)))
            }
            Self::PROBES => match rest.strip_prefix('v').and_then(|rest| rest.split_once('-')) {
                Some((version, nonce)) => {
                    Some(Self::Probe(Version(version.parse().ok()?), read_nonce(nonce)?))
                }
                None => Some(Self::Probe(Version(0), read_nonce(rest)?)),
            },
            Self::OPENED => Some(Self::Opened(Epoch(rest.parse().ok()?))),
            Self::DATA => {
                let mut parts = rest.split('/');
                let epoch = Epoch(parts.next()?.parse().ok()?);
                let subtask = SubtaskIndex(parts.next()?.parse().ok()?);
                let instance = read_nonce(parts.next()?)?;
                let (n, extension) = parts.next()?.split_once('.')?;
                let kind = DataKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
                let n = n.parse().ok()?;
                parts.next().is_none().then_some(Self::Data { epoch, subtask, instance, n, kind })
            }
            _ => None,
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

/// The name of a savepoint: 1 to 100 ASCII letters, digits, `-`, `_` and `.`, of which the first is
/// a letter or a digit. It is thus one part of a path in every store, and never a special file
/// name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SavepointName(Arc<str>);

/// The generation of a savepoint's name. An object's name is never used twice, because a request to
/// delete may arrive long after it was sent, and would hit the newer object. Even generations are
/// savepoints. The odd generation after one says that the name was released, and stays until the
/// name is given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(pub(crate) u64);

/// Longest name of a savepoint in bytes.
const MAX_SAVEPOINT_NAME: usize = 100;

impl FromStr for SavepointName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if first && rest && text.len() <= MAX_SAVEPOINT_NAME {
            return Ok(Self(text.into()));
        }
        Err(Error::invalid(format!("{text:?} cannot be the name of a savepoint")).advise(format!(
            "use 1 to {MAX_SAVEPOINT_NAME} letters (a to z, A to Z), digits, '-', '_' and '.', and begin with a letter or digit"
        )))
    }
}

impl fmt::Display for SavepointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for SavepointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
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
        match self {
            Self::Data { epoch, subtask, instance, n, kind } => {
                let (folder, extension) = (Self::DATA, kind.extension());
                write!(f, "{folder}/{:020}/{:05}/{instance}/{n:010}.{extension}", epoch.0, subtask.0)
            }
            Self::Manifest(version) => write!(f, "{}/{:020}", Self::MANIFESTS, version.0),
            Self::Pin(nonce) => write!(f, "{}/{nonce}", Self::PINS),
            Self::Opened(epoch) => write!(f, "{}/{:020}", Self::OPENED, epoch.0),
            Self::Probe(Version(0), nonce) => write!(f, "{}/{nonce}", Self::PROBES),
            Self::Probe(version, nonce) => write!(f, "{}/v{:020}-{nonce}", Self::PROBES, version.0),
            // As the first version of this crate wrote it.
            Self::Savepoint(name, Generation(0)) => write!(f, "{}/{name}", Self::SAVEPOINTS),
            Self::Savepoint(name, Generation(n)) => write!(f, "{}/{name}!{n:010}", Self::SAVEPOINTS),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> ObjectName {
        ObjectName::data(Epoch(7), SubtaskIndex(3), Nonce([0xab; 16]), DataKind::Sst, 42)
    }

    #[test]
    fn names_never_change() {
        // Part of the format: objects written by an older version must be found again.
        assert_eq!(ObjectName::manifest(Version(12)).to_string(), "manifest/00000000000000000012");
        assert_eq!(
            sample().to_string(),
            "data/00000000000000000007/00003/abababababababababababababababab/0000000042.sst"
        );
        assert_eq!(ObjectName::pin(Nonce([1; 16])).to_string(), "pin/01010101010101010101010101010101");
        let probe = |version| ObjectName::probe(Version(version), Nonce([0; 16])).to_string();
        assert_eq!(probe(0), "probe/00000000000000000000000000000000");
        assert_eq!(probe(7), "probe/v00000000000000000007-00000000000000000000000000000000");
        assert_eq!(ObjectName::Opened(Epoch(7)).to_string(), "opened/00000000000000000007");
        let savepoint = "v1.2_before-upgrade".parse().unwrap();
        let savepoint = |n| ObjectName::savepoint(&savepoint, Generation(n));
        assert_eq!(savepoint(0).to_string(), "savepoint/v1.2_before-upgrade");
        assert_eq!(savepoint(12).to_string(), "savepoint/v1.2_before-upgrade!0000000012");
    }

    #[test]
    fn only_exact_names_are_read() {
        for wrong in [
            "",
            "manifest",
            "manifest/",
            "manifest/12",
            "manifest/+0000000000000000012",
            "manifest/00000000000000000012/",
            "manifest/99999999999999999999",
            "/manifest/00000000000000000012",
            "pin/0101010101010101010101010101010",
            "pin/ABABABABABABABABABABABABABABABAB",
            "pin/+1010101010101010101010101010101",
            "probe/../manifest/00000000000000000012",
            "probe/v00000000000000000000-00000000000000000000000000000000",
            "probe/v7-00000000000000000000000000000000",
            "opened/7",
            "savepoint/",
            "savepoint/a/b",
            "savepoint/..",
            "savepoint/-",
            "savepoint/a!",
            "savepoint/a!0000000000",
            "savepoint/a!1",
            "savepoint/!0000000001",
            "savepoint/a!0000000001!0000000001",
            "savepoint/a@0000000001",
            "data/00000000000000000007/00003/abababababababababababababababab/0000000042",
            "data/00000000000000000007/00003/abababababababababababababababab/0000000042.SST",
            "data/00000000000000000007/00003/abababababababababababababababab/42.sst",
            "data/00000000000000000007/00003/abababababababababababababababab/0000000042.sst/x",
            "data/00000000000000000007/3/abababababababababababababababab/0000000042.sst",
            "data/00000000000000000007/00003/0000000042.sst",
            "other/x",
        ] {
            assert_eq!(ObjectName::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_of_savepoints_are_plain() {
        let longest = "x".repeat(100);
        for good in ["a", "7", "A.b-c_d", "2024-02-29", longest.as_str()] {
            assert_eq!(good.parse::<SavepointName>().unwrap().to_string(), good);
        }
        let too_long = "x".repeat(101);
        for wrong in
            ["", ".", "..", "-a", "_a", ".a", "a b", "a/b", "a\\b", "ä", "a\n", "a#1", "a%20", &too_long]
        {
            let error = wrong.parse::<SavepointName>().unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidArgument, "{wrong:?}");
            assert!(error.to_string().contains("begin with a letter"), "{error}");
        }
    }

    #[test]
    fn serde_keeps_names_and_refuses_others() {
        let bytes = postcard::to_stdvec(&sample()).unwrap();
        assert_eq!(postcard::from_bytes::<ObjectName>(&bytes).unwrap(), sample());
        let wrong = postcard::to_stdvec("data/../../secret").unwrap();
        assert!(postcard::from_bytes::<ObjectName>(&wrong).is_err());
        assert_eq!(serde_json::to_string(&sample()).unwrap(), format!("\"{}\"", sample()));
    }

    #[test]
    fn a_name_is_a_small_value() {
        assert!(size_of::<ObjectName>() <= 40, "{} bytes", size_of::<ObjectName>());
    }

    /// With numbers that fit into their padding, and few of each.
    fn any_usual_name() -> impl Strategy<Value = ObjectName> {
        let nonce = (0..3_u8).prop_map(|byte| Nonce([byte; 16]));
        prop_oneof![
            any::<u64>().prop_map(|version| ObjectName::Manifest(Version(version))),
            nonce.clone().prop_map(ObjectName::Pin),
            (0..3_u64, nonce.clone()).prop_map(|(v, nonce)| ObjectName::Probe(Version(v), nonce)),
            (0..3_u64).prop_map(|epoch| ObjectName::Opened(Epoch(epoch))),
            ("[a-c][a-c._-]{0,2}", 0..12_u64)
                .prop_map(|(name, n)| ObjectName::Savepoint(name.parse().unwrap(), Generation(n))),
            (0..3_u64, 0..100_000_u32, nonce, 0..4_usize, 0..12_u64).prop_map(
                |(epoch, subtask, instance, kind, n)| {
                    let (epoch, subtask) = (Epoch(epoch), SubtaskIndex(subtask % 3));
                    ObjectName::data(epoch, subtask, instance, DataKind::ALL[kind], n)
                }
            ),
        ]
    }

    fn any_name() -> impl Strategy<Value = ObjectName> {
        let nonce = any::<[u8; 16]>().prop_map(Nonce);
        prop_oneof![
            any::<u64>().prop_map(|version| ObjectName::Manifest(Version(version))),
            nonce.clone().prop_map(ObjectName::Pin),
            (any::<u64>(), nonce.clone()).prop_map(|(v, nonce)| ObjectName::Probe(Version(v), nonce)),
            any::<u64>().prop_map(|epoch| ObjectName::Opened(Epoch(epoch))),
            ("[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}", any::<u64>())
                .prop_map(|(name, n)| ObjectName::Savepoint(name.parse().unwrap(), Generation(n))),
            (any::<u64>(), any::<u32>(), nonce, 0..4usize, any::<u64>()).prop_map(
                |(epoch, subtask, instance, kind, n)| ObjectName::Data {
                    epoch: Epoch(epoch),
                    subtask: SubtaskIndex(subtask),
                    instance,
                    kind: DataKind::ALL[kind],
                    n,
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn every_name_reads_back(name in any_name()) {
            let text = name.to_string();
            prop_assert_eq!(ObjectName::parse(&text), Some(name.clone()));
            prop_assert_eq!(ObjectName::try_from(text.as_str()).unwrap(), name);
        }

        #[test]
        fn what_reads_is_written_the_same(text in "(manifest|data|opened|pin|savepoint|probe)(/v?[0-9a-f+.]{0,33}){0,5}") {
            if let Some(name) = ObjectName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn names_sort_as_a_listing_does(a in any_usual_name(), b in any_usual_name()) {
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
