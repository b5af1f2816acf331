"""Verifying a range proof, the pure way: first its form, then its stubs, then the root of its fold.

The verifier folds the boundary's items outside the range together with the pairs that were sent, and
compares the root.  The root commits to every branch that the fold closes: its path, digest, tokens and
child ids.  So one thing is left to check of what a proof says: a stub is authentic only as *the child slot
of a branch that really exists*.

    A stub taken from a proof hangs directly under its branch: its path is exactly the path of the branch
    that the fold puts it under, plus one token.

Without this check a liar sends a stub deeper than its slot and hides every key beside it, while the root
still matches.  The branch that the fold puts an item under is as deep as the longer of the two prefixes that
the item shares with its neighbours.

The checks of a proof's form serve change proofs too.
"""

from bisect import bisect_left
from itertools import islice
from operator import lt

from merkledb.errors import InvalidProof, Reason
from merkledb.formats.branch_record import HEAVY
from merkledb.formats.proof import (
    AnyProof,
    Branch,
    ChangeProof,
    RangeProof,
    encoded_column_bytes,
    encoded_proof_bytes,
    require_form,
)
from merkledb.formats.scheme import (
    ID_BYTES,
    MAX_PATH_TOKENS,
    MAX_VALUE_BYTES,
    Scheme,
    prefix_end,
    shared_depth,
)
from merkledb.kernel.boundary import is_path_outside, is_slot_outside
from merkledb.kernel.pure_fold import Fold, ItemRow, Items, extend, items_of, joined, no_items, pure_leaves


class RequestedRange:
    """What was asked for, and so what a proof is held against."""

    __slots__ = ("end", "end_path", "root", "scheme", "start", "start_path")

    def __init__(
        self, scheme: Scheme, root: bytes, start: bytes | None, end: bytes | None, proof_end: bytes | None
    ) -> None:
        self.scheme = scheme
        self.root = root
        self.start = start
        self.end = end
        path_of = scheme.codec.path
        self.start_path = None if start is None else path_of(start)
        self.end_path = None if proof_end is None else path_of(proof_end)


def pure_verify_range(
    proof: RangeProof,
    root: bytes,
    start: bytes | None,
    end: bytes | None,
    scheme: Scheme,
    max_keys: int | None,
    max_bytes: int | None,
) -> tuple[dict[bytes, bytes], Items]:
    """Verify a range proof; the arguments are those of ``proofs.verify_range``.

    Returns:
        The records of the stored branches wholly inside the range, by path; and the topmost of these as
        stubs, with the leaves that lie under none of them.

    Raises:
        InvalidProof
    """
    request = check_form(proof, root, start, end, scheme, max_keys, max_bytes)
    pairs = pure_leaves(scheme, list(proof.keys), list(proof.values))
    before, after = outside_items(proof.boundary, request)
    items = joined(before, pairs, after)
    # The fold trusts its stubs, so they are checked first: in a tampered stream the root could still match.
    _check_stubs(items)
    fold = Fold(scheme)
    closed = fold.feed(items)
    found, last = fold.finish()
    if found != root:
        raise InvalidProof(Reason.WRONG_ROOT, f"it has {found.hex()}")
    # From here on every branch and every id is authentic, for the root commits to them.
    records = dict(zip(closed.paths + last.paths, closed.records + last.records, strict=True))
    ids = dict(zip(closed.paths + last.paths, closed.ids + last.ids, strict=True))
    paths = inside_paths(sorted(records), request)
    return {path: records[path] for path in paths}, _top_nodes(pairs, paths, ids)


def check_form(
    proof: AnyProof,
    root: bytes,
    start: bytes | None,
    end: bytes | None,
    scheme: Scheme,
    max_keys: int | None,
    max_bytes: int | None,
) -> RequestedRange:
    """Check all of a proof that can be seen without a fold; the arguments are those of ``verify_range``.

    Returns:
        What the proof is held against.

    Raises:
        InvalidProof
    """
    require_form(proof)
    if max_keys is not None and len(proof.keys) > max_keys:
        raise InvalidProof(Reason.TOO_MANY_KEYS, f"{len(proof.keys)} of at most {max_keys}")
    if max_bytes is not None:
        # Before anything that takes longer for a larger proof than counting its bytes does.
        _check_size(proof, max_bytes)
    _check_pairs(proof, scheme)
    if isinstance(proof, ChangeProof):
        _check_change_bounds(proof, start, end, scheme)
    else:
        _check_bounds(proof, start, end)
    request = RequestedRange(scheme, root, start, end, proof.end)
    _check_boundary(proof.boundary, request)
    return request


