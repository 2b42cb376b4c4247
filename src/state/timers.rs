//! [`TimerService`]: timers by key and namespace, in event time and in processing time.

mod descriptor;
mod key_timers;
mod timer;

use std::fmt;
use std::marker::PhantomData;

use crate::error::{Error, ErrorKind, Result};
use crate::key_group::KeyGroup;
use crate::store::{Head, State, StateStore};

use super::key_codec::KeyCodec;
use super::timer_key::{self, TimeDomain};
pub use descriptor::TimerDescriptor;
pub use key_timers::KeyTimers;
pub use timer::Timer;
use timer::decode;

/// Timers of keys of type `K` and namespaces of type `N`, `()` where there are none. Each timer is
/// a timestamp for a key and a namespace, in one of two domains: [event time](TimeDomain::Event) or
/// [processing time](TimeDomain::Processing). A timer that is registered twice is there once.
///
/// Timers are state like any other: they are in every checkpoint, survive a restore at any
/// parallelism, and lie on disk. In memory there are only the next few of each key group, so a
/// store can have many more than would fit.
///
/// # Firing
/// A timer fires by being taken out: [`TimerService::pop_due`] gives the next one that is due,
/// until there is none. The order is by timestamp, then by key, then by namespace, over all key
/// groups of the store. Between two calls the program is free to do anything, also to register and
/// to delete timers: what is registered for a time that has been reached fires in the same loop, as
/// its next in order; what is deleted does not fire. A program that registers for such times
/// without end fires without end.
///
/// What fired is gone with the next checkpoint. After a crash before that it fires once more, as
/// the records since the checkpoint are processed once more.
///
/// ```
/// use alluvium::{Job, JobOptions, OpenMode, TimeDomain, TimerService};
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// // One timer for each window (its number) of each user.
/// let timers = store.timer_service(TimerService::<str, u32>::descriptor("windows"))?;
/// store.set_key("user/1")?;
/// timers.register(store, TimeDomain::Event, 2_000, &1)?;
/// timers.register(store, TimeDomain::Event, 1_000, &0)?;
/// store.set_key("user/2")?;
/// timers.register(store, TimeDomain::Event, 1_000, &0)?;
/// timers.register(store, TimeDomain::Event, 9_000, &8)?;
///
/// let mut fired = Vec::new();
/// while let Some(timer) = timers.pop_due(store, TimeDomain::Event, 5_000)? {
///     // From here on typed state is that of the timer's key.
///     store.set_key(timer.key.as_str())?;
///     fired.push((timer.timestamp, timer.key, timer.namespace));
/// }
/// let expected = [(1_000, "user/1", 0), (1_000, "user/2", 0), (2_000, "user/1", 1)];
/// assert_eq!(fired, expected.map(|(time, key, window)| (time, key.to_owned(), window)));
/// assert_eq!(timers.next_timestamp(store, TimeDomain::Event)?, Some(9_000));
/// # Ok(())
/// # }
/// ```
pub struct TimerService<K: ?Sized, N = ()> {
    name: String,
    pub(super) state: State,
    _types: PhantomData<fn(&K) -> N>,
}

impl<K: KeyCodec + ?Sized, N: KeyCodec> TimerService<K, N> {
    /// Declares timers called `name`, a name among those of states.
    pub fn descriptor(name: impl Into<String>) -> TimerDescriptor<K, N> {
        TimerDescriptor { name: name.into(), _types: PhantomData }
    }

    /// Registers a timer for the current key. In event time the timestamp is in whatever unit the
    /// records have; in processing time in milliseconds since 1970. One for a time that has passed
    /// already is the next to fire.
    ///
    /// # Errors
    /// As [`StateStore::put`]; [`InvalidArgument`](crate::ErrorKind::InvalidArgument) without a
    /// current key, [`Incompatible`](crate::ErrorKind::Incompatible) if it is not of type `K`.
    pub fn register(
        &self,
        store: &mut StateStore,
        domain: TimeDomain,
        timestamp: i64,
        namespace: &N,
    ) -> Result<()> {
        self.at(store, domain, timestamp, namespace, |store, group, key| {
            // Every record of a window registers the same timer: the changelog need not say so each
            // time.
            if store.heads(self.state, domain.prefix()).contains(group, key) == Some(true) {
                return Ok(());
            }
            // The state first. A put that is refused must not leave a timer that only memory knows.
            store.put(self.state, group, key, &[])?;
            store.heads(self.state, domain.prefix()).insert(group, key);
            Ok(())
        })
    }

