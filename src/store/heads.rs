//! The smallest keys of an ordered state over all key groups of a store, without holding all keys:
//! for each group a few of its first keys, and up to which key these are complete.
//!
//! The table orders keys by group first, so the smallest key of all groups is the smallest of the
//! groups' heads. [`Heads`] keeps those in order. It is only a cache: it starts out empty, is told
//! of every change, and says which group has to be read when it does not know.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use crate::key_group::{KeyGroup, KeyGroupRange};

/// Keys that all groups together keep, about; see [`Heads::batch`]. They are read together at the first look.
const KEYS: usize = 8192;
/// Up to so many keys a group they may be more, as far as there is memory for them: a read of a group costs the
/// same for a few keys as for one, so where groups are many each pop would pay for most of a read.
const WORTH_A_READ: usize = 16;
/// What is set aside for each of these: a group keeps up to two batches of short keys.
const BYTES_PER_KEY: usize = 2 * (OVERHEAD + 32);
/// Bytes that all groups together keep, unless the memory is small ([`Heads::limited`]).
const BYTES: usize = 4 << 20;
/// What a key takes up beside its bytes: its vector, its part of a node.
const OVERHEAD: usize = 64;
/// Least of a limit.
const MIN_BYTES: usize = 64 << 10;
/// So many bytes of a key are enough to say when about a group's turn comes: a timer's begins with its time.
const SHORT: usize = 64;
const FEWEST_PER_GROUP: usize = 2;
const MOST_PER_GROUP: usize = 256;

/// The first keys of each group. All keys are the user's part of encoded keys.
#[derive(Debug)]
pub(crate) struct Heads {
    first: KeyGroup,
    groups: Vec<Group>,
    /// The bound of each group that has one.
    order: BTreeSet<(Vec<u8>, KeyGroup)>,
    batch: usize,
    /// What is kept, and what may be.
    bytes: usize,
    limit: usize,
    /// Where the next trim is due: at the limit, and above it only where all of it is needed.
    trim_at: usize,
    short: usize,
    /// Whether no group was read yet.
    is_new: bool,
    /// How often a group was read.
    #[cfg(test)]
    reads: usize,
}

/// What is known of one group: all of its keys below `unread`, and only those.
#[derive(Debug)]
struct Group {
    known: BTreeSet<Vec<u8>>,
    /// Where those begin that may be there and have not been read. None: all keys are known.
    unread: Option<Vec<u8>>,
    /// Of the known keys.
    bytes: usize,
}

/// Where the smallest key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// It is this one.
    Key(KeyGroup, Vec<u8>),
    /// It is not below this one. To know more, read the group from there on and [`Heads::fill`].
    Unread(KeyGroup, Vec<u8>),
}

/// The first keys of a group from some key on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FirstKeys {
    pub(crate) keys: Vec<Vec<u8>>,
    /// Where those begin that have not been read. None: there are no more.
    pub(crate) next: Option<Vec<u8>>,
}

/// How much to read: so many keys, and no more of them once they have so many bytes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) keys: usize,
    pub(crate) bytes: usize,
}

impl FirstKeys {
    pub(crate) fn bytes(&self) -> usize {
        self.keys.iter().map(Vec::len).sum()
    }

    /// About where the first one is, and nothing else.
    #[must_use]
    pub(crate) fn about(self) -> Self {
        let mut next = self.keys.into_iter().next().or(self.next);
        if let Some(next) = &mut next {
            next.truncate(SHORT);
        }
        Self { keys: Vec::new(), next }
    }
}

impl Group {
    /// No key of the group is below this; None if it has none.
    fn bound(&self) -> Option<&Vec<u8>> {
        self.known.first().or(self.unread.as_ref())
    }

    fn knows(&self, key: &[u8]) -> bool {
        self.unread.as_ref().is_none_or(|unread| key < unread.as_slice())
    }