def _check_size(proof: AnyProof, max_bytes: int) -> None:
    pair_bytes = encoded_column_bytes(proof.keys, proof.values)
    size = encoded_proof_bytes(len(proof.keys), pair_bytes, proof.end, proof.boundary)
    if size > max_bytes:
        raise InvalidProof(Reason.TOO_MANY_BYTES, f"{size} of at most {max_bytes}")


def _check_pairs(proof: AnyProof, scheme: Scheme) -> None:
    keys = proof.keys
    if not all(map(lt, keys, islice(keys, 1, None))):
        raise InvalidProof(Reason.KEYS_OUT_OF_ORDER)
    if keys and max(map(len, keys)) > scheme.max_key_bytes:
        raise InvalidProof(Reason.KEY_TOO_LONG, f"over {scheme.max_key_bytes} bytes")
    if max(map(len, filter(None, proof.values)), default=0) > MAX_VALUE_BYTES:
        raise InvalidProof(Reason.VALUE_TOO_LONG, f"over {MAX_VALUE_BYTES} bytes")


def _check_keys_inside(keys: tuple[bytes, ...], start: bytes | None, end: bytes | None) -> None:
    if keys and ((start is not None and keys[0] < start) or (end is not None and keys[-1] > end)):
        raise InvalidProof(Reason.KEY_OUTSIDE_RANGE)


def _check_change_bounds(proof: ChangeProof, start: bytes | None, end: bytes | None, scheme: Scheme) -> None:
    """Raise unless the changes lie in [start, end], and the proof ends there too, at or after the last one.

    A change proof may end at any key, for its prover looks at so many rows and no further, whether they are
    changes or not.  Whether it is of use is for the caller to say, who knows what was asked for.
    """
    keys = proof.keys
    _check_keys_inside(keys, start, end)
    if proof.end == end:
        return
    if proof.end is None or (end is not None and proof.end > end) or len(proof.end) > scheme.max_key_bytes:
        raise InvalidProof(Reason.WRONG_END, "it lies after the requested end")
    if keys and proof.end < keys[-1]:
        raise InvalidProof(Reason.WRONG_END, "it lies before the last change")
    if start is not None and proof.end < start:
        raise InvalidProof(Reason.NO_PROGRESS, "it ends before the start")


def _check_bounds(proof: AnyProof, start: bytes | None, end: bytes | None) -> None:
    keys = proof.keys
    _check_keys_inside(keys, start, end)
    if proof.end == end:
        return
    if not keys:
        raise InvalidProof(Reason.NO_PROGRESS, "it carries no pair and ends before the requested end")
    if proof.end != keys[-1]:
        raise InvalidProof(Reason.WRONG_END)


def _check_boundary(boundary: tuple[Branch, ...], request: RequestedRange) -> None:
    before: bytes | None = None
    for branch in boundary:
        if before is not None and branch.path <= before:
            raise InvalidProof(Reason.BOUNDARY_OUT_OF_ORDER, f"at path {branch.path.hex()}")
        _check_branch(branch, request)
        before = branch.path


def _check_branch(branch: Branch, request: RequestedRange) -> None:
    path, digest, children = branch
    where = f"at path {path.hex()}"
    codec, start, end = request.scheme.codec, request.start_path, request.end_path
    tokens = [token for token, _ in children]
    if len(path) > MAX_PATH_TOKENS or (tokens and len(path) == MAX_PATH_TOKENS):
        raise InvalidProof(Reason.PATH_TOO_LONG, f"over {MAX_PATH_TOKENS} tokens")
    if digest is None and not children:
        # With such branches a proof would have any number of encodings.
        raise InvalidProof(Reason.EMPTY_BRANCH, where)
    if any(not 0 <= token < codec.branch_factor for token in (*path, *tokens)):
        raise InvalidProof(Reason.TOKEN_OUT_OF_RANGE, where)
    if not all(map(lt, tokens, islice(tokens, 1, None))):
        raise InvalidProof(Reason.TOKENS_OUT_OF_ORDER, where)
    if any(len(node_id) != ID_BYTES for _, node_id in children):
        raise InvalidProof(Reason.BAD_ID, where)
    if digest is not None and (len(digest) > ID_BYTES or not codec.is_key(path)):
        raise InvalidProof(Reason.BAD_DIGEST, where)
    if digest is not None and not is_path_outside(path, start, end):
        raise InvalidProof(Reason.DIGEST_INSIDE_RANGE, where)
    if not all(is_slot_outside(path + bytes([token]), start, end) for token in tokens):
        raise InvalidProof(Reason.STUB_INSIDE_RANGE, where)


