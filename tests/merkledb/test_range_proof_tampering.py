"""A range proof that was tampered with is rejected, or says the truth nevertheless."""

from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from merkledb import EMPTY_ROOT, Branch, InvalidProof, Reason, Scheme
from tests.support import oracle
from tests.support.merkledb_strategies import contents, near_keys, ranges, schemes
from tests.support.proof_verdicts import Telling, rejection
from tests.support.range_proof_tamperings import END, OTHER_ID, SCHEME, START, STORE, TABLE, Case, honest
from tests.support.thoroughness import amount

# Why a telling that hides a key may be rejected; below the longest key, a stub hangs deeper than any path.
UNSOUND = (Reason.STUB_NOT_DIRECT, Reason.STUB_INSIDE_RANGE, Reason.PATH_TOO_LONG)


def test_the_table_starts_from_the_proof_that_its_drawing_shows() -> None:
    case = honest()
    assert case.proof.keys == (START, b"\x21\x77", b"\x25", b"\x30\x30", END)
    assert [(b.path, b.digest, [t for t, _ in b.children]) for b in case.proof.boundary] == [
        (b"", STORE[b""], [1, 7]),
        (b"\x02\x01\x00", None, [0]),
        (b"\x03\x00", None, [4]),
        (b"\x03\x00\x03\x01", None, [5]),
    ]
    assert case.verify().complete


@pytest.mark.parametrize("name", TABLE)
def test_a_tampering_is_rejected_with_its_reason(name: str) -> None:
    tamper, reason = TABLE[name]
    with pytest.raises(InvalidProof) as caught:
        tamper(honest()).verify()
    assert caught.value.reason is reason, caught.value


def test_every_reason_has_a_tampering() -> None:
    assert {reason for _, reason in TABLE.values()} == set(Reason)


def test_limits_that_are_just_met_are_no_reason_to_reject() -> None:
    case = honest()
    case._replace(max_keys=len(case.proof.keys), max_bytes=len(case.proof.encode())).verify()


@pytest.mark.parametrize("max_keys", range(1, 6))
def test_an_honest_proof_cut_off_anywhere_is_accepted(max_keys: int) -> None:
    verified = honest(max_keys=max_keys).verify()
    assert (len(verified), verified.complete) == (max_keys, max_keys == 5)


# What a mutation may put into a proof: paths, ids, digests and keys that are true somewhere
# else are the best lies.
NODES = list(oracle.nodes_of(oracle.build(STORE, SCHEME)))
IDS = st.sampled_from([*(node.id for node in NODES), OTHER_ID, EMPTY_ROOT]) | st.binary(max_size=33)
PATHS = st.sampled_from([node.path for node in NODES]) | st.binary(max_size=5).map(
    lambda drawn: bytes(token % 17 for token in drawn)
)
DIGESTS = (
    st.none() | st.sampled_from([SCHEME.digest(value) for value in STORE.values()]) | st.binary(max_size=33)
)
KEYS = near_keys(sorted(STORE))
VALUES = st.sampled_from(sorted(STORE.values())) | st.binary(max_size=40)
CHILDREN = st.tuples(st.integers(0, 16), IDS)
BRANCHES = st.builds(Branch, PATHS, DIGESTS, st.lists(CHILDREN, max_size=3).map(tuple))
PLACES = [None, START, END, b"", b"\x10", b"\x21", b"\x25", b"\x30\x31\x50", b"\x78", b"\xff"]
RANGES = [(s, e) for s in PLACES for e in PLACES if s is None or e is None or s <= e]


@st.composite
def mutated(draw: st.DrawFn, column: tuple[Any, ...], items: st.SearchStrategy[Any]) -> tuple[Any, ...]:
    """A column with one item dropped, added, replaced, repeated or moved."""
    at = draw(st.integers(0, len(column)))
    change = draw(st.integers(0, 4))
    if change == 0:
        return column[:at] + column[at + 1 :]
    if change == 1:
        return (*column[:at], draw(items), *column[at:])
    if change == 2:
        return (*column[:at], draw(items), *column[at + 1 :])
    if change == 3:
        return column[: at + 1] + column[at:]
    return column[at:] + column[:at]


@st.composite
def mutated_boundaries(draw: st.DrawFn, boundary: tuple[Branch, ...]) -> tuple[Branch, ...]:
    if not boundary or draw(st.booleans()):
        return draw(mutated(boundary, BRANCHES))
    at = draw(st.integers(0, len(boundary) - 1))
    branch = boundary[at]
    field = draw(st.integers(0, 3))
    if field == 0:
        branch = branch._replace(path=draw(PATHS))
    elif field == 1:
        branch = branch._replace(digest=draw(DIGESTS))
    else:
        branch = branch._replace(children=draw(mutated(branch.children, CHILDREN)))
    return (*boundary[:at], branch, *boundary[at + 1 :])