    fn insert(&mut self, key: Vec<u8>) {
        let bytes = key.len() + OVERHEAD;
        if self.known.insert(key) {
            self.bytes += bytes;
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if self.known.remove(key) {
            self.bytes -= key.len() + OVERHEAD;
        }
    }

    /// What is forgotten has to be read again when its turn comes.
    fn forget_last(&mut self) {
        if let Some(key) = self.known.pop_last() {
            self.bytes -= key.len() + OVERHEAD;
            self.unread = Some(key);
        }
    }

    /// With the copy of the bound that the order has.
    fn weight(&self) -> usize {
        let len = |key: Option<&Vec<u8>>| key.map_or(0, Vec::len);
        self.bytes + len(self.unread.as_ref()) + len(self.bound())
    }

    /// The next key must stay known, or it would be read and forgotten again and again.
    fn shrink(&mut self, head: &[u8], short: usize) {
        let shortened = |key: &Vec<u8>| key.get(..short).map(<[u8]>::to_vec);
        let Some(bound) = self.bound() else { return };
        let about = shortened(bound).unwrap_or_else(|| bound.clone());
        if about.as_slice() > head {
            self.known.clear();
            self.bytes = 0;
            self.unread = Some(about);
            return;
        }
        while self.known.len() > 1 {
            self.forget_last();
        }
        let about = self.unread.as_ref().and_then(shortened);
        if let Some(about) = about.filter(|about| self.known.last().is_some_and(|last| last < about)) {
            self.unread = Some(about);
        }
    }
}

/// Keys that are read of a group at once where `groups` share so many bytes.
fn batch(groups: usize, bytes: usize) -> usize {
    let within = |keys: usize| keys / groups.max(1);
    let more = within(bytes / BYTES_PER_KEY).min(WORTH_A_READ);
    within(KEYS).max(more).clamp(FEWEST_PER_GROUP, MOST_PER_GROUP)
}

impl Heads {
    /// Knows nothing yet but that all keys lie at or above `from`.
    pub(crate) fn new(range: KeyGroupRange, from: &[u8]) -> Self {
        let groups =
            range.groups().map(|_| Group { known: BTreeSet::new(), unread: Some(from.to_vec()), bytes: 0 });
        let groups: Vec<_> = groups.collect();
        let order = range.groups().map(|group| (from.to_vec(), group)).collect();
        let batch = batch(groups.len(), BYTES);
        let bytes = groups.iter().map(Group::weight).sum();
        Self {
            first: range.first,
            groups,
            order,
            batch,
            bytes,
            limit: BYTES,
            trim_at: BYTES,
            short: SHORT,
            is_new: true,
            #[cfg(test)]
            reads: 0,
        }
    }

    /// Keeps up to `bytes`, and beyond that one key and what bounds it of each group whose turn may come next: those whose
    /// first keys begin alike.
    #[must_use]
    pub(crate) fn limited(mut self, bytes: usize) -> Self {
        self.limit = bytes.clamp(MIN_BYTES, BYTES);
        self.batch = batch(self.groups.len(), self.limit);
        self.trim_at = self.limit;
        self
    }

    /// How much of a group to read at once. It keeps up to twice as many keys.
    pub(crate) fn batch(&self) -> Batch {
        Batch { keys: self.batch, bytes: self.limit / 2 }
    }

    /// Where the smallest key of all groups is; the smallest group first where several have it. None
    /// if there are no keys.
    pub(crate) fn head(&self) -> Option<Head> {
        let (bound, group) = self.order.first()?;
        let known = self.group(*group).is_some_and(|state| state.known.first() == Some(bound));
        Some(if known { Head::Key(*group, bound.clone()) } else { Head::Unread(*group, bound.clone()) })
    }

    /// Whether the key is there; None if that is not known.
    pub(crate) fn contains(&self, group: KeyGroup, key: &[u8]) -> Option<bool> {
        let state = self.group(group)?;
        state.knows(key).then(|| state.known.contains(key))
    }

