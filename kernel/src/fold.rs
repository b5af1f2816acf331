//! The fold, as the pure kernel has it in `merkledb/kernel/pure_fold.py`: a sorted stream of items becomes a trie.

use crate::hash::{Hasher, ID_BYTES, Id, ValueDigest, put_uvarint, put_value_part};
use crate::path::{Codec, shared_depth};

pub const CHILD_BYTES: usize = 1 + ID_BYTES;
/// The most that a subtree weighs whose branches are not stored, see `merkledb/formats/branch_record.py`.
pub const MAX_WEIGHT: usize = 8;
/// The weight of everything that weighs more.
pub const HEAVY: u8 = 255;
/// A value weighs one, and one more for so many bytes.
const UNIT_BYTES: usize = 64;

/// Return the weight of what weighs so much in all.
fn capped(weight: usize) -> u8 {
    if weight <= MAX_WEIGHT { weight as u8 } else { HEAVY }
}

/// Return the weight of one value.
pub fn weight_of(value: &[u8]) -> u8 {
    capped(1 + value.len() / UNIT_BYTES)
}

/// What stands at a path of the stream.
pub enum Item<R> {
    /// A leaf with its digest, or a whole subtree, which has none; and its weight.
    Node(Id, Option<ValueDigest>, u8),
    /// An opened branch: its own value and the weight of that, and the record that it had.
    Record(Option<ValueDigest>, u8, Option<R>),
    /// A path that touches its place and adds nothing.
    Deleted,
}

/// A slot that an item touched: its child, or that it has none any more.
#[derive(Clone, Copy)]
struct Child {
    token: u8,
    id: Option<Id>,
    weight: u8,
}

/// What a branch has of its own: a value, and the record that it had in the store.
struct Own<R> {
    digest: Option<ValueDigest>,
    weight: u8,
    record: Option<R>,
}

/// A branch that is still open.
struct Open<R> {
    /// Tokens of its path; None at the place of the root.
    depth: Option<usize>,
    /// Where its children begin on the stack.
    first: usize,
    own: Option<Own<R>>,
}

/// Branches that closed, as columns end to end, children before parents.
#[derive(Default)]
pub struct Closed {
    pub paths: Vec<u8>,
    pub path_ends: Vec<usize>,
    pub records: Vec<u8>,
    pub record_ends: Vec<usize>,
    pub ids: Vec<Id>,
}

impl Closed {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn path(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.path_ends[index - 1] };
        &self.paths[start..self.path_ends[index]]
    }

    pub fn record(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.record_ends[index - 1] };
        &self.records[start..self.record_ends[index]]
    }
}

/// The stream is not in strictly ascending order.
#[derive(Debug)]
pub struct OutOfOrder;

/// One left-to-right fold.
pub struct Fold<R> {
    hasher: Hasher,
    codec: Codec,
    open: Vec<Open<R>>,
    children: Vec<Child>,
    /// The last item waits for the next one, which shows how many tokens they share.
    last: Option<(Vec<u8>, Item<R>)>,
    pub closed: Closed,
    /// Whether the branches of buckets are kept too.
    with_buckets: bool,
    suffix: Vec<u8>,
    weights: Vec<u8>,
}

