//! The common part of all kinds of typed state: a registered state whose values have a type.

use std::error::Error as StdError;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::env::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::key_group::KeyGroup;
use crate::store::{KeyType, Scan, State, StateKind, StateStore};

use super::cell::{Cell, Head};
use super::codec::Codec;
use super::key_codec::KeyCodec;
use super::keys::{Hidden, Keys};
use super::ttl::{Access, Ttl, TtlNow};

/// Reads a value of an earlier schema version.
pub(super) type Migrate<T> =
    Arc<dyn Fn(u32, &[u8]) -> Result<T, Box<dyn StdError + Send + Sync>> + Send + Sync>;

/// A registered state with values of type `T`, and what else its kind needs: `extra`.
pub struct Typed<T, X> {
    pub(super) name: String,
    pub(crate) state: State,
    pub(super) kind: StateKind,
    pub(super) schema: u32,
    pub(super) ttl: Option<Ttl>,
    pub(super) codec: Arc<dyn Codec<T>>,
    pub(super) migrate: Option<Migrate<T>>,
    pub(crate) extra: X,
}

/// The result so far of merging namespaces.
enum Merged<T> {
    /// One cell as it is stored, with the time and the schema version that it has.
    Moved(Vec<u8>),
    /// The value that several were folded to.
    Folded(T),
}

impl<T, X> Typed<T, X> {
    /// The value at the current key and `tail`.
    pub(super) fn get(&self, store: &StateStore, tail: impl FnOnce(&mut Vec<u8>)) -> Result<Option<T>> {
        let now = self.now(store);
        store.at_key(self.state, tail, |store, group, key| {
            let Some(bytes) = store.get(self.state, group, key)? else { return Ok(None) };
            let named = |error: Error| error.within(store.name_key_in(self.state, group, key));
            let cell = self.cell(&bytes).map_err(named)?;
            let access = now.access(cell.head.time);
            if access == Access::Hide {
                return Ok(None);
            }
            // Decoded before it is renewed: a value that cannot be read keeps its time.
            let value = self.decode(cell).map_err(named)?;
            if access == Access::Renew {
                store.renew(self.state, group, key, now.renewed(cell));
            }
            Ok(Some(value))
        })
    }

    pub(super) fn put(
        &self,
        store: &mut StateStore,
        tail: impl FnOnce(&mut Vec<u8>),
        value: &T,
    ) -> Result<()> {
        let mut bytes = store.take_buffer();
        // Encoded before the key, so that a value that cannot be encoded changes nothing.
        self.head(store).push(&mut bytes);
        let result = self.encode(value, &mut bytes).and_then(|()| {
            store
                .store_at_key(self.state, tail, |store, group, key| store.put(self.state, group, key, &bytes))
        });
        store.give_buffer(bytes);
        result
    }

    /// Removes the one entry at the current key and `tail`.
    pub(super) fn remove(&self, store: &mut StateStore, tail: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        store.remove_at_key(self.state, tail, |store, group, key| store.delete(self.state, group, key))
    }

    /// Whether there is a value at the current key and `tail`; does not decode it.
    pub(super) fn contains(&self, store: &StateStore, tail: impl FnOnce(&mut Vec<u8>)) -> Result<bool> {
        let now = self.now(store);
        store.at_key(self.state, tail, |store, group, key| {
            store.get(self.state, group, key)?.map_or(Ok(false), |bytes| self.is_shown(&bytes, now))
        })
    }

    /// Folds the values of the namespaces `from` into that of `into`, in this order, and removes
    /// them, by the rule of all merges: see
    /// [`StateDescriptor::namespaced`](super::descriptor::StateDescriptor::namespaced).
    pub(super) fn merge<'n, N: KeyCodec + PartialEq + 'n>(
        &self,
        store: &mut StateStore,
        into: &N,
        from: impl IntoIterator<Item = &'n N>,
        mut fold: impl FnMut(T, T) -> T,
    ) -> Result<()> {
        let now = self.now(store);
        // All is read before anything is changed, so that a value that cannot be read loses none.
        let (mut sources, mut any): (Vec<&N>, bool) = (Vec::new(), false);
        let mut merged = self.shown(store, |out| into.encode_part(out), now)?.map(Merged::Moved);
        for namespace in from {
            // A namespace that is named twice would be folded twice.
            if namespace == into || sources.contains(&namespace) {
                continue;
            }
            sources.push(namespace);
            let shown = self.shown(store, |out| namespace.encode_part(out), now)?;
            let Some(bytes) = shown else { continue };
            any = true;
            merged = Some(match merged {
                None => Merged::Moved(bytes),
                Some(Merged::Moved(there)) => {
                    Merged::Folded(fold(self.value_of(&there)?, self.value_of(&bytes)?))
                }
                Some(Merged::Folded(there)) => Merged::Folded(fold(there, self.value_of(&bytes)?)),
            });
        }
        // Without sources the target keeps its bytes and its access time.
        match merged.filter(|_| any) {
            None => {}
            Some(Merged::Folded(value)) => self.put(store, |out| into.encode_part(out), &value)?,
            Some(Merged::Moved(bytes)) => self.put_stored(store, |out| into.encode_part(out), &bytes)?,
        }
        // Also those in which nothing was found: the changelog may still hold what compaction has
        // removed from the table because it had expired, and it would show again after a crash,
        // under a longer TTL.
        sources.into_iter().try_for_each(|namespace| self.remove(store, |out| namespace.encode_part(out)))
    }

