"""A table of ways to tamper with a change proof, each with the reason for which it must be rejected.

The proof leads to the store that `tamperings` draws, over the same range, so its boundary is the same one and
most lies about a boundary are told here as they are there. It is verified beside the old content:

    21 01              carried: another value           2f 00, 2f 01       carried: deleted
    21 77              carried: new                     30 30              as it was
    25                 as it was                        30 31              carried: another value

Outside the range the old content differs as well: in the values of the empty key, 21 00 and 30 4f, by the
lack of 10 00 and 78, and by 99, which is gone.
"""

from typing import Any

import merkledb
from merkledb import EMPTY_ROOT, Branch, Reason
from tests.support import oracle
from tests.support.proof_verdicts import Bound, boundary_of, change_proof_of
from tests.support.range_proof_tamperings import (
    AT_END,
    BOUNDARY,
    END,
    LEFT,
    MALFORMED,
    OTHER_ID,
    PAIRS,
    RIGHT,
    ROOT,
    SCHEME,
    START,
    STORE,
    STUBS,
    Case,
    Tamper,
    id_at,
    pair_moved_into_the_proof,
    swapped,
)

NEW = STORE
GONE = (b"\x2f\x00", b"\x2f\x01")
OLD = {
    b"": b"the empty key's old value",
    b"\x10": b"a" * 31,
    b"\x21\x00": b"old",
    START: b"old",
    b"\x25": b"f" * 32,
    GONE[0]: b"gone",
    GONE[1]: b"g" * 32,
    b"\x30\x30": b"g",
    END: b"h" * 32,
    b"\x30\x31\x50": b"i",
    b"\x30\x4f": b"old",
    b"\x77": b"k",
    b"\x99": b"gone too",
}
LOCAL_KEYS = tuple(oracle.pairs_in(OLD, START, END))


def honest_change(
    start: Bound = START, end: Bound = END, max_keys: int | None = None, old: oracle.Contents = OLD
) -> Case:
    return Case(change_proof_of(old, NEW, SCHEME, start, end, max_keys), start=start, end=end)


def with_changes(case: Case, changes: dict[bytes, bytes | None]) -> Case:
    """The case with more changes, or other ones, in their places."""
    return case.with_pairs(dict(sorted({**case.pairs, **changes}.items())))


def changing(**changes: Any) -> Tamper:
    """More or other changes, named by their keys in hexadecimal digits."""
    return lambda case: with_changes(case, {bytes.fromhex(key[1:]): new for key, new in changes.items()})


def deleting(*keys: bytes) -> Tamper:
    return lambda case: with_changes(case, dict.fromkeys(keys))


def missing(*keys: bytes) -> Tamper:
    return lambda case: case.without_keys(*keys)


# What is told of pairs means the same of changes.
_OF_PAIRS_TOO = (
    "a key is altered",
    "a value is missing",
    "a value is left over",
    "more bytes than were asked for",
)

