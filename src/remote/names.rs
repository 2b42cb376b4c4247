//! Names of objects below a job's prefix. The one place that writes and reads them.
//!
//! ```text
//! manifest/<version, 20 digits>
//! data/<epoch, 20 digits>/<subtask, 5 digits>/<nonce of the instance>/<n, 10 digits>.<delta|pack|sst|base>
//! pin/<nonce>
//! savepoint/<name>
//! probe/<nonce>
//! ```
//!
//! Numbers are padded so that a listing, which every store sorts by bytes, comes in their order. The
//! nonce keeps two store instances apart that were given the same epoch and subtask by mistake.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};
use crate::ids::{Epoch, Nonce, SubtaskIndex, Version};

/// The name of an object, relative to the job's prefix. Always well formed; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName(Arc<str>);

/// What a name says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ParsedName {
    /// One version of the manifest chain.
    Manifest(Version),
    /// Data that manifests refer to.
    Data {
        /// The attempt that wrote it.
        epoch: Epoch,
        /// The subtask whose state it holds.
        subtask: SubtaskIndex,
        /// The store instance that wrote it.
        instance: Nonce,
        /// What is inside.
        kind: DataKind,
        /// Counted by the instance over all kinds.
        n: u64,
    },
    /// A reader's claim on an old version.
    Pin(Nonce),
    /// A user's claim on an old version, by name.
    Savepoint(SavepointName),
    /// Left by the check whether the store honours conditional creates.
    Probe(Nonce),
}

/// What a data object holds; its file extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum DataKind {
    /// One sealed delta.
    Delta,
    /// Several deltas.
    Pack,
    /// A file of a materialized RocksDB snapshot.
    Sst,
    /// The index of a materialized RocksDB snapshot.
    Base,
}

impl DataKind {
    const ALL: [Self; 4] = [Self::Delta, Self::Pack, Self::Sst, Self::Base];