impl<R: AsRef<[u8]>> Fold<R> {
    pub fn new(hasher: Hasher, codec: Codec, with_buckets: bool) -> Fold<R> {
        Fold {
            hasher,
            codec,
            open: vec![Open { depth: None, first: 0, own: None }],
            children: Vec::new(),
            last: None,
            closed: Closed::default(),
            with_buckets,
            suffix: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// Take the next item of the stream, when the one after it is known, too; None at the end.
    ///
    /// For a caller that has all paths at hand, so that none has to be kept.
    pub fn feed_before(&mut self, path: &[u8], item: Item<R>, next: Option<&[u8]>) -> Result<(), OutOfOrder> {
        let Some(next) = next else {
            self.last = Some((path.to_vec(), item));
            return Ok(());
        };
        if next <= path {
            return Err(OutOfOrder);
        }
        self.step(path, item, Some(shared_depth(path, next)));
        Ok(())
    }

    /// Take the next item of the stream.
    pub fn feed(&mut self, path: &[u8], item: Item<R>) -> Result<(), OutOfOrder> {
        if let Some((mut last_path, last_item)) = self.last.take() {
            if path <= last_path.as_slice() {
                return Err(OutOfOrder);
            }
            let shared = shared_depth(&last_path, path);
            self.step(&last_path, last_item, Some(shared));
            last_path.clear();
            last_path.extend_from_slice(path);
            self.last = Some((last_path, item));
        } else {
            self.last = Some((path.to_vec(), item));
        }
        Ok(())
    }

    /// End the stream; return the root, or None of an empty trie.
    pub fn finish(&mut self) -> Option<Id> {
        if let Some((path, item)) = self.last.take() {
            if path.is_empty() {
                // The one item of the whole stream, at the empty path, which has no token.
                match item {
                    Item::Node(id, ..) => return Some(id),
                    Item::Deleted => return None,
                    Item::Record(..) => self.step(&path, item, None),
                }
            } else {
                self.step(&path, item, None);
            }
        }
        self.children.last().and_then(|child| child.id)
    }

    /// Fold one item, which shares so many tokens with its successor; None at the end.
    fn step(&mut self, path: &[u8], item: Item<R>, shared: Option<usize>) {
        let is_above_next = shared == Some(path.len());
        match item {
            Item::Record(digest, weight, record) => {
                self.enter(Some(path.len()), Some(Own { digest, weight, record }));
            }
            Item::Node(_, digest, weight) if is_above_next => {
                self.enter(Some(path.len()), Some(Own { digest, weight, record: None }));
            }
            Item::Deleted if is_above_next => {
                self.enter(Some(path.len()), Some(Own { digest: None, weight: 0, record: None }));
            }
            Item::Node(id, _, weight) => self.add(path, Some(id), weight, shared),
            Item::Deleted => self.add(path, None, 0, shared),
        }
        while shared < self.depth() {
            let depth = self.depth().unwrap_or(0);
            let (id, weight) = self.close(&path[..depth]);
            self.add(path, id, weight, shared);
        }
    }

    fn depth(&self) -> Option<usize> {
        self.open.last().and_then(|open| open.depth)
    }

    fn enter(&mut self, depth: Option<usize>, own: Option<Own<R>>) {
        self.open.push(Open { depth, first: self.children.len(), own });
    }

    /// Add a child on the way of `path` to the innermost open branch, or to a new one at the depth `shared`.
    fn add(&mut self, path: &[u8], id: Option<Id>, weight: u8, shared: Option<usize>) {
        if shared > self.depth() {
            self.enter(shared, None);
        }
        let token = self.depth().and_then(|depth| path.get(depth)).copied().unwrap_or(0);
        self.children.push(Child { token, id, weight });
    }

    /// Close the innermost open branch, at `path`; return the id and the weight of what is left in its place.
    fn close(&mut self, path: &[u8]) -> (Option<Id>, u8) {
        let Some(open) = self.open.pop() else { return (None, 0) };
        let (digest, own_weight, record) = match &open.own {
            Some(own) => (own.digest, own.weight, own.record.as_ref()),
            None => (None, 0, None),
        };
        let start = self.closed.records.len();
        // Two bytes are room for the count, which is not known before.
        self.closed.records.extend_from_slice(&[0, 0]);
        let body = start + 2;
        self.weights.clear();
        let touched = &self.children[open.first..];
        merge_children(&mut self.closed.records, &mut self.weights, touched, record.map(AsRef::as_ref));
        self.children.truncate(open.first);
        let count = (self.closed.records.len() - body) / CHILD_BYTES;
        if digest.is_some() {
            self.weights.push(own_weight);
        }
        let weight = capped(self.weights.iter().copied().map(usize::from).sum());
        if digest.is_none() && count <= 1 {
            let id = self.closed.records.get(body + 1..body + CHILD_BYTES).and_then(|id| id.try_into().ok());
            self.closed.records.truncate(start);
            return (id, weight);
        }
        put_value_part(&mut self.closed.records, digest.as_ref());
        self.put_count(start, count);
        let id = self.hash(start, count, path);
        // Without children it is a leaf, whose value stands elsewhere.
        if count == 0 || (weight != HEAVY && !self.with_buckets) {
            self.closed.records.truncate(start);
        } else {
            self.closed.records.extend_from_slice(&self.weights);
            self.closed.paths.extend_from_slice(path);
            self.closed.path_ends.push(self.closed.paths.len());
            self.closed.record_ends.push(self.closed.records.len());
            self.closed.ids.push(id);
        }
        (Some(id), weight)
    }

    /// Put the count of children before a record that begins at `start` with two bytes of room for it.
    fn put_count(&mut self, start: usize, count: usize) {
        let records = &mut self.closed.records;
        if count < 128 {
            records[start] = count as u8;
            records.copy_within(start + 2.., start + 1);
            records.pop();
        } else {
            records[start] = (count & 127) as u8 | 128;
            records[start + 1] = (count >> 7) as u8;
        }
    }

    /// Return the id of the branch whose record is the last one, from `start` on.
    fn hash(&mut self, start: usize, count: usize, path: &[u8]) -> Id {
        self.suffix.clear();
        put_uvarint(&mut self.suffix, self.codec.token_bits * path.len());
        self.codec.put_packed(&mut self.suffix, path);
        let records = &mut self.closed.records;
        if self.codec.token_bits == 8 && count > 0 {
            let preimage = widened(&records[start..], count, &self.suffix);
            return self.hasher.hash(&preimage);
        }
        let end = records.len();
        records.extend_from_slice(&self.suffix);
        let id = self.hasher.hash(&records[start..]);
        records.truncate(end);
        id
    }
}

/// Return what a record contributes to its branch's id, with tokens from 128 on as uvarints, and a suffix.
fn widened(record: &[u8], count: usize, suffix: &[u8]) -> Vec<u8> {
    let header = if count < 128 { 1 } else { 2 };
    let (children, value_part) = record[header..].split_at(count * CHILD_BYTES);
    let mut preimage = Vec::with_capacity(record.len() + count + suffix.len());
    preimage.extend_from_slice(&record[..header]);
    for child in children.chunks_exact(CHILD_BYTES) {
        put_uvarint(&mut preimage, usize::from(child[0]));
        preimage.extend_from_slice(&child[1..]);
    }
    preimage.extend_from_slice(value_part);
    preimage.extend_from_slice(suffix);
    preimage
}

/// A child of a record.
pub struct Slot<'r> {
    pub token: u8,
    pub id: &'r [u8],
    pub weight: u8,
}

/// A record cut into its parts.
#[derive(Clone, Copy, Default)]
pub struct Parts<'r> {
    /// Token and id of each child.
    pub children: &'r [u8],
    /// What stands after the children: the branch's own value.
    pub value: &'r [u8],
    /// The weight of each child, and of the own value, if any.
    pub weights: &'r [u8],
}