    /// The stored bytes at the current key and `tail`, if reads show them. Does not renew their
    /// access time.
    pub(super) fn shown(
        &self,
        store: &StateStore,
        tail: impl FnOnce(&mut Vec<u8>),
        now: TtlNow,
    ) -> Result<Option<Vec<u8>>> {
        store.at_key(self.state, tail, |store, group, key| {
            let Some(bytes) = store.get(self.state, group, key)? else { return Ok(None) };
            Ok(self.is_shown(&bytes, now)?.then(|| bytes.to_vec()))
        })
    }

    /// The value of a stored cell.
    pub(crate) fn value_of(&self, bytes: &[u8]) -> Result<T> {
        self.cell(bytes).and_then(|cell| self.decode(cell))
    }

    /// Stores a cell as it is.
    pub(super) fn put_stored(
        &self,
        store: &mut StateStore,
        tail: impl FnOnce(&mut Vec<u8>),
        bytes: &[u8],
    ) -> Result<()> {
        store.store_at_key(self.state, tail, |store, group, key| store.put(self.state, group, key, bytes))
    }

    /// The head of a value that is written now.
    pub(super) fn head(&self, store: &StateStore) -> Head {
        Head { time: self.now(store).time(), schema: self.schema }
    }

    /// The head of a value without a TTL.
    pub(super) fn plain_head(&self) -> Head {
        Head { time: None, schema: self.schema }
    }

    /// The state's TTL as of now. The clock is read only if there is one.
    pub(super) fn now(&self, store: &StateStore) -> TtlNow {
        TtlNow::of(self.ttl, store)
    }

    /// The state's TTL as of now, where there is no store.
    pub(crate) fn now_by(&self, clock: &dyn Clock) -> TtlNow {
        TtlNow::by(self.ttl, || clock.unix_millis())
    }

    /// Appends the payload of a value.
    pub(super) fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<()> {
        self.codec
            .encode(value, bytes)
            .map_err(|source| Error::invalid("the value cannot be encoded").object(self).boxed_source(source))
    }

    /// Reads a stored value; None if it counts as absent. Does not renew its access time.
    pub(crate) fn open(&self, bytes: &[u8], now: TtlNow) -> Result<Option<T>> {
        let cell = self.cell(bytes)?;
        if now.shows(cell.head.time) { self.decode(cell).map(Some) } else { Ok(None) }
    }

    /// Whether a stored value does not count as absent; does not decode it.
    pub(crate) fn is_shown(&self, bytes: &[u8], now: TtlNow) -> Result<bool> {
        Ok(now.shows(self.cell(bytes)?.head.time))
    }

