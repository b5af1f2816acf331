"""A table of ways to tamper with a range proof, each with the reason for which it must be rejected.

Each changes one honest proof in one way and leaves everything else right where it can, so that only the
one check can notice. Where a lie can be made to match the root, it is: then only the rules about stubs
are in its way.

The proof is of this store, at branch factor 16, for the range [21 01, 30 31]; what it
says strictly outside the range is marked with x:

    (empty)             x its digest on the root
    10, 10 00           x the root's slot 1
    21 00               x slot 0 of the branch at 2 1 0
    21 01, 21 77, 25    carried, the start among them
    30 30, 30 31        carried, the end among them
    30 31 50            x slot 5 of the branch at 3 0 3 1
    30 4f               x slot 4 of the branch at 3 0
    77, 78              x the root's slot 7
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import merkledb
from merkledb import (
    EMPTY_ROOT,
    Branch,
    ChangeProof,
    Database,
    RangeProof,
    Reason,
    Scheme,
    VerifiedChanges,
    verify_range,
)
from tests.support import oracle
from tests.support.proof_verdicts import Bound, proof_of

SCHEME = Scheme()
START, END = b"\x21\x01", b"\x30\x31"
STORE = {
    b"": b"the empty key's value",
    b"\x10": b"a" * 31,
    b"\x10\x00": b"b" * 32,
    b"\x21\x00": b"c" * 33,
    START: b"d" * 40,
    b"\x21\x77": b"",
    b"\x25": b"f" * 32,
    b"\x30\x30": b"g",
    END: b"h" * 31,
    b"\x30\x31\x50": b"i",
    b"\x30\x4f": b"j" * 50,
    b"\x77": b"k",
    b"\x78": b"l",
}
OTHER_ID = bytes(range(32))
# Where the branches stand in the boundary of the honest proof.
ROOT, LEFT, RIGHT, AT_END = range(4)


class Case(NamedTuple):
    """A proof, and what a verifier is asked about it; a change proof is verified beside a local content."""

    proof: RangeProof | ChangeProof
    root: bytes = oracle.root_of(STORE, SCHEME)
    start: Bound = START
    end: Bound = END
    max_keys: int | None = None
    max_bytes: int | None = None

    def verify(self) -> merkledb.VerifiedRange:
        assert isinstance(self.proof, RangeProof)
        limits = {"max_keys": self.max_keys, "max_bytes": self.max_bytes}
        return verify_range(self.proof, self.root, self.start, self.end, scheme=SCHEME, **limits)

    def verify_beside(self, local: Database) -> VerifiedChanges:
        assert isinstance(self.proof, ChangeProof)
        limits = {"max_keys": self.max_keys, "max_bytes": self.max_bytes}
        return local.verify_changes(self.proof, self.root, self.start, self.end, **limits)

    @property
    def pairs(self) -> dict[bytes, bytes | None]:
        """What the proof carries: pairs, or changes."""
        return dict(zip(self.proof.keys, self.proof.values, strict=True))

    def with_proof(self, **fields: Any) -> "Case":
        return self._replace(proof=self.proof._replace(**fields))

    def with_pairs(self, pairs: Mapping[bytes, bytes | None]) -> "Case":
        return self.with_proof(keys=tuple(pairs), values=tuple(pairs.values()))

    def without_keys(self, *keys: bytes) -> "Case":
        return self.with_pairs({key: value for key, value in self.pairs.items() if key not in keys})

    def with_branch(self, index: int, **fields: Any) -> "Case":
        boundary = list(self.proof.boundary)
        boundary[index] = boundary[index]._replace(**fields)
        return self.with_proof(boundary=tuple(boundary))

    def with_children(self, index: int, *children: Any) -> "Case":
        return self.with_branch(index, children=children)

    def with_boundary(self, *branches: Any) -> "Case":
        return self.with_proof(boundary=tuple(sorted(branches, key=lambda branch: branch.path)))

    def with_more_boundary(self, *branches: Any) -> "Case":
        return self.with_boundary(*self.proof.boundary, *branches)


def honest(start: Bound = START, end: Bound = END, max_keys: int | None = None) -> Case:
    return Case(proof_of(STORE, SCHEME, start, end, max_keys), start=start, end=end)


def id_at(path: bytes) -> bytes:
    """The id of the node at a path of the store's trie."""
    return next(node.id for node in oracle.nodes_of(oracle.build(STORE, SCHEME)) if node.path == path)


