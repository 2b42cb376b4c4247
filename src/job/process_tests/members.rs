//! Attempts of a job whose stores are in members' processes, one attempt after the other, while the
//! earlier ones go on: they write, cut, upload and talk, also to the newest one. The post between all
//! of them loses, doubles, delays and reorders. What is committed is compared with a model: only the
//! newest attempt commits, what it commits is what its stores had cut, each delta written by the
//! attempt that the model says, and everything that it names is there.
//!
//! A failing seed prints the command that replays it. `ALLUVIUM_SEEDS=1000` runs that many.

use std::ops::Range;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::delta::DeltaReader;
use crate::error::ErrorKind;
use crate::ids::Epoch;
use crate::job::background::Packer as ProcessPacker;
use crate::job::members::{LinkTask, Outbox};
use crate::manifest::Found;
use crate::member::{Desk, DeskEvent, DeskParts};
use crate::messages::{ANSWER, Ends, Link, Side, decode};
use crate::store::EventSender;

const SEEDS: u64 = 200;
const CHECKPOINTS: usize = 8;
const ATTEMPTS: usize = 3;
/// Two members with two subtasks each.
const MEMBERS: [Range<u32>; 2] = [0..2, 2..4];
const SUBTASKS: u32 = 4;
const JOB: Nonce = Nonce([9; 16]);

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct To {
    attempt: usize,
    member: usize,
    side: Side,
}

type Frames = Arc<Mutex<Vec<(To, Bytes)>>>;

/// A process that holds some stores.
struct MemberProcess {
    desk: Desk,
    inbox: mpsc::UnboundedReceiver<DeskEvent>,
    way: mpsc::UnboundedSender<DeskEvent>,
    stores: Vec<Store>,
    attempt: Arc<Attempt>,
}

struct AttemptProcess {
    epoch: Epoch,
    attempt: Arc<Attempt>,
    triggers: Arc<Triggers>,
    commands: mpsc::UnboundedSender<Command>,
    links: Vec<(MemberLink, LinkTask)>,
    members: Vec<MemberProcess>,
    report: Option<(CheckpointId, oneshot::Receiver<Result<CheckpointReport>>)>,
}

/// Who wrote each delta of each subtask, from delta 1 on.
type Lineage = Vec<Vec<Epoch>>;

