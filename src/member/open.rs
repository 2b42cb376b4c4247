//! Opening a member.

use std::path::PathBuf;
use std::sync::Arc;

use futures::channel::oneshot;
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::Version;
use crate::job::{
    Assignment, BackgroundParts, Instance, JobOptions, LocalDir, Outbox, identity, remove_instances,
    restorer, schemas, start_runtime, table_resources, with_upload_room,
};
use crate::manifest::{Found, fenced_by, newest_attempt};
use crate::materialize::blocking;
use crate::messages::{Committer, Link};
use crate::remote::{Connected, JobLocation, Remote};
use crate::restore::Restoration;
use crate::store::{Attempt, guarded};
use crate::table::TableResources;
use crate::wait::wait;

use super::desk::{Desk, DeskParts, Event};
use super::{Inner, Member, MemberOptions, OpenedMember};

pub(super) fn open(
    assignment: &Assignment,
    location: &JobLocation,
    own: &MemberOptions,
    outbox: Outbox,
) -> Result<OpenedMember> {
    let options = own.with(assignment);
    options.validate()?;
    let Connected { remote, .. } = location.connect(options.env.clone(), false)?;
    let dir = LocalDir::open(&options.dir)?;
    let runtime = start_runtime()?;
    let remote = with_upload_room(remote, &options);
    // One for all of its stores: a receipt says by it which process it comes from.
    let session = options.env.nonces.nonce();
    let instances = assignment.held().map(|subtask| {
        let dir = dir.instance(subtask, session);
        Instance { subtask, nonce: session, dir }
    });
    let instances: Vec<_> = instances.collect();
    let opening = Opening {
        assignment: assignment.clone(),
        remote: Arc::clone(&remote),
        options: options.clone(),
        instances: instances.clone(),
        earlier: dir.earlier()?,
    };
    let (reply, opened) = oneshot::channel();
    runtime.spawn(async move {
        // The receiver waits below, so this is never lost.
        let _ = reply.send(opening.begin().await);
    });
    let begun = wait(opened).unwrap_or_else(|_| Err(Error::internal("opening a member came to a bad end")));
    let (restoration, resources) = begun?;

    let Restoration { manifest, states, subtasks, report } = restoration;
    let record = manifest.as_ref().and_then(|manifest| manifest.checkpoint());
    let operators = assignment.layout.resolve(manifest.as_deref())?;
    let schemas = schemas(&assignment.revisions(), &operators, &states, &options.env.clock)?;
    let attempt = Attempt::of_member(assignment.epoch);
    // Unbounded, because an operator must never wait for a message to be sent (I7).
    let (sender, inbox) = mpsc::unbounded_channel();
    let stores_way = sender.clone();
    // Fails only when the member is going down.
    let committer = Committer::new(move |message| drop(stores_way.send(Event::Told(message))));
    let parts = BackgroundParts {
        options: &options,
        runtime: runtime.handle(),
        remote: &remote,
        attempt: &attempt,
        resources,
        committer,
    };
    let (background, started) = parts.start(subtasks, instances, Vec::new())?;
    let background = Arc::new(background);
    let link = Link::of_member(assignment.ends(), session);
    let ways = background.stores.iter();
    let ways = ways.map(|own| (own.subtask, (own.events.clone(), Arc::clone(&own.shared))));
    let desk = Desk::new(DeskParts {
        link,
        outbox,
        attempt: Arc::clone(&attempt),
        remote: Arc::clone(&remote),
        packer: Arc::clone(&background.packer),
        traffic: Arc::clone(&background.traffic),
        background: Arc::downgrade(&background),
        stores: ways.collect(),
        checkpoint_timeout: assignment.checkpoint_timeout,
    });
    runtime.spawn(guarded(Arc::clone(&attempt), desk.run(inbox)));

    let number = assignment.member;
    let inner = Inner { _runtime: runtime, number, attempt, remote, desk: sender, background, _dir: dir };
    let inner = Arc::new(inner);
    let stores = started.into_iter().map(|store| store.into_store_of(&schemas, Arc::<Inner>::clone(&inner)));
    let all = record.into_iter().flat_map(|record| &record.subtasks);
    Ok(OpenedMember {
        stores: stores.collect::<Result<_>>()?,
        member: Member { inner: Arc::clone(&inner) },
        restored: report,
        metadata: record.map(|record| record.metadata.clone()),
        subtask_metadata: all.map(|one| (one.subtask, one.range, one.metadata.clone())).collect(),
    })
}

struct Opening {
    assignment: Assignment,
    remote: Arc<Remote>,
    options: JobOptions,
    instances: Vec<Instance>,
    /// Local directories of earlier instances. Files that match are taken over, the rest is removed.
    earlier: Vec<PathBuf>,
}

impl Opening {
    async fn begin(self) -> Result<(Restoration, TableResources)> {
        self.check_place().await?;
        self.check_attempt().await?;
        let Self { assignment, remote, options, instances, earlier } = &self;
        let mut layout = assignment.layout.clone();
        layout.dirs = instances.iter().map(Instance::table).collect();
        let resources = table_resources(options)?;
        let found: Vec<_> = assignment.from.map(Found::from).into_iter().collect();
        let restored = restorer(options, remote, &resources).restore(&found, false, &layout, earlier).await;
        let restoration = match restored {
            Ok(restoration) => restoration,
            // Perhaps objects are gone because a later attempt needs them no more.
            Err(error) => return Err(self.check_attempt().await.err().unwrap_or(error)),
        };
        // Last, because the restore takes over files of earlier instances.
        let earlier = self.earlier;
        blocking(move || {
            remove_instances(&earlier);
            Ok(())
        })
        .await?;
        Ok((restoration, resources))
    }

    /// Two jobs may have the same epoch: a member of one must not write into the other.
    async fn check_place(&self) -> Result<()> {
        match identity(&self.remote).await {
            Ok(job) if job == self.assignment.job => Ok(()),
            Ok(_) => {
                Err(Error::new(ErrorKind::Incompatible, "the place holds another job than the assignment's")
                    .advise("give the member the place that the committer has opened"))
            }
            Err(error) if error.kind() == ErrorKind::MissingObject => {
                Err(Error::new(ErrorKind::NotFound, "no job exists here")
                    .advise("give the member the place that the committer has opened"))
            }
            Err(error) => Err(error),
        }
    }

    async fn check_attempt(&self) -> Result<()> {
        let own = self.assignment.epoch;
        // An attempt's epoch is the version of its open record, which is never deleted.
        match newest_attempt(&self.remote, (Version(own.0), own)).await? {
            (_, epoch) if epoch > own => Err(fenced_by(epoch)),
            _ => Ok(()),
        }
    }
}
