//! Bodies of objects at the pace of the model.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::{GetResult, GetResultPayload, Result};

use super::pacer::Pacer;
use super::{Shared, failure};

/// A local file is read in pieces of this size.
const FILE_CHUNK: usize = 256 * 1024;

/// `answer` with its bytes paced.
pub(super) fn paced(shared: &Arc<Shared>, answer: GetResult) -> GetResult {
    let (meta, range) = (answer.meta.clone(), answer.range.clone());
    let (attributes, extensions) = (answer.attributes.clone(), answer.extensions.clone());
    let shared = Arc::clone(shared);
    let pacer = Arc::new(Pacer::new(shared.options.stream_bytes_per_second));
    let bytes = bytes(answer).and_then(move |bytes| {
        let (shared, pacer) = (Arc::clone(&shared), Arc::clone(&pacer));
        async move {
            shared.pace(&pacer, &shared.downloads, bytes.len()).await?;
            Ok(bytes)
        }
    });
    let payload = GetResultPayload::Stream(bytes.boxed());
    GetResult { payload, meta, range, attributes, extensions }
}

/// An object's bytes. The store's own stream would read a local file in pieces of 8 KiB.
fn bytes(result: GetResult) -> BoxStream<'static, Result<Bytes>> {
    let range = result.range.clone();
    match result.payload {
        GetResultPayload::Stream(stream) => stream,
        GetResultPayload::File(file, _) => {
            stream::try_unfold((Some(file), range), |(file, range)| async move {
                let Some(file) = file.filter(|_| !range.is_empty()) else { return Ok(None) };
                let end = range.end.min(range.start.saturating_add(FILE_CHUNK as u64));
                let read = tokio::task::spawn_blocking(move || read(file, range.start..end)).await;
                let (file, bytes) =
                    read.map_err(|error| failure(io::Error::other(error)))?.map_err(failure)?;
                Ok(Some((bytes, (Some(file), end..range.end))))
            })
            .boxed()
        }
    }
}

fn read(mut file: File, range: Range<u64>) -> io::Result<(File, Bytes)> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(FILE_CHUNK)];
    file.read_exact(&mut bytes)?;
    Ok((file, bytes.into()))
}
