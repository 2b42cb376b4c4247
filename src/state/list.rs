//! [`ListState`]: a list of elements per key, appended to without being read.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::store::{StateKind, StateOptions, StateStore, Value, check_value};

use super::cell::{Elements, Head, pieces};
use super::codec::{Codec, Postcard};
use super::descriptor::{self, KeyedState, Kind, StateDescriptor};
use super::handle::handle;
use super::key_codec::KeyCodec;
use super::scope::{Namespaced, Scope, Spaces};
use super::single_entry::SingleEntry;
use super::ttl::TtlNow;
use super::typed::Typed;

/// The most bytes of one append.
const PIECE: usize = 64 << 20;

/// A list of elements of type `T` per key. Appending neither reads nor rewrites it: RocksDB and the
/// changelog join the elements. A list without elements and no list are the same.
///
/// A list is one value when it is read, and may have up to 1 GiB as it is stored, a single element
/// 256 MiB. Appends that would exceed that are refused, see [`StateStore::append`]; a warning comes
/// at half of it. What grows without end is better kept in a [`MapState`](crate::MapState), or has
/// a [`Ttl`](crate::Ttl).
///
/// ```
/// use alluvium::{Job, JobOptions, ListState, OpenMode};
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// let visits = store.register(ListState::<String>::descriptor("visits"))?;
/// store.set_key(&7_u64)?;
/// visits.append(store, &"/home".to_owned())?;
/// visits.extend(store, ["/cart".to_owned(), "/pay".to_owned()])?;
/// assert_eq!(visits.get(store)?, ["/home", "/cart", "/pay"]);
///
/// visits.retain(store, |page| page != "/cart")?;
/// let pages: Vec<_> = visits.iter(store)?.collect::<alluvium::Result<_>>()?;
/// assert_eq!(pages, ["/home", "/pay"]);
/// # Ok(())
/// # }
/// ```
pub struct ListState<T, S = ()> {
    typed: Arc<Typed<T, ()>>,
    scope: S,
}

handle!(ListState<T>);

impl<T: Serialize + DeserializeOwned + 'static> ListState<T> {
    /// Declares a state called `name`.
    pub fn descriptor(name: impl Into<String>) -> StateDescriptor<Self> {
        Self::descriptor_with(name, Postcard)
    }
}

impl<T: 'static> ListState<T> {
    /// Declares a state whose elements are not for `serde`.
    pub fn descriptor_with(name: impl Into<String>, codec: impl Codec<T> + 'static) -> StateDescriptor<Self> {
        StateDescriptor::new(name.into(), codec, ())
    }
}

impl<T: 'static, S: Spaces> KeyedState for ListState<T, S> {
    type In<N: KeyCodec<Owned = N>> = ListState<T, Namespaced<N>>;
}

impl<T: 'static, S: Spaces> Kind for ListState<T, S> {
    type Value = T;
    type Extra = ();
    type Space = S;

    fn options() -> StateOptions {
        descriptor::options(StateKind::List, S::format(), String::new())
    }

    fn build(typed: Arc<Typed<T, ()>>) -> Self {
        Self { typed, scope: S::default() }
    }
}

impl<T: 'static, S: Spaces> SingleEntry for ListState<T, S> {
    type Entry = Vec<T>;
    type Read = Vec<T>;

    /// A list of which nothing is shown counts as absent.
    fn open(typed: &Typed<T, ()>, stored: &[u8], now: TtlNow) -> Result<Option<Vec<T>>> {
        typed.open_list(stored, now).map(|list| Some(list).filter(|list| !list.is_empty()))
    }

    fn read(_: &Typed<T, ()>, entry: Option<Vec<T>>) -> Vec<T> {
        entry.unwrap_or_default()
    }

    fn is_shown(typed: &Typed<T, ()>, stored: &[u8], now: TtlNow) -> Result<bool> {
        Ok(typed.next(&mut Elements::new(stored), now).transpose()?.is_some())
    }
}

