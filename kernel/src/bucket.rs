//! The branches of a bucket, which are not stored: they follow from its pairs.

use crate::fold::{Closed, Fold, OutOfOrder};
use crate::hash::Hasher;
use crate::leaves::Leaves;
use crate::path::Codec;

/// Return all branches that pairs make.
pub fn branches<B: AsRef<[u8]> + Sync>(
    hasher: Hasher,
    codec: Codec,
    keys: &[B],
    values: &[B],
) -> Result<Closed, OutOfOrder> {
    let leaves = Leaves::of(hasher, codec, keys, values);
    let mut fold: Fold<&[u8]> = Fold::new(hasher, codec, true);
    for index in 0..leaves.len() {
        let next = (index + 1 < leaves.len()).then(|| leaves.path(index + 1));
        fold.feed_before(leaves.path(index), leaves.item(index), next)?;
    }
    fold.finish();
    Ok(fold.closed)
}