    /// Deletes a timer of the current key. That there is none is no error.
    ///
    /// # Errors
    /// As [`TimerService::register`].
    pub fn delete(
        &self,
        store: &mut StateStore,
        domain: TimeDomain,
        timestamp: i64,
        namespace: &N,
    ) -> Result<()> {
        self.at(store, domain, timestamp, namespace, |store, group, key| {
            self.remove(store, domain, group, key)
        })
    }

    /// The timers of the current key in a domain, in the order in which they fire. A snapshot:
    /// timers may be registered and deleted meanwhile.
    ///
    /// Timers lie in the order of their times, so this reads those of all keys of the key group: it
    /// is for looking now and then, not at each record.
    ///
    /// # Errors
    /// As [`TimerService::register`]; the iterator yields what fails on the way, and
    /// [`Corrupt`](crate::ErrorKind::Corrupt) where a timer of the key cannot be read.
    pub fn of_key(&self, store: &StateStore, domain: TimeDomain) -> Result<KeyTimers<K, N>> {
        self.check_key(store)?;
        let scan = |store: &StateStore, group, key: &[u8]| {
            let (start, end) = ([domain.prefix()], timer_key::end_of(domain));
            Ok((store.scan_range(self.state, group, &start, Some(&end))?, key.to_vec()))
        };
        let (scan, key) = store.at_key(self.state, |_| {}, scan)?;
        Ok(KeyTimers { name: self.name.clone(), scan, key, _types: PhantomData })
    }

