//! Which checkpoint a reader means.

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Manifest, RestoreFrom, Retained, read_newest_list, read_top};
use crate::remote::Remote;

pub(super) async fn newest(remote: &Remote, past_damage: bool) -> Result<Manifest> {
    let top = read_top(remote).await?;
    if let Some(damaged) = top.damaged.first().filter(|_| !past_damage) {
        let error = damaged.error.clone();
        return Err(
            error.advise("ask for a checkpoint by its id, or for a savepoint: inspect shows what is intact")
        );
    }
    top.head.ok_or_else(no_job)
}

fn no_job() -> Error {
    Error::new(ErrorKind::NotFound, "there is no job at this place").advise("check the URL")
}

/// The checkpoint that is meant.
///
/// # Errors
/// `NotFound` if there is no such job or checkpoint.
pub(crate) async fn find_wanted(remote: &Remote, from: &RestoreFrom, past_damage: bool) -> Result<Retained> {
    let all = match from {
        RestoreFrom::Checkpoint(_) => match read_newest_list(remote).await {
            Err(error) if past_damage && error.kind() == ErrorKind::Corrupt => {
                newest(remote, past_damage).await?.retained.fetch_readable(remote).await?
            }
            list => list?.ok_or_else(no_job)?.1,
        },
        // The rest of the list may be long.
        RestoreFrom::Latest | RestoreFrom::Savepoint(_) => {
            newest(remote, past_damage).await?.retained.newest().into_iter().collect()
        }
    };
    let all: Vec<_> = all.iter().map(|entry| entry.checkpoint).collect();
    choose(from, &all)
}

/// The one that is meant, of those that are `retained`, oldest first.
pub(crate) fn choose(from: &RestoreFrom, retained: &[Retained]) -> Result<Retained> {
    let RestoreFrom::Checkpoint(id) = from else {
        return retained.last().copied().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the job has no checkpoint yet").advise("take one first")
        });
    };
    retained.iter().find(|retained| retained.id == *id).copied().ok_or_else(|| {
        let known: Vec<_> = retained.iter().map(|retained| retained.id.to_string()).collect();
        let error = Error::new(ErrorKind::NotFound, "the checkpoint is not among the retained ones")
            .object(format!("checkpoint {id}"));
        match known.as_slice() {
            [] => error.advise("the job retains no checkpoint"),
            known => error.advise(format!("choose one of [{}]", known.join(", "))),
        }
    })
}
