//! Rows of the history of branches, as `merkledb/formats/branch_delta.py` has them.

use std::collections::HashSet;

use crate::fold::{CHILD_BYTES, Parts};
use crate::hash::put_uvarint;

/// A row, and the slots of the children that changed, in whose places it may have to say more.
pub struct DeltaRow {
    pub row: Vec<u8>,
    pub slots: Vec<Vec<u8>>,
}

/// Says of a part of a place that it is the rest of a key.
const KEY: u16 = 1 << 15;

impl DeltaRow {
    /// Add a key, of which `rest` is what the slot does not tell, to the place of the bucket under a slot.
    pub fn add_key(&mut self, slot: &[u8], rest: &[u8]) {
        self.row.extend(slot.last());
        self.row.extend_from_slice(&(KEY | rest.len() as u16).to_be_bytes());
        self.row.extend_from_slice(rest);
    }
}

/// Return the row of a branch that changes, or goes.
///
/// `path` is the branch's, `record` what it is before the change, `new_record` what it is afterwards.
pub fn delta_row(path: &[u8], record: &[u8], new_record: Option<&[u8]>) -> DeltaRow {
    let Parts { children, value, .. } = Parts::cut(record);
    let new_children = new_record.map(Parts::cut).unwrap_or_default().children;
    let tokens = || children.chunks_exact(CHILD_BYTES).map(|child| child[0]);
    let is_same_shape = tokens().eq(new_children.chunks_exact(CHILD_BYTES).map(|child| child[0]));
    let kept: HashSet<&[u8]> =
        if is_same_shape { HashSet::new() } else { new_children.chunks_exact(CHILD_BYTES).collect() };
    let mut changed = Vec::new();
    for (index, child) in children.chunks_exact(CHILD_BYTES).enumerate() {
        let at = index * CHILD_BYTES;
        let is_kept =
            if is_same_shape { child == &new_children[at..at + CHILD_BYTES] } else { kept.contains(child) };
        if !is_kept {
            changed.push(child);
        }
    }
    let mut row = Vec::with_capacity(8 + record.len());
    put_uvarint(&mut row, children.len() / CHILD_BYTES);
    row.extend(tokens());
    row.extend_from_slice(value);
    put_uvarint(&mut row, changed.len());
    let mut slots = Vec::new();
    for child in changed {
        row.extend_from_slice(child);
        let mut slot = Vec::with_capacity(path.len() + 1);
        slot.extend_from_slice(path);
        slot.push(child[0]);
        slots.push(slot);
    }
    DeltaRow { row, slots }
}
