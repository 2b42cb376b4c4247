//! The scope of a handle: all of a key's state, or that of one namespace.

use std::fmt;
use std::marker::PhantomData;

use super::key_codec::KeyCodec;

/// The scope of a state handle that can be read and written: `()` for a state without namespaces,
/// [`At`] for one namespace. For a state with namespaces, choose one first: `state.at(&namespace)`.
#[diagnostic::on_unimplemented(
    message = "this state has namespaces, and one has to be chosen",
    label = "choose one by `.at(&namespace)`"
)]
pub trait Scope: PushScope {}

/// Marks a state with namespaces of type `N`; made by
/// [`StateDescriptor::namespaced`](crate::StateDescriptor::namespaced).
pub struct Namespaced<N>(PhantomData<fn() -> N>);

/// Marks a state handle as that of one namespace; made by the `at` of a [`Namespaced`] state.
#[derive(Debug)]
pub struct At<'a, N>(pub(crate) &'a N);

/// The inner side of [`Scope`].
pub trait PushScope {
    /// Appends the namespace in part form.
    fn push(&self, out: &mut Vec<u8>);
}

/// The inner side of what a state can be declared with: `()` or [`Namespaced`].
pub trait Spaces: Default {
    /// How namespaces are encoded, as it is recorded.
    fn format() -> String;

    /// A key with the namespace, if there are namespaces: `K` or `(K, N)`.
    type FullKey<K>;

    /// Takes key and namespace off the front of a stored key; `key` takes the key.
    fn full_key<K>(bytes: &mut &[u8], key: impl FnOnce(&mut &[u8]) -> Option<K>) -> Option<Self::FullKey<K>>;
}

impl Scope for () {}

impl PushScope for () {
    fn push(&self, _out: &mut Vec<u8>) {}
}

impl Spaces for () {
    fn format() -> String {
        String::new()
    }

    type FullKey<K> = K;

    fn full_key<K>(bytes: &mut &[u8], key: impl FnOnce(&mut &[u8]) -> Option<K>) -> Option<K> {
        key(bytes)
    }
}

impl<N: KeyCodec> Scope for At<'_, N> {}

impl<N: KeyCodec> PushScope for At<'_, N> {
    fn push(&self, out: &mut Vec<u8>) {
        self.0.encode_part(out);
    }
}

impl<N: KeyCodec<Owned = N>> Spaces for Namespaced<N> {
    fn format() -> String {
        N::name()
    }

    type FullKey<K> = (K, N);

    fn full_key<K>(bytes: &mut &[u8], key: impl FnOnce(&mut &[u8]) -> Option<K>) -> Option<(K, N)> {
        Some((key(bytes)?, N::decode_part(bytes)?))
    }
}

// Derived ones would ask the same of `N`.

impl<N> Clone for At<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for At<'_, N> {}

impl<N> Clone for Namespaced<N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Namespaced<N> {}

impl<N> Default for Namespaced<N> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<N> fmt::Debug for Namespaced<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Namespaced")
    }
}