impl<T: 'static, S: Scope> ListState<T, S> {
    /// All elements, oldest first; empty if there are none.
    ///
    /// # Errors
    /// As [`ListState::iter`], and what its iterator yields.
    pub fn get(&self, store: &StateStore) -> Result<Vec<T>> {
        self.iter(store)?.collect()
    }

    /// The elements, oldest first, each decoded when its turn comes.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) without a current key;
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if it is not of the type of the state's
    /// keys; as [`StateStore::get`]. The iterator ends with [`Corrupt`](crate::ErrorKind::Corrupt)
    /// where the bytes are not a list of `T`.
    pub fn iter<'s>(&self, store: &'s StateStore) -> Result<ListIter<'s, T>> {
        let now = self.typed.now(store);
        let (state, tail) = (self.typed.state, |out: &mut Vec<u8>| self.scope.push(out));
        let bytes = store.at_key(state, tail, |store, group, key| {
            let bytes = store.get(state, group, key)?;
            if let Some(young) = bytes.as_deref().and_then(|list| now.renewed_list(list)) {
                store.renew(state, group, key, young);
            }
            Ok(bytes)
        })?;
        Ok(ListIter { typed: Arc::clone(&self.typed), bytes, at: 0, now })
    }

    /// Whether the current key has elements.
    ///
    /// # Errors
    /// As [`ListState::get`].
    pub fn contains(&self, store: &StateStore) -> Result<bool> {
        let (bytes, now) = (self.bytes(store)?, self.typed.now(store));
        bytes.map_or(Ok(false), |bytes| ListState::<T>::is_shown(&self.typed, &bytes, now))
    }

    /// Adds an element at the end.
    ///
    /// # Errors
    /// As [`ListState::iter`] and [`StateStore::append`];
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the element cannot be encoded.
    pub fn append(&self, store: &mut StateStore, element: &T) -> Result<()> {
        self.extend(store, std::iter::once(element))
    }

    /// Adds elements at the end, all or none of them.
    ///
    /// # Errors
    /// As [`ListState::append`].
    pub fn extend<E: Borrow<T>>(
        &self,
        store: &mut StateStore,
        elements: impl IntoIterator<Item = E>,
    ) -> Result<()> {
        let mut bytes = store.take_buffer();
        // All of them before the first is stored. One that cannot be encoded leaves the list as it was.
        let encoded = self.encode(self.typed.head(store), elements, &mut bytes);
        let result = encoded.and_then(|()| if bytes.is_empty() { Ok(()) } else { self.push(store, &bytes) });
        store.give_buffer(bytes);
        result
    }

    /// Replaces the list. Without elements this is [`ListState::clear`].
    ///
    /// # Errors
    /// As [`ListState::append`].
    pub fn set<E: Borrow<T>>(
        &self,
        store: &mut StateStore,
        elements: impl IntoIterator<Item = E>,
    ) -> Result<()> {
        let mut bytes = store.take_buffer();
        let encoded = self.encode(self.typed.head(store), elements, &mut bytes);
        let result = encoded.and_then(|()| self.replace(store, &bytes));
        store.give_buffer(bytes);
        result
    }

    /// Keeps the elements that `keep` says true of. Rewrites the list if there are others.
    ///
    /// # Errors
    /// As [`ListState::get`] and [`ListState::append`].
    pub fn retain(&self, store: &mut StateStore, mut keep: impl FnMut(&T) -> bool) -> Result<()> {
        let Some(bytes) = self.bytes(store)? else { return Ok(()) };
        let now = self.typed.now(store);
        let mut kept = Vec::new();
        let mut elements = Elements::new(&bytes);
        loop {
            let stored = elements.rest();
            let Some(cell) = elements.next() else { break };
            let cell = cell.map_err(|error| error.object(&self.typed))?;
            if now.shows(cell.head.time) && keep(&self.typed.decode(cell)?) {
                let length = stored.len() - elements.rest().len();
                kept.extend_from_slice(stored.get(..length).unwrap_or_default());
            }
        }
        // Elements are copied whole, so equal lengths mean the same list.
        let unchanged = kept.len() == bytes.len();
        drop(bytes);
        // An unchanged list is not written: it would be uploaded again.
        if unchanged { Ok(()) } else { self.replace(store, &kept) }
    }

    /// Removes the list, if there is one.
    ///
    /// # Errors
    /// As [`ListState::append`].
    pub fn clear(&self, store: &mut StateStore) -> Result<()> {
        self.typed.remove(store, |out| self.scope.push(out))
    }

    fn bytes<'s>(&self, store: &'s StateStore) -> Result<Option<Value<'s>>> {
        let (state, tail) = (self.typed.state, |out: &mut Vec<u8>| self.scope.push(out));
        store.at_key(state, tail, |store, group, key| store.get(state, group, key))
    }

    fn encode<E: Borrow<T>>(
        &self,
        head: Head,
        elements: impl IntoIterator<Item = E>,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        elements.into_iter().try_for_each(|element| {
            let start = bytes.len();
            self.typed.encode(element.borrow(), bytes)?;
            head.frame(bytes, start);
            Ok(())
        })
    }

    /// Appends elements. Many bytes are appended piece by piece, all or none of them.
    fn push(&self, store: &mut StateStore, bytes: &[u8]) -> Result<()> {
        let (state, tail) = (self.typed.state, |out: &mut Vec<u8>| self.scope.push(out));
        store.store_at_key(state, tail, |store, group, key| {
            if bytes.len() <= PIECE {
                return store.append(state, group, key, bytes);
            }
            let pieces = self.pieces(bytes)?;
            // Checked for all pieces together, so that all or none are appended.
            store.check_list_room(state, group, key, bytes.len())?;
            pieces.into_iter().try_for_each(|piece| store.append(state, group, key, piece))
        })
    }

    fn replace(&self, store: &mut StateStore, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return self.clear(store);
        }
        let (state, tail) = (self.typed.state, |out: &mut Vec<u8>| self.scope.push(out));
        store.store_at_key(state, tail, |store, group, key| {
            store.check_list(state, group, key, bytes.len())?;
            if bytes.len() <= PIECE {
                return store.put(state, group, key, bytes);
            }
            let pieces = self.pieces(bytes)?;
            let (first, others) = pieces.split_first().unwrap_or((&bytes, &[]));
            store.put(state, group, key, first)?;
            store.replaced_list(state, group, key, first.len());
            others.iter().try_for_each(|piece| store.append(state, group, key, piece))
        })
    }

    /// Elements in pieces that may be written, none of them too long.
    fn pieces<'b>(&self, bytes: &'b [u8]) -> Result<Vec<&'b [u8]>> {
        let pieces = pieces(bytes, PIECE).map_err(|error| error.object(&self.typed))?;
        pieces.iter().try_for_each(|piece| check_value(piece))?;
        Ok(pieces)
    }
}

