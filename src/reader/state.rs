//! [`StateReader`]: a typed state of a checkpoint, read by the descriptor that its program
//! declares.
//!
//! Stored bytes are decoded by the same code as in the live state (`Typed`, `Keys`, `MapIter`).
//! Only their source differs: the table of a subtask, with nothing above it.

use std::fmt;
use std::sync::Arc;

use crate::delta::Direction;
use crate::error::{Error, Result};
use crate::ids::StateId;
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange};
use crate::manifest::StateInfo;
use crate::state::{
    At, Failure, KeyCodec, KeyedState, Namespaced, Scope, Spaces, StateDescriptor, TimeDomain, Timer,
    TimerDescriptor, TtlNow, Typed,
};
use crate::store::{KeyType, Registry, Scan, name_key};

use super::CheckpointReader;
use super::by_group::ByGroup;

/// An item of an enumeration: a key, with its namespace if the state has any, and its entry.
pub(super) type Keyed<P, K, T> = Result<(<P as Spaces>::FullKey<<K as KeyCodec>::Owned>, T)>;

/// A typed state of a checkpoint, as [`CheckpointReader::state`] makes it from the state's
/// descriptor. `S` is the kind of state, and `P` says of which namespace it is read: `()` for a
/// state without namespaces, [`At`] after [`StateReader::at`].
///
/// Each read names its key, which must be of the type that the state was written with. What has
/// expired is hidden as it would be from the program, by the descriptor's TTL and the clock of
/// [`ReaderOptions::env`](crate::ReaderOptions::env); nothing is made young by being read.
/// Enumerations go over all key groups, or those that [`StateReader::within`] was given: ascending
/// by group, and within a group by key.
///
/// ```
/// use alluvium::{CheckpointReader, Job, JobOptions, OpenMode, ReaderOptions, ReducingState, RestoreFrom};
///
/// # fn main() -> alluvium::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
/// // Windows are numbered.
/// let descriptor = ReducingState::<u64>::descriptor("counts", |a, b| a + b).namespaced::<u32>();
///
/// let mut opened = Job::open(&url, JobOptions::new(dir, OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// let counts = store.register(descriptor.clone())?;
/// store.set_key("page/1")?;
/// counts.at(&7).add(store, 3)?;
/// counts.at(&7).add(store, 4)?;
/// counts.at(&8).add(store, 1)?;
/// let checkpoint = opened.job.trigger("")?;
/// store.cut(checkpoint.id(), "")?;
/// checkpoint.wait()?;
///
/// let reader = CheckpointReader::open(&url, &RestoreFrom::Latest, ReaderOptions::new())?;
/// let counts = reader.state(descriptor)?;
/// assert_eq!(counts.at(&7).get("page/1")?, Some(7));
/// let windows: Vec<_> = counts.namespaces("page/1")?.collect::<alluvium::Result<_>>()?;
/// assert_eq!(windows, [7, 8]);
/// let all: Vec<_> = counts.entries::<str>()?.collect::<alluvium::Result<_>>()?;
/// assert_eq!(all, [(("page/1".to_owned(), 7), 7), (("page/1".to_owned(), 8), 1)]);
/// reader.close()?;
/// # Ok(())
/// # }
/// ```
pub struct StateReader<'r, S: KeyedState, P = ()> {
    pub(super) reader: &'r CheckpointReader,
    info: &'r StateInfo,
    pub(super) typed: Arc<Typed<S::Value, S::Extra>>,
    groups: KeyGroupRange,
    scope: P,
}