    fn extension(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Pack => "pack",
            Self::Sst => "sst",
            Self::Base => "base",
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
    /// The top-level folders of a job. Anything else beside them is not Alluvium's.
    pub(crate) const FOLDERS: [&'static str; 5] =
        [Self::MANIFESTS, Self::DATA, Self::PINS, Self::SAVEPOINTS, Self::PROBES];

    pub(crate) fn manifest(version: Version) -> Self {
        ParsedName::Manifest(version).name()
    }

    pub(crate) fn data(epoch: Epoch, subtask: SubtaskIndex, instance: Nonce, kind: DataKind, n: u64) -> Self {
        ParsedName::Data { epoch, subtask, instance, kind, n }.name()
    }

    pub(crate) fn pin(nonce: Nonce) -> Self {
        ParsedName::Pin(nonce).name()
    }

    pub(crate) fn savepoint(name: &SavepointName) -> Self {
        ParsedName::Savepoint(name.clone()).name()
    }

    pub(crate) fn probe(nonce: Nonce) -> Self {
        ParsedName::Probe(nonce).name()
    }

    /// What a listed name says; `None` if it is not exactly a name that this module writes.
    pub(crate) fn parse(text: &str) -> Option<ParsedName> {
        let parsed = Self::read(text)?;
        // Numbers and nonces have several spellings ("1", "01", "+1"; "AB", "ab"); only ours counts.
        (&*parsed.name().0 == text).then_some(parsed)
    }

    fn read(text: &str) -> Option<ParsedName> {
        let (folder, rest) = text.split_once('/')?;
        match folder {
            Self::MANIFESTS => Some(ParsedName::Manifest(Version(rest.parse().ok()?))),
            Self::PINS => Some(ParsedName::Pin(read_nonce(rest)?)),
            Self::SAVEPOINTS => Some(ParsedName::Savepoint(rest.parse().ok()?)),
            Self::PROBES => Some(ParsedName::Probe(read_nonce(rest)?)),
            Self::DATA => {
                let mut parts = rest.split('/');
                let epoch = Epoch(parts.next()?.parse().ok()?);
                let subtask = SubtaskIndex(parts.next()?.parse().ok()?);
                let instance = read_nonce(parts.next()?)?;
                let (n, extension) = parts.next()?.split_once('.')?;
                let kind = DataKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
                let n = n.parse().ok()?;
                parts.next().is_none().then_some(ParsedName::Data { epoch, subtask, instance, kind, n })
            }
            _ => None,
        }
    }

    /// The store instance that wrote it, if it is a data object.
    pub(crate) fn instance(&self) -> Option<Nonce> {
        match Self::parse(&self.0)? {
            ParsedName::Data { instance, .. } => Some(instance),
            _ => None,
        }
    }

    /// Whether this is a version of the manifest chain, and not a data object.
    pub(crate) fn is_manifest(&self) -> bool {
        matches!(Self::parse(&self.0), Some(ParsedName::Manifest(_)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the 32 hexadecimal digits of a nonce.
fn read_nonce(text: &str) -> Option<Nonce> {
    // `from_str_radix` alone would take "+1" as well.
    let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = hex.then(|| u128::from_str_radix(text, 16).ok())??;
    Some(Nonce(number.to_be_bytes()))
}

impl ParsedName {
    /// The name that says this.
    pub(crate) fn name(&self) -> ObjectName {
        let text = match self {
            Self::Manifest(version) => format!("{}/{:020}", ObjectName::MANIFESTS, version.0),
            Self::Data { epoch, subtask, instance, kind, n } => format!(
                "{}/{:020}/{:05}/{instance}/{n:010}.{}",
                ObjectName::DATA,
                epoch.0,
                subtask.0,
                kind.extension()
            ),
            Self::Pin(nonce) => format!("{}/{nonce}", ObjectName::PINS),
            Self::Savepoint(name) => format!("{}/{name}", ObjectName::SAVEPOINTS),
            Self::Probe(nonce) => format!("{}/{nonce}", ObjectName::PROBES),
        };
        ObjectName(text.into())
    }
}

/// The name of a savepoint: 1 to 100 ASCII letters, digits, `-`, `_` and `.`, of which the first is a
/// letter or a digit. So it is one part of a path in every store, and no file of its own kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SavepointName(Arc<str>);

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
        Err(Error::invalid(format!("{text:?} cannot be the name of a savepoint")).advice(format!(
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
            .map(|parsed| parsed.name())
            .ok_or_else(|| Error::corrupt(format!("{text:?} is not the name of an object of a job")))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ObjectName {
    /// Refuses what is not a well-formed name: it may come from a damaged manifest, and whatever is
    /// in it will be fetched, and some day deleted.
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
        assert_eq!(ObjectName::manifest(Version(12)).as_str(), "manifest/00000000000000000012");
        assert_eq!(
            sample().as_str(),
            "data/00000000000000000007/00003/abababababababababababababababab/0000000042.sst"
        );
        assert_eq!(ObjectName::pin(Nonce([1; 16])).as_str(), "pin/01010101010101010101010101010101");
        assert_eq!(ObjectName::probe(Nonce([0; 16])).as_str(), "probe/00000000000000000000000000000000");
        let savepoint = "v1.2_before-upgrade".parse().unwrap();
        assert_eq!(ObjectName::savepoint(&savepoint).as_str(), "savepoint/v1.2_before-upgrade");
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
            "savepoint/",
            "savepoint/a/b",
            "savepoint/..",
            "savepoint/-",
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

    fn any_name() -> impl Strategy<Value = ParsedName> {
        let nonce = any::<[u8; 16]>().prop_map(Nonce);
        prop_oneof![
            any::<u64>().prop_map(|version| ParsedName::Manifest(Version(version))),
            nonce.clone().prop_map(ParsedName::Pin),
            nonce.clone().prop_map(ParsedName::Probe),
            "[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}".prop_map(|name| ParsedName::Savepoint(name.parse().unwrap())),
            (any::<u64>(), any::<u32>(), nonce, 0..4usize, any::<u64>()).prop_map(
                |(epoch, subtask, instance, kind, n)| ParsedName::Data {
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
        fn every_name_reads_back(parsed in any_name()) {
            let name = parsed.name();
            prop_assert_eq!(ObjectName::parse(name.as_str()), Some(parsed));
            prop_assert_eq!(ObjectName::try_from(name.as_str()).unwrap(), name);
        }

        #[test]
        fn what_reads_is_written_the_same(text in "(manifest|data|pin|savepoint|probe)(/[0-9a-f+.]{0,33}){0,5}") {
            if let Some(parsed) = ObjectName::parse(&text) {
                let name = parsed.name();
                prop_assert_eq!(name.as_str(), text);
            }
        }

        #[test]
        fn manifests_sort_by_version(a: u64, b: u64) {
            let names = (ObjectName::manifest(Version(a)), ObjectName::manifest(Version(b)));
            prop_assert_eq!(names.0.cmp(&names.1), a.cmp(&b));
        }
    }
}