struct World {
    remote: Arc<Remote>,
    attempts: Vec<AttemptProcess>,
    /// For each attempt, who wrote what its stores have.
    lineages: Vec<Lineage>,
    /// For each checkpoint, how far the lineage was at its cuts.
    cuts: BTreeMap<CheckpointId, Lineage>,
    frames: Frames,
    rng: StdRng,
    now: Duration,
    reliable: bool,
    /// Everything is lost.
    silent: bool,
    committed: usize,
    given_up: usize,
    lost: usize,
    strays: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let store = Arc::new(InMemory::new());
        let remote = Arc::new(Remote::new(store, Path::from("jobs/a"), Env::default()));
        Self {
            remote,
            attempts: Vec::new(),
            lineages: Vec::new(),
            cuts: BTreeMap::new(),
            frames: Arc::default(),
            rng: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            reliable: false,
            silent: false,
            committed: 0,
            given_up: 0,
            lost: 0,
            strays: 0,
        }
    }

    /// A committer opens the job, and members restore what it goes on from.
    async fn open(&mut self) {
        let max = MaxParallelism::new(256).unwrap();
        let opened = Chain::open(Arc::clone(&self.remote), OpenMode::CreateOrOpen, Some(max)).await.unwrap();
        let (chain, number) = (opened.chain, self.attempts.len());
        let found: Option<&Found> = opened.checkpoints.last();
        let mut restored = vec![Vec::new(); SUBTASKS as usize];
        let mut lineage: Lineage = vec![Vec::new(); SUBTASKS as usize];
        if let Some(found) = found {
            lineage.clone_from(&self.cuts[&found.retained.id]);
            let manifest = found.read(&self.remote).await.unwrap();
            for subtask in &manifest.checkpoint().unwrap().subtasks {
                restored[subtask.subtask.0 as usize].clone_from(&subtask.deltas);
            }
        }
        self.lineages.push(lineage);
        let epoch = chain.epoch();
        let attempt = Attempt::new(epoch);
        let triggers = Arc::new(Triggers::new(epoch));
        let (commands, inbox) = mpsc::unbounded_channel();
        let (mut links, mut members, mut subtasks) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (member, held) in MEMBERS.into_iter().enumerate() {
            let ends = Ends { job: JOB, epoch, member: member as u32 };
            let own: Arc<[SubtaskIndex]> = held.clone().map(SubtaskIndex).collect();
            let (link, task) = MemberLink::new(ends, own, &attempt, &commands);
            link.connect(self.outbox(To { attempt: number, member, side: Side::Member }));
            links.push((link, task));
            for subtask in held.clone().map(SubtaskIndex) {
                let range = max.range_of(subtask, SUBTASKS).unwrap();
                let (seat, committed) = (Seat::Member(member), DeltaSeq(0));
                subtasks.insert(subtask, Subtask { range, instance: None, seat, committed, finished: false });
            }
            let restored: Vec<_> = held.clone().map(|subtask| restored[subtask as usize].clone()).collect();
            members.push(self.member(ends, number, held, restored));
        }
        let names = Arc::new(NameSource::new(epoch, PACK_OWNER, Nonce([201; 16])));
        let (uploads, _uploading) = UploadsTask::new(Arc::clone(&self.remote), Arc::clone(&names));
        let packer = ProcessPacker::new(Arc::clone(&self.remote), names, uploads, BTreeMap::new(), PACKING);
        let coordinator = CoordinatorParts {
            chain,
            remote: Arc::clone(&self.remote),
            attempt: Arc::clone(&attempt),
            triggers: Arc::clone(&triggers),
            subtasks,
            members: links.iter().map(|(link, _)| link.clone()).collect(),
            packer: Arc::new(packer),
            bases: Arc::new(BaseTraffic::new(None)),
            collecting: Busy::default(),
        };
        tokio::spawn(coordinator.build().run(inbox));
        let report = None;
        self.attempts.push(AttemptProcess { epoch, attempt, triggers, commands, links, members, report });
    }

    fn member(
        &self,
        ends: Ends,
        attempt_number: usize,
        held: Range<u32>,
        restored: Vec<Vec<DeltaRef>>,
    ) -> MemberProcess {
        let attempt = Attempt::of_member(ends.epoch);
        let mut session = [ends.member as u8 + 1; 16];
        session[..8].copy_from_slice(&ends.epoch.0.to_le_bytes());
        let session = Nonce(session);
        let (way, inbox) = mpsc::unbounded_channel();
        let told = way.clone();
        let up = Committer::new(move |message| drop(told.send(DeskEvent::Told(message))));
        let names = Nonce(session.0.map(|byte| byte ^ 0x55));
        let names = Arc::new(NameSource::new(ends.epoch, PACK_OWNER, names));
        let (uploads, uploading) = UploadsTask::new(Arc::clone(&self.remote), Arc::clone(&names));
        let (packing, max) = (Budget::new(PACKING), MaxParallelism::new(256).unwrap());
        let start = |(subtask, restored)| {
            let parts = StoreParts {
                subtask: SubtaskIndex(subtask),
                of: SUBTASKS,
                range: max.range_of(SubtaskIndex(subtask), SUBTASKS).unwrap(),
                instance: session,
                remote: &self.remote,
                attempt: &attempt,
                packing: &packing,
                uploads: &uploads,
                committer: up.clone(),
                restored,
            };
            parts.start()
        };
        let stores: Vec<_> = held.zip(restored).map(start).collect();
        let ways: BTreeMap<SubtaskIndex, EventSender> =
            stores.iter().map(|store| (store.subtask, store.events.clone())).collect();
        let outlet = JobOutlet { attempt: Arc::clone(&attempt), stores: ways.clone(), committer: up };
        tokio::spawn(guarded(Arc::clone(&attempt), uploading.run(Arc::new(outlet))));
        let packer = ProcessPacker::new(Arc::clone(&self.remote), names, uploads, ways, PACKING / 2);
        let to = To { attempt: attempt_number, member: ends.member as usize, side: Side::Committer };
        let stores_of = |store: &Store| (store.subtask, (store.events.clone(), Arc::clone(&store.shared)));
        let desk = Desk::new(DeskParts {
            link: Link::of_member(ends, session),
            outbox: self.outbox(to),
            attempt: Arc::clone(&attempt),
            remote: Arc::clone(&self.remote),
            packer: Arc::new(packer),
            traffic: Arc::new(BaseTraffic::new(None)),
            background: std::sync::Weak::new(),
            stores: stores.iter().map(stores_of).collect(),
            checkpoint_timeout: Duration::from_secs(3600),
        });
        MemberProcess { desk, inbox, way, stores, attempt }
    }

    fn outbox(&self, to: To) -> Outbox {
        let frames = Arc::clone(&self.frames);
        Outbox::new(move |frame| frames.lock().unwrap().push((to, frame)))
    }

    /// Each process deals with what it has, and the post carries something.
    fn turn(&mut self) {
        let now = self.now;
        for attempt in &mut self.attempts {
            attempt.links.iter_mut().for_each(|(_, task)| task.drain(now));
            for member in &mut attempt.members {
                while let Ok(event) = member.inbox.try_recv() {
                    member.desk.handle(event, now);
                }
            }
        }
        for _ in 0..if self.reliable { 64 } else { 2 } {
            self.carry();
        }
        if self.rng.random_ratio(1, 4) {
            self.pass_time(ANSWER);
        }
    }

    fn pass_time(&mut self, time: Duration) {
        self.now += time;
        for attempt in &mut self.attempts {
            attempt.links.iter_mut().for_each(|(_, task)| task.tick(self.now));
            attempt.members.iter_mut().for_each(|member| member.desk.tick(self.now));
        }
    }

    /// All processes work on, without a message between them, until `done`.
    async fn cut_off(&mut self, done: impl Fn(&Self) -> bool) {
        self.silent = true;
        for _ in 0..TURNS {
            if done(self) {
                // What the stores have said by now is at the desks.
                self.turn();
                self.silent = false;
                return;
            }
            self.turn();
            self.pass().await;
        }
        panic!("it never comes to that");
    }

    /// Bytes of deltas that the members of an attempt hold.
    fn held(&self, attempt: usize) -> u64 {
        let stores = self.attempts[attempt].members.iter().flat_map(|member| &member.stores);
        stores.map(|store| store.shared.budget.held()).sum()
    }

    fn carry(&mut self) {
        let mut frames = self.frames.lock().unwrap();
        if self.silent {
            frames.clear();
        }
        if frames.is_empty() {
            return;
        }
        if self.reliable {
            let (to, frame) = frames.remove(0);
            drop(frames);
            return self.deliver(to, &frame);
        }
        let at = self.rng.random_range(0..frames.len());
        let (to, frame) = frames.swap_remove(at);
        match self.rng.random_range(0..10) {
            0 => {
                self.lost += 1;
                return;
            }
            1 => frames.push((to, frame.clone())),
            _ => {}
        }
        drop(frames);
        // A process of one attempt takes one of another for its counterpart.
        if self.rng.random_ratio(1, 10) {
            self.strays += 1;
            let attempt = self.rng.random_range(0..self.attempts.len());
            self.deliver(To { attempt, ..to }, &frame);
        }
        self.deliver(to, &frame);
    }

    fn deliver(&mut self, to: To, frame: &[u8]) {
        let attempt = &mut self.attempts[to.attempt];
        match to.side {
            Side::Committer => {
                attempt.links[to.member].0.received(decode(frame, Side::Member).unwrap());
            }
            Side::Member => {
                let event = DeskEvent::Received(Box::new(decode(frame, Side::Committer).unwrap()));
                drop(attempt.members[to.member].way.send(event));
            }
        }
    }

    /// An attempt's stores write, and cut for its checkpoint, if it can take one.
    fn write_and_cut(&mut self, number: usize) {
        let (attempt, lineage) = (&mut self.attempts[number], &mut self.lineages[number]);
        if attempt.report.is_none() && attempt.attempt.health().is_ok() {
            let (reply, report) = oneshot::channel();
            let commands = attempt.commands.clone();
            let announce = |id, _| {
                let (start, metadata) = (Duration::ZERO, Vec::new());
                let trigger = Trigger { id, metadata, start, savepoint: None, reply: Some(reply) };
                drop(commands.send(Command::Trigger(trigger)));
                Ok(())
            };
            let id = attempt.triggers.start(&attempt.attempt, WhenBusy::Refuse, announce).unwrap();
            for store in attempt.members.iter_mut().flat_map(|member| &mut member.stores) {
                for _ in 0..self.rng.random_range(0..3) {
                    // Less than the manifest takes, or more.
                    store.write(if self.rng.random_ratio(1, 3) { 20 << 10 } else { 1 << 10 });
                    lineage[store.subtask.0 as usize].push(attempt.epoch);
                }
                // The barrier comes with the records, whatever the member has heard by then.
                store.cut(id);
            }
            self.cuts.insert(id, lineage.clone());
            attempt.report = Some((id, report));
        }
    }

    /// Whether the attempt's checkpoint has come to an end.
    async fn settle(&mut self, number: usize) -> bool {
        let newest = number + 1 == self.attempts.len();
        let attempt = &mut self.attempts[number];
        let Some((id, report)) = &mut attempt.report else { return true };
        let Ok(outcome) = report.try_recv() else { panic!("the coordinator is gone") };
        let Some(outcome) = outcome else { return false };
        let id = *id;
        attempt.report = None;
        match outcome {
            Ok(report) => {
                assert!(newest, "attempt {number} commits although a later one has begun (I2)");
                assert_eq!(report.id, id);
                self.committed += 1;
                self.check(id).await;
            }
            Err(error) => {
                let expected = [ErrorKind::Aborted, ErrorKind::Fenced];
                assert!(expected.contains(&error.kind()), "{error}");
                assert!(!newest || error.kind() == ErrorKind::Aborted, "{error}");
                self.given_up += 1;
            }
        }
        true
    }

    /// The newest checkpoint holds what was cut for it: each delta once, in order, as it was sealed,
    /// by the attempt that wrote it.
    async fn check(&self, id: CheckpointId) {
        let manifest = read_newest(&self.remote).await.unwrap().unwrap();
        let checkpoint = manifest.checkpoint().unwrap();
        assert_eq!(checkpoint.id, id);
        let cuts = &self.cuts[&id];
        assert_eq!(checkpoint.subtasks.len(), cuts.len());
        for (subtask, lineage) in checkpoint.subtasks.iter().zip(cuts) {
            let mut next = DeltaSeq(1);
            for delta in &subtask.deltas {
                let range = delta.offset..delta.offset + delta.length;
                let bytes = self.remote.get_range(&delta.object, range).await.unwrap();
                assert_eq!(crc32c::crc32c(&bytes), delta.crc32c, "{delta:?}");
                for reader in DeltaReader::open_all(bytes).unwrap() {
                    let header = reader.header();
                    let author = lineage[usize::try_from(header.first.0).unwrap() - 1];
                    let found = (header.subtask, header.first, header.epoch);
                    assert_eq!(found, (subtask.subtask, next, author), "{delta:?}");
                    next = header.last.next();
                }
            }
            assert_eq!((next.0 - 1, subtask.seq.0), (lineage.len() as u64, lineage.len() as u64), "{id}");
        }
    }

    async fn run(mut self) -> Self {
        self.open().await;
        for round in 0..CHECKPOINTS {
            if self.attempts.len() < ATTEMPTS && self.rng.random_ratio(1, 3) {
                self.open().await;
            }
            (0..self.attempts.len()).for_each(|number| self.write_and_cut(number));
            let patience = self.rng.random_range(100..800);
            for _ in 0..patience {
                self.turn();
                tokio::task::yield_now().await;
            }
            // What is not complete by now is given up, or stays for the next round.
            for number in 0..self.attempts.len() {
                if !self.settle(number).await && (self.rng.random_ratio(1, 2) || round + 1 == CHECKPOINTS) {
                    let attempt = &self.attempts[number];
                    let id = attempt.report.as_ref().map(|(id, _)| *id).unwrap();
                    drop(attempt.commands.send(Command::Abort(id)));
                    self.ended(number).await;
                }
            }
        }
        self.reliable = true;
        let (newest, before) = (self.attempts.len() - 1, self.committed);
        self.write_and_cut(newest);
        self.ended(newest).await;
        assert_eq!(self.committed, before + 1, "with a reliable post a checkpoint completes");
        // Members hear of it, and let go of what they have offered to it.
        for _ in 0..TURNS {
            let due = |member: &MemberProcess| member.attempt.barrier() > 0;
            if self.held(newest) == 0 && !self.attempts[newest].members.iter().any(due) {
                break;
            }
            self.turn();
            self.pass().await;
        }
        assert_eq!(self.held(newest), 0, "what is durable counts no more");
        for member in &self.attempts[newest].members {
            assert!(member.attempt.health().is_ok(), "the newest attempt goes on");
            assert_eq!(member.attempt.barrier(), 0, "nothing is due");
        }
        assert!(self.attempts[newest].attempt.health().is_ok(), "the newest attempt goes on");
        self
    }

    /// Runs until the attempt's checkpoint has come to an end.
    async fn ended(&mut self, number: usize) {
        for _ in 0..TURNS {
            if self.settle(number).await {
                return;
            }
            self.turn();
            self.pass().await;
        }
        panic!("attempt {number} hangs: {:?}", self.attempts[number].attempt);
    }

    /// Lets the tasks, and what they compute beside them, go on.
    async fn pass(&self) {
        tokio::task::yield_now().await;
        if self.frames.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

/// Turns after which something hangs that should end.
const TURNS: usize = 100_000;

fn run_printing_seed(seed: u64) -> [usize; 4] {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let world = runtime.block_on(async { World::new(seed).run().await });
        [world.committed, world.given_up, world.lost, world.strays]
    };
    std::panic::catch_unwind(run).unwrap_or_else(|payload| {
        let test = "job::process_tests::members::replay";
        eprintln!("replay: ALLUVIUM_SEED={seed} cargo test --all-features --lib {test}");
        std::panic::resume_unwind(payload)
    })
}

