//! Rows of the history of branches, as `merkledb/past_branch.py` has them.

use std::collections::HashSet;

use crate::fold::{CHILD_BYTES, children_of};
use crate::hash::put_uvarint;

/// A row without the places of its children, and of which children it wants to know the place.
pub struct PastRow {
    pub row: Vec<u8>,
    pub slots: Vec<Vec<u8>>,
}

/// Return the row of a branch that changes, or goes.
///
/// `path` is the branch's, `record` what it is before the change, `new_record` what it is afterwards, and
/// `opened` holds the paths of branches that are known to be right at their slot.
pub fn past_row(path: &[u8], record: &[u8], new_record: Option<&[u8]>, opened: &HashSet<&[u8]>) -> PastRow {
    let children = children_of(record);
    let new_children = new_record.map(children_of).unwrap_or_default();
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
    row.extend_from_slice(value_part_of(record));
    put_uvarint(&mut row, changed.len());
    let mut slots = Vec::new();
    for child in changed {
        row.extend_from_slice(child);
        let mut slot = Vec::with_capacity(path.len() + 1);
        slot.extend_from_slice(path);
        slot.push(child[0]);
        if !opened.contains(slot.as_slice()) {
            slots.push(slot);
        }
    }
    PastRow { row, slots }
}

/// Return what stands behind the children of a record.
fn value_part_of(record: &[u8]) -> &[u8] {
    let header = if record.first().is_some_and(|count| *count >= 128) { 2 } else { 1 };
    record.get(header + children_of(record).len()..).unwrap_or_default()
}
