//! One step of the walk to where changes lie, as `merkledb/kernel/pure_walk.py` tells it.

use crate::fold::{CHILD_BYTES, HEAVY, Parts};
use crate::path::Codec;

/// The paths of the changes, ascending, end to end.
pub struct Changed {
    branch_factor: usize,
    paths: Vec<u8>,
    ends: Vec<usize>,
}

impl Changed {
    /// Return the paths of ascending keys.
    pub fn of<B: AsRef<[u8]>>(codec: Codec, keys: &[B]) -> Changed {
        let ends = Vec::with_capacity(keys.len());
        let mut changed = Changed { branch_factor: codec.branch_factor(), paths: Vec::new(), ends };
        for key in keys {
            codec.put_path(&mut changed.paths, key.as_ref());
            changed.ends.push(changed.paths.len());
        }
        changed
    }

    fn path(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.paths[start..self.ends[index]]
    }

    /// Return the first of [low, high) that is not like those before it, which all are as `is_like` says.
    fn first_unlike(&self, mut low: usize, mut high: usize, is_like: impl Fn(&[u8]) -> bool) -> usize {
        while low < high {
            let middle = usize::midpoint(low, high);
            if is_like(self.path(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// What a step found, as columns; see the pure kernel's `Step`.
#[derive(Default)]
pub struct Step {
    pub opened: Vec<usize>,
    pub own: Vec<Option<usize>>,
    pub digests: Vec<Option<Vec<u8>>>,
    pub weights: Vec<u8>,
    pub slots: Vec<Vec<u8>>,
    pub ids: Vec<Vec<u8>>,
    pub lows: Vec<usize>,
    pub highs: Vec<usize>,
    pub bucket_slots: Vec<Vec<u8>>,
    pub bucket_weights: Vec<u8>,
}

/// A branch's row is no record, or changes are asked for that are none.
#[derive(Debug)]
pub struct Unreadable;

impl Step {
    /// Open the branch number `number` as far as any of the changes [low, high) lies at or below it.
    pub fn open(
        &mut self,
        changed: &Changed,
        number: usize,
        path: &[u8],
        row: &[u8],
        (low, high): (usize, usize),
    ) -> Result<(), Unreadable> {
        if low > high || high > changed.ends.len() {
            return Err(Unreadable);
        }
        let mut low = changed.first_unlike(low, high, |change| change < path);
        let high = changed.first_unlike(low, high, |change| change.starts_with(path));
        if low == high {
            return Ok(());
        }
        let parts = Parts::of(row).ok_or(Unreadable)?;
        if parts.slots().last().is_some_and(|slot| usize::from(slot.token) >= changed.branch_factor) {
            return Err(Unreadable);
        }
        let is_changed = changed.path(low) == path;
        self.opened.push(number);
        self.own.push(is_changed.then_some(low));
        self.digests.push(parts.digest().map(<[u8]>::to_vec));
        self.weights.push(parts.weights.last().copied().unwrap_or(HEAVY));
        low += usize::from(is_changed);
        let mut children = parts.children.chunks_exact(CHILD_BYTES).zip(parts.weights).peekable();
        while low < high {
            let slot = changed.path(low).get(..=path.len()).ok_or(Unreadable)?;
            let end = changed.first_unlike(low, high, |change| change.starts_with(slot));
            while children.next_if(|(child, _)| child[0] < slot[path.len()]).is_some() {}
            if let Some((child, weight)) = children.next_if(|(child, _)| child[0] == slot[path.len()]) {
                if *weight == HEAVY {
                    self.slots.push(slot.to_vec());
                    self.ids.push(child[1..].to_vec());
                    self.lows.push(low);
                    self.highs.push(end);
                } else {
                    self.bucket_slots.push(slot.to_vec());
                    self.bucket_weights.push(*weight);
                }
            }
            low = end;
        }
        Ok(())
    }
}
