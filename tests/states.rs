//! States that are dropped, renamed, and listed with what they take up.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    CheckpointMode, CheckpointReader, ErrorKind, Job, JobOptions, OpenMode, Opened, ReaderOptions,
    RestoreFrom, StateOptions, StateStore, StateUsage, ValueState,
};
use alluvium_testkit::clock::MODES;
use alluvium_testkit::drive::{PREFIX, checkpoint, materialize, open, quiet};
use alluvium_testkit::numbers::{KEYS, all, fill, register, times};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tempfile::TempDir;

struct Home {
    remote: Arc<InMemory>,
    dir: TempDir,
    mode: CheckpointMode,
}

impl Home {
    fn in_both_modes(test: impl Fn(&Self)) {
        for mode in MODES {
            println!("in mode {mode:?}");
            test(&Self { remote: Arc::new(InMemory::new()), dir: tempfile::tempdir().unwrap(), mode });
        }
    }

    fn options(&self, subtasks: u32) -> JobOptions {
        quiet(self.dir.path(), OpenMode::CreateOrOpen)
            .subtasks(subtasks)
            .memory(u64::from(subtasks) * 16_000_000)
            .mode(self.mode)
    }

    fn open(&self, options: JobOptions) -> (Job, Vec<StateStore>) {
        let Opened { job, stores, .. } = open(&self.remote, options).unwrap();
        (job, stores)
    }

    fn read(&self) -> CheckpointReader {
        let remote = Arc::clone(&self.remote) as Arc<dyn ObjectStore>;
        let options = ReaderOptions::new().dir(self.dir.path().join("reader"));
        CheckpointReader::open((remote, PREFIX), &RestoreFrom::Latest, options).unwrap()
    }

    /// A checkpoint with these states.
    fn filled(&self, names: &[&str]) {
        let (job, mut stores) = self.open(self.options(2));
        names.iter().for_each(|name| fill(&mut stores, name, 1));
        checkpoint(&job, &mut stores, "filled").unwrap();
    }
}

fn names(usage: &[StateUsage]) -> Vec<&str> {
    usage.iter().map(|usage| usage.state.name()).collect()
}

#[test]
fn i1_a_dropped_state_is_gone_from_the_first_checkpoint_on_and_others_stay() {
    Home::in_both_modes(|home| {
        home.filled(&["clicks", "views"]);
        // Nothing happens before a checkpoint.
        let (job, mut stores) = home.open(home.options(2).drop_state("clicks"));
        assert_eq!(names(&stores[0].states().unwrap()), ["views"]);
        drop((stores, job));
        let (job, mut stores) = home.open(home.options(2));
        assert_eq!(all(&mut stores, "clicks"), times(1));
        drop((stores, job));

        // At another number of subtasks, and with what never was.
        let dropping = || home.options(3).drop_state("clicks").drop_state("never was");
        for _start in 0..2 {
            let (job, mut stores) = home.open(dropping());
            assert_eq!(all(&mut stores, "views"), times(1));
            let error = register(&mut stores[1], "clicks").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "the next start would drop it again");
            checkpoint(&job, &mut stores, "without").unwrap();
            if home.mode == CheckpointMode::Changelog {
                job.compact().unwrap();
                materialize(&job);
                checkpoint(&job, &mut stores, "and smaller").unwrap();
            }
        }
        let reader = home.read();
        assert_eq!(
            reader.states().iter().map(|state| state.name().to_owned()).collect::<Vec<_>>(),
            ["views"]
        );
        assert_eq!(reader.usage("views").unwrap().entries, Some(KEYS));
        reader.close().unwrap();

        let (job, mut stores) = home.open(home.options(3));
        assert_eq!(all(&mut stores, "clicks"), None, "a new state of the old name");
        fill(&mut stores, "clicks", 3);
        checkpoint(&job, &mut stores, "again").unwrap();
        drop((stores, job));
        let (_job, mut stores) = home.open(home.options(1));
        assert_eq!((all(&mut stores, "clicks"), all(&mut stores, "views")), (times(3), times(1)));
    });
}

