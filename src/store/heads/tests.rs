//! The cache against a model, and its bounds in keys and bytes.

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
    // A timer has 9 bytes before its key. Twice as many as are read are kept, and none is forgotten
    // for its bytes.
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