#[test]
fn i2_members_of_any_attempt_and_messages_of_any_fate_change_nothing_but_time() {
    let seeds = std::env::var("ALLUVIUM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let mut total = [0; 4];
    for seed in 0..seeds {
        total.iter_mut().zip(run_printing_seed(seed)).for_each(|(total, more)| *total += more);
    }
    println!("committed, given up, lost, strays: {total:?}");
    assert!(total.iter().all(|count| *count as u64 >= seeds), "{total:?}: too little happened");
}

/// What was offered to a manifest must not be held for ever, because the committer may be gone.
#[tokio::test]
async fn i6_a_member_gives_up_what_is_never_decided() {
    let mut world = World::new(1);
    world.open().await;
    world.write_and_cut(0);
    // A member's stores have sealed and offered all of it.
    let offered = |world: &World| {
        let stores = || world.attempts[0].members.iter().flat_map(|member| &member.stores);
        stores().all(|store| store.is_sealed() && store.shared.is_settled())
    };
    world.cut_off(offered).await;
    let held = world.held(0);
    assert!(held > 0, "the receipts carry it");
    world.pass_time(Duration::from_secs(3600));
    world.cut_off(offered).await;
    assert_eq!(world.held(0), held, "it may still be committed");
    world.pass_time(Duration::from_secs(31));
    world.cut_off(|world| world.held(0) == 0).await;
    // It is in the next checkpoint.
    world.reliable = true;
    drop(world.attempts[0].commands.send(Command::Abort(world.attempts[0].report.as_ref().unwrap().0)));
    world.ended(0).await;
    world.write_and_cut(0);
    world.ended(0).await;
    assert_eq!((world.committed, world.given_up), (1, 1));
}

/// It would otherwise write on for ever.
#[tokio::test]
async fn i2_a_member_that_nobody_answers_finds_a_later_attempt() {
    let mut world = World::new(2);
    world.open().await;
    world.write_and_cut(0);
    world.cut_off(|world| world.held(0) > 0).await;
    let ended = |world: &World, kind| {
        let mut members = world.attempts[0].members.iter().map(|member| member.attempt.health());
        members.all(|health| health.is_err_and(|error| error.kind() == kind))
    };
    world.pass_time(Duration::from_secs(31));
    for _ in 0..200 {
        world.pass().await;
    }
    assert!(!ended(&world, ErrorKind::Fenced), "there is none");
    world.open().await;
    world.pass_time(Duration::from_secs(29));
    for _ in 0..200 {
        world.pass().await;
    }
    assert!(!ended(&world, ErrorKind::Fenced), "it has just looked");
    world.pass_time(Duration::from_secs(31));
    world.cut_off(|world| ended(world, ErrorKind::Fenced)).await;
}

/// Runs the one seed in `ALLUVIUM_SEED`, if it is set.
#[test]
fn replay() {
    if let Ok(seed) = std::env::var("ALLUVIUM_SEED") {
        run_printing_seed(seed.parse().unwrap());
    }
}