    /// The key was added to the state.
    pub(crate) fn insert(&mut self, group: KeyGroup, key: &[u8]) {
        let limit = 2 * self.batch;
        self.change(group, |state| {
            if !state.knows(key) {
                return;
            }
            state.insert(key.to_vec());
            if state.known.len() > limit {
                state.forget_last();
            }
        });
        self.trim();
    }

    /// The key was removed from the state.
    pub(crate) fn remove(&mut self, group: KeyGroup, key: &[u8]) {
        self.change(group, |state| state.remove(key));
    }

    /// What was read of a group from the place on that [`Head::Unread`] named.
    pub(crate) fn fill(&mut self, group: KeyGroup, read: FirstKeys) {
        #[cfg(test)]
        {
            self.reads += 1;
        }
        self.is_new = false;
        self.change(group, |state| {
            read.keys.into_iter().for_each(|key| state.insert(key));
            state.unread = read.next;
        });
        self.trim();
    }

    /// Whether no group was read yet: all can be read together then, for [`Heads::fill_all`].
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// What was read of all groups that have any key, from where a new one begins.
    pub(crate) fn fill_all(&mut self, read: impl IntoIterator<Item = (KeyGroup, FirstKeys)>) {
        let mut read: BTreeMap<_, _> = read.into_iter().collect();
        for index in 0..self.groups.len() {
            let group = KeyGroup(self.first.0 + index as u16);
            self.fill(group, read.remove(&group).unwrap_or_default());
        }
    }

    #[cfg(test)]
    pub(crate) fn reads(&self) -> usize {
        self.reads
    }

    /// Keys that are kept, those of all groups together.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.groups.iter().map(|group| group.known.len()).sum()
    }

    fn index(&self, group: KeyGroup) -> Option<usize> {
        group.0.checked_sub(self.first.0).map(usize::from)
    }

    fn group(&self, group: KeyGroup) -> Option<&Group> {
        self.groups.get(self.index(group)?)
    }

    /// Where more is kept than may be: forgets what comes last, group by group.
    fn trim(&mut self) {
        if self.bytes <= self.limit {
            self.trim_at = self.limit;
        }
        if self.bytes <= self.trim_at {
            return;
        }
        let Some((head, _)) = self.order.first().cloned() else { return };
        let groups: Vec<_> = self.order.iter().rev().map(|(_, group)| *group).collect();
        let short = self.short;
        for group in groups {
            // Some room, so that this is not done at each key.
            if self.bytes <= self.limit / 4 * 3 {
                break;
            }
            self.change(group, |state| state.shrink(&head, short));
        }
        self.trim_at = self.limit.max(self.bytes + self.bytes / 3);
    }

