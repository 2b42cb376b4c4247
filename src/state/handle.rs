//! What the handles of all kinds have in common.

/// A handle is `typed: Arc<Typed<_, _>>` and `scope: S`. A kind without types of its own is
/// `handle!(CounterState<>)`.
macro_rules! handle {
    ($state:ident<$($type:ident),*>) => {
        impl<$($type,)* S: $crate::state::scope::Spaces> $state<$($type,)* S> {
            /// The keys of a group that have something in this state, each once, in their order.
            ///
            /// # Errors
            /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the store does not own the
            /// group; [`Incompatible`](crate::ErrorKind::Incompatible) if the state's keys are not
            /// of type `Key`.
            pub fn keys<Key: $crate::state::KeyCodec + ?Sized>(
                &self,
                store: &$crate::StateStore,
                group: $crate::KeyGroup,
            ) -> $crate::Result<$crate::state::Keys<Key::Owned>> {
                self.typed.keys::<Key>(store, group)
            }
        }

        impl<$($type,)* N: $crate::state::KeyCodec<Owned = N>> $state<$($type,)* $crate::state::Namespaced<N>> {
            /// The state of one namespace of the current key.
            #[must_use]
            pub fn at<'n>(&self, namespace: &'n N) -> $state<$($type,)* $crate::state::At<'n, N>> {
                $state {
                    typed: std::sync::Arc::clone(&self.typed),
                    scope: $crate::state::scope::At(namespace),
                }
            }

            /// The namespaces of the current key that have something in this state, in their order.
            ///
            /// # Errors
            /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) without a current key.
            pub fn namespaces(&self, store: &$crate::StateStore) -> $crate::Result<$crate::state::Keys<N>> {
                self.typed.namespaces::<N>(store)
            }

            /// Those of the namespaces of the current key that lie in `range`: of windows with
            /// their begin first, all that begin at some time or later, or with `rev()` the last
            /// one that begins before it.
            ///
            /// # Errors
            /// As the state's `namespaces`.
            pub fn namespaces_in(
                &self,
                store: &$crate::StateStore,
                range: impl std::ops::RangeBounds<N>,
            ) -> $crate::Result<$crate::state::Keys<N>> {
                self.typed.namespaces_in::<N>(store, &range)
            }

            /// The keys of a group that have something in this state, with each of their
            /// namespaces.
            ///
            /// # Errors
            /// As the state's `keys`.
            pub fn keys_and_namespaces<Key: $crate::state::KeyCodec + ?Sized>(
                &self,
                store: &$crate::StateStore,
                group: $crate::KeyGroup,
            ) -> $crate::Result<$crate::state::Keys<(Key::Owned, N)>> {
                self.typed.keys_and_namespaces::<Key, N>(store, group)
            }
        }

        // Derived ones would ask the same of the types.

        impl<$($type,)* S: Clone> Clone for $state<$($type,)* S> {
            fn clone(&self) -> Self {
                Self { typed: std::sync::Arc::clone(&self.typed), scope: self.scope.clone() }
            }
        }

        impl<$($type,)* S> std::fmt::Debug for $state<$($type,)* S> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($state)).field("name", &self.typed.name).finish_non_exhaustive()
            }
        }
    };
}

pub(super) use handle;
