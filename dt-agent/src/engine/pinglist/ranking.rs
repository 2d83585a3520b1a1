//! Which place one has among rivals, for each of many targets.
//!
//! From nothing this costs rivals times targets. From change to change it costs the rivals that came and went, so a rack of
//! five thousand beside five thousand racks of one is no burden either. What is remembered never shows in a result.

use std::cmp::Ordering;

use super::key::Key;

/// Remembers the places of one for the targets of the last time.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    own: Option<Key>,
    /// By key.
    rivals: Vec<Key>,
    /// By target's key, how many rivals are ahead.
    ranks: Vec<(Key, u32)>,
}

impl Ranking {
    /// How many of the rivals are ahead of `own` for each target: 0 is first. Rivals and targets come by key, each once.
    pub fn ranks(&mut self, own: Key, rivals: Vec<Key>, targets: Vec<Key>) -> &[(Key, u32)] {
        let (came, went) = differences(&self.rivals, &rivals);
        let is_small = self.own == Some(own) && came.len() + went.len() < rivals.len();
        let before = std::mem::take(&mut self.ranks);
        let mut before = before.into_iter().filter(|_| is_small).peekable();
        self.ranks.reserve_exact(targets.len());
        for target in targets {
            while before.next_if(|(key, _)| *key < target).is_some() {}
            let known = before.next_if(|(key, _)| *key == target);
            let rank = match known {
                Some((_, rank)) => rank + ahead(own, &came, target) - ahead(own, &went, target),
                None => ahead(own, &rivals, target),
            };
            self.ranks.push((target, rank));
        }
        self.own = Some(own);
        self.rivals = rivals;
        &self.ranks
    }
}

/// How many of these are more for a target than `own` is.
fn ahead(own: Key, rivals: &[Key], target: Key) -> u32 {
    let weight = own.weight_for(target);
    let mut count = 0;
    for rival in rivals {
        count += u32::from(rival.weight_for(target) > weight);
    }
    count
}

/// What is only in the second and what is only in the first of two ordered lists.
fn differences(before: &[Key], after: &[Key]) -> (Vec<Key>, Vec<Key>) {
    let (mut came, mut went) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (before, after);
    while let ([first_old, rest_old @ ..], [first_new, rest_new @ ..]) = (old, new) {
        match first_old.cmp(first_new) {
            Ordering::Less => {
                went.push(*first_old);
                old = rest_old;
            }
            Ordering::Greater => {
                came.push(*first_new);
                new = rest_new;
            }
            Ordering::Equal => (old, new) = (rest_old, rest_new),
        }
    }
    went.extend(old);
    came.extend(new);
    (came, went)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn keys(indices: &BTreeSet<u16>) -> Vec<Key> {
        let mut keys: Vec<_> = indices
            .iter()
            .map(|index| Key::of_member(&index.to_string()))
            .collect();
        keys.sort_unstable();
        keys
    }

    fn any_set() -> impl Strategy<Value = BTreeSet<u16>> {
        prop::collection::btree_set(0..40_u16, 0..30)
    }

    proptest! {
        #[test]
        fn what_is_remembered_does_not_show(steps in prop::collection::vec((any_set(), any_set()), 1..12)) {
            let own = Key::of_member("own");
            let mut ranking = Ranking::default();
            for (rivals, targets) in steps {
                let (rivals, targets) = (keys(&rivals), keys(&targets));
                let expected: Vec<_> = targets
                    .iter()
                    .map(|target| (*target, ahead(own, &rivals, *target)))
                    .collect();
                prop_assert_eq!(ranking.ranks(own, rivals, targets), &expected[..]);
            }
        }
    }
}
