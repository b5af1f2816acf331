//! The fold of a whole stream at once, whose items come in any order.

use crate::fold::{Closed, Fold, Item, OutOfOrder};
use crate::hash::{Hasher, Id};
use crate::leaves::Leaves;
use crate::path::Codec;

/// Fold items and pairs, in any order; return the root, or None of an empty trie, and the branches.
pub fn fold_all<B: AsRef<[u8]> + Sync, R: AsRef<[u8]>>(
    hasher: Hasher,
    codec: Codec,
    paths: &[B],
    items: Vec<Item<R>>,
    keys: &[B],
    values: &[B],
) -> Result<(Option<Id>, Closed), OutOfOrder> {
    let leaves = Leaves::of(hasher, codec, keys, values);
    let mut items: Vec<Option<Item<R>>> = items.into_iter().map(Some).collect();
    let path_of = |index: usize| -> &[u8] {
        if index < leaves.len() { leaves.path(index) } else { paths[index - leaves.len()].as_ref() }
    };
    let mut order: Vec<usize> = (0..leaves.len() + paths.len().min(items.len())).collect();
    order.sort_by(|one, other| path_of(*one).cmp(path_of(*other)));
    let mut fold = Fold::new(hasher, codec, false);
    for (number, index) in order.iter().enumerate() {
        let item = match index.checked_sub(leaves.len()) {
            None => leaves.item(*index),
            Some(index) => items[index].take().unwrap_or(Item::Deleted),
        };
        let next = order.get(number + 1).map(|next| path_of(*next));
        fold.feed_before(path_of(*index), item, next)?;
    }
    Ok((fold.finish(), fold.closed))
}