def pair_moved_into_the_proof(case: Case, key: bytes, **changes: Any) -> Case:
    return case.with_pairs(dict(sorted({**case.pairs, key: STORE[key]}.items())))._replace(**changes)


def swapped(column: tuple[Any, ...], first: int, second: int) -> tuple[Any, ...]:
    items = list(column)
    items[first], items[second] = items[second], items[first]
    return tuple(items)


Tamper = Callable[[Case], Case]


def without_branch(index: int) -> Tamper:
    return lambda case: case.with_boundary(*case.proof.boundary[:index], *case.proof.boundary[index + 1 :])


def without_none(things: dict[str, Any]) -> dict[str, Any]:
    return {what: thing for what, thing in things.items() if thing is not None}


PAIRS: dict[str, tuple[Tamper, Reason]] = {
    # A pair beside a stub takes the branch with it under which the stub would hang.
    "the first pair is dropped": (lambda case: case.without_keys(START), Reason.STUB_NOT_DIRECT),
    "a pair in the middle is dropped": (lambda case: case.without_keys(b"\x25"), Reason.WRONG_ROOT),
    "the last pair is dropped": (lambda case: case.without_keys(END), Reason.STUB_NOT_DIRECT),
    "a whole subtree is dropped": (
        lambda case: case.without_keys(b"\x30\x30", END).with_boundary(*case.proof.boundary[:RIGHT]),
        Reason.WRONG_ROOT,
    ),
    "all pairs are dropped": (
        lambda case: case.with_pairs({}).with_boundary(case.proof.boundary[ROOT]),
        Reason.WRONG_ROOT,
    ),
    "a pair is added": (
        lambda case: case.with_proof(
            keys=(*case.proof.keys[:3], b"\x26", *case.proof.keys[3:]),
            values=(*case.proof.values[:3], b"", *case.proof.values[3:]),
        ),
        Reason.WRONG_ROOT,
    ),
    "a key is altered": (
        lambda case: case.with_proof(keys=(START, b"\x21\x78", *case.proof.keys[2:])),
        Reason.WRONG_ROOT,
    ),
    "a key gets a zero byte more": (
        lambda case: case.with_proof(keys=(START, b"\x21\x77\x00", *case.proof.keys[2:])),
        Reason.WRONG_ROOT,
    ),
    "a value is altered": (
        lambda case: case.with_proof(values=(b"d" * 39 + b"e", *case.proof.values[1:])),
        Reason.WRONG_ROOT,
    ),
    "a value is swapped with its digest": (
        lambda case: case.with_proof(values=(SCHEME.digest(STORE[START]), *case.proof.values[1:])),
        Reason.WRONG_ROOT,
    ),
    "an empty value becomes a zero byte": (
        lambda case: case.with_proof(values=(STORE[START], b"\x00", *case.proof.values[2:])),
        Reason.WRONG_ROOT,
    ),
    "two values change places": (
        lambda case: case.with_proof(values=swapped(case.proof.values, 1, 2)),
        Reason.WRONG_ROOT,
    ),
    "two pairs change places": (
        lambda case: case.with_proof(
            keys=swapped(case.proof.keys, 1, 2), values=swapped(case.proof.values, 1, 2)
        ),
        Reason.KEYS_OUT_OF_ORDER,
    ),
    "a pair comes twice": (
        lambda case: case.with_proof(
            keys=(START, *case.proof.keys), values=(case.proof.values[0], *case.proof.values)
        ),
        Reason.KEYS_OUT_OF_ORDER,
    ),
    "a key comes twice, with another value first": (
        lambda case: case.with_proof(keys=(START, *case.proof.keys), values=(b"", *case.proof.values)),
        Reason.KEYS_OUT_OF_ORDER,
    ),
    "a true pair before the start is carried": (
        lambda case: pair_moved_into_the_proof(case, b"\x21\x00").with_branch(LEFT, children=()),
        Reason.KEY_OUTSIDE_RANGE,
    ),
    "a true pair behind the end is carried": (
        lambda case: pair_moved_into_the_proof(case, b"\x30\x31\x50").with_branch(AT_END, children=()),
        Reason.KEY_OUTSIDE_RANGE,
    ),
    "the empty key is carried before the start": (
        lambda case: pair_moved_into_the_proof(case, b"").with_branch(ROOT, digest=None),
        Reason.KEY_OUTSIDE_RANGE,
    ),
    "a value is missing": (lambda case: case.with_proof(values=case.proof.values[1:]), Reason.MALFORMED),
    "a value is left over": (
        lambda case: case.with_proof(values=(*case.proof.values, b"")),
        Reason.MALFORMED,
    ),
    "a key is longer than any key": (
        lambda case: case.with_proof(
            keys=(START, b"\x21\x77" + bytes(251), *case.proof.keys[2:]),
        ),
        Reason.KEY_TOO_LONG,
    ),
    "a value is longer than any value": (
        lambda case: case.with_proof(values=(bytes(merkledb.MAX_VALUE_BYTES + 1), *case.proof.values[1:])),
        Reason.VALUE_TOO_LONG,
    ),
    "more pairs than were asked for": (lambda case: case._replace(max_keys=4), Reason.TOO_MANY_KEYS),
    "more bytes than were asked for": (
        lambda case: case._replace(max_bytes=len(case.proof.encode()) - 1),
        Reason.TOO_MANY_BYTES,
    ),
}

