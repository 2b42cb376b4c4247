//! Tracks which joined objects are still needed. A joined object belongs to no single store, so no
//! store can retire it alone.

use std::collections::{BTreeSet, HashMap};

use crate::ids::SubtaskIndex;
use crate::remote::ObjectName;

/// The objects that this process has written for its subtasks, with the subtasks that refer to
/// them.
#[derive(Debug, Default)]
pub(super) struct Owned {
    needed: HashMap<ObjectName, BTreeSet<SubtaskIndex>>,
}

impl Owned {
    /// An object is there for `subtasks`. Without any it is retired at once.
    pub(super) fn add(&mut self, object: ObjectName, subtasks: BTreeSet<SubtaskIndex>) -> Vec<ObjectName> {
        if subtasks.is_empty() {
            return vec![object];
        }
        self.needed.insert(object, subtasks);
        Vec::new()
    }

    /// A store no longer refers to `objects`. Returns those that no store refers to any more, once.
    /// Objects of other instances may be among `objects`; they are left out.
    pub(super) fn release(&mut self, subtask: SubtaskIndex, objects: Vec<ObjectName>) -> Vec<ObjectName> {
        let released = |object: &ObjectName| {
            let needed = self.needed.get_mut(object);
            let last = needed.is_some_and(|subtasks| subtasks.remove(&subtask) && subtasks.is_empty());
            if last {
                self.needed.remove(object);
            }
            last
        };
        objects.into_iter().filter(released).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Nonce};
    use crate::remote::DataKind;

    fn object(n: u64) -> ObjectName {
        ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce::default(), DataKind::Pack, n)
    }

    fn subtasks<const N: usize>(subtasks: [u32; N]) -> BTreeSet<SubtaskIndex> {
        subtasks.map(SubtaskIndex).into()
    }

    #[test]
    fn i3_an_object_is_retired_when_the_last_subtask_has_let_go_of_it() {
        let mut owned = Owned::default();
        assert_eq!(owned.add(object(1), subtasks([0, 1])), []);
        assert_eq!(owned.add(object(2), subtasks([1])), []);
        assert_eq!(owned.release(SubtaskIndex(0), vec![object(1)]), []);
        assert_eq!(owned.release(SubtaskIndex(0), vec![object(1)]), [], "it has done so before");
        assert_eq!(owned.release(SubtaskIndex(2), vec![object(1)]), [], "it has nothing in it");
        assert_eq!(owned.release(SubtaskIndex(1), vec![object(1), object(2), object(3)]), [1, 2].map(object));
        assert_eq!(owned.release(SubtaskIndex(1), vec![object(1)]), [], "once");
        assert!(owned.needed.is_empty());
        assert_eq!(owned.add(object(4), subtasks([])), [object(4)], "it may be there, and is nobody's");
    }
}