impl CheckpointReader {
    /// A typed state, to be read by the descriptor that its program registers. Nothing is fetched
    /// yet.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no state of that name, naming those
    /// that there are; [`Incompatible`](crate::ErrorKind::Incompatible) under the same conditions
    /// as [`StateStore::register`](crate::StateStore::register), naming the state;
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a TTL of 0.
    pub fn state<S: KeyedState>(
        &self,
        descriptor: StateDescriptor<S>,
    ) -> Result<StateReader<'_, S, S::Space>> {
        let options = descriptor.options()?;
        let info = self.info(descriptor.name())?;
        let state = Registry::new(std::slice::from_ref(info)).register(&options)?;
        let typed = descriptor.typed(state, options.kind);
        Ok(StateReader { reader: self, info, typed, groups: self.groups(), scope: S::Space::default() })
    }

    /// The pending timers of a timer service and a domain, over all key groups: ascending by group,
    /// and within a group in the order in which they fire.
    ///
    /// ```
    /// use alluvium::{CheckpointReader, Job, JobOptions, OpenMode, ReaderOptions, RestoreFrom};
    /// use alluvium::{TimeDomain, TimerService};
    ///
    /// # fn main() -> alluvium::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
    /// let descriptor = TimerService::<str>::descriptor("alarms");
    /// let mut opened = Job::open(&url, JobOptions::new(dir, OpenMode::Create))?;
    /// let store = &mut opened.stores[0];
    /// let alarms = store.timer_service(descriptor.clone())?;
    /// store.set_key("user/1")?;
    /// alarms.register(store, TimeDomain::Event, 9_000, &())?;
    /// let checkpoint = opened.job.trigger("")?;
    /// store.cut(checkpoint.id(), "")?;
    /// checkpoint.wait()?;
    ///
    /// let reader = CheckpointReader::open(&url, &RestoreFrom::Latest, ReaderOptions::new())?;
    /// let pending: Vec<_> =
    ///     reader.timers(descriptor, TimeDomain::Event)?.collect::<alluvium::Result<_>>()?;
    /// assert_eq!((pending[0].timestamp, pending[0].key.as_str()), (9_000, "user/1"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`CheckpointReader::state`]; the iterator yields what fails on the way, see
    /// [`StateReader::keys`].
    pub fn timers<K: KeyCodec + ?Sized, N: KeyCodec>(
        &self,
        descriptor: TimerDescriptor<K, N>,
        domain: TimeDomain,
    ) -> Result<impl Iterator<Item = Result<Timer<K::Owned, N::Owned>>>> {
        let options = descriptor.options();
        let info = self.info(descriptor.name())?;
        let state = Registry::new(std::slice::from_ref(info)).register(&options)?;
        check_key::<K>(info)?;
        let descriptor = Arc::new(descriptor);
        Ok(ByGroup::new(self.groups(), move |group| {
            let descriptor = Arc::clone(&descriptor);
            let scan = self.scan_prefix_in(state.id, group, &[domain.prefix()])?;
            Ok(scan.map(move |entry| {
                let (stored, _) = entry.map_err(Failure::Scan)?;
                let named = |error: Error| Failure::Entry(within(error, info, group, &stored));
                descriptor.decode(&stored).map_err(named)
            }))
        }))
    }

    /// The entries of one group whose keys begin with `prefix`.
    fn scan_prefix_in(&self, state: StateId, group: KeyGroup, prefix: &[u8]) -> Result<Scan> {
        self.scan_range_in(state, group, prefix, key::successor(prefix).as_deref())
    }

    /// The entries of one group from `start` up to but without `end`; None: to the last.
    fn scan_range_in(
        &self,
        state: StateId,
        group: KeyGroup,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Scan> {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        key::encode_into(&mut from, group, state, start);
        match end {
            Some(end) => key::encode_into(&mut to, group, state, end),
            // Key groups stay below 32,768, so there always is a key above.
            None => to = key::successor(&key::prefix(group, state)).unwrap_or_else(|| vec![0xff]),
        }
        Scan::of_table(self.table(group)?, &from, &to)
    }
}