def outside_items(boundary: tuple[Branch, ...], request: RequestedRange) -> tuple[Items, Items]:
    """Return the boundary's stubs, which have no digest, and its digests as leaves.

    First those before the range, then those after it.  A proof does not say what they weigh, and that is
    of no use here, for the branches above them are not wholly inside the range.
    """
    rows: list[ItemRow] = []
    for branch in boundary:
        rows += [(branch.path + bytes([token]), node_id, None, HEAVY) for token, node_id in branch.children]
        if branch.digest is not None:
            leaf_id = request.scheme.leaf_id(branch.path, branch.digest)
            rows.append((branch.path, leaf_id, branch.digest, HEAVY))
    start = request.start_path
    before = [row for row in rows if start is not None and row[0] < start]
    after = [row for row in rows if start is None or row[0] >= start]
    return items_of(before), items_of(after)


def _check_stubs(items: Items) -> None:
    """Raise unless every stub hangs directly under its branch, with nothing below it."""
    paths = items.paths
    for index, digest in enumerate(items.digests):
        if digest is not None:
            continue
        # The branch that the fold puts the stub under is as deep as the longer of the two prefixes that the
        # stub shares with its neighbours; it has to be the stub's direct parent.
        path = paths[index]
        depth = -1
        for neighbour in paths[max(index - 1, 0) : index] + paths[index + 1 : index + 2]:
            depth = max(depth, shared_depth(path, neighbour))
        if depth == len(path):
            raise InvalidProof(Reason.ITEM_BELOW_STUB, f"at path {path.hex()}")
        if depth != len(path) - 1:
            raise InvalidProof(Reason.STUB_NOT_DIRECT, f"at path {path.hex()}")


def inside_paths(paths: list[bytes], request: RequestedRange) -> list[bytes]:
    """Return those of the branches' ascending ``paths`` below which every possible path lies in the range."""
    start, end = request.start_path, request.end_path
    first = bisect_left(paths, start) if start is not None else 0
    if end is None:
        return paths[first:]
    return [path for path in paths[first : bisect_left(paths, end)] if not end.startswith(path)]


def _top_nodes(pairs: Items, paths: list[bytes], ids: dict[bytes, bytes]) -> Items:
    """Return the topmost branches inside the range as stubs, and the leaves that lie under none of them.

    Args:
        pairs: The pairs of the range, as items.
        paths: The paths of the stored branches wholly inside, ascending.
        ids: The ids of all branches, by path.
    """
    top_nodes = no_items()
    leaf = at = 0
    while at < len(paths):
        path = paths[at]
        until = bisect_left(pairs.paths, path, leaf)
        extend(top_nodes, pairs, leaf, until)
        top_nodes.paths.append(path)
        top_nodes.ids.append(ids[path])
        top_nodes.digests.append(None)
        top_nodes.weights.append(HEAVY)
        after = prefix_end(path)
        if after is None:
            return top_nodes
        leaf = bisect_left(pairs.paths, after, until)
        at = bisect_left(paths, after, at + 1)
    extend(top_nodes, pairs, leaf, len(pairs.paths))
    return top_nodes


def next_keys(proof: AnyProof, request: RequestedRange) -> list[bytes]:
    """Return the first possible key of each populated slot between the proof's and the requested end."""
    if proof.end == request.end or request.end_path is None:
        return []
    slots = [branch.path + bytes([token]) for branch in proof.boundary for token, _ in branch.children]
    slots += [branch.path for branch in proof.boundary if branch.digest is not None]
    keys = {request.scheme.codec.pack(slot) for slot in slots if slot > request.end_path}
    return sorted(key for key in keys if request.end is None or key <= request.end)