    fn cell<'a>(&self, bytes: &'a [u8]) -> Result<Cell<'a>> {
        Cell::decode(bytes).map_err(|error| error.object(self))
    }

    pub(super) fn decode(&self, cell: Cell<'_>) -> Result<T> {
        let written = cell.head.schema;
        if written == self.schema {
            return self.codec.decode(cell.payload).map_err(|source| {
                Error::corrupt("stored bytes are not a value of the state's type")
                    .object(self)
                    .boxed_source(source)
                    .advise(
                        "read the state as the type it was written as, or register a higher `schema` version and \
                         say with `migrate` how to read older values",
                    )
            });
        }
        // An older program must not guess at bytes of a newer one.
        if written > self.schema {
            let message =
                format!("a value was written with schema {written}, which is newer than {}", self.schema);
            return Err(Error::new(ErrorKind::Incompatible, message)
                .object(self)
                .advise("run the program that wrote it, or a later one"));
        }
        let Some(migrate) = &self.migrate else {
            return Err(Error::new(ErrorKind::Incompatible, format!("a value has schema {written}"))
                .object(self)
                .advise("say with `migrate` how to read older values"));
        };
        migrate(written, cell.payload).map_err(|source| {
            Error::corrupt(format!("a value of schema {written} cannot be migrated"))
                .object(self)
                .boxed_source(source)
        })
    }

    /// All entries of a group.
    pub(super) fn scan_group<K: KeyCodec + ?Sized>(
        &self,
        store: &StateStore,
        group: KeyGroup,
    ) -> Result<Scan> {
        store.is_key_of(self.state, KeyType::of::<K>())?;
        store.scan_prefix(self.state, group, &[])
    }

    /// All entries of the current key, of one namespace or all, and how long the key before the
    /// rest is.
    pub(super) fn scan_current(
        &self,
        store: &StateStore,
        tail: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(Scan, usize)> {
        store.at_key(self.state, tail, |store, group, key| {
            Ok((store.scan_prefix(self.state, group, key)?, key.len()))
        })
    }

    pub(super) fn keys<K: KeyCodec + ?Sized>(
        &self,
        store: &StateStore,
        group: KeyGroup,
    ) -> Result<Keys<K::Owned>> {
        Ok(self.keys_of(self.scan_group::<K>(store, group)?, 0, self.now(store), K::decode_part))
    }

    /// Iterates over the keys of a scan: `decode` takes an item off each key, behind its first
    /// `skip` bytes.
    pub(crate) fn keys_of<K>(
        &self,
        scan: Scan,
        skip: usize,
        now: TtlNow,
        decode: fn(&mut &[u8]) -> Option<K>,
    ) -> Keys<K> {
        Keys::new(self.to_string(), Hidden { kind: self.kind, now }, scan, skip, decode)
    }

    pub(super) fn keys_and_namespaces<K: KeyCodec + ?Sized, N: KeyCodec>(
        &self,
        store: &StateStore,
        group: KeyGroup,
    ) -> Result<Keys<(K::Owned, N::Owned)>> {
        let scan = self.scan_group::<K>(store, group)?;
        Ok(self.keys_of(scan, 0, self.now(store), |bytes| {
            Some((K::decode_part(bytes)?, N::decode_part(bytes)?))
        }))
    }

    pub(super) fn namespaces_in<N: KeyCodec>(
        &self,
        store: &StateStore,
        range: &impl RangeBounds<N>,
    ) -> Result<Keys<N::Owned>> {
        let (scan, skip) = store.at_key(
            self.state,
            |_| {},
            |store, group, key| {
                let (start, end) = parts_in(key, range);
                // A beginning behind all keys there can be: an empty range.
                let (start, end) = start.map_or((key.to_vec(), Some(key.to_vec())), |start| (start, end));
                Ok((store.scan_range(self.state, group, &start, end.as_deref())?, key.len()))
            },
        )?;
        Ok(self.keys_of(scan, skip, self.now(store), N::decode_part))
    }

    pub(super) fn namespaces<N: KeyCodec>(&self, store: &StateStore) -> Result<Keys<N::Owned>> {
        let (scan, skip) = self.scan_current(store, |_| {})?;
        Ok(self.keys_of(scan, skip, self.now(store), N::decode_part))
    }
}

/// Where the stored keys of a range of namespaces begin and end, behind `key`. None: behind all
/// keys.
fn parts_in<N: KeyCodec>(key: &[u8], range: &impl RangeBounds<N>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let at = |namespace: &N| {
        let mut bytes = key.to_vec();
        namespace.encode_part(&mut bytes);
        bytes
    };
    // No part is the beginning of another, so what follows one namespace's keys is its successor.
    let after = |namespace: &N| crate::key::successor(&at(namespace));
    let start = match range.start_bound() {
        Bound::Included(namespace) => Some(at(namespace)),
        Bound::Excluded(namespace) => after(namespace),
        Bound::Unbounded => Some(key.to_vec()),
    };
    let end = match range.end_bound() {
        Bound::Included(namespace) => after(namespace),
        Bound::Excluded(namespace) => Some(at(namespace)),
        Bound::Unbounded => crate::key::successor(key),
    };
    (start, end)
}

impl<T, X> fmt::Debug for Typed<T, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed")
            .field("name", &self.name)
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// As errors name it.
impl<T, X> fmt::Display for Typed<T, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state {:?}", self.name)
    }
}