impl<S: KeyedState, P> StateReader<'_, S, P> {
    /// The same state, its enumerations over these key groups only: those of one subtask, for
    /// example, so that no other is fetched.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the job has no such groups.
    pub fn within(mut self, groups: KeyGroupRange) -> Result<Self> {
        self.reader.table_of(groups.last)?;
        self.groups = groups;
        Ok(self)
    }

    /// The keys that have something in this state, each once. It reads all entries on the way.
    ///
    /// # Errors
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if the state's keys are not of type `K`;
    /// the iterator yields what fails on the way. Of an entry that cannot be read
    /// ([`Corrupt`](crate::ErrorKind::Corrupt)) the error names key group and key, and iteration
    /// goes on with the next one. After any other error (see [`CheckpointReader::get`]) it ends.
    pub fn keys<K: KeyCodec + ?Sized>(&self) -> Result<impl Iterator<Item = Result<K::Owned>>> {
        self.places_by(K::decode_part, check_key::<K>)
    }

    fn places_by<T>(
        &self,
        decode: fn(&mut &[u8]) -> Option<T>,
        check: impl FnOnce(&StateInfo) -> Result<()>,
    ) -> Result<impl Iterator<Item = Result<T>>> {
        check(self.info)?;
        let now = self.now();
        Ok(ByGroup::new(self.groups, move |group| {
            let scan = self.reader.scan_prefix_in(self.info.id, group, &[])?;
            let mut keys = self.typed.keys_of(scan, 0, now, decode);
            Ok(std::iter::from_fn(move || keys.step(Direction::Forward)))
        }))
    }

    /// The state's TTL as of now.
    pub(super) fn now(&self) -> TtlNow {
        self.typed.now_by(&*self.reader.clock)
    }

    pub(super) fn corrupt_key(&self) -> Error {
        Error::corrupt("a stored key is not of the state's type of key").object(&self.typed)
    }
}

impl<'r, S: KeyedState, N: KeyCodec<Owned = N>> StateReader<'r, S, Namespaced<N>> {
    /// The state of one namespace.
    #[must_use]
    pub fn at<'n>(&self, namespace: &'n N) -> StateReader<'r, S, At<'n, N>> {
        StateReader {
            reader: self.reader,
            info: self.info,
            typed: Arc::clone(&self.typed),
            groups: self.groups,
            scope: At(namespace),
        }
    }

    /// The namespaces of a key that have something in this state, in their order.
    ///
    /// # Errors
    /// As [`CheckpointReader::get`]; [`Incompatible`](crate::ErrorKind::Incompatible) if the
    /// state's keys are not of type `K`.
    pub fn namespaces<K: KeyCodec + ?Sized>(&self, key: &K) -> Result<impl Iterator<Item = Result<N>>> {
        let (group, stored) = self.stored_key(key, |_| {})?;
        let scan = self.reader.scan_prefix_in(self.info.id, group, &stored)?;
        Ok(self.typed.keys_of(scan, stored.len(), self.now(), N::decode_part))
    }

    /// The keys that have something in this state, with each of their namespaces. It reads all
    /// entries on the way.
    ///
    /// # Errors
    /// As [`StateReader::keys`].
    pub fn keys_and_namespaces<K: KeyCodec + ?Sized>(
        &self,
    ) -> Result<impl Iterator<Item = Result<(K::Owned, N)>>> {
        let decode: fn(&mut &[u8]) -> Option<_> =
            |bytes| Some((K::decode_part(bytes)?, N::decode_part(bytes)?));
        self.places_by(decode, check_key::<K>)
    }
}