CHANGES: dict[str, tuple[Tamper, Reason]] = {
    **{name: PAIRS[name] for name in _OF_PAIRS_TOO},
    "the first change is missed": (missing(START), Reason.WRONG_ROOT),
    "a new key is missed": (missing(b"\x21\x77"), Reason.WRONG_ROOT),
    "a deletion is missed": (missing(GONE[0]), Reason.WRONG_ROOT),
    "two deletions are missed": (missing(*GONE), Reason.WRONG_ROOT),
    "the last change is missed": (missing(END), Reason.WRONG_ROOT),
    "all changes are missed": (lambda case: case.with_pairs({}), Reason.WRONG_ROOT),
    "a put is added": (changing(x26=b""), Reason.WRONG_ROOT),
    "a put below a key is added": (changing(x2500=b""), Reason.WRONG_ROOT),
    "a put above keys is added": (changing(x30=b""), Reason.WRONG_ROOT),
    "a key that stays is deleted": (deleting(b"\x25"), Reason.WRONG_ROOT),
    "a key that stays is deleted, and its branch with it": (deleting(b"\x30\x30"), Reason.WRONG_ROOT),
    "a key that stays gets another value": (changing(x25=b"other"), Reason.WRONG_ROOT),
    "a value is altered": (changing(x2101=b"d" * 39 + b"e"), Reason.WRONG_ROOT),
    "a value stays the old one": (changing(x3031=OLD[END]), Reason.WRONG_ROOT),
    "a value is swapped with its digest": (
        lambda case: with_changes(case, {START: SCHEME.digest(STORE[START])}),
        Reason.WRONG_ROOT,
    ),
    "two values change places": (
        lambda case: case.with_proof(values=swapped(case.proof.values, 0, 1)),
        Reason.WRONG_ROOT,
    ),
    "a value and a deletion change places": (
        lambda case: case.with_proof(values=swapped(case.proof.values, 1, 2)),
        Reason.WRONG_ROOT,
    ),
    "a deletion becomes a put of nothing": (changing(x2f00=b""), Reason.WRONG_ROOT),
    "a deletion becomes a put of the old value": (changing(x2f00=OLD[GONE[0]]), Reason.WRONG_ROOT),
    "an empty value becomes a deletion": (changing(x2177=None), Reason.WRONG_ROOT),
    # Without these two a stub of the boundary has no branch to hang under.
    "the put of the first key becomes a deletion": (deleting(START), Reason.STUB_NOT_DIRECT),
    "the put of the last key becomes a deletion": (deleting(END), Reason.STUB_NOT_DIRECT),
    "everything in the range is deleted": (
        lambda case: deleting(*LOCAL_KEYS)(case.with_pairs({})),
        Reason.STUB_NOT_DIRECT,
    ),
    "a deleted key gets a zero byte more": (
        lambda case: with_changes(case.without_keys(GONE[1]), {GONE[1] + b"\x00": None}),
        Reason.WRONG_ROOT,
    ),
    "two changes change places": (
        lambda case: case.with_proof(
            keys=swapped(case.proof.keys, 1, 2), values=swapped(case.proof.values, 1, 2)
        ),
        Reason.KEYS_OUT_OF_ORDER,
    ),
    "two deletions change places": (
        lambda case: case.with_proof(keys=swapped(case.proof.keys, 2, 3)),
        Reason.KEYS_OUT_OF_ORDER,
    ),
    "a change comes twice": (
        lambda case: case.with_proof(
            keys=(START, *case.proof.keys), values=(case.proof.values[0], *case.proof.values)
        ),
        Reason.KEYS_OUT_OF_ORDER,
    ),
    "a key is put and deleted": (
        lambda case: case.with_proof(keys=(START, *case.proof.keys), values=(None, *case.proof.values)),
        Reason.KEYS_OUT_OF_ORDER,
    ),
    "a true change before the start is carried": (
        lambda case: pair_moved_into_the_proof(case, b"\x21\x00").with_branch(LEFT, children=()),
        Reason.KEY_OUTSIDE_RANGE,
    ),
    "a true change behind the end is carried": (
        lambda case: pair_moved_into_the_proof(case, b"\x30\x4f").with_branch(RIGHT, children=()),
        Reason.KEY_OUTSIDE_RANGE,
    ),
    "the empty key's change is carried before the start": (
        lambda case: pair_moved_into_the_proof(case, b"").with_branch(ROOT, digest=None),
        Reason.KEY_OUTSIDE_RANGE,
    ),
    "a true deletion behind the end is carried": (deleting(b"\x99"), Reason.KEY_OUTSIDE_RANGE),
    "a deletion that changes nothing lies before the start": (deleting(b"\x01"), Reason.KEY_OUTSIDE_RANGE),
    "a deletion is left over": (
        lambda case: case.with_proof(values=(*case.proof.values, None)),
        Reason.MALFORMED,
    ),
    "a key is longer than any key": (deleting(b"\x21\x77" + bytes(251)), Reason.KEY_TOO_LONG),
    "a value is longer than any value": (
        lambda case: with_changes(case, {START: bytes(merkledb.MAX_VALUE_BYTES + 1)}),
        Reason.VALUE_TOO_LONG,
    ),
    "more changes than were asked for": (lambda case: case._replace(max_keys=4), Reason.TOO_MANY_KEYS),
    "more deletions than were asked for": (
        lambda _: honest_change(b"\x2f", b"\x2f\xff")._replace(max_keys=1),
        Reason.TOO_MANY_KEYS,
    ),
    "it leads to the old root": (
        lambda case: case._replace(root=oracle.root_of(OLD, SCHEME)),
        Reason.WRONG_ROOT,
    ),
    "it leads to no root": (
        lambda case: case._replace(root=case.root[:31] + bytes([case.root[31] ^ 1])),
        Reason.WRONG_ROOT,
    ),
    "it leads to the empty root": (lambda case: case._replace(root=EMPTY_ROOT), Reason.WRONG_ROOT),
    "it starts from another content, which lacks what was deleted": (
        lambda _: honest_change(old={key: value for key, value in OLD.items() if key not in GONE}),
        Reason.WRONG_ROOT,
    ),
    "it starts from another content, which had a new value already": (
        lambda _: honest_change(old={**OLD, START: STORE[START]}),
        Reason.WRONG_ROOT,
    ),
    "it leads backwards": (
        lambda case: case._replace(proof=change_proof_of(NEW, OLD, SCHEME, START, END)),
        Reason.WRONG_ROOT,
    ),
    "it is of a part of the range alone": (
        lambda _: honest_change(b"\x25", END)._replace(start=START),
        Reason.STUB_INSIDE_RANGE,
    ),
}