ENDS: dict[str, tuple[Tamper, Reason]] = {
    "the end lies before the requested one": (
        lambda _: honest(START, b"\x30\x20").with_proof(end=b"\x30"),
        Reason.WRONG_END,
    ),
    "the end lies behind the requested one": (
        lambda case: case.with_proof(end=END + b"\x00"),
        Reason.WRONG_END,
    ),
    "the end is unbounded where a bound was requested": (
        lambda case: case.with_proof(end=None),
        Reason.WRONG_END,
    ),
    "the requested end is unbounded and the proof's is no key": (
        lambda _: honest(START, b"\x30\x40")._replace(end=None),
        Reason.WRONG_END,
    ),
    "the proof ends at its last key but a pair before it is dropped": (
        lambda _: honest(max_keys=3).without_keys(b"\x21\x77"),
        Reason.WRONG_ROOT,
    ),
    "the proof pretends to be complete where it was cut off": (
        lambda _: honest(max_keys=3).with_proof(end=END),
        Reason.STUB_INSIDE_RANGE,
    ),
    "pairs are dropped at the end and the end is moved back, but not the boundary": (
        lambda case: case.without_keys(END).with_proof(end=b"\x30\x30"),
        Reason.STUB_NOT_DIRECT,
    ),
    "a truncated proof has no pair": (
        lambda _: honest(START, b"\x21\x01")._replace(end=END).with_pairs({}),
        Reason.NO_PROGRESS,
    ),
    "a range without pairs ends before the requested end": (
        lambda _: honest(b"\x40", b"\x50")._replace(end=b"\x60"),
        Reason.NO_PROGRESS,
    ),
}