    /// Keeps the order over a change of one group.
    fn change(&mut self, group: KeyGroup, change: impl FnOnce(&mut Group)) {
        let index = self.index(group);
        let Some(state) = index.and_then(|index| self.groups.get_mut(index)) else { return };
        let before = state.bound().cloned();
        self.bytes -= state.weight();
        change(state);
        self.bytes += state.weight();
        let after = state.bound();
        if before.as_ref() == after {
            return;
        }
        let after = after.cloned();
        if let Some(bound) = before {
            self.order.remove(&(bound, group));
        }
        self.order.extend(after.map(|bound| (bound, group)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: KeyGroupRange = KeyGroupRange { first: KeyGroup(3), last: KeyGroup(6) };

    type Model = BTreeSet<(Vec<u8>, KeyGroup)>;

    /// What a store would answer.
    fn read(model: &Model, group: KeyGroup, from: &[u8], limit: usize) -> FirstKeys {
        let keys = model.iter().filter(|(key, of)| *of == group && key.as_slice() >= from);
        let mut keys: Vec<_> = keys.map(|(key, _)| key.clone()).collect();
        let next = (keys.len() > limit).then(|| keys.swap_remove(limit));
        keys.truncate(limit);
        FirstKeys { keys, next }
    }

    fn first(heads: &mut Heads, model: &Model, batch: usize) -> Option<(Vec<u8>, KeyGroup)> {
        if heads.is_new() && model.len().is_multiple_of(2) {
            // Those without keys need not be named.
            let some = RANGE.groups().map(|group| (group, read(model, group, b"", batch)));
            heads.fill_all(some.filter(|(_, read)| *read != FirstKeys::default()));
        }
        loop {
            match heads.head()? {
                Head::Key(group, key) => return Some((key, group)),
                Head::Unread(group, from) => heads.fill(group, read(model, group, &from, batch)),
            }
        }
    }

    #[test]
    fn it_starts_out_knowing_nothing() {
        let mut heads = Heads::new(RANGE, b"a");
        assert_eq!(heads.head(), Some(Head::Unread(KeyGroup(3), b"a".to_vec())));
        assert_eq!(heads.contains(KeyGroup(3), b"b"), None);
        for group in RANGE.groups() {
            heads.fill(group, FirstKeys::default());
        }
        assert_eq!(heads.head(), None);
        assert_eq!(heads.contains(KeyGroup(3), b"b"), Some(false));
        heads.insert(KeyGroup(4), b"b");
        assert_eq!(heads.head(), Some(Head::Key(KeyGroup(4), b"b".to_vec())));
        // Groups that are not owned are none of its business.
        heads.insert(KeyGroup(7), b"a");
        heads.insert(KeyGroup(2), b"a");
        assert_eq!(heads.head(), Some(Head::Key(KeyGroup(4), b"b".to_vec())));
    }

    #[test]
    fn memory_is_bounded_by_forgetting_the_last_keys() {
        let mut heads = Heads::new(RANGE, b"");
        heads.fill(KeyGroup(3), FirstKeys::default());
        for number in (0..10_000_u32).rev() {
            heads.insert(KeyGroup(3), &number.to_be_bytes());
        }
        assert_eq!(heads.kept(), 2 * heads.batch().keys);
        assert_eq!(heads.contains(KeyGroup(3), &9_999_u32.to_be_bytes()), None);
        assert_eq!(heads.contains(KeyGroup(3), &0_u32.to_be_bytes()), Some(true));
    }

    #[test]
    fn i6_long_keys_are_bounded_by_their_bytes() {
        let all = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(127) };
        let mut heads = Heads::new(all, b"").limited(1 << 20);
        for group in all.groups() {
            heads.fill(group, FirstKeys::default());
        }
        let key = |time: u32| [time.to_be_bytes().to_vec(), vec![7; 60_000]].concat();
        let mut most = 0;
        for time in 0..20_000_u32 {
            heads.insert(KeyGroup((time % 128) as u16), &key(time.reverse_bits()));
            most = most.max(heads.bytes);
        }
        assert!(most <= (1 << 20) + 200_000, "{most}");
        // Of keys that differ only far behind, one of each group is kept: any of them may be the next.
        let mut heads = Heads::new(all, b"").limited(1 << 20);
        while let Some(Head::Unread(group, _)) = heads.head() {
            let keys = (0..10).map(|n| [vec![7; 60_000], vec![n]].concat()).collect();
            heads.fill(group, FirstKeys { keys, next: None });
        }
        assert!(heads.kept() >= 128);
        // A key and what bounds it on both sides; a third more may gather before it is looked at again.
        let needed = 128 * 3 * 60_100;
        assert!(heads.bytes <= needed / 3 * 4 + 11 * 60_100, "{}", heads.bytes);
    }

    #[test]
    fn of_many_groups_as_many_keys_are_read_at_once_as_there_is_memory_for() {
        for (groups, limit, keys) in
            [(1, BYTES, 256), (128, BYTES, 64), (1024, BYTES, 16), (4096, BYTES, 5), (4096, 1 << 20, 2)]
        {
            assert_eq!(batch(groups, limit), keys, "{groups} groups, {limit} bytes");
        }
        // A timer has 9 bytes before its key. Twice as many as are read are kept, and none is forgotten for its bytes.
        let all = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(4095) };
        let mut heads = Heads::new(all, b"").limited(usize::MAX);
        for group in all.groups() {
            heads.fill(group, FirstKeys::default());
        }
        for n in 0..12_u8 {
            all.groups().for_each(|group| heads.insert(group, &[n; 30]));
        }
        assert_eq!(heads.kept(), 2 * 5 * 4096);
        assert!(heads.bytes <= BYTES, "{}", heads.bytes);
    }

    /// Groups whose timers fire in turns: what a pop costs beside itself is its share of a read.
    #[test]
    fn a_pop_of_many_groups_pays_for_a_small_part_of_a_read() {
        const EACH: u32 = 30;
        let all = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(4095) };
        let mut heads = Heads::new(all, b"").limited(usize::MAX);
        let limit = heads.batch().keys;
        // Each group has the times 0 to 29.
        let read = |from: u32| FirstKeys {
            keys: (from..EACH).take(limit).map(|time| time.to_be_bytes().to_vec()).collect(),
            next: (from + limit as u32..EACH).next().map(|time| time.to_be_bytes().to_vec()),
        };
        let (mut popped, mut last) = (0, 0);
        while let Some(head) = heads.head() {
            match head {
                Head::Unread(group, from) => {
                    let from = from.first_chunk().map_or(0, |from| u32::from_be_bytes(*from));
                    heads.fill(group, read(from));
                }
                Head::Key(group, key) => {
                    let time = u32::from_be_bytes(*key.first_chunk().unwrap());
                    assert!(time >= last, "in order");
                    last = time;
                    heads.remove(group, &key);
                    popped += 1;
                }
            }
        }
        assert_eq!(popped, 4096 * EACH as usize);
        assert!(heads.reads() * 5 <= popped, "{} reads for {popped}", heads.reads());
    }