@st.composite
def mutated_pairs(draw: st.DrawFn, case: Case) -> Case:
    """The case with a pair dropped, added, replaced, repeated or moved, or only half of it replaced."""
    keys, values = case.proof.keys, case.proof.values
    field = draw(st.integers(0, 2)) if keys else 0
    if field == 0:
        pairs = draw(mutated(tuple(zip(keys, values, strict=False)), st.tuples(KEYS, VALUES)))
        return case.with_proof(keys=tuple(key for key, _ in pairs), values=tuple(value for _, value in pairs))
    at = draw(st.integers(0, len(keys) - 1))
    if field == 1:
        return case.with_proof(keys=(*keys[:at], draw(KEYS), *keys[at + 1 :]))
    return case.with_proof(values=(*values[:at], draw(VALUES), *values[at + 1 :]))


@st.composite
def mutated_cases(draw: st.DrawFn) -> Case:
    """An honest case with one to three mutations, and mostly in order again."""
    start, end = draw(st.sampled_from(RANGES))
    case = honest(start, end, draw(st.none() | st.integers(1, 4)))
    for _ in range(draw(st.integers(1, 3))):
        field = draw(st.integers(0, 5))
        if field == 0:
            case = case.with_proof(end=draw(st.none() | KEYS))
        elif field < 3:
            case = draw(mutated_pairs(case))
        else:
            case = case.with_proof(boundary=draw(mutated_boundaries(case.proof.boundary)))
    if draw(st.integers(0, 3)) == 0:
        return case
    pairs = dict(sorted(zip(case.proof.keys, case.proof.values, strict=True)))
    case = case.with_pairs(pairs).with_boundary(*case.proof.boundary)
    is_cut = case.proof.end != case.end
    return case.with_proof(end=max(pairs)) if is_cut and pairs and draw(st.booleans()) else case


@pytest.mark.slow
@given(case=mutated_cases())
@settings(max_examples=amount(1500, soak=60_000))
def test_a_mutated_proof_is_never_accepted_with_pairs_that_are_not_the_truth(case: Case) -> None:
    try:
        verified = case.verify()
    except InvalidProof as error:
        event(f"rejected: {error.reason}")
        return
    event("accepted as it was" if case.proof == honest(case.start, case.end).proof else "accepted")
    assert verified.end == case.end or verified.end == verified.keys[-1]
    pairs = dict(zip(verified.keys, verified.values, strict=True))
    assert pairs == oracle.pairs_in(STORE, case.start, verified.end)


@st.composite
def tellings(draw: st.DrawFn, node: oracle.Node, slot: bytes, paths: list[bytes]) -> Telling:
    """A node and what lies below it, told somehow: a stub in its slot, or moved down towards a key."""
    if slot and draw(st.integers(0, 2)) == 0:
        path = draw(st.sampled_from([path for path in paths if path.startswith(slot)]))
        path += draw(st.sampled_from([b"", b"\x00", b"\x01"]))
        depth = draw(st.just(len(slot)) | st.integers(len(slot), len(path)))
        return Telling(stubs=((path[:depth], node.id),), in_slots=path[:depth] == slot)
    telling = Telling(() if node.digest is None else (node.path,))
    for token, child in sorted(node.children.items()):
        telling = telling.and_also(draw(tellings(child, node.path + bytes([token]), paths)))
    return telling


@pytest.mark.slow
@given(data=st.data(), scheme=schemes(), store=contents(min_size=1, max_size=10))
@settings(max_examples=amount(400, soak=20_000))
def test_a_trie_told_with_stubs_is_accepted_exactly_when_they_hide_no_key_of_the_range(
    data: st.DataObject, scheme: Scheme, store: dict[bytes, bytes]
) -> None:
    trie = oracle.build(store, scheme)
    assert trie is not None
    telling = data.draw(tellings(trie, b"", [oracle.path_of(key, scheme) for key in sorted(store)]))
    start, end = data.draw(ranges(sorted(store)))
    reason = rejection(telling.proof(store, start, end, scheme), trie.id, start, end, scheme)
    event(f"rejected: {reason}" if reason else "accepted")
    is_sound = telling.is_sound(oracle.Bounds.of_keys(start, end, scheme))
    assert reason is None if is_sound else reason in UNSOUND
