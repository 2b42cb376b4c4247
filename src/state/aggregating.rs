//! [`AggregatingState`]: one accumulator per key, into which each input is folded.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::store::{StateKind, StateOptions, StateStore};

use super::codec::{Codec, Postcard};
use super::descriptor::{self, KeyedState, Kind, StateDescriptor};
use super::handle::handle;
use super::key_codec::KeyCodec;
use super::scope::{Namespaced, Scope, Spaces};
use super::single_entry::SingleEntry;
use super::ttl::TtlNow;
use super::typed::Typed;

/// How inputs become an accumulator, and an accumulator a result. See [`AggregatingState`].
pub trait Aggregate<In, Acc, Out>: Send + Sync {
    /// An accumulator that nothing was added to.
    fn create(&self) -> Acc;

    /// Folds an input in.
    fn add(&self, accumulator: &mut Acc, input: In);

    /// Folds another accumulator in, where namespaces are merged.
    fn merge(&self, accumulator: &mut Acc, other: Acc);

    /// What an accumulator stands for.
    fn result(&self, accumulator: Acc) -> Out;
}

/// One accumulator of type `Acc` per key: every added `In` is folded into it, and an `Out` is read
/// from it.
///
/// ```
/// use alluvium::{Aggregate, AggregatingState, Job, JobOptions, OpenMode};
///
/// /// The mean, from sum and count.
/// struct Mean;
///
/// impl Aggregate<u32, (u64, u64), f64> for Mean {
///     fn create(&self) -> (u64, u64) {
///         (0, 0)
///     }
///
///     fn add(&self, (sum, count): &mut (u64, u64), input: u32) {
///         *sum += u64::from(input);
///         *count += 1;
///     }
///
///     fn merge(&self, (sum, count): &mut (u64, u64), other: (u64, u64)) {
///         *sum += other.0;
///         *count += other.1;
///     }
///
///     fn result(&self, (sum, count): (u64, u64)) -> f64 {
///         sum as f64 / count as f64
///     }
/// }
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// let delay = store.register(AggregatingState::descriptor("delay", Mean))?;
/// store.set_key("JFK")?;
/// assert_eq!(delay.get(store)?, None);
/// for minutes in [2, 3, 7] {
///     delay.add(store, minutes)?;
/// }
/// assert_eq!(delay.get(store)?, Some(4.0));
/// # Ok(())
/// # }
/// ```
pub struct AggregatingState<In, Acc, Out, S = ()> {
    typed: Arc<Typed<Acc, Function<In, Acc, Out>>>,
    scope: S,
}

type Function<In, Acc, Out> = Arc<dyn Aggregate<In, Acc, Out>>;

handle!(AggregatingState<In, Acc, Out>);

impl<In: 'static, Acc: Serialize + DeserializeOwned + 'static, Out: 'static> AggregatingState<In, Acc, Out> {
    /// Declares a state called `name`.
    pub fn descriptor(
        name: impl Into<String>,
        aggregate: impl Aggregate<In, Acc, Out> + 'static,
    ) -> StateDescriptor<Self> {
        Self::descriptor_with(name, aggregate, Postcard)
    }
}

impl<In: 'static, Acc: 'static, Out: 'static> AggregatingState<In, Acc, Out> {
    /// Declares a state whose accumulators are not for `serde`.
    pub fn descriptor_with(
        name: impl Into<String>,
        aggregate: impl Aggregate<In, Acc, Out> + 'static,
        codec: impl Codec<Acc> + 'static,
    ) -> StateDescriptor<Self> {
        let aggregate: Function<In, Acc, Out> = Arc::new(aggregate);
        StateDescriptor::new(name.into(), codec, aggregate)
    }
}

impl<In: 'static, Acc: 'static, Out: 'static, S: Spaces> KeyedState for AggregatingState<In, Acc, Out, S> {
    type In<N: KeyCodec<Owned = N>> = AggregatingState<In, Acc, Out, Namespaced<N>>;
}

impl<In: 'static, Acc: 'static, Out: 'static, S: Spaces> Kind for AggregatingState<In, Acc, Out, S> {
    type Value = Acc;
    type Extra = Function<In, Acc, Out>;
    type Space = S;

    fn options() -> StateOptions {
        descriptor::options(StateKind::Aggregating, S::format(), String::new())
    }

    fn build(typed: Arc<Typed<Acc, Self::Extra>>) -> Self {
        Self { typed, scope: S::default() }
    }
}

impl<In: 'static, Acc: 'static, Out: 'static, S: Spaces> SingleEntry for AggregatingState<In, Acc, Out, S> {
    type Entry = Out;
    type Read = Option<Out>;

    fn open(typed: &Typed<Acc, Self::Extra>, stored: &[u8], now: TtlNow) -> Result<Option<Out>> {
        let accumulator = typed.open(stored, now)?;
        Ok(accumulator.map(|accumulator| typed.extra.result(accumulator)))
    }

    fn read(_: &Typed<Acc, Self::Extra>, entry: Option<Out>) -> Option<Out> {
        entry
    }
}

impl<In: 'static, Acc: 'static, Out: 'static, S: Scope> AggregatingState<In, Acc, Out, S> {
    /// The result of what was added so far; None if nothing was.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) without a current key;
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if it is not of the type of the state's
    /// keys; [`Corrupt`](crate::ErrorKind::Corrupt) if the bytes are not an `Acc`; as
    /// [`StateStore::get`].
    pub fn get(&self, store: &StateStore) -> Result<Option<Out>> {
        let accumulator = self.typed.get(store, |out| self.scope.push(out))?;
        Ok(accumulator.map(|accumulator| self.typed.extra.result(accumulator)))
    }

    /// Whether anything was added.
    ///
    /// # Errors
    /// As [`AggregatingState::get`].
    pub fn contains(&self, store: &StateStore) -> Result<bool> {
        self.typed.contains(store, |out| self.scope.push(out))
    }

    /// Folds `input` into the accumulator; the first one begins with a new accumulator.
    ///
    /// # Errors
    /// As [`AggregatingState::get`] and [`StateStore::put`];
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the accumulator cannot be encoded.
    pub fn add(&self, store: &mut StateStore, input: In) -> Result<()> {
        let there = self.typed.get(store, |out| self.scope.push(out))?;
        let mut accumulator = there.unwrap_or_else(|| self.typed.extra.create());
        self.typed.extra.add(&mut accumulator, input);
        self.typed.put(store, |out| self.scope.push(out), &accumulator)
    }

    /// Removes the accumulator, if there is one.
    ///
    /// # Errors
    /// As [`AggregatingState::add`].
    pub fn clear(&self, store: &mut StateStore) -> Result<()> {
        self.typed.remove(store, |out| self.scope.push(out))
    }
}

impl<In, Acc, Out, N> AggregatingState<In, Acc, Out, Namespaced<N>>
where
    In: 'static,
    Acc: 'static,
    Out: 'static,
    N: KeyCodec<Owned = N> + PartialEq,
{
    /// Folds the accumulators of the namespaces `from` into that of `into`, one after the other,
    /// and removes them. Namespaces without one change nothing; `into` may be among `from`.
    ///
    /// # Errors
    /// As [`AggregatingState::add`].
    pub fn merge<'n>(
        &self,
        store: &mut StateStore,
        into: &N,
        from: impl IntoIterator<Item = &'n N>,
    ) -> Result<()>
    where
        N: 'n,
    {
        self.typed.merge(store, into, from, |mut accumulator, other| {
            self.typed.extra.merge(&mut accumulator, other);
            accumulator
        })
    }
}
