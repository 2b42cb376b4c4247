//! Bodies and listings that arrive other than they were sent.

use std::future::pending;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryFutureExt};
use object_store::{GetResult, GetResultPayload, ListResult, ObjectMeta, Result};

use super::{Answer, broken};

const CHUNK: usize = 1000;

/// `answer` with its body as `how` has it.
pub(super) fn body(how: &Answer, answer: GetResult) -> GetResult {
    if !matches!(how, Answer::Cut | Answer::Stall | Answer::Short | Answer::Long | Answer::Chunks) {
        return answer;
    }
    let (range, meta) = (answer.range.clone(), answer.meta.clone());
    let (attributes, extensions) = (answer.attributes.clone(), answer.extensions.clone());
    let how = how.clone();
    let chunks = answer.bytes().map_ok(move |whole| chunks(&how, &whole));
    let payload = GetResultPayload::Stream(chunks.try_flatten_stream().boxed());
    GetResult { payload, range, meta, attributes, extensions }
}

fn chunks(how: &Answer, whole: &Bytes) -> BoxStream<'static, Result<Bytes>> {
    let half = whole.slice(..whole.len() / 2);
    let pieces: Vec<_> = whole.chunks(CHUNK).map(Bytes::copy_from_slice).collect();
    let pieces = pieces.into_iter().map(Ok);
    match how {
        Answer::Cut => stream::iter([Ok(half), Err(broken())]).boxed(),
        Answer::Stall => stream::iter([Ok(half)]).chain(stream::pending()).boxed(),
        Answer::Short => stream::iter([Ok(half)]).boxed(),
        Answer::Long => stream::iter(pieces.chain([Ok(half)])).boxed(),
        _ => stream::iter(pieces).boxed(),
    }
}

/// `listed` as `how` has it. It breaks or stalls after its first object, in the middle of an
/// answer.
pub(super) fn listing(
    how: Answer,
    listed: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    match how {
        Answer::Cut => listed.take(1).chain(stream::iter([Err(broken())])).boxed(),
        Answer::Stall => listed.take(1).chain(stream::pending()).boxed(),
        Answer::Listing(edit) => {
            let edited = async move {
                let (mut objects, mut failures) = (Vec::new(), Vec::new());
                for found in listed.collect::<Vec<_>>().await {
                    match found {
                        Ok(object) => objects.push(object),
                        Err(failure) => failures.push(Err(failure)),
                    }
                }
                edit.apply(&mut objects);
                stream::iter(objects.into_iter().map(Ok).chain(failures))
            };
            edited.flatten_stream().boxed()
        }
        _ => listed,
    }
}

/// The same for one level, which is one answer.
pub(super) async fn level(how: Answer, mut listed: ListResult) -> Result<ListResult> {
    match how {
        Answer::Cut => return Err(broken()),
        Answer::Stall => return pending().await,
        Answer::Listing(edit) => edit.apply(&mut listed.objects),
        _ => {}
    }
    Ok(listed)
}