CHANGE_ENDS: dict[str, tuple[Tamper, Reason]] = {
    "the end lies behind the requested one": (
        lambda case: case.with_proof(end=END + b"\x00"),
        Reason.WRONG_END,
    ),
    "the end is unbounded where a bound was requested": (
        lambda case: case.with_proof(end=None),
        Reason.WRONG_END,
    ),
    "the end is the last change but one": (
        lambda case: case.with_proof(end=GONE[1]),
        Reason.WRONG_END,
    ),
    "it ends at its last change but one before it is missed": (
        lambda _: honest_change(max_keys=3).without_keys(b"\x21\x77"),
        Reason.WRONG_ROOT,
    ),
    "it pretends to be complete where it was cut off": (
        lambda _: honest_change(max_keys=3).with_proof(end=END),
        Reason.STUB_INSIDE_RANGE,
    ),
    "changes are missed at the end and the end is moved back, but not the boundary": (
        lambda case: case.without_keys(END, *GONE).with_proof(end=b"\x21\x77"),
        Reason.STUB_NOT_DIRECT,
    ),
    "it ends before the start, and carries nothing": (
        lambda _: honest_change(b"\x22", b"\x25")._replace(start=b"\x26", end=END),
        Reason.NO_PROGRESS,
    ),
    "it ends behind the range, and carries nothing": (
        lambda _: honest_change(b"\x22", b"\x25").with_proof(end=b"\x26"),
        Reason.WRONG_END,
    ),
    "it ends at a key that is longer than any key": (
        lambda case: case.without_keys(END, *GONE).with_proof(end=b"\x2f" + bytes(252)),
        Reason.WRONG_END,
    ),
    "it carries nothing, and misses a change before the end that it names": (
        lambda _: honest_change(b"\x26", b"\x2f\x80").with_pairs({})._replace(end=END),
        Reason.WRONG_ROOT,
    ),
    "its end is moved on behind a change, but not its boundary": (
        lambda _: honest_change(START, b"\x25").with_proof(end=b"\x30\x20")._replace(end=END),
        Reason.STUB_INSIDE_RANGE,
    ),
    "its end is moved on with its boundary, and the changes between are missed": (
        lambda _: honest_change(START, b"\x2f\x40").without_keys(*GONE)._replace(end=END),
        Reason.WRONG_ROOT,
    ),
}

