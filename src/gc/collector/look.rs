//! Looks at manifests of which only the names are known.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use crate::error::{ErrorKind, Result};
use crate::ids::Version;
use crate::manifest::{RecordKind, read_kind, read_manifest};
use crate::remote::Remote;

/// Headers read at the same time.
const PARALLEL_READS: usize = 16;

/// How much of a manifest is read.
#[derive(Clone, Copy)]
pub(super) enum Depth {
    Header,
    All,
}

/// What a look at a version has found.
pub(super) enum Looked {
    /// It was collected meanwhile.
    Gone,
    Kind(RecordKind),
    Damaged,
}

pub(super) async fn look_at(
    remote: &Remote,
    versions: Vec<&Version>,
    depth: Depth,
) -> Result<Vec<(Version, Looked)>> {
    let reads: Vec<_> = versions.into_iter().map(|version| look_at_one(remote, *version, depth)).collect();
    stream::iter(reads).buffered(PARALLEL_READS).try_collect().await
}

async fn look_at_one(remote: &Remote, version: Version, depth: Depth) -> Result<(Version, Looked)> {
    let kind = match depth {
        Depth::Header => read_kind(remote, version).await,
        Depth::All => read_manifest(remote, version).await.map(|(manifest, _)| Some(manifest.record.kind())),
    };
    match kind {
        Ok(Some(kind)) => Ok((version, Looked::Kind(kind))),
        Ok(None) => Ok((version, Looked::Gone)),
        Err(error) if error.kind() == ErrorKind::MissingObject => Ok((version, Looked::Gone)),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
            tracing::warn!(%error, "a manifest cannot be read, and is left where it is");
            Ok((version, Looked::Damaged))
        }
        Err(error) => Err(error),
    }
}

/// A damaged version has no kind, so it is not deleted. It may be an open record.
pub(super) fn note_kind(
    version: Version,
    looked: Looked,
    kinds: &mut BTreeMap<Version, RecordKind>,
    damaged: &mut BTreeSet<Version>,
) {
    match looked {
        Looked::Gone => {}
        Looked::Kind(kind) => drop(kinds.insert(version, kind)),
        Looked::Damaged => {
            kinds.remove(&version);
            damaged.insert(version);
        }
    }
}