BOUNDARY: dict[str, tuple[Tamper, Reason]] = {
    "the root's branch is omitted": (without_branch(ROOT), Reason.WRONG_ROOT),
    "the branch beside the start is omitted": (without_branch(LEFT), Reason.WRONG_ROOT),
    "the branch beside the end is omitted": (without_branch(RIGHT), Reason.WRONG_ROOT),
    "the branch at the end is omitted": (without_branch(AT_END), Reason.WRONG_ROOT),
    "the whole boundary is omitted": (lambda case: case.with_boundary(), Reason.WRONG_ROOT),
    "a branch tells nothing": (
        lambda case: case.with_more_boundary(Branch(b"\x02", None, ())),
        Reason.EMPTY_BRANCH,
    ),
    "a branch that is told is emptied": (
        lambda case: case.with_branch(LEFT, digest=None, children=()),
        Reason.EMPTY_BRANCH,
    ),
    "a branch comes twice": (
        lambda case: case.with_more_boundary(case.proof.boundary[LEFT]),
        Reason.BOUNDARY_OUT_OF_ORDER,
    ),
    "a branch comes twice, its children divided": (
        lambda case: case.with_children(ROOT, case.proof.boundary[ROOT].children[0]).with_more_boundary(
            Branch(b"", None, case.proof.boundary[ROOT].children[1:])
        ),
        Reason.BOUNDARY_OUT_OF_ORDER,
    ),
    "two branches change places": (
        lambda case: case.with_proof(boundary=swapped(case.proof.boundary, LEFT, RIGHT)),
        Reason.BOUNDARY_OUT_OF_ORDER,
    ),
    "a child is omitted": (
        lambda case: case.with_children(ROOT, *case.proof.boundary[ROOT].children[:1]),
        Reason.WRONG_ROOT,
    ),
    "a child is added": (
        lambda case: case.with_children(ROOT, *case.proof.boundary[ROOT].children, (9, OTHER_ID)),
        Reason.WRONG_ROOT,
    ),
    "a child has another id": (lambda case: case.with_children(RIGHT, (4, OTHER_ID)), Reason.WRONG_ROOT),
    "a child has the empty trie's root as its id": (
        lambda case: case.with_children(ROOT, *case.proof.boundary[ROOT].children, (9, EMPTY_ROOT)),
        Reason.WRONG_ROOT,
    ),
    "a child hangs in another slot": (
        lambda case: case.with_children(RIGHT, (5, case.proof.boundary[RIGHT].children[0][1])),
        Reason.WRONG_ROOT,
    ),
    "two children exchange their ids": (
        lambda case: case.with_children(ROOT, (1, id_at(b"\x07")), (7, id_at(b"\x01\x00"))),
        Reason.WRONG_ROOT,
    ),
    "the children of a branch stand in descending order": (
        lambda case: case.with_children(ROOT, *reversed(case.proof.boundary[ROOT].children)),
        Reason.TOKENS_OUT_OF_ORDER,
    ),
    "a child comes twice": (
        lambda case: case.with_children(RIGHT, *(2 * case.proof.boundary[RIGHT].children)),
        Reason.TOKENS_OUT_OF_ORDER,
    ),
    "a child's token is the branch factor": (
        lambda case: case.with_children(ROOT, *case.proof.boundary[ROOT].children, (16, OTHER_ID)),
        Reason.TOKEN_OUT_OF_RANGE,
    ),
    "a child's token is more than a byte": (
        lambda case: case.with_children(ROOT, *case.proof.boundary[ROOT].children, (256, OTHER_ID)),
        Reason.TOKEN_OUT_OF_RANGE,
    ),
    "a child's token is negative": (
        lambda case: case.with_children(ROOT, (-1, OTHER_ID), *case.proof.boundary[ROOT].children),
        Reason.TOKEN_OUT_OF_RANGE,
    ),
    "a path has a token that is the branch factor": (
        lambda case: case.with_more_boundary(Branch(b"\x10\x00", b"", ())),
        Reason.TOKEN_OUT_OF_RANGE,
    ),
    "an id has 31 bytes": (lambda case: case.with_children(RIGHT, (4, bytes(31))), Reason.BAD_ID),
    "an id has 33 bytes": (lambda case: case.with_children(RIGHT, (4, bytes(33))), Reason.BAD_ID),
    "an id is empty": (lambda case: case.with_children(RIGHT, (4, b"")), Reason.BAD_ID),
    "a digest is omitted": (lambda case: case.with_branch(ROOT, digest=None), Reason.WRONG_ROOT),
    "a digest is altered": (lambda case: case.with_branch(ROOT, digest=b"another"), Reason.WRONG_ROOT),
    "an absent digest becomes an empty one": (
        lambda case: case.with_more_boundary(Branch(b"\x09\x09", b"", ())),
        Reason.WRONG_ROOT,
    ),
    "a digest has 33 bytes": (lambda case: case.with_branch(ROOT, digest=bytes(33)), Reason.BAD_DIGEST),
    "a digest stands where no key ends": (
        lambda case: case.with_branch(LEFT, digest=b"digest"),
        Reason.BAD_DIGEST,
    ),
    "a digest moves down to a branch outside the range": (
        lambda case: case.with_branch(ROOT, digest=None).with_more_boundary(
            Branch(b"\x09\x09", STORE[b""], ())
        ),
        Reason.WRONG_ROOT,
    ),
    "a digest moves to a branch inside the range": (
        lambda case: case.with_branch(ROOT, digest=None).with_branch(RIGHT, digest=STORE[b""]),
        Reason.DIGEST_INSIDE_RANGE,
    ),
    "the start's value is told by its digest alone": (
        lambda case: case.without_keys(START).with_more_boundary(
            Branch(b"\x02\x01\x00\x01", SCHEME.digest(STORE[START]), ())
        ),
        Reason.DIGEST_INSIDE_RANGE,
    ),
    "the end's value is told by its digest alone": (
        lambda case: case.without_keys(END).with_branch(AT_END, digest=STORE[END]),
        Reason.DIGEST_INSIDE_RANGE,
    ),
    "the same digest is told twice": (
        lambda case: case.with_more_boundary(Branch(b"\x02\x01\x00\x01", SCHEME.digest(STORE[START]), ())),
        Reason.DIGEST_INSIDE_RANGE,
    ),
    "a path is longer than any key's": (
        lambda case: case.with_more_boundary(Branch(b"\x09" * 505, b"", ())),
        Reason.PATH_TOO_LONG,
    ),
}

