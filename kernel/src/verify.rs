//! The verification of a range proof, rule by rule as in the pure kernel, `merkledb/kernel/pure_verify.py`.

use crate::fold::{Closed, Fold, HEAVY, Item};
use crate::hash::{Hasher, ID_BYTES, Id, ValueDigest, leaf_id};
use crate::leaves::Leaves;
use crate::path::{Codec, shared_depth};

/// One node of a proof's boundary; its form was checked, and nothing else.
pub struct Branch<B> {
    pub path: B,
    pub digest: Option<B>,
    /// Token and id; None for a token that is no byte, and for an id that has not its length.
    pub children: Vec<(Option<u8>, Option<Id>)>,
}

/// A proof and what was asked for.
pub struct Request<B> {
    pub hasher: Hasher,
    pub codec: Codec,
    pub limits: Limits,
    pub keys: Vec<B>,
    pub values: Vec<B>,
    pub proof_end: Option<B>,
    pub boundary: Vec<Branch<B>>,
    pub root: B,
    pub start: Option<B>,
    pub end: Option<B>,
}

/// What bounds a proof.
#[allow(clippy::struct_field_names)]
pub struct Limits {
    pub max_path_tokens: usize,
    pub max_value_bytes: usize,
    pub max_keys: Option<usize>,
    pub max_bytes: Option<usize>,
}

/// Which rule a proof breaks, by the name of its reason, and where.
pub struct Rejection {
    pub reason: &'static str,
    pub detail: String,
}

impl Rejection {
    fn new(reason: &'static str, detail: impl Into<String>) -> Rejection {
        Rejection { reason, detail: detail.into() }
    }
}

/// What a proof has shown.
pub struct Shown {
    pub closed: Closed,
    /// The closed branches wholly inside the range that are stored, ascending.
    pub inside: Vec<usize>,
    /// The topmost nodes inside the range, ascending.
    pub top_nodes: Vec<Top>,
    /// What each pair is as an item of the fold.
    pub leaves: Leaves,
}

/// A topmost node inside the range: a closed branch that is stored, or a leaf, by its number.
pub enum Top {
    Branch(usize),
    Leaf(usize),
}

/// The stubs of a boundary, and its values as leaves, ascending by path.
struct Outside {
    /// Their paths, in any order, end to end.
    paths: Vec<u8>,
    items: Vec<OutsideItem>,
}

struct OutsideItem {
    /// Where its path is.
    path: std::ops::Range<usize>,
    /// The beginning of its path as a number, which is compared at once.
    head: u128,
    id: Id,
    digest: Option<ValueDigest>,
}

impl Outside {
    fn path(&self, index: usize) -> &[u8] {
        &self.paths[self.items[index].path.clone()]
    }

    fn item<R>(&self, index: usize) -> Item<R> {
        let item = &self.items[index];
        Item::Node(item.id, item.digest, HEAVY)
    }

    fn push(&mut self, path: &[u8], token: Option<u8>, id: Id, digest: Option<ValueDigest>) {
        let start = self.paths.len();
        self.paths.extend_from_slice(path);
        self.paths.extend(token);
        let mut head = [0; size_of::<u128>()];
        for (byte, token) in head.iter_mut().zip(&self.paths[start..]) {
            *byte = *token;
        }
        let head = u128::from_be_bytes(head);
        self.items.push(OutsideItem { path: start..self.paths.len(), head, id, digest });
    }
}

/// Return what a proof shows, or why it does not.
pub fn verify<B: AsRef<[u8]> + Sync>(request: &Request<B>) -> Result<Shown, Rejection> {
    let limits = &request.limits;
    if let Some(max_keys) = limits.max_keys.filter(|most| request.keys.len() > *most) {
        return Err(Rejection::new("TOO_MANY_KEYS", format!("{} of at most {max_keys}", request.keys.len())));
    }
    // Before anything that takes longer for a larger proof than counting its bytes does.
    if let Some(max_bytes) = limits.max_bytes {
        let size = encoded_bytes(request);
        if size > max_bytes {
            return Err(Rejection::new("TOO_MANY_BYTES", format!("{size} of at most {max_bytes}")));
        }
    }
    check_pairs(request)?;
    check_bounds(request)?;
    let start = request.start.as_ref().map(|key| path_of(request.codec, key.as_ref()));
    let end = request.proof_end.as_ref().map(|key| path_of(request.codec, key.as_ref()));
    let (start, end) = (start.as_deref(), end.as_deref());
    check_boundary(request, start, end)?;
    fold(request, start, end)
}