impl<'r> Parts<'r> {
    /// Return the parts of a row, as far as it can be read.
    pub fn cut(row: &'r [u8]) -> Parts<'r> {
        let (at, count) = match row {
            [count, ..] if *count < 128 => (1, usize::from(*count)),
            [low, high, ..] => (2, usize::from(*low) - 128 + 128 * usize::from(*high)),
            _ => (row.len(), 0),
        };
        let middle = (at + count * CHILD_BYTES).min(row.len());
        let (children, rest) = (&row[at..middle], &row[middle..]);
        let end = match rest {
            [1, length, ..] => rest.len().min(2 + usize::from(*length)),
            _ => rest.len().min(1),
        };
        Parts { children, value: &rest[..end], weights: &rest[end..] }
    }

    /// Return the parts of a row; None when it is no record.
    pub fn of(row: &'r [u8]) -> Option<Parts<'r>> {
        let parts = Parts::cut(row);
        let tokens = || parts.children.chunks_exact(CHILD_BYTES).map(|child| child[0]);
        let is_value = match parts.value {
            [0] => true,
            [1, length, digest @ ..] => usize::from(*length) == digest.len() && digest.len() <= ID_BYTES,
            _ => false,
        };
        let count = tokens().len();
        let is_whole = parts.children.len() == count * CHILD_BYTES && is_value;
        let is_record = is_whole
            && tokens().zip(tokens().skip(1)).all(|(one, other)| one < other)
            && parts.weights.len() == count + usize::from(parts.digest().is_some())
            && parts
                .weights
                .iter()
                .all(|weight| *weight == HEAVY || (1..=MAX_WEIGHT).contains(&usize::from(*weight)));
        is_record.then_some(parts)
    }

    /// Return the children with their weights.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'r>> + use<'r> {
        let children = self.children.chunks_exact(CHILD_BYTES).zip(self.weights);
        children.map(|(child, weight)| Slot { token: child[0], id: &child[1..], weight: *weight })
    }

    /// Return the digest of the branch's own value.
    pub fn digest(&self) -> Option<&'r [u8]> {
        if self.value.first() == Some(&1) { self.value.get(2..) } else { None }
    }
}

/// Append the children that are left, and their weights: those touched by items, and the untouched ones of
/// the record.
fn merge_children(to: &mut Vec<u8>, weights: &mut Vec<u8>, touched: &[Child], record: Option<&[u8]>) {
    let parts = record.map(Parts::cut).unwrap_or_default();
    let mut stored = parts.children.chunks_exact(CHILD_BYTES).zip(parts.weights.iter().copied()).peekable();
    for child in touched {
        while let Some((kept, weight)) = stored.next_if(|(kept, _)| kept[0] < child.token) {
            to.extend_from_slice(kept);
            weights.push(weight);
        }
        stored.next_if(|(replaced, _)| replaced[0] == child.token);
        if let Some(id) = &child.id {
            to.push(child.token);
            to.extend_from_slice(id);
            weights.push(child.weight);
        }
    }
    for (kept, weight) in stored {
        to.extend_from_slice(kept);
        weights.push(weight);
    }
}