    #[test]
    fn many_groups_keep_few_keys_each() {
        let all = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(32_767) };
        assert_eq!(Heads::new(all, b"").batch().keys, FEWEST_PER_GROUP);
        let one = KeyGroupRange { first: KeyGroup(5), last: KeyGroup(5) };
        assert_eq!(Heads::new(one, b"").batch().keys, MOST_PER_GROUP);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, u8),
        Remove(u8, u8),
        Pop,
        /// As after a restore.
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (3_u8..7, any::<u8>()).prop_map(|(group, key)| Step::Insert(group, key)),
            2 => (3_u8..7, any::<u8>()).prop_map(|(group, key)| Step::Remove(group, key)),
            4 => Just(Step::Pop),
            1 => Just(Step::Forget),
        ]
    }

    proptest! {
        #[test]
        fn the_smallest_key_is_always_found(
            steps in prop::collection::vec(step(), 0..200),
            batch in 1_usize..5,
            limit in prop_oneof![Just(usize::MAX / 8), 0_usize..1_000],
            short in 0_usize..3,
        ) {
            let new = || {
                let mut heads = Heads::new(RANGE, b"");
                (heads.batch, heads.limit, heads.trim_at, heads.short) = (batch, limit, limit, short);
                heads
            };
            let (mut heads, mut model) = (new(), Model::new());
            for step in steps {
                match step {
                    Step::Insert(group, key) => {
                        model.insert((vec![key], KeyGroup(group.into())));
                        heads.insert(KeyGroup(group.into()), &[key]);
                    }
                    Step::Remove(group, key) => {
                        model.remove(&(vec![key], KeyGroup(group.into())));
                        heads.remove(KeyGroup(group.into()), &[key]);
                    }
                    Step::Pop => {
                        let found = first(&mut heads, &model, batch);
                        prop_assert_eq!(found.as_ref(), model.first());
                        if let Some((key, group)) = found {
                            model.pop_first();
                            heads.remove(group, &key);
                        }
                    }
                    Step::Forget => {
                        heads = new();
                    }
                }
                for group in RANGE.groups() {
                    for key in 0..=u8::MAX {
                        let known = heads.contains(group, &[key]);
                        prop_assert!(known.is_none_or(|known| known == model.contains(&(vec![key], group))));
                    }
                }
                prop_assert!(heads.kept() <= 2 * batch * 4);
            }
        }
    }
}