# A change proof may end at any key within what was asked for: where the prover has looked at enough rows.
EARLY_ENDS: dict[str, Tamper] = {
    "between two keys": lambda _: honest_change(START, b"\x2f\x40")._replace(end=END),
    "at a key that stays": lambda _: honest_change(START, b"\x25")._replace(end=END),
    "where no end was requested": lambda _: honest_change(START, b"\x30\x40")._replace(end=None),
    "without any change": lambda _: honest_change(b"\x22", b"\x25")._replace(end=END),
    "at the start": lambda _: honest_change(b"\x22", b"\x22")._replace(end=END),
}

CHANGE_STUBS: dict[str, tuple[Tamper, Reason]] = {
    "its boundary is that of the old root": (
        lambda case: case.with_proof(boundary=boundary_of(oracle.build(OLD, SCHEME), START, END, SCHEME)),
        Reason.WRONG_ROOT,
    ),
    "one branch of its boundary is that of the old root": (
        lambda case: case.with_branch(
            RIGHT, children=boundary_of(oracle.build(OLD, SCHEME), START, END, SCHEME)[RIGHT].children
        ),
        Reason.WRONG_ROOT,
    ),
    # The keys that would show where a stub must hang are deleted, so that the stub takes the place of their
    # branch, and the root matches. What was deleted still stands there while the changes are merged in: it
    # must not lend its branch to the stub.
    "a stub is placed deeper than its slot, behind the end, below a key that is deleted": (
        lambda case: deleting(b"\x30\x30", END)(case).with_boundary(
            *case.proof.boundary[:RIGHT], Branch(b"\x03\x00\x03\x01", None, ((5, id_at(b"\x03\x00")),))
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "a stub is placed deeper than its slot, behind the end, beside a key that is deleted": (
        lambda case: deleting(b"\x30\x30", END)(case).with_boundary(
            *case.proof.boundary[:RIGHT], Branch(b"\x03\x00\x03", None, ((2, id_at(b"\x03\x00")),))
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "a stub is placed deeper than its slot, before the start, beside a key that is deleted": (
        lambda case: deleting(*[key for key in LOCAL_KEYS if key < b"\x30"])(
            case.without_keys(b"\x21\x77")
        ).with_boundary(
            case.proof.boundary[ROOT],
            Branch(b"\x02\x01\x00", None, ((0, id_at(b"\x02")),)),
            *case.proof.boundary[RIGHT:],
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "a stub is placed deeper than its slot, and hides a new key, beside the deletion of a key that was not": (
        # 21 77 stands alone in its slot, and can be told as if it were 21 7f.
        lambda _: (
            honest_change(b"\x21\x70", b"\x21\x7e")
            .with_pairs({b"\x21\x7e": None})
            .with_more_boundary(Branch(b"\x02\x01\x07", None, ((15, id_at(b"\x02\x01\x07\x07")),)))
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "a stub is placed deeper than its slot where every key was deleted": (
        lambda case: deleting(*LOCAL_KEYS)(case.without_keys(b"\x21\x77")).with_boundary(
            case.proof.boundary[ROOT],
            Branch(b"\x02\x01\x00", None, ((0, id_at(b"\x02")),)),
            Branch(b"\x03\x00\x03\x01", None, ((5, id_at(b"\x03\x00")),)),
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "the whole trie is one stub behind the end, and all keys of the range are deleted": (
        lambda case: deleting(*LOCAL_KEYS)(case.with_pairs({})).with_boundary(
            Branch(b"", None, ((7, case.root),))
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "the whole trie is one stub before the start, and all keys of the range are deleted": (
        lambda case: deleting(*LOCAL_KEYS)(case.with_pairs({})).with_boundary(
            Branch(b"\x02\x01\x00", None, ((0, case.root),))
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "the empty trie is one stub, and all keys of the range are deleted": (
        lambda case: (
            deleting(*LOCAL_KEYS)(case.with_pairs({}))
            .with_boundary(Branch(b"", None, ((7, EMPTY_ROOT),)))
            ._replace(root=EMPTY_ROOT)
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "a stub in its own slot holds the start, which is deleted": (
        lambda case: deleting(START)(case).with_children(
            LEFT, *case.proof.boundary[LEFT].children, (1, id_at(b"\x02\x01\x00\x01"))
        ),
        Reason.STUB_INSIDE_RANGE,
    ),
    "a stub in its own slot holds the end, which is deleted": (
        lambda case: deleting(END)(case).with_boundary(
            *case.proof.boundary[:AT_END], Branch(b"\x03\x00\x03", None, ((1, id_at(b"\x03\x00\x03\x01")),))
        ),
        Reason.STUB_INSIDE_RANGE,
    ),
    "a subtree that did not change is sent as a stub": (
        lambda case: case.with_more_boundary(Branch(b"\x02", None, ((5, id_at(b"\x02\x05")),))),
        Reason.STUB_INSIDE_RANGE,
    ),
    "a digest stands on a branch that is gone": (
        lambda case: case.with_more_boundary(Branch(b"\x09\x09", SCHEME.digest(OLD[b"\x99"]), ())),
        Reason.WRONG_ROOT,
    ),
}

# What these do is to hide pairs by not sending them, which in a change proof leaves them as they were.
_OF_RANGE_PROOFS_ALONE = {
    name
    for name in STUBS
    if "hides all keys" in name or name.startswith(("the whole trie", "the empty trie"))
}
_ALLOWED_HERE = {"a value is None"}

CHANGE_TABLE: dict[str, tuple[Tamper, Reason]] = {
    **CHANGES,
    **CHANGE_ENDS,
    **CHANGE_STUBS,
    **BOUNDARY,
    **{name: row for name, row in STUBS.items() if name not in _OF_RANGE_PROOFS_ALONE},
    **{name: row for name, row in MALFORMED.items() if name not in _ALLOWED_HERE},
    "a value is a child": (
        lambda case: case.with_proof(values=((4, OTHER_ID), *case.proof.values[1:])),
        Reason.MALFORMED,
    ),
}

# What is needless and yet true; a verifier has no reason to reject it.
TRUE: dict[str, Tamper] = {
    "nothing": lambda case: case,
    "a value is put that stands there already": changing(x25=STORE[b"\x25"]),
    "a key is deleted that is not there": deleting(b"\x26"),
    "keys are deleted that are not there, below others and above": deleting(b"\x25\x00", b"\x2f", b"\x30"),
    "a key beside a stub is deleted that is not there": deleting(b"\x21\x01\x00", b"\x30\x30\xff"),
    "all of the new content is put, changed or not": (
        lambda case: with_changes(case, {**oracle.pairs_in(NEW, START, END)})
    ),
    "it starts from a content that had other keys as well": (
        lambda _: honest_change(old={**OLD, b"\x22": b"x", b"\x30\x2f": b"y", b"\x25": b"z"})
    ),
    "it starts from nothing, and deletes what it does not know of": (
        lambda _: deleting(*GONE)(honest_change(old={}))
    ),
    "a leaf is opened without need": (
        lambda case: case.with_boundary(
            *case.proof.boundary[:RIGHT],
            *case.proof.boundary[RIGHT + 1 :],
        ).with_more_boundary(Branch(b"\x03\x00\x04\x0f", SCHEME.digest(STORE[b"\x30\x4f"]), ()))
    ),
}
