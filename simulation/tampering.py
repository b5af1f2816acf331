"""Lies within a proof: each takes an honest one, of a range or of changes, and changes it in one way.

A lie that does not fit a proof, such as dropping a pair of none, returns None.  Most are found out because
the root differs.  ``deeper_stub`` and its kin are those that the root alone does not find out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from merkledb import Branch, ChangeProof, RangeProof, Scheme, root_of
from simulation.model import Contents

Proof = RangeProof | ChangeProof
Value = bytes | None
Children = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class Asked:
    """What a proof answers.

    Attributes:
        contents: At the root that the client wants.
        start: The start that was asked for.
        end: The end that was asked for.
        scheme: Of the trie.
        random: Where chances come from.
    """

    contents: Contents
    start: bytes | None
    end: bytes | None
    scheme: Scheme
    random: Random


def _with_columns(proof: Proof, columns: Mapping[bytes, Value]) -> Proof:
    ascending = dict(sorted(columns.items()))
    keys, values = tuple(ascending), tuple(ascending.values())
    return proof._replace(keys=keys, values=values)  # type: ignore[arg-type]  # Whether a value may be None is the verifier's to say.


def _columns(proof: Proof) -> dict[bytes, Value]:
    return dict(zip(proof.keys, proof.values, strict=True))


def pair_changed(proof: Proof, asked: Asked) -> Proof | None:
    """Give a key another value."""
    if not proof.keys:
        return None
    key = asked.random.choice(proof.keys)
    return _with_columns(proof, _columns(proof) | {key: b"a lie"})


def pair_missing(proof: Proof, asked: Asked) -> Proof | None:
    """Leave a key out."""
    if not proof.keys:
        return None
    left_out = asked.random.choice(proof.keys)
    return _with_columns(proof, {key: value for key, value in _columns(proof).items() if key != left_out})


def pair_added(proof: Proof, asked: Asked) -> Proof | None:
    """Carry a key that is not there."""
    key = (asked.start or b"") + asked.random.randbytes(2)
    if proof.end is not None and key > proof.end:
        return None
    return _with_columns(proof, {key: b"a lie"} | _columns(proof))


def pairs_swapped(proof: Proof, asked: Asked) -> Proof | None:
    """Carry two keys in the wrong order."""
    if len(proof.keys) < 2:
        return None
    index = asked.random.randrange(len(proof.keys) - 1)
    keys = list(proof.keys)
    keys[index : index + 2] = keys[index + 1], keys[index]
    return proof._replace(keys=tuple(keys))


def all_missing(proof: Proof, asked: Asked) -> Proof | None:
    """Say that there is nothing at all."""
    del asked
    return proof._replace(keys=(), values=(), boundary=()) if proof.keys else None


def ends_early(proof: Proof, asked: Asked) -> Proof | None:
    """Drop what comes last, and pretend that the proof was cut off there."""
    if len(proof.keys) < 2:
        return None
    kept = asked.random.randrange(1, len(proof.keys))
    return _with_columns(proof, dict(list(_columns(proof).items())[:kept]))._replace(end=proof.keys[kept - 1])


def ends_late(proof: Proof, asked: Asked) -> Proof | None:
    """Pretend that a proof that was cut off is complete."""
    return proof._replace(end=asked.end) if proof.end != asked.end else None


def branch_missing(proof: Proof, asked: Asked) -> Proof | None:
    """Leave a branch of the boundary out."""
    if not proof.boundary:
        return None
    index = asked.random.randrange(len(proof.boundary))
    return proof._replace(boundary=(*proof.boundary[:index], *proof.boundary[index + 1 :]))


def _with_children(proof: Proof, change: Callable[[Children], Children]) -> Proof | None:
    """Return the proof with the children of its first branch that has any changed."""
    indexes = [index for index, branch in enumerate(proof.boundary) if branch.children]
    if not indexes:
        return None
    first, boundary = indexes[0], list(proof.boundary)
    boundary[first] = boundary[first]._replace(children=change(boundary[first].children))
    return proof._replace(boundary=tuple(boundary))


def child_changed(proof: Proof, asked: Asked) -> Proof | None:
    """Give a child of the boundary another id."""
    return _with_children(
        proof, lambda children: ((children[0][0], asked.random.randbytes(32)), *children[1:])
    )


def child_missing(proof: Proof, asked: Asked) -> Proof | None:
    """Leave a child of the boundary out, and so hide a subtree outside the range."""
    del asked
    return _with_children(proof, lambda children: children[1:])


def deletion_missing(proof: Proof, asked: Asked) -> Proof | None:
    """Keep a deletion to itself."""
    deleted = [key for key, value in _columns(proof).items() if value is None]
    if not deleted:
        return None
    left_out = asked.random.choice(deleted)
    return _with_columns(proof, {key: value for key, value in _columns(proof).items() if key != left_out})


def deletion_forged(proof: Proof, asked: Asked) -> Proof | None:
    """Say that a key was deleted which has a new value."""
    if type(proof) is not ChangeProof or not proof.keys:
        return None
    return _with_columns(proof, _columns(proof) | {asked.random.choice(proof.keys): None})


def changes_nothing(proof: Proof, asked: Asked) -> Proof | None:
    """Add changes that change nothing: keys get the values that they have, or go where none is."""
    if type(proof) is not ChangeProof:
        return None
    low = asked.start or b""
    absent = [low + bytes([number]) for number in range(4)]
    inert = {key: asked.contents.get(key) for key in absent if proof.end is None or key <= proof.end}
    told = inert | _columns(proof)
    return _with_columns(proof, told) if len(told) > len(proof.keys) else None


def deeper_stub(proof: Proof, asked: Asked) -> Proof | None:
    """Hide keys beside a whole subtree that hangs deeper than its slot, while the root still matches.

    Some slot on the path of the start or of the end holds keys inside the range and keys outside it.  The lie
    closes it: its id, which is the honest one, is told as a stub at a deeper path that lies outside the
    range, and the keys inside are left out.
    """
    lies: list[Proof] = [*_deeper_at_end(proof, asked), *_deeper_at_start(proof, asked)]
    return asked.random.choice(lies) if lies else None


def _deeper_at_end(proof: Proof, asked: Asked) -> list[Proof]:
    """Return the lies behind the end of a proof that is complete."""
    if asked.end is None or proof.end != asked.end:
        return []
    path = asked.scheme.codec.path(asked.end)
    last = asked.scheme.branch_factor - 1
    at_same_snapshot = [(at, path[:at] + bytes([path[at] + 1])) for at in range(len(path)) if path[at] < last]
    return _deeper(proof, asked, path, at_same_snapshot)


def _deeper_at_start(proof: Proof, asked: Asked) -> list[Proof]:
    """Return the lies before the start."""
    if asked.start is None:
        return []
    path = asked.scheme.codec.path(asked.start)
    at_same_snapshot = [(at, path[:at] + bytes([path[at] - 1])) for at in range(len(path)) if path[at] > 0]
    return _deeper(proof, asked, path, at_same_snapshot)


def _deeper(
    proof: Proof, asked: Asked, path: bytes, at_same_snapshot: list[tuple[int, bytes]]
) -> list[Proof]:
    """Return the lies that close a slot on ``path``, each as a stub at a path beside it."""
    codec = asked.scheme.codec
    lies: list[Proof] = []
    for depth in range(1, len(path)):
        below = {
            key: value for key, value in asked.contents.items() if codec.path(key)[:depth] == path[:depth]
        }
        if len(below) < 2:
            break
        hidden = [key for key in proof.keys if key in below]
        stub = next((where for at, where in at_same_snapshot if at > depth), None)
        if stub is None or not hidden or len(hidden) == len(below):
            continue
        closed = Branch(stub[:-1], None, ((stub[-1], root_of(below, asked.scheme)),))
        kept = [branch for branch in proof.boundary if branch.path[:depth] != path[:depth]]
        left = {key: value for key, value in _columns(proof).items() if key not in below}
        told = _with_columns(proof, left)
        lies.append(told._replace(boundary=tuple(sorted([*kept, closed]))))
    return lies


TAMPERINGS: Final[dict[str, Callable[[Proof, Asked], Proof | None]]] = {
    "a pair is changed": pair_changed,
    "a pair is missing": pair_missing,
    "a pair is added": pair_added,
    "pairs are swapped": pairs_swapped,
    "all pairs are missing": all_missing,
    "the proof ends early": ends_early,
    "the proof ends late": ends_late,
    "a branch is missing": branch_missing,
    "a child is changed": child_changed,
    "a child is missing": child_missing,
    "a deletion is missing": deletion_missing,
    "a deletion is forged": deletion_forged,
    "changes that change nothing": changes_nothing,
    "a stub hangs deeper": deeper_stub,
}
