//! The leaves of pairs.

use std::thread;

use crate::fold::{Item, weight_of};
use crate::hash::{Hasher, Id, ValueDigest, leaf_id};
use crate::path::Codec;

/// Pairs as items of the fold, in columns.
pub struct Leaves {
    paths: Vec<u8>,
    path_ends: Vec<usize>,
    hashed: Vec<(ValueDigest, Id)>,
    pub weights: Vec<u8>,
}

impl Leaves {
    pub fn of<B: AsRef<[u8]> + Sync>(hasher: Hasher, codec: Codec, keys: &[B], values: &[B]) -> Leaves {
        let key_bytes: usize = keys.iter().map(|key| key.as_ref().len()).sum();
        let mut leaves = Leaves {
            paths: Vec::with_capacity(key_bytes * codec.tokens_per_byte),
            path_ends: Vec::with_capacity(keys.len()),
            hashed: hash_all(hasher, keys, values),
            weights: values.iter().map(|value| weight_of(value.as_ref())).collect(),
        };
        for key in keys {
            codec.put_path(&mut leaves.paths, key.as_ref());
            leaves.path_ends.push(leaves.paths.len());
        }
        leaves
    }

    pub fn path(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.path_ends[index - 1] };
        &self.paths[start..self.path_ends[index]]
    }

    pub fn item<R>(&self, index: usize) -> Item<R> {
        let (digest, id) = self.hashed[index];
        Item::Node(id, Some(digest), self.weights[index])
    }

    pub fn id(&self, index: usize) -> &Id {
        &self.hashed[index].1
    }

    pub fn digest(&self, index: usize) -> &ValueDigest {
        &self.hashed[index].0
    }

    pub fn len(&self) -> usize {
        self.hashed.len()
    }
}

/// More than so many pairs are hashed by two threads, for which each has work for a millisecond.
const PAIRS_A_THREAD: usize = 4096;

/// Return the digest of each value, and the id of each leaf.
pub fn hash_all<B: AsRef<[u8]> + Sync>(hasher: Hasher, keys: &[B], values: &[B]) -> Vec<(ValueDigest, Id)> {
    let hash = |keys: &[B], values: &[B]| -> Vec<(ValueDigest, Id)> {
        let mut scratch = Vec::new();
        let leaf = |(key, value): (&B, &B)| {
            let digest = ValueDigest::of_value(hasher, value.as_ref());
            (digest, leaf_id(hasher, key.as_ref(), &digest, &mut scratch))
        };
        keys.iter().zip(values).map(leaf).collect()
    };
    if keys.len() < 2 * PAIRS_A_THREAD {
        return hash(keys, values);
    }
    let middle = keys.len() / 2;
    let ((first_keys, last_keys), (first_values, last_values)) =
        (keys.split_at(middle), values.split_at(middle.min(values.len())));
    thread::scope(|scope| {
        // The system may have no thread to give; then this one does all the work.
        let last = thread::Builder::new().spawn_scoped(scope, || hash(last_keys, last_values)).ok();
        let mut leaves = hash(first_keys, first_values);
        let last = last.and_then(|thread| thread.join().ok());
        leaves.extend(last.unwrap_or_else(|| hash(last_keys, last_values)));
        leaves
    })
}