fn path_of(codec: Codec, key: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(key.len() * codec.tokens_per_byte);
    codec.put_path(&mut path, key);
    path
}

fn check_pairs<B: AsRef<[u8]>>(request: &Request<B>) -> Result<(), Rejection> {
    if !request.keys.windows(2).all(|pair| pair[0].as_ref() < pair[1].as_ref()) {
        return Err(Rejection::new("KEYS_OUT_OF_ORDER", ""));
    }
    let max_key_bytes = request.limits.max_path_tokens / request.codec.tokens_per_byte;
    if request.keys.iter().any(|key| key.as_ref().len() > max_key_bytes) {
        return Err(Rejection::new("KEY_TOO_LONG", format!("over {max_key_bytes} bytes")));
    }
    let max_value_bytes = request.limits.max_value_bytes;
    if request.values.iter().any(|value| value.as_ref().len() > max_value_bytes) {
        return Err(Rejection::new("VALUE_TOO_LONG", format!("over {max_value_bytes} bytes")));
    }
    Ok(())
}

fn check_bounds<B: AsRef<[u8]>>(request: &Request<B>) -> Result<(), Rejection> {
    let end = request.end.as_ref().map(AsRef::as_ref);
    let proof_end = request.proof_end.as_ref().map(AsRef::as_ref);
    let (first, last) = (request.keys.first().map(AsRef::as_ref), request.keys.last().map(AsRef::as_ref));
    let is_before = first.zip(request.start.as_ref()).is_some_and(|(key, start)| key < start.as_ref());
    let is_after = last.zip(end).is_some_and(|(key, end)| key > end);
    if is_before || is_after {
        return Err(Rejection::new("KEY_OUTSIDE_RANGE", ""));
    }
    if proof_end == end {
        return Ok(());
    }
    match last {
        None => Err(Rejection::new("NO_PROGRESS", "it carries no pair and ends before the requested end")),
        Some(last) if proof_end != Some(last) => Err(Rejection::new("WRONG_END", "")),
        Some(_) => Ok(()),
    }
}

fn check_boundary<B: AsRef<[u8]>>(
    request: &Request<B>,
    start: Option<&[u8]>,
    end: Option<&[u8]>,
) -> Result<(), Rejection> {
    let mut before: Option<&[u8]> = None;
    for branch in &request.boundary {
        let path = branch.path.as_ref();
        if before.is_some_and(|before| path <= before) {
            return Err(Rejection::new("BOUNDARY_OUT_OF_ORDER", at_path(path)));
        }
        check_branch(request, branch, start, end)?;
        before = Some(path);
    }
    Ok(())
}

fn check_branch<B: AsRef<[u8]>>(
    request: &Request<B>,
    branch: &Branch<B>,
    start: Option<&[u8]>,
    end: Option<&[u8]>,
) -> Result<(), Rejection> {
    let (path, codec) = (branch.path.as_ref(), request.codec);
    let most = request.limits.max_path_tokens;
    if path.len() > most || (path.len() == most && !branch.children.is_empty()) {
        return Err(Rejection::new("PATH_TOO_LONG", format!("over {most} tokens")));
    }
    if branch.digest.is_none() && branch.children.is_empty() {
        return Err(Rejection::new("EMPTY_BRANCH", at_path(path)));
    }
    let is_token = |token: u8| usize::from(token) < codec.branch_factor();
    let are_tokens = branch.children.iter().all(|(token, _)| token.is_some_and(is_token));
    if !are_tokens || !path.iter().copied().all(is_token) {
        return Err(Rejection::new("TOKEN_OUT_OF_RANGE", at_path(path)));
    }
    if !branch.children.windows(2).all(|pair| pair[0].0 < pair[1].0) {
        return Err(Rejection::new("TOKENS_OUT_OF_ORDER", at_path(path)));
    }
    if branch.children.iter().any(|(_, id)| id.is_none()) {
        return Err(Rejection::new("BAD_ID", at_path(path)));
    }
    if let Some(digest) = &branch.digest {
        if digest.as_ref().len() > ID_BYTES || path.len() % codec.tokens_per_byte != 0 {
            return Err(Rejection::new("BAD_DIGEST", at_path(path)));
        }
        let is_outside = start.is_some_and(|start| path < start) || end.is_some_and(|end| path > end);
        if !is_outside {
            return Err(Rejection::new("DIGEST_INSIDE_RANGE", at_path(path)));
        }
    }
    let mut slot = path.to_vec();
    for (token, _) in &branch.children {
        slot.truncate(path.len());
        slot.extend(token);
        if !is_slot_outside(&slot, start, end) {
            return Err(Rejection::new("STUB_INSIDE_RANGE", at_path(path)));
        }
    }
    Ok(())
}