impl<S: KeyedState, P: Spaces> StateReader<'_, S, P> {
    /// All entries: their key (and namespace), and what `open` makes of the rest of the stored key
    /// and of the value.
    pub(super) fn entries_by<K: KeyCodec + ?Sized, T>(
        &self,
        open: impl Fn(&[u8], &[u8]) -> Result<Option<T>>,
    ) -> Result<impl Iterator<Item = Keyed<P, K, T>>> {
        check_key::<K>(self.info)?;
        let open = Arc::new(open);
        Ok(ByGroup::new(self.groups, move |group| {
            let open = Arc::clone(&open);
            let scan = self.reader.scan_prefix_in(self.info.id, group, &[])?;
            Ok(scan.filter_map(move |entry| {
                let (stored, value) = match entry {
                    Ok(entry) => entry,
                    Err(error) => return Some(Err(Failure::Scan(error))),
                };
                let read = || {
                    let mut rest = stored.as_slice();
                    let key = P::full_key(&mut rest, K::decode_part).ok_or_else(|| self.corrupt_key())?;
                    Ok(open(rest, &value)?.map(|item| (key, item)))
                };
                let named = |error: Error| Failure::Entry(within(error, self.info, group, &stored));
                read().map_err(named).transpose()
            }))
        }))
    }

    /// As [`entries_by`](Self::entries_by), where nothing follows key and namespace.
    pub(super) fn values_by<K: KeyCodec + ?Sized, T>(
        &self,
        open: impl Fn(&[u8]) -> Result<Option<T>>,
    ) -> Result<impl Iterator<Item = Keyed<P, K, T>>> {
        self.entries_by::<K, T>(
            move |rest, value| {
                if rest.is_empty() { open(value) } else { Err(self.corrupt_key()) }
            },
        )
    }
}

impl<S: KeyedState, P: Scope> StateReader<'_, S, P> {
    /// The stored bytes at a key, its namespace, and what `tail` puts behind them.
    pub(super) fn stored<K: KeyCodec + ?Sized>(
        &self,
        key: &K,
        tail: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Option<Vec<u8>>> {
        let (group, stored) = self.scoped_key(key, tail)?;
        self.reader.stored(self.info.id, group, &stored)
    }

    /// The entries of a key and its namespace within a range. `bounds` makes the range from the
    /// common beginning of their stored keys, whose length is returned as well.
    pub(super) fn scan_at<K: KeyCodec + ?Sized>(
        &self,
        key: &K,
        bounds: impl FnOnce(&[u8]) -> (Vec<u8>, Option<Vec<u8>>),
    ) -> Result<(Scan, usize)> {
        let (group, stored) = self.scoped_key(key, |_| {})?;
        let (start, end) = bounds(&stored);
        let scan = self.reader.scan_range_in(self.info.id, group, &start, end.as_deref())?;
        Ok((scan, stored.len()))
    }

    fn scoped_key<K: KeyCodec + ?Sized>(
        &self,
        key: &K,
        tail: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(KeyGroup, Vec<u8>)> {
        self.stored_key(key, |out| {
            self.scope.push(out);
            tail(out);
        })
    }
}

impl<S: KeyedState, P> StateReader<'_, S, P> {
    /// The group of a key, and what stored keys begin with.
    fn stored_key<K: KeyCodec + ?Sized>(
        &self,
        key: &K,
        tail: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(KeyGroup, Vec<u8>)> {
        check_key::<K>(self.info)?;
        let mut stored = Vec::new();
        key.encode_part(&mut stored);
        tail(&mut stored);
        Ok((self.reader.max_parallelism().group_of_key(key), stored))
    }
}

/// Names the entry that an error is about.
fn within(error: Error, info: &StateInfo, group: KeyGroup, stored: &[u8]) -> Error {
    error.within(format!("key group {group}, {}", name_key(Some(info), stored)))
}

fn check_key<K: KeyCodec + ?Sized>(info: &StateInfo) -> Result<()> {
    KeyType::of::<K>().check(&info.key).map_err(|error| error.object(format!("state {:?}", info.name)))
}

// A derived one would ask the same of the types.
impl<S: KeyedState, P: Clone> Clone for StateReader<'_, S, P> {
    fn clone(&self) -> Self {
        Self { typed: Arc::clone(&self.typed), scope: self.scope.clone(), ..*self }
    }
}

impl<S: KeyedState, P> fmt::Debug for StateReader<'_, S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateReader")
            .field("name", &self.info.name)
            .field("checkpoint", &self.reader.checkpoint())
            .finish_non_exhaustive()
    }
}
