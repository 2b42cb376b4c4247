//! Which savepoint a name stands for: a pure function of the existing objects.
//!
//! An object's name is never used twice, because a request to delete it may arrive long after it
//! was sent, even after another try of it was answered. Each use of a savepoint's name therefore
//! has a [`Generation`] of its own. An even generation is a savepoint; the odd one after it says
//! that the savepoint was released. The newest counts, and is deleted only when there is a newer
//! one. All below are void, even one that a late request creates there.

use std::collections::{BTreeMap, BTreeSet};

use crate::remote::{Generation, Listed, ObjectName, SavepointName};

/// The generations of one name, as a listing shows them. Not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slots(BTreeSet<Generation>);

/// By name, ascending.
pub(super) fn by_name(listing: &[Listed]) -> BTreeMap<SavepointName, Slots> {
    let mut all = BTreeMap::<_, Slots>::new();
    for listed in listing {
        if let Some(ObjectName::Savepoint(name, generation)) = ObjectName::parse(&listed.name) {
            all.entry(name).or_default().0.insert(generation);
        }
    }
    all
}

impl Slots {
    fn newest(&self) -> Option<Generation> {
        self.0.last().copied()
    }

    /// The savepoint that the name stands for now, if any.
    pub(super) fn current(&self) -> Option<Generation> {
        self.newest().filter(|newest| newest.0.is_multiple_of(2))
    }

    /// Where the next savepoint of this name goes.
    pub(super) fn next(&self) -> Generation {
        // A released one is followed by an odd generation, whatever the object says.
        self.newest()
            .map_or(Generation(0), |newest| Generation((newest.0 / 2).saturating_add(1).saturating_mul(2)))
    }

    /// Those that stand for nothing any more, and never will again.
    pub(super) fn void(&self) -> impl Iterator<Item = Generation> {
        self.0.iter().rev().skip(1).copied()
    }
}

/// What says that the savepoint `generation` was released.
pub(super) fn release_of(generation: Generation) -> Generation {
    Generation(generation.0 | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(generations: &[u64]) -> Slots {
        let name: SavepointName = "a".parse().unwrap();
        let listed = |n: &u64| Listed {
            name: ObjectName::savepoint(&name, Generation(*n)).to_string(),
            size: 1,
            unix_millis: 0,
        };
        let listing: Vec<_> = generations.iter().map(listed).collect();
        by_name(&listing).remove(&name).unwrap_or_default()
    }

    #[test]
    fn the_newest_generation_counts() {
        for (there, current, next) in [
            (&[][..], None, 0),
            (&[0], Some(0), 2),
            (&[0, 1], None, 2),
            (&[1], None, 2),
            (&[1, 2], Some(2), 4),
            (&[2], Some(2), 4),
            // A late request has filled a hole.
            (&[0, 3], None, 4),
            (&[2, 3, 4], Some(4), 6),
        ] {
            let slots = slots(there);
            assert_eq!(slots.current(), current.map(Generation), "{there:?}");
            assert_eq!(slots.next(), Generation(next), "{there:?}");
            let void: Vec<_> = slots.void().map(|generation| generation.0).collect();
            assert_eq!(void.len(), there.len().saturating_sub(1));
            assert!(there.is_empty() || !void.contains(there.last().unwrap()), "the newest is never void");
        }
        assert_eq!([0, 2].map(|n| release_of(Generation(n)).0), [1, 3]);
    }

    #[test]
    fn names_do_not_mix() {
        let listed = |text: &str| Listed { name: text.to_owned(), size: 1, unix_millis: 0 };
        let listing = ["savepoint/a", "savepoint/a-b", "savepoint/a!0000000001", "savepoint/x y", "data/x"];
        let all = by_name(&listing.map(listed));
        let found: Vec<_> = all.iter().map(|(name, slots)| (name.to_string(), slots.current())).collect();
        assert_eq!(found, [("a".to_owned(), None), ("a-b".to_owned(), Some(Generation(0)))]);
    }
}
