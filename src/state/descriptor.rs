//! [`StateDescriptor`]: declares a typed state once, for all stores that use it.

use std::any::type_name;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::delta::TableKind;
use crate::error::Result;
use crate::shape::recorded;
use crate::store::{KeyType, State, StateKind, StateOptions, StateStore};

use super::codec::Codec;
use super::key_codec::KeyCodec;
use super::scope::Spaces;
use super::ttl::Ttl;
use super::typed::{Migrate, Typed};

/// A kind of typed state: [`ValueState`](crate::ValueState), [`ListState`](crate::ListState),
/// [`MapState`](crate::MapState), [`ReducingState`](crate::ReducingState) or
/// [`AggregatingState`](crate::AggregatingState).
pub trait KeyedState: Kind {
    /// The same kind with namespaces.
    type In<N: KeyCodec<Owned = N>>: KeyedState<Value = Self::Value, Extra = Self::Extra>;
}

/// A kind of typed state: a [`KeyedState`], or one that belongs to no key,
/// [`OperatorListState`](crate::OperatorListState) or [`BroadcastState`](crate::BroadcastState).
pub trait Kind: Sized {
    /// What the codec encodes.
    type Value: 'static;
    /// What the kind needs besides: a default, a function.
    type Extra;
    /// What it was declared with: `()`, or [`Namespaced`](crate::Namespaced).
    type Space: Spaces;

    /// What is declared, before it has a name.
    fn options() -> StateOptions;

    /// The handle.
    fn build(typed: Arc<Typed<Self::Value, Self::Extra>>) -> Self;
}

/// Options of a kind, see [`Kind::options`].
pub(super) fn options(kind: StateKind, namespace: String, map_key: String) -> StateOptions {
    StateOptions { kind, namespace, map_key, ..StateOptions::new("") }
}

/// Declares a state of kind `S`: its name, its types, and how it is kept. Made by the `descriptor`
/// of each kind, and registered with [`StateStore::register`] in every store that uses the state.
///
/// ```
/// use alluvium::{Job, JobOptions, OpenMode, ValueState};
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
/// let clicks = ValueState::<u64>::descriptor("clicks").default_value(0);
/// for store in &mut opened.stores {
///     let clicks = store.register(clicks.clone())?;
///     store.set_key("page/1")?;
///     assert_eq!(clicks.get(store)?, Some(0));
/// }
/// # Ok(())
/// # }
/// ```
pub struct StateDescriptor<S: Kind> {
    name: String,
    table: Option<TableKind>,
    type_name: Option<String>,
    schema: u32,
    ttl: Option<Ttl>,
    key: Option<KeyType>,
    /// That of values by the codec; found out once for all stores.
    shape: Arc<OnceLock<String>>,
    codec: Arc<dyn Codec<S::Value>>,
    migrate: Option<Migrate<S::Value>>,
    pub(super) extra: S::Extra,
}

impl<S: Kind> StateDescriptor<S> {
    pub(super) fn new(name: String, codec: impl Codec<S::Value> + 'static, extra: S::Extra) -> Self {
        Self {
            name,
            table: None,
            type_name: None,
            schema: 0,
            ttl: None,
            key: None,
            shape: Arc::default(),
            codec: Arc::new(codec),
            migrate: None,
            extra,
        }
    }

    /// How values become bytes. Default [`Postcard`](crate::state::Postcard).
    #[must_use]
    pub fn codec(mut self, codec: impl Codec<S::Value> + 'static) -> Self {
        self.codec = Arc::new(codec);
        self.shape = Arc::default();
        self
    }

    /// The version of the value's type, to be raised with each change of its bytes
    /// ([`Codec::shape`] tells which changes are noticed). Each value is stored with the version it
    /// was written with (0 costs nothing). A checkpoint with values of a higher version is refused;
    /// one with values of a lower version as well, unless [`StateDescriptor::migrate`] says how to
    /// read them. Default 0.
    #[must_use]
    pub fn schema(mut self, version: u32) -> Self {
        self.schema = version;
        self
    }

