//! [`ByGroup`]: one iterator after the other, for each key group.

use std::ops::Range;

use crate::error::Result;
use crate::key_group::{KeyGroup, KeyGroupRange};
use crate::state::Failure;

/// The items of all key groups in their order, each group's from an iterator that is made when its
/// turn comes. An entry that cannot be read is an error, and iteration may go on after it. It ends
/// where a group cannot be reached or its scan fails: what failed once is not passed over.
pub(super) struct ByGroup<I, F> {
    groups: Range<u16>,
    make: F,
    at: Option<I>,
}

impl<I, F: FnMut(KeyGroup) -> Result<I>> ByGroup<I, F> {
    pub(super) fn new(groups: KeyGroupRange, make: F) -> Self {
        // Groups end below 32,768, so one more fits.
        Self { groups: groups.first.0..groups.last.0 + 1, make, at: None }
    }

    fn step<T>(&mut self) -> Option<Result<T, Failure>>
    where
        I: Iterator<Item = Result<T, Failure>>,
    {
        loop {
            if let Some(item) = self.at.as_mut().and_then(Iterator::next) {
                return Some(item);
            }
            match (self.make)(KeyGroup(self.groups.next()?)) {
                Ok(items) => self.at = Some(items),
                Err(error) => return Some(Err(Failure::Scan(error))),
            }
        }
    }
}

impl<T, I: Iterator<Item = Result<T, Failure>>, F: FnMut(KeyGroup) -> Result<I>> Iterator for ByGroup<I, F> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.step() {
            Some(Ok(item)) => Some(Ok(item)),
            Some(Err(Failure::Entry(error))) => Some(Err(error)),
            Some(Err(Failure::Scan(error))) => {
                (self.groups, self.at) = (0..0, None);
                Some(Err(error))
            }
            None => {
                self.at = None;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn all_groups_in_order_until_one_cannot_be_read() {
        let groups = KeyGroupRange { first: KeyGroup(2), last: KeyGroup(4) };
        let twice = |group: KeyGroup| Ok((0..2).map(move |n| Ok((group.0, n))));
        let all: Vec<_> = ByGroup::new(groups, twice).map(Result::unwrap).collect();
        assert_eq!(all, [(2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]);

        let items = |group: KeyGroup| {
            if group.0 == 3 { Err(Error::internal("group")) } else { Ok([Ok(1), Ok(2)].into_iter()) }
        };
        let ok = |items: Vec<Result<i32>>| items.iter().map(Result::is_ok).collect::<Vec<_>>();
        assert_eq!(ok(ByGroup::new(groups, items).collect()), [true, true, false]);
        let items = |_| Ok([Ok(1), Err(Failure::Scan(Error::internal("scan"))), Ok(2)].into_iter());
        assert_eq!(ok(ByGroup::new(groups, items).collect()), [true, false]);
        let items = |_| Ok([Ok(1), Err(Failure::Entry(Error::internal("entry"))), Ok(2)].into_iter());
        assert_eq!(ok(ByGroup::new(groups, items).collect()), [true, false, true].repeat(3));
    }
}
