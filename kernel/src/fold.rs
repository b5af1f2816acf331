//! The fold, as its pure twin `merkledb/fold.py` tells it: a sorted stream of items becomes a trie.

use crate::hash::{Hasher, ID_BYTES, Id, ValueDigest, put_uvarint, put_value_part};
use crate::path::{Codec, shared_depth};

pub const CHILD_BYTES: usize = 1 + ID_BYTES;

/// What stands at a path of the stream.
pub enum Item<R> {
    /// A leaf with its digest, or a whole subtree, which has none.
    Node(Id, Option<ValueDigest>),
    /// An opened branch: its own value, and the record that it had.
    Record(Option<ValueDigest>, Option<R>),
    /// A path that touches its place and adds nothing.
    Deleted,
}

/// A slot that an item touched: its child, or that it has none any more.
#[derive(Clone, Copy)]
struct Child {
    token: u8,
    id: Option<Id>,
}

/// What a branch has of its own: a value, and the record that it had in the store.
struct Own<R> {
    digest: Option<ValueDigest>,
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
    suffix: Vec<u8>,
}

impl<R: AsRef<[u8]>> Fold<R> {
    pub fn new(hasher: Hasher, codec: Codec) -> Fold<R> {
        Fold {
            hasher,
            codec,
            open: vec![Open { depth: None, first: 0, own: None }],
            children: Vec::new(),
            last: None,
            closed: Closed::default(),
            suffix: Vec::new(),
        }
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
                    Item::Node(id, _) => return Some(id),
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
            Item::Record(digest, record) => self.enter(Some(path.len()), Some(Own { digest, record })),
            Item::Node(_, digest) if is_above_next => {
                self.enter(Some(path.len()), Some(Own { digest, record: None }));
            }
            Item::Deleted if is_above_next => {
                self.enter(Some(path.len()), Some(Own { digest: None, record: None }));
            }
            Item::Node(id, _) => self.add(path, Some(id), shared),
            Item::Deleted => self.add(path, None, shared),
        }
        while shared < self.depth() {
            let depth = self.depth().unwrap_or(0);
            let id = self.close(&path[..depth]);
            self.add(path, id, shared);
        }
    }

    fn depth(&self) -> Option<usize> {
        self.open.last().and_then(|open| open.depth)
    }

    fn enter(&mut self, depth: Option<usize>, own: Option<Own<R>>) {
        self.open.push(Open { depth, first: self.children.len(), own });
    }

    /// Add a child on the way of `path` to the innermost open branch, or to a new one at the depth `shared`.
    fn add(&mut self, path: &[u8], id: Option<Id>, shared: Option<usize>) {
        if shared > self.depth() {
            self.enter(shared, None);
        }
        let token = self.depth().and_then(|depth| path.get(depth)).copied().unwrap_or(0);
        self.children.push(Child { token, id });
    }

    /// Close the innermost open branch, at `path`; return the id of what is left in its place.
    fn close(&mut self, path: &[u8]) -> Option<Id> {
        let open = self.open.pop()?;
        let digest = open.own.as_ref().and_then(|own| own.digest);
        let record = open.own.as_ref().and_then(|own| own.record.as_ref());
        let start = self.closed.records.len();
        // Two bytes are room for the count, which is not known before.
        self.closed.records.extend_from_slice(&[0, 0]);
        let body = start + 2;
        merge_children(&mut self.closed.records, &self.children[open.first..], record.map(AsRef::as_ref));
        self.children.truncate(open.first);
        let count = (self.closed.records.len() - body) / CHILD_BYTES;
        if digest.is_none() && count <= 1 {
            let id = self.closed.records.get(body + 1..body + CHILD_BYTES).and_then(|id| id.try_into().ok());
            self.closed.records.truncate(start);
            return id;
        }
        put_value_part(&mut self.closed.records, digest.as_ref());
        self.put_count(start, count);
        let id = self.hash(start, count, path);
        if count == 0 {
            // A leaf, whose value stands elsewhere.
            self.closed.records.truncate(start);
        } else {
            self.closed.paths.extend_from_slice(path);
            self.closed.path_ends.push(self.closed.paths.len());
            self.closed.record_ends.push(self.closed.records.len());
            self.closed.ids.push(id);
        }
        Some(id)
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

/// Return the children of a record, token and id for each; as much of them as there is.
pub fn children_of(record: &[u8]) -> &[u8] {
    let (at, count) = match record {
        [count, ..] if *count < 128 => (1, usize::from(*count)),
        [low, high, ..] => (2, usize::from(*low) - 128 + 128 * usize::from(*high)),
        _ => (record.len(), 0),
    };
    let end = (at + count * CHILD_BYTES).min(record.len());
    &record[at..end]
}

/// Append the children that are left: those touched by items, and the untouched ones of the record.
fn merge_children(to: &mut Vec<u8>, touched: &[Child], record: Option<&[u8]>) {
    let mut stored = record.map(children_of).unwrap_or_default().chunks_exact(CHILD_BYTES).peekable();
    for child in touched {
        while let Some(kept) = stored.next_if(|kept| kept[0] < child.token) {
            to.extend_from_slice(kept);
        }
        stored.next_if(|replaced| replaced[0] == child.token);
        if let Some(id) = &child.id {
            to.push(child.token);
            to.extend_from_slice(id);
        }
    }
    for kept in stored {
        to.extend_from_slice(kept);
    }
}