    /// How a value of an earlier schema version is read: from that version and its bytes.
    ///
    /// Values are migrated one by one when they are read, and stored in the new form when they are
    /// next written; opening a large state costs nothing. So values of every version that was ever
    /// in use may still be there, and the hook stays as long as the state. With a new version the
    /// codec and the type may change too; kind, keys and namespaces cannot.
    ///
    /// ```
    /// use alluvium::{Job, JobOptions, OpenMode, ValueState};
    /// use alluvium::state::{Codec, Postcard};
    ///
    /// # fn main() -> alluvium::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
    /// let store = &mut opened.stores[0];
    /// store.set_key("page/1")?;
    /// let clicks = store.register(ValueState::<u32>::descriptor("clicks"))?;
    /// clicks.put(store, &7)?;
    ///
    /// // Later the type changes: a count, and when it was last seen.
    /// let descriptor = ValueState::<(u64, u64)>::descriptor("clicks").schema(1).migrate(|_version, bytes| {
    ///     let count: u32 = Postcard.decode(bytes)?;
    ///     Ok((count.into(), 0))
    /// });
    /// let clicks = store.register(descriptor)?;
    /// assert_eq!(clicks.get(store)?, Some((7, 0)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn migrate(
        mut self,
        hook: impl Fn(u32, &[u8]) -> Result<S::Value, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static,
    ) -> Self {
        self.migrate = Some(Arc::new(hook));
        self
    }

    /// A name of the value's type that is compared at a restore: another one is an error. Default
    /// the compiler's name, which is recorded for people only, because it may change with the
    /// compiler.
    #[must_use]
    pub fn type_name(mut self, name: impl Into<String>) -> Self {
        self.type_name = Some(name.into());
        self
    }
}

impl<S: KeyedState> StateDescriptor<S> {
    /// How changes are kept until they are applied. Default [`TableKind::Ordered`] for maps and for
    /// states with namespaces, which are scanned and deleted by prefix, [`TableKind::Hash`] for all
    /// others.
    #[must_use]
    pub fn table(mut self, table: TableKind) -> Self {
        self.table = Some(table);
        self
    }

    /// Lets each value, map entry or list element expire by itself when it was not accessed for a
    /// while. The TTL may be given, changed and taken away at every restore, because the time of
    /// the last access is stored and then judged by the new TTL. Entries that were written without
    /// a TTL never expire until they are written again. Entries that have expired by the TTL of an
    /// earlier attempt may be gone for good. Default none.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use alluvium::{Job, JobOptions, MapState, OpenMode, Ttl, TtlUpdate};
    ///
    /// # fn main() -> alluvium::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
    /// let store = &mut opened.stores[0];
    /// let ttl = Ttl::new(Duration::from_secs(30 * 60)).update(TtlUpdate::OnReadAndWrite);
    /// let carts = store.register(MapState::<String, u32>::descriptor("carts").ttl(ttl))?;
    /// store.set_key("user/1")?;
    /// carts.put(store, "apple", &3)?;
    /// // Gone half an hour after it was put or last read.
    /// assert_eq!(carts.get(store, "apple")?, Some(3));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Declares the type of the state's keys. A key of another type is then an error at the first
    /// use, in every subtask. By default a store learns the type from the first key that is stored.
    /// Subtasks that learn different types find out only at a checkpoint, which ends the attempt.
    ///
    /// ```
    /// use alluvium::{ErrorKind, Job, JobOptions, OpenMode, ValueState};
    ///
    /// # fn main() -> alluvium::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
    /// let store = &mut opened.stores[0];
    /// let clicks = store.register(ValueState::<u64>::descriptor("clicks").keyed::<str>())?;
    /// store.set_key(&7_u32)?;
    /// assert_eq!(clicks.put(store, &1).unwrap_err().kind(), ErrorKind::Incompatible);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn keyed<K: KeyCodec + ?Sized>(mut self) -> Self {
        self.key = Some(KeyType::of::<K>());
        self
    }

    /// Gives the state namespaces, windows for example: for each key there is one part of the state
    /// for each namespace. The handle's `at` chooses one.
    ///
    /// Its `merge` joins namespaces, sessions that turn out to be one for example. One rule holds
    /// for all kinds of state: what reads show of the sources goes into the target, and nothing of
    /// the sources stays. A value, map entry or list element that only moves keeps the time of its
    /// last access, so it expires when it would have without the merge. A value that a function
    /// folds from two is written by the merge, and is as young as any other write. What had expired
    /// does not move.
    ///
    /// ```
    /// use alluvium::{Job, JobOptions, OpenMode, ReducingState};
    ///
    /// # fn main() -> alluvium::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
    /// let store = &mut opened.stores[0];
    /// // A window is a start and an end.
    /// let counts = ReducingState::<u64>::descriptor("counts", |a, b| a + b).namespaced::<(u64, u64)>();
    /// let counts = store.register(counts)?;
    /// store.set_key("user/1")?;
    /// counts.at(&(0, 10)).add(store, 1)?;
    /// counts.at(&(10, 20)).add(store, 5)?;
    /// assert_eq!(counts.at(&(0, 10)).get(store)?, Some(1));
    ///
    /// // Two sessions turn out to be one.
    /// counts.merge(store, &(0, 20), &[(0, 10), (10, 20)])?;
    /// assert_eq!(counts.at(&(0, 20)).get(store)?, Some(6));
    /// let windows: Vec<_> = counts.namespaces(store)?.collect::<alluvium::Result<_>>()?;
    /// assert_eq!(windows, [(0, 20)]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn namespaced<N: KeyCodec<Owned = N>>(self) -> StateDescriptor<S::In<N>> {
        StateDescriptor {
            name: self.name,
            table: self.table,
            type_name: self.type_name,
            schema: self.schema,
            ttl: self.ttl,
            key: self.key,
            shape: self.shape,
            codec: self.codec,
            migrate: self.migrate,
            extra: self.extra,
        }
    }
}