#[test]
fn i1_a_renamed_state_is_the_same_and_its_old_name_is_another() {
    Home::in_both_modes(|home| {
        home.filled(&["clicks", "views"]);
        let renaming = || home.options(2).rename_state("clicks", "hits");
        for _start in 0..2 {
            let (job, mut stores) = home.open(renaming());
            assert_eq!((all(&mut stores, "hits"), all(&mut stores, "views")), (times(1), times(1)));
            register(&mut stores[0], "clicks").unwrap_err();
            fill(&mut stores, "hits", 1);
            checkpoint(&job, &mut stores, "renamed").unwrap();
        }
        let (job, mut stores) = home.open(home.options(3));
        assert_eq!(all(&mut stores, "clicks"), None);
        fill(&mut stores, "clicks", 2);
        checkpoint(&job, &mut stores, "both").unwrap();
        drop((stores, job));
        for subtasks in [1, 4] {
            let (job, mut stores) = home.open(home.options(subtasks));
            assert_eq!((all(&mut stores, "hits"), all(&mut stores, "clicks")), (times(1), times(2)));
            checkpoint(&job, &mut stores, "both").unwrap();
        }
        let reader = home.read();
        assert_eq!(
            reader.state(ValueState::<u64>::descriptor("clicks")).unwrap().get(&7_u64).unwrap(),
            Some(14)
        );
        assert_eq!(
            reader.state(ValueState::<u64>::descriptor("hits")).unwrap().get(&7_u64).unwrap(),
            Some(7)
        );
        reader.close().unwrap();
        // Dropping either leaves the other.
        let (_job, mut stores) = home.open(home.options(2).drop_state("hits"));
        assert_eq!(all(&mut stores, "clicks"), times(2));
    });
}

#[test]
fn i2_what_cannot_be_renamed_ends_the_opening_before_anything_is_written() {
    Home::in_both_modes(|home| {
        home.filled(&["clicks", "views"]);
        let (job, mut stores) = home.open(home.options(2));
        for (to, kind) in [("views", ErrorKind::AlreadyExists), ("hits", ErrorKind::NotFound)] {
            let from = if kind == ErrorKind::NotFound { "clics" } else { "clicks" };
            let elsewhere = quiet(&home.dir.path().join("elsewhere"), OpenMode::CreateOrOpen);
            let options = elsewhere.subtasks(2).mode(home.mode).rename_state(from, to);
            let error = open(&home.remote, options).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(from), "{error}");
        }
        // Nothing was written, so the running attempt is not fenced.
        checkpoint(&job, &mut stores, "goes on").unwrap();
        let both = home.options(2).drop_state("views").rename_state("clicks", "views");
        assert_eq!(open(&home.remote, both).unwrap_err().kind(), ErrorKind::InvalidArgument);
    });
}

#[test]
fn a_store_lists_its_states_and_says_which_nobody_has_registered() {
    Home::in_both_modes(|home| {
        home.filled(&["clicks", "views"]);
        let (job, mut stores) = home.open(home.options(2));
        register(&mut stores[0], "views").unwrap();
        let large = stores[0].state(&StateOptions::new("large")).unwrap();
        let (group, mut noise) = (stores[0].range().first, 1_u64);
        for key in 0..200_u64 {
            // Nothing that compresses.
            let value = (0..250).flat_map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (noise ^ (noise >> 29)).to_le_bytes()
            });
            let value: Vec<_> = value.collect();
            stores[0].put(large, group, &key.to_be_bytes(), &value).unwrap();
        }
        checkpoint(&job, &mut stores, "large").unwrap();
        job.settle(Duration::from_secs(60)).unwrap();
        // Into files, which is where it is looked.
        job.compact().unwrap();
        let usage = stores[0].states().unwrap();
        let registered =
            |name: &str| usage.iter().find(|usage| usage.state.name() == name).unwrap().registered;
        assert_eq!((registered("views"), registered("clicks")), (Some(true), Some(false)));
        assert!(usage.iter().all(|usage| usage.entries.is_none()), "{usage:?}");
        let bytes = |name: &str| usage.iter().find(|usage| usage.state.name() == name).unwrap().bytes;
        assert!((300_000..600_000).contains(&bytes("large")), "{usage:?}");
        assert!(bytes("views") + bytes("clicks") < 100_000, "{usage:?}");
    });
}
