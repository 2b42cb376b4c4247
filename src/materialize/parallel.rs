//! Running several transfers at a time, for uploads and restores alike.

use std::future::Future;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::error::{Error, Result};

/// Does all `work`, at most `limit` at a time, and returns the results in no particular order.
/// After a failure nothing more is begun, but work under way is completed: its result may serve the
/// next try, and afterwards nothing writes to a file any more.
pub(crate) async fn run_all<T, F: Future<Output = Result<T>>>(work: Vec<F>, limit: usize) -> Result<Vec<T>> {
    let mut waiting = work.into_iter();
    let mut running: FuturesUnordered<F> = waiting.by_ref().take(limit.max(1)).collect();
    let mut done = Vec::new();
    let mut failure = None;
    while let Some(result) = running.next().await {
        match result {
            Ok(value) => done.push(value),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
        if failure.is_none() {
            running.extend(waiting.next());
        }
    }
    failure.map_or(Ok(done), Err)
}

/// Runs `work` where it may block. A panic in it becomes an error, so that the background survives.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::internal("a background task came to a bad end").source(error)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn no_more_than_the_limit_run_at_once() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let one = async |n: usize| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(n)
        };
        let mut done = run_all((0..20).map(one).collect(), 3).await.unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..20).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(run_all((0..2).map(one).collect(), 0).await.unwrap().len(), 2, "a limit of 0 still moves");
    }

    #[tokio::test]
    async fn a_failure_begins_nothing_more_but_ends_what_runs() {
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let one = async |n: usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            if n == 1 {
                return Err(Error::corrupt("no"));
            }
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            ended.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        let error = run_all((0..9).map(one).collect(), 3).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!((begun.into_inner(), ended.into_inner()), (3, 2));
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error() {
        let error = blocking::<()>(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