    /// Deletes all timers of the current key in a domain, and tells how many there were. Costs what
    /// [`TimerService::of_key`] does.
    ///
    /// # Errors
    /// As [`TimerService::of_key`] and [`TimerService::delete`]. Some may be deleted then.
    pub fn delete_all(&self, store: &mut StateStore, domain: TimeDomain) -> Result<u64> {
        let mut timers = self.of_key(store, domain)?;
        let mut deleted = 0;
        while let Some(key) = timers.next_key() {
            let key = key?;
            self.at_group(store, |store, group| self.remove(store, domain, group, &key))?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Takes out the next timer at or before `time`: the watermark in event time,
    /// [`StateStore::processing_time`] in processing time. None if none is due, which costs no read
    /// of the table unless timers up to `time` might be there that have not been read yet.
    ///
    /// # Errors
    /// As [`StateStore::delete`]; [`Corrupt`](crate::ErrorKind::Corrupt), naming it, if a stored
    /// timer is not one of keys of type `K` and namespaces of type `N`. It stays the next one until
    /// [`TimerService::discard_unreadable`] takes it out.
    pub fn pop_due(
        &self,
        store: &mut StateStore,
        domain: TimeDomain,
        time: i64,
    ) -> Result<Option<Timer<K::Owned, N::Owned>>> {
        let below = timer_key::end_of_due(domain, time);
        let Some((group, key)) = self.head(store, domain, &below)? else { return Ok(None) };
        // Before it is removed, so that an error loses nothing.
        let timer = self.decode(&key).map_err(|error| {
            error
                .within(store.name_key_in(self.state, group, &key))
                .advise("read it as it was written, or take it out with `TimerService::discard_unreadable`")
        })?;
        self.remove(store, domain, group, &key)?;
        Ok(Some(timer))
    }

    /// Takes out the next timer of a domain if it is one that cannot be read, so that those behind
    /// it can fire: what [`TimerService::pop_due`] fails with
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for. Returns its key as it is stored, `domain (1
    /// byte) ‖ timestamp (8 bytes) ‖ key ‖ namespace`. None, and nothing is done, if the next timer
    /// can be read, or if there is none.
    ///
    /// # Errors
    /// As [`StateStore::delete`].
    pub fn discard_unreadable(&self, store: &mut StateStore, domain: TimeDomain) -> Result<Option<Vec<u8>>> {
        let Some((group, key)) = self.head(store, domain, &timer_key::end_of(domain))? else {
            return Ok(None);
        };
        if self.decode(&key).is_ok() {
            return Ok(None);
        }
        self.remove(store, domain, group, &key)?;
        Ok(Some(key))
    }

    /// The earliest timestamp of the domain, over all keys of the store. None if it has no timers.
    ///
    /// # Errors
    /// As [`StateStore::get`].
    pub fn next_timestamp(&self, store: &mut StateStore, domain: TimeDomain) -> Result<Option<i64>> {
        let head = self.head(store, domain, &timer_key::end_of(domain))?;
        // The time of a timer can be read even if its key cannot. `pop_due` names such a timer when it is due.
        let named = |error: Error, group, key: &[u8]| error.within(store.name_key_in(self.state, group, key));
        let time = |(group, key): (KeyGroup, Vec<u8>)| match timer_key::decode(&key) {
            Some((_, timestamp, _)) => Ok(timestamp),
            None => self.decode(&key).map(|timer| timer.timestamp).map_err(|error| named(error, group, &key)),
        };
        head.map(time).transpose()
    }

    /// Calls `f` with the current key's group and the stored key of a timer.
    fn at<R>(
        &self,
        store: &mut StateStore,
        domain: TimeDomain,
        timestamp: i64,
        namespace: &N,
        f: impl FnOnce(&mut StateStore, KeyGroup, &[u8]) -> Result<R>,
    ) -> Result<R> {
        self.check_key(store)?;
        // Neither learns anything: the service has declared the type of its keys.
        store.remove_at_key(
            self.state,
            |out| namespace.encode_part(out),
            |store, group, scoped| {
                let mut key = store.take_buffer();
                timer_key::encode_into(&mut key, domain, timestamp, scoped);
                let result = f(store, group, &key);
                store.give_buffer(key);
                result
            },
        )
    }

    /// Calls `f` with the current key's group.
    fn at_group<R>(
        &self,
        store: &mut StateStore,
        f: impl FnOnce(&mut StateStore, KeyGroup) -> Result<R>,
    ) -> Result<R> {
        store.remove_at_key(self.state, |_| {}, |store, group, _| f(store, group))
    }

    /// That the current key, if there is one, is of the timers' type.
    fn check_key(&self, store: &StateStore) -> Result<()> {
        match store.current() {
            Some((_, current)) if current.code != K::CODE => {
                let message = format!(
                    "the current key is of type {:?}, those of the timers of type {:?}",
                    (current.name)(),
                    K::name()
                );
                Err(Error::new(ErrorKind::Incompatible, message)
                    .object(format!("state {:?}", self.name))
                    .advise("use one type of key for each timer service"))
            }
            _ => Ok(()),
        }
    }

    fn remove(&self, store: &mut StateStore, domain: TimeDomain, group: KeyGroup, key: &[u8]) -> Result<()> {
        if store.heads(self.state, domain.prefix()).contains(group, key) == Some(false) {
            return Ok(());
        }
        store.delete(self.state, group, key)?;
        store.heads(self.state, domain.prefix()).remove(group, key);
        Ok(())
    }

    /// The first timer of the domain, if its stored key is below `below`.
    fn head(
        &self,
        store: &mut StateStore,
        domain: TimeDomain,
        below: &[u8],
    ) -> Result<Option<(KeyGroup, Vec<u8>)>> {
        store.alive()?;
        loop {
            let heads = store.heads(self.state, domain.prefix());
            let (group, from) = match heads.head() {
                None => return Ok(None),
                Some(Head::Key(group, key)) => {
                    return Ok(Some((group, key)).filter(|(_, key)| key.as_slice() < below));
                }
                Some(Head::Unread(_, from)) if from.as_slice() >= below => return Ok(None),
                Some(Head::Unread(group, from)) => (group, from),
            };
            let batch = heads.batch();
            if heads.is_new() {
                let end = timer_key::end_of(domain);
                let read = store.first_keys_of_groups(self.state, &[domain.prefix()], &end, batch)?;
                store.heads(self.state, domain.prefix()).fill_all(read);
                continue;
            }
            let read = store.first_keys(self.state, group, &from, &timer_key::end_of(domain), batch)?;
            store.heads(self.state, domain.prefix()).fill(group, read);
        }
    }

    fn decode(&self, key: &[u8]) -> Result<Timer<K::Owned, N::Owned>> {
        decode::<K, N>(&self.name, key)
    }
}

impl StateStore {
    /// Registers a timer service, or finds it again.
    ///
    /// # Errors
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if the name stands for something else, here
    /// or in the restored checkpoint, or for timers of another type of key or namespace.
    pub fn timer_service<K: KeyCodec + ?Sized, N: KeyCodec>(
        &mut self,
        descriptor: TimerDescriptor<K, N>,
    ) -> Result<TimerService<K, N>> {
        let state = self.state(&descriptor.options())?;
        Ok(TimerService { name: descriptor.name, state, _types: PhantomData })
    }
}

// Derived ones would ask the same of the types.

impl<K: ?Sized, N> Clone for TimerService<K, N> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), state: self.state, _types: PhantomData }
    }
}

impl<K: ?Sized, N> fmt::Debug for TimerService<K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerService").field("name", &self.name).finish_non_exhaustive()
    }
}