STUBS: dict[str, tuple[Tamper, Reason]] = {
    "a subtree between the bounds is sent as a stub": (
        lambda case: case.without_keys(b"\x25").with_more_boundary(
            Branch(b"\x02", None, ((5, id_at(b"\x02\x05")),))
        ),
        Reason.STUB_INSIDE_RANGE,
    ),
    "the start is hidden in the stub of its own slot": (
        lambda case: case.without_keys(START).with_children(
            LEFT, *case.proof.boundary[LEFT].children, (1, id_at(b"\x02\x01\x00\x01"))
        ),
        Reason.STUB_INSIDE_RANGE,
    ),
    "the end is hidden in the stub of its own slot": (
        lambda case: case.without_keys(END).with_boundary(
            *case.proof.boundary[:AT_END], Branch(b"\x03\x00\x03", None, ((1, id_at(b"\x03\x00\x03\x01")),))
        ),
        Reason.STUB_INSIDE_RANGE,
    ),
    "the subtree that the start's path leads into is sent as a stub": (
        lambda case: case.without_keys(START, b"\x21\x77", b"\x25").with_boundary(
            case.proof.boundary[ROOT]._replace(
                children=((1, id_at(b"\x01\x00")), (2, id_at(b"\x02")), (7, id_at(b"\x07")))
            ),
            *case.proof.boundary[RIGHT:],
        ),
        Reason.STUB_INSIDE_RANGE,
    ),
    "a stub is placed deeper than its slot, behind the end, and hides all keys beside it": (
        # The root's slot 3 holds the node at 3 0. Placed at 3 0 3 1 5 it lies outside the range, and
        # since a lone child takes its parent's place, it ends up in the root's slot 3 all the same:
        # the root matches.
        lambda case: case.without_keys(b"\x30\x30", END).with_boundary(
            *case.proof.boundary[:RIGHT], Branch(b"\x03\x00\x03\x01", None, ((5, id_at(b"\x03\x00")),))
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "a stub is placed deeper than its slot, before the start, and hides all keys beside it": (
        lambda case: case.without_keys(START, b"\x21\x77", b"\x25").with_boundary(
            case.proof.boundary[ROOT],
            Branch(b"\x02\x01\x00", None, ((0, id_at(b"\x02")),)),
            *case.proof.boundary[RIGHT:],
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "a stub is placed deeper than its slot and hides nothing": (
        lambda case: case.with_boundary(
            case.proof.boundary[ROOT]._replace(children=case.proof.boundary[ROOT].children[:1]),
            *case.proof.boundary[1:],
            Branch(b"\x07\x00", None, ((0, id_at(b"\x07")),)),
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "the whole trie is one stub behind the end": (
        lambda case: case.with_pairs({}).with_boundary(Branch(b"", None, ((7, case.root),))),
        Reason.STUB_NOT_DIRECT,
    ),
    "the whole trie is one stub before the start": (
        lambda case: case.with_pairs({}).with_boundary(Branch(b"\x02\x01\x00", None, ((0, case.root),))),
        Reason.STUB_NOT_DIRECT,
    ),
    "the empty trie is one stub": (
        lambda case: (
            case.with_pairs({}).with_boundary(Branch(b"", None, ((7, EMPTY_ROOT),)))._replace(root=EMPTY_ROOT)
        ),
        Reason.STUB_NOT_DIRECT,
    ),
    "a leaf's digest is told below the stub that holds it": (
        lambda case: case.with_more_boundary(Branch(b"\x01\x00", STORE[b"\x10"], ())),
        Reason.ITEM_BELOW_STUB,
    ),
    "a stub is told below the stub that holds it": (
        lambda case: case.with_more_boundary(Branch(b"\x01\x00", None, ((0, id_at(b"\x01\x00\x00\x00")),))),
        Reason.ITEM_BELOW_STUB,
    ),
    "a digest stands at the very path of a stub": (
        # A slot has a path and the leaf in it may have the same, but only one of them can be told.
        lambda case: case.with_more_boundary(
            Branch(b"\x09", None, ((0, OTHER_ID),)),
            Branch(b"\x09\x00", b"i", ()),
        ),
        Reason.ITEM_BELOW_STUB,
    ),
}

# By the names of their types, so that every process that runs tests gives each case the same name.
NOT_BYTES = {
    "None": None,
    "a number": 7,
    "text": "text",
    "a bytearray": bytearray(b"bytes"),
    "a view of bytes": memoryview(b"bytes"),
    "a list": [b"bytes"],
    "a tuple": (b"bytes",),
    "a fraction": 1.5,
}
NOT_TOKENS = {"None": None, "text": "4", "bytes": b"\x04", "a fraction": 4.0, "True": True, "a tuple": (4,)}
NOT_TUPLES: dict[str, Any] = {
    "None": None,
    "a number": 7,
    "bytes": b"bytes",
    "text": "text",
    "a list": [],
    "a mapping": {},
}

WRONG_TYPES: dict[str, tuple[dict[str, Any], Callable[[Case, Any], Case]]] = {
    "key": (NOT_BYTES, lambda case, thing: case.with_proof(keys=(thing, *case.proof.keys[1:]))),
    "value": (NOT_BYTES, lambda case, thing: case.with_proof(values=(thing, *case.proof.values[1:]))),
    "path": (NOT_BYTES, lambda case, thing: case.with_branch(AT_END, path=thing)),
    "child": (NOT_BYTES, lambda case, thing: case.with_children(RIGHT, thing)),
    "child id": (NOT_BYTES, lambda case, thing: case.with_children(RIGHT, (4, thing))),
    "branch": (NOT_BYTES, lambda case, thing: case.with_proof(boundary=(*case.proof.boundary, thing))),
    "token": (NOT_TOKENS, lambda case, thing: case.with_children(RIGHT, (thing, OTHER_ID))),
    "column of keys": (NOT_TUPLES, lambda case, thing: case.with_proof(keys=thing)),
    "column of values": (NOT_TUPLES, lambda case, thing: case.with_proof(values=thing)),
    "boundary": (NOT_TUPLES, lambda case, thing: case.with_proof(boundary=thing)),
    "branch's children": (NOT_TUPLES, lambda case, thing: case.with_branch(RIGHT, children=thing)),
    # An end or a digest may be None.
    "end": (without_none(NOT_BYTES), lambda case, thing: case.with_proof(end=thing)),
    "digest": (without_none(NOT_BYTES), lambda case, thing: case.with_branch(ROOT, digest=thing)),
}


def put(place: Callable[[Case, Any], Case], thing: Any) -> Tamper:
    return lambda case: place(case, thing)


MALFORMED: dict[str, tuple[Tamper, Reason]] = {
    f"a {where} is {what}": (put(place, thing), Reason.MALFORMED)
    for where, (things, place) in WRONG_TYPES.items()
    for what, thing in things.items()
}

TABLE = {**PAIRS, **ENDS, **BOUNDARY, **STUBS, **MALFORMED}