impl<T> Typed<T, ()> {
    /// The elements of a stored list that are shown.
    fn open_list(&self, list: &[u8], now: TtlNow) -> Result<Vec<T>> {
        let mut elements = Elements::new(list);
        std::iter::from_fn(|| self.next(&mut elements, now)).collect()
    }

    /// The elements of a stored list that are shown, as they are stored.
    fn shown_elements(&self, list: &[u8], now: TtlNow) -> Result<Vec<u8>> {
        let mut shown = Vec::with_capacity(list.len());
        let mut elements = Elements::new(list);
        loop {
            let stored = elements.rest();
            let Some(cell) = elements.next() else { return Ok(shown) };
            if now.shows(cell.map_err(|error| error.object(self))?.head.time) {
                let length = stored.len() - elements.rest().len();
                shown.extend_from_slice(stored.get(..length).unwrap_or_default());
            }
        }
    }

    /// Decodes the next element that is shown.
    fn next(&self, elements: &mut Elements<'_>, now: TtlNow) -> Option<Result<T>> {
        loop {
            match elements.next()? {
                Ok(cell) if !now.shows(cell.head.time) => {}
                Ok(cell) => return Some(self.decode(cell)),
                Err(error) => return Some(Err(error.object(self))),
            }
        }
    }
}

impl<T: 'static, N: KeyCodec<Owned = N> + PartialEq> ListState<T, Namespaced<N>> {
    /// Moves the elements of the namespaces `from` to the end of those of `into`, one list after
    /// the other, without decoding them. Namespaces without elements change nothing; `into` may be
    /// among `from`. What becomes of times and of what has expired:
    /// [`StateDescriptor::namespaced`](crate::StateDescriptor::namespaced).
    ///
    /// # Errors
    /// As [`ListState::append`].
    pub fn merge<'n>(
        &self,
        store: &mut StateStore,
        into: &N,
        from: impl IntoIterator<Item = &'n N>,
    ) -> Result<()>
    where
        N: 'n,
    {
        let (into, now) = (self.at(into), self.typed.now(store));
        for namespace in from {
            if namespace == into.scope.0 {
                continue;
            }
            let source = self.at(namespace);
            let moved =
                source.bytes(store)?.map(|bytes| self.typed.shown_elements(&bytes, now)).transpose()?;
            if let Some(moved) = moved.filter(|moved| !moved.is_empty()) {
                // Before the source goes: an append that is refused then loses nothing.
                into.push(store, &moved)?;
            }
            // Also where nothing was found, as the other kinds do.
            source.clear(store)?;
        }
        Ok(())
    }
}

/// Iterator over the elements of a list, see [`ListState::iter`].
pub struct ListIter<'s, T> {
    typed: Arc<Typed<T, ()>>,
    bytes: Option<Value<'s>>,
    at: usize,
    now: TtlNow,
}

impl<T> Iterator for ListIter<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.bytes.as_deref()?;
        let mut elements = Elements::new(bytes.get(self.at..).unwrap_or_default());
        let element = self.typed.next(&mut elements, self.now);
        self.at = bytes.len() - elements.rest().len();
        element
    }
}

impl<T> fmt::Debug for ListIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListIter")
            .field("name", &self.typed.name)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