/// Return whether no path at or below `slot` can lie in [start, end].
fn is_slot_outside(slot: &[u8], start: Option<&[u8]>, end: Option<&[u8]>) -> bool {
    start.is_some_and(|start| slot < start && !start.starts_with(slot)) || end.is_some_and(|end| slot > end)
}

fn at_path(path: &[u8]) -> String {
    format!("at path {}", hex(path))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |number: u8| char::from_digit(u32::from(number), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Return how many bytes the encoded proof has.
fn encoded_bytes<B: AsRef<[u8]>>(request: &Request<B>) -> usize {
    let column = |column: &[B]| -> usize { column.iter().map(|part| bin_bytes(part.as_ref().len())).sum() };
    let optional = |part: &Option<B>| part.as_ref().map_or(1, |part| bin_bytes(part.as_ref().len()));
    let mut size = 1 + array_header_bytes(request.keys.len()) + array_header_bytes(request.values.len());
    size += column(&request.keys) + column(&request.values) + optional(&request.proof_end);
    size += array_header_bytes(request.boundary.len());
    let mut before: &[u8] = &[];
    for branch in &request.boundary {
        let path = branch.path.as_ref();
        let shared = shared_depth(before, path);
        size += 1 + uint_bytes(shared) + bin_bytes(path.len() - shared) + optional(&branch.digest);
        size += bin_bytes(branch.children.len()) + bin_bytes(ID_BYTES * branch.children.len());
        before = path;
    }
    size
}

fn bin_bytes(length: usize) -> usize {
    length
        + if length < 1 << 8 {
            2
        } else if length < 1 << 16 {
            3
        } else {
            5
        }
}

fn array_header_bytes(length: usize) -> usize {
    if length < 16 {
        1
    } else if length < 1 << 16 {
        3
    } else {
        5
    }
}

fn uint_bytes(number: usize) -> usize {
    if number < 1 << 7 {
        1
    } else if number < 1 << 8 {
        2
    } else {
        3
    }
}

fn fold<B: AsRef<[u8]> + Sync>(
    request: &Request<B>,
    start: Option<&[u8]>,
    end: Option<&[u8]>,
) -> Result<Shown, Rejection> {
    let leaves = Leaves::of(request.hasher, request.codec, &request.keys, &request.values);
    let outside = outside_items(request);
    let split = start
        .map_or(0, |start| outside.items.partition_point(|item| &outside.paths[item.path.clone()] < start));
    check_stubs(&outside, split, &leaves)?;
    let mut fold: Fold<&[u8]> = Fold::new(request.hasher, request.codec, false);
    let contradiction = |_| Rejection::new("MALFORMED", "its items are out of order");
    let end_of_leaves = split + leaves.len();
    let count = outside.items.len() + leaves.len();
    let path_at = |number: usize| match number {
        _ if number < split => outside.path(number),
        _ if number < end_of_leaves => leaves.path(number - split),
        _ => outside.path(number - leaves.len()),
    };
    let item_at = |number: usize| match number {
        _ if number < split => outside.item(number),
        _ if number < end_of_leaves => leaves.item(number - split),
        _ => outside.item(number - leaves.len()),
    };
    for number in 0..count {
        let next = (number + 1 < count).then(|| path_at(number + 1));
        fold.feed_before(path_at(number), item_at(number), next).map_err(contradiction)?;
    }
    let root = fold.finish().unwrap_or([0; ID_BYTES]);
    if root != request.root.as_ref() {
        return Err(Rejection::new("WRONG_ROOT", format!("it has {}", hex(&root))));
    }
    let closed = fold.closed;
    let inside = inside_branches(&closed, start, end);
    let top_nodes = top_nodes(&closed, &inside, &leaves);
    Ok(Shown { closed, inside, top_nodes, leaves })
}

/// Return the boundary's stubs and digests, ascending.
fn outside_items<B: AsRef<[u8]>>(request: &Request<B>) -> Outside {
    let mut outside = Outside { paths: Vec::new(), items: Vec::with_capacity(8 * request.boundary.len()) };
    let mut scratch = Vec::new();
    let mut key = Vec::new();
    for branch in &request.boundary {
        let path = branch.path.as_ref();
        for (token, id) in &branch.children {
            if let Some(id) = id {
                outside.push(path, *token, *id, None);
            }
        }
        let digest = branch.digest.as_ref().and_then(|digest| ValueDigest::from_slice(digest.as_ref()));
        if let Some(digest) = digest {
            key.clear();
            request.codec.put_packed(&mut key, path);
            let id = leaf_id(request.hasher, &key, &digest, &mut scratch);
            outside.push(path, None, id, Some(digest));
        }
    }
    let Outside { paths, mut items } = outside;
    items.sort_by(|one, other| {
        let whole = || paths[one.path.clone()].cmp(&paths[other.path.clone()]);
        one.head.cmp(&other.head).then_with(whole)
    });
    Outside { paths, items }
}

/// Check that every stub hangs directly under its branch, with nothing below it.
///
/// The leaves stand before the item number `split`.
fn check_stubs(outside: &Outside, split: usize, leaves: &Leaves) -> Result<(), Rejection> {
    let is_stub = |index: &usize| outside.items[*index].digest.is_none();
    for index in (0..outside.items.len()).filter(is_stub) {
        let path = outside.path(index);
        let left = match index {
            _ if index == split && leaves.len() > 0 => Some(leaves.path(leaves.len() - 1)),
            0 => None,
            _ => Some(outside.path(index - 1)),
        };
        let right = if index + 1 == split && leaves.len() > 0 {
            Some(leaves.path(0))
        } else {
            (index + 1 < outside.items.len()).then(|| outside.path(index + 1))
        };
        let shared = |neighbour: &[u8]| shared_depth(path, neighbour);
        let depth = left.map(shared).max(right.map(shared));
        if depth == Some(path.len()) {
            return Err(Rejection::new("ITEM_BELOW_STUB", at_path(path)));
        }
        if depth != path.len().checked_sub(1) {
            return Err(Rejection::new("STUB_NOT_DIRECT", at_path(path)));
        }
    }
    Ok(())
}

/// Return the branches below which every possible path lies in the range, ascending.
fn inside_branches(closed: &Closed, start: Option<&[u8]>, end: Option<&[u8]>) -> Vec<usize> {
    let mut inside: Vec<usize> = (0..closed.len())
        .filter(|index| {
            let path = closed.path(*index);
            start.is_none_or(|start| path >= start)
                && end.is_none_or(|end| path < end && !end.starts_with(path))
        })
        .collect();
    inside.sort_by(|one, other| closed.path(*one).cmp(closed.path(*other)));
    inside
}

/// Return the topmost nodes inside the range: branches, and the leaves that lie under none of them.
fn top_nodes(closed: &Closed, inside: &[usize], leaves: &Leaves) -> Vec<Top> {
    let mut tops = Vec::new();
    let mut leaf = 0;
    let mut cover: Option<&[u8]> = None;
    for index in inside {
        let path = closed.path(*index);
        if cover.is_some_and(|cover| path.starts_with(cover)) {
            continue;
        }
        while leaf < leaves.len() && leaves.path(leaf) < path {
            tops.push(Top::Leaf(leaf));
            leaf += 1;
        }
        while leaf < leaves.len() && leaves.path(leaf).starts_with(path) {
            leaf += 1;
        }
        tops.push(Top::Branch(*index));
        cover = Some(path);
    }
    tops.extend((leaf..leaves.len()).map(Top::Leaf));
    tops
}