impl<S: Kind> StateDescriptor<S> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The options, to be compared with a state that exists already.
    ///
    /// # Errors
    /// `InvalidArgument` for a TTL of 0.
    pub(crate) fn options(&self) -> Result<StateOptions> {
        self.ttl.map_or(Ok(()), Ttl::check)?;
        let mut options = S::options();
        let in_order = !options.namespace.is_empty() || !options.map_key.is_empty();
        let default = if in_order { TableKind::Ordered } else { TableKind::Hash };
        options.table = self.table.unwrap_or(default);
        options.name.clone_from(&self.name);
        options.key = self.key.map(|key| (key.name)()).unwrap_or_default();
        options.value.codec = self.codec.id().to_owned();
        options.value.schema = self.schema;
        options.value.type_is_named = self.type_name.is_some();
        let type_name = || type_name::<S::Value>().to_owned();
        options.value.type_name = self.type_name.clone().unwrap_or_else(type_name);
        options.value.shape =
            self.shape.get_or_init(|| self.codec.shape().map(recorded).unwrap_or_default()).clone();
        options.migrates = self.migrate.is_some();
        options.ttl = self.ttl.map(Ttl::info);
        Ok(options)
    }

    /// The part of a handle that all kinds share.
    pub(crate) fn typed(self, state: State, kind: StateKind) -> Arc<Typed<S::Value, S::Extra>> {
        Arc::new(Typed {
            name: self.name,
            state,
            kind,
            schema: self.schema,
            ttl: self.ttl,
            codec: self.codec,
            migrate: self.migrate,
            extra: self.extra,
        })
    }
}

impl StateStore {
    /// Registers a typed state, or finds it again. The handle is good for every store of the job
    /// that has registered the same name.
    ///
    /// # Errors
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if the name stands for something else, here
    /// or in the restored checkpoint: another kind of state, other keys, namespaces, map keys or
    /// codec, another type if [`StateDescriptor::type_name`] names it, values that have changed
    /// without a new schema version ([`Codec::shape`]), or a schema version that cannot be read.
    pub fn register<S: Kind>(&mut self, descriptor: StateDescriptor<S>) -> Result<S> {
        let options = descriptor.options()?;
        let state = self.state(&options)?;
        if let Some(ttl) = descriptor.ttl {
            self.expire(state, ttl.expiry(options.kind))?;
        }
        Ok(S::build(descriptor.typed(state, options.kind)))
    }
}

// A derived one would ask the same of `S`.
impl<S: Kind<Extra: Clone>> Clone for StateDescriptor<S> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            table: self.table,
            type_name: self.type_name.clone(),
            schema: self.schema,
            ttl: self.ttl,
            key: self.key,
            shape: Arc::clone(&self.shape),
            codec: Arc::clone(&self.codec),
            migrate: self.migrate.clone(),
            extra: self.extra.clone(),
        }
    }
}

impl<S: Kind> fmt::Debug for StateDescriptor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateDescriptor")
            .field("name", &self.name)
            .field("codec", &self.codec.id())
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}
