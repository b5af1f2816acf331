"""Every honest change proof is what the definition says, is accepted, keeps its limits and makes progress.

The copy that checks a proof holds the old content in the range only; elsewhere it holds something else.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import merkledb
from merkledb import ChangeProof, Database, LimitTooSmall, Scheme, VerifiedChanges
from tests.support import oracle
from tests.support.databases import new_database
from tests.support.merkledb_strategies import (
    SCHEMES,
    Limits,
    changes,
    contents,
    limits,
    near_keys,
    ranges,
    schemes,
)
from tests.support.oracle import Contents
from tests.support.proof_verdicts import change_proof_of, overlaid
from tests.support.thoroughness import amount

KIB = 1024
# What a proof cut off by its bytes may leave unused, unless the next change is larger.
MAX_UNUSED_BYTES = 8 * KIB
# What msgpack adds to a key and its value at most, and to the counts of both.
CHANGE_OVERHEAD_BYTES = 14
UNLIMITED = Limits(1 << 20, 1 << 40)


@st.composite
def steps(draw: st.DrawFn) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """Two contents of one history: mostly alike, or one of them empty, or nothing in common."""
    old = draw(contents())
    new = dict(old)
    for _ in range(draw(st.integers(0, 2))):
        new = oracle.changed(new, draw(changes(sorted(new))))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        new = {}
    elif kind == 1:
        new = draw(contents())
    elif kind == 2:
        # A whole subtree goes.
        gone = draw(near_keys(sorted(old)))
        new = {key: value for key, value in new.items() if not key.startswith(gone[:1])}
    return (new, old) if draw(st.booleans()) else (old, new)


def assert_limits_are_used_up(proof: ChangeProof, longer: ChangeProof, limit: Limits) -> None:
    """Fail when a cut-off proof could have carried more; `longer` carries one change more, if there is."""
    if len(proof.keys) == limit.max_keys or len(longer.keys) == len(proof.keys):
        return
    next_bytes = len(longer.keys[-1]) + len(longer.values[-1] or b"") + CHANGE_OVERHEAD_BYTES
    unused = limit.max_bytes - len(proof.encode())
    assert unused < max(MAX_UNUSED_BYTES, next_bytes) or len(longer.encode()) > limit.max_bytes


def assert_next_keys_name_what_is_left(
    verified: VerifiedChanges, new: Mapping[bytes, bytes], requested_end: bytes | None
) -> None:
    """Fail unless the next keys lie behind the proof's end and each of them leads to content."""
    next_keys = list(verified.next_keys)
    if verified.complete:
        assert next_keys == []
        return
    assert verified.end is not None
    assert all(verified.end < key and oracle.in_range(key, None, requested_end) for key in next_keys)
    assert all(before < after for before, after in pairwise(next_keys))
    for first, behind in pairwise([*next_keys, None]):
        assert first is not None
        assert any(first <= key and (behind is None or key < behind) for key in new)


def with_needed_bytes(
    database: Database,
    error: LimitTooSmall,
    step: tuple[bytes, bytes],
    bounds: tuple[bytes | None, ...],
    max_keys: int = 4096,
) -> ChangeProof:
    """The proof that fits when it is asked for with as many bytes as the error names."""
    assert error.needed_bytes > error.max_bytes
    proof = database.prove_changes(*step, *bounds, max_keys=max_keys, max_bytes=error.needed_bytes)
    assert len(proof.encode()) <= error.needed_bytes
    assert proof.keys or proof.end == bounds[1]
    return proof


@pytest.mark.slow
@given(data=st.data(), scheme=schemes(), step=steps(), limit=limits(), at_same_snapshot=contents(max_size=3))
@settings(max_examples=amount(150, soak=10_000))
def test_every_honest_change_proof_is_by_definition_accepted_and_within_its_limits(
    data: st.DataObject,
    scheme: Scheme,
    step: tuple[dict[bytes, bytes], dict[bytes, bytes]],
    limit: Limits,
    at_same_snapshot: dict[bytes, bytes],
) -> None:
    old, new = step
    start, end = data.draw(ranges(sorted({**old, **new})))
    with new_database(old, scheme) as source:
        old_root = source.root
        new_root = source.commit(oracle.changes_between(old, new))
        try:
            proof = source.prove_changes(
                old_root, new_root, start, end, max_keys=limit.max_keys, max_bytes=limit.max_bytes
            )
        except LimitTooSmall as error:
            event("limit too small")
            proof = with_needed_bytes(source, error, (old_root, new_root), (start, end), limit.max_keys)
            limit = Limits(limit.max_keys, error.needed_bytes)
    is_cut = proof.end != end
    event("cut off" if is_cut else "complete")
    assert proof == change_proof_of(old, new, scheme, start, proof.end)
    assert proof.end == (proof.keys[-1] if is_cut else end)
    assert ChangeProof.decode(proof.encode()) == proof
    assert len(proof.encode()) <= limit.max_bytes
    assert len(proof.keys) <= limit.max_keys
    if is_cut:
        longer = change_proof_of(old, new, scheme, start, end, len(proof.keys) + 1)
        assert_limits_are_used_up(proof, longer, limit)
    local = oracle.pairs_in(old, start, end)
    local |= {key: value for key, value in at_same_snapshot.items() if not oracle.in_range(key, start, end)}
    assert_accepted(proof, local, new, scheme, (start, end), limit)


def assert_accepted(
    proof: ChangeProof,
    local: Contents,
    new: Contents,
    scheme: Scheme,
    bounds: tuple[bytes | None, bytes | None],
    limit: Limits = UNLIMITED,
) -> None:
    """Fail unless a proof is accepted beside a local content, and turns the range into the new one."""
    root = oracle.root_of(new, scheme)
    assert oracle.untruth_of(proof, local, new, scheme, *bounds) is None
    with new_database(local, scheme) as copy:
        before = copy.tip_root
        verified = copy.verify_changes(
            proof, root, *bounds, max_keys=limit.max_keys, max_bytes=limit.max_bytes
        )
        assert copy.tip_root == before, "verification changes nothing"
        assert (verified.scheme, verified.root) == (scheme, root)
        assert (verified.start, verified.end) == (bounds[0], proof.end)
        assert (verified.keys, verified.values) == (proof.keys, proof.values)
        assert len(verified) == len(proof.keys)
        assert verified.value_bytes == sum(len(value or b"") for value in proof.values)
        assert verified.memory_bytes >= verified.value_bytes
        assert verified.complete == (proof.end == bounds[1])
        assert_next_keys_name_what_is_left(verified, new, bounds[1])
        after = overlaid(local, verified)
        assert copy.apply(verified) == copy.tip_root == oracle.root_of(after, scheme)
        copy.check()
        assert copy.catching_up == (after != new)
        if after == new or local:
            assert dict(copy.items()) == (new if after == new else local)
        else:
            assert copy.head is None


@given(scheme=schemes(), step=steps(), max_keys=st.integers(1, 5))
@settings(max_examples=amount(30, soak=2_000))
def test_a_walk_over_change_proofs_brings_a_copy_forward(
    scheme: Scheme, step: tuple[dict[bytes, bytes], dict[bytes, bytes]], max_keys: int
) -> None:
    old, new = step
    with new_database(old, scheme) as source, new_database(old, scheme) as copy:
        old_root, new_root = source.root, source.commit(oracle.changes_between(old, new))
        start: bytes | None = None
        while True:
            proof = source.prove_changes(old_root, new_root, start, max_keys=max_keys)
            verified = copy.verify_changes(proof, new_root, start, max_keys=max_keys)
            copy.apply(verified)
            if verified.complete:
                break
            assert verified.end is not None
            assert len(verified) == max_keys
            assert start is None or verified.end >= start
            start = verified.end + b"\x00"
        assert (copy.root, dict(copy.items())) == (new_root, new)
        assert not copy.catching_up
        copy.check()


# ------------------------------------------------------------------------------- what others stumbled over

HASHES = [bytes([number]) * 32 for number in range(0, 256, 7)]
NASTY: dict[str, tuple[dict[bytes, bytes], dict[bytes, bytes]]] = {
    "nothing becomes nothing": ({}, {}),
    "a first key": ({}, {b"k": b"v"}),
    "the empty key is the first": ({}, {b"": b""}),
    "the empty key comes to others": (
        {b"\x10": b"a", b"\x20": b"b"},
        {b"": b"", b"\x10": b"a", b"\x20": b"b"},
    ),
    "the empty key goes": ({b"": b"e", b"\x10": b"a", b"\x20": b"b"}, {b"\x10": b"a", b"\x20": b"b"}),
    "the empty key goes from one other": ({b"": b"e", b"\x10": b"a"}, {b"\x10": b"a"}),
    "the last key goes": ({b"k": b"v"}, {}),
    "everything goes": (dict.fromkeys(HASHES, b"v"), {}),
    "a single leaf changes its value": ({b"k": b"v"}, {b"k": b"w"}),
    "a single leaf moves": ({b"\x10": b"v"}, {b"\x1f": b"v"}),
    "a leaf becomes a branch": ({b"\x12": b"v"}, {b"\x12": b"v", b"\x12\x34": b"w"}),
    "a branch becomes a leaf": ({b"\x12": b"v", b"\x12\x34": b"w"}, {b"\x12": b"v"}),
    "a branch loses its value and collapses": (
        {b"\x12": b"v", b"\x12\x34\x56": b"w", b"\x20": b"x"},
        {b"\x12\x34\x56": b"w", b"\x20": b"x"},
    ),
    "a branch loses all but one child and collapses": (
        {b"\x12\x10": b"a", b"\x12\x20": b"b", b"\x12\x31": b"c", b"\x12\x32": b"d"},
        {b"\x12\x31": b"c", b"\x12\x32": b"d"},
    ),
    "a chain of branches collapses": (
        {b"\x11" * length: b"v" for length in range(1, 12)},
        {b"\x11" * 11: b"v"},
    ),
    "the topmost branch moves down": (
        {b"\x00": b"a", b"\x12\x34": b"b", b"\x12\x35": b"c"},
        {b"\x12\x34": b"b", b"\x12\x35": b"c"},
    ),
    "the topmost branch moves up": (
        {b"\x12\x34": b"b", b"\x12\x35": b"c"},
        {b"\x00": b"a", b"\x12\x34": b"b", b"\x12\x35": b"c"},
    ),
    "values cross the length from where they are hashed": (
        {b"a": bytes(31), b"b": bytes(32), b"c": bytes(33), b"d": bytes(32)},
        {b"a": bytes(32), b"b": bytes(33), b"c": bytes(31), b"d": bytes(31)},
    ),
    "a value becomes its own hash": ({b"a": bytes(40)}, {b"a": Scheme().digest(bytes(40))}),
    "an empty value comes, and one goes": ({b"a": b"", b"b": b"x"}, {b"a": b"x", b"b": b""}),
    "zeros": ({bytes(n): b"" for n in range(0, 9, 2)}, {bytes(n): b"" for n in range(1, 9, 2)}),
    "a deep path branches at its end": (
        {b"a" * 60: b"1", b"b": b"2"},
        {b"a" * 60: b"1", b"a" * 59 + b"b": b"3", b"b": b"2"},
    ),
    "a key left of the start goes and takes its branch along": (
        {b"\x10\x04": b"a", b"\x10\x05": b"b", b"\x30": b"c"},
        {b"\x10\x05": b"d", b"\x30": b"c"},
    ),
    "every other key goes": (
        {bytes([n]): b"v" for n in range(256)},
        {bytes([n]): b"v" for n in range(0, 256, 2)},
    ),
    "a range is emptied in the middle": (
        {bytes([n]): b"v" for n in range(256)},
        {bytes([n]): b"v" for n in range(256) if not 0x28 <= n <= 0xB7},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", NASTY)
def test_what_others_stumbled_over_is_proved_and_accepted_in_every_range(name: str, backwards: bool) -> None:
    old, new = reversed(NASTY[name]) if backwards else NASTY[name]
    changed = sorted(oracle.changes_between(old, new))
    places = [changed[0], changed[len(changed) // 2], changed[-1] + b"\x00"] if changed else [b"k"]
    bounds: list[tuple[bytes | None, bytes | None]] = [(None, None)]
    bounds += [(place, None) for place in places] + [(None, place) for place in places]
    bounds += [(place, place) for place in places] + list(pairwise(places))
    for scheme in SCHEMES[:: 2 if backwards else 3]:
        with new_database(old, scheme) as source:
            roots = source.root, source.commit(oracle.changes_between(old, new))
            with new_database(old, scheme) as copy:
                for start, end in bounds:
                    proof = source.prove_changes(*roots, start, end)
                    assert proof == change_proof_of(old, new, scheme, start, end)
                    copy.verify_changes(proof, roots[1], start, end)
            for start, end in ((None, None), (places[0], places[-1])):
                proof = source.prove_changes(*roots, start, end)
                assert_accepted(proof, oracle.pairs_in(old, start, end), new, scheme, (start, end))


def test_changes_between_the_same_root_are_none() -> None:
    with new_database({b"a": b"1", b"b": b"2"}) as database:
        content = dict(database.items())
        proof = database.prove_changes(database.root, database.root, b"a", b"b")
        assert proof == change_proof_of(content, content, database.scheme, b"a", b"b")
        verified = database.verify_changes(proof, database.root, b"a", b"b")
        assert database.apply(verified) == database.root
        assert database.revision == 1


def test_changes_lead_from_any_retained_root_to_any_other() -> None:
    worlds = [{bytes([n, m]): b"%d" % (m * k) for n in range(k) for m in range(5)} for k in (1, 4, 2, 7, 3)]
    with new_database() as database:
        before: Contents = {}
        for world in worlds:
            database.commit(oracle.changes_between(before, world))
            before = world
        roots = {oracle.root_of(world, database.scheme): world for world in [{}, *worlds]}
        for old_root, old in roots.items():
            for new_root, new in roots.items():
                proof = database.prove_changes(old_root, new_root)
                assert proof == change_proof_of(old, new, database.scheme)
                found = list(database.differences(old_root, new_root))
                assert [tuple(each) for each in found] == [
                    (key, old.get(key), new.get(key)) for key in oracle.changes_between(old, new)
                ]


def test_a_change_that_came_and_went_is_none() -> None:
    with new_database({b"a": b"1", b"b": b"2"}) as database:
        old_root = database.root
        database.commit({b"a": b"other", b"new": b"x"})
        new_root = database.commit({b"a": b"1", b"new": None, b"b": b"3"})
        assert database.prove_changes(old_root, new_root).keys == (b"b",)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_change_proof_of_any_size_in_bytes_is_cut_at_the_last_change_that_fits(scheme: Scheme) -> None:
    # Limits beside each other show a cut that miscounts by a byte, also where a length needs a longer header.
    old = {bytes([n]) * 20: b"v" for n in range(0, 250, 2)}
    new = {bytes([n]) * 20: bytes([n]) * 250 for n in range(0, 250, 5)}
    with new_database(old, scheme) as database:
        roots = database.root, database.commit(oracle.changes_between(old, new))
        for max_bytes in range(4200, 5000, 7):
            proof = database.prove_changes(*roots, max_bytes=max_bytes)
            assert len(proof.encode()) <= max_bytes
            longer = change_proof_of(old, new, scheme, max_keys=len(proof.keys) + 1)
            assert_limits_are_used_up(proof, longer, Limits(4096, max_bytes))
        for max_keys in range(1, 12):
            proof = database.prove_changes(*roots, max_keys=max_keys)
            assert proof == change_proof_of(old, new, scheme, max_keys=max_keys)


def test_a_large_change_proof_cut_off_by_bytes_leaves_less_than_8_kib_unused() -> None:
    old = {n.to_bytes(2) * 16: b"v" for n in range(0, 60_000, 20)}
    new = {n.to_bytes(2) * 16: n.to_bytes(2) * 20 for n in range(0, 60_000, 30)}
    with new_database(old) as database:
        roots = database.root, database.commit(oracle.changes_between(old, new))
        for max_bytes in (20 * KIB, 64 * KIB, 100_001):
            proof = database.prove_changes(*roots, b"\x10", max_bytes=max_bytes)
            assert max_bytes - MAX_UNUSED_BYTES < len(proof.encode()) <= max_bytes


def test_a_change_larger_than_the_limit_is_served_with_the_size_that_the_error_names() -> None:
    with new_database({b"a": b"1", b"b": b"2", b"c": b"3"}) as database:
        roots = database.root, database.commit({b"a": b"x", b"b": bytes(300 * KIB), b"c": None})
        before = database.prove_changes(*roots, max_bytes=100 * KIB)
        assert (before.keys, before.end) == ((b"a",), b"a")
        with pytest.raises(LimitTooSmall) as caught:
            database.prove_changes(*roots, b"a\x00", max_bytes=100 * KIB)
        assert 300 * KIB < caught.value.needed_bytes < 310 * KIB
        with_needed_bytes(database, caught.value, roots, (b"a\x00", None))


def test_limits_and_ranges_that_make_no_sense_are_refused() -> None:
    with new_database({b"key": b"value"}) as database:
        roots = merkledb.EMPTY_ROOT, database.root
        for unusable in (0, -1):
            with pytest.raises(ValueError, match="max_keys"):
                database.prove_changes(*roots, max_keys=unusable)
        with pytest.raises(LimitTooSmall):
            database.prove_changes(*roots, max_bytes=0)
        with pytest.raises(merkledb.InvalidRange):
            database.prove_changes(*roots, b"b", b"a")
        with pytest.raises(merkledb.InvalidRange):
            list(database.differences(*roots, b"b", b"a"))
        with pytest.raises(merkledb.InvalidRange):
            database.verify_changes(database.prove_changes(*roots), database.root, b"b", b"a")


def test_a_root_that_never_was_is_named_whichever_of_both_it_is() -> None:
    with new_database({b"key": b"value"}) as database:
        unknown = b"\x01" * 32
        for roots in ((unknown, database.root), (database.root, unknown)):
            with pytest.raises(merkledb.UnknownRoot) as caught:
                database.prove_changes(*roots)
            assert caught.value.root == unknown
            with pytest.raises(merkledb.UnknownRoot):
                list(database.differences(*roots))


@pytest.mark.parametrize("root", [b"", b"\x01" * 31, b"\x01" * 7, b"\x00" * 7, bytes(33), None, "0" * 64])
def test_what_has_not_the_form_of_a_root_is_the_callers_mistake(root: Any) -> None:
    error = ValueError if isinstance(root, bytes) else TypeError
    with new_database({b"key": b"value"}) as database:
        for roots in ((root, database.root), (database.root, root)):
            with pytest.raises(error, match="a root "):
                database.prove_changes(*roots)
            with pytest.raises(error, match="a root "):
                database.differences(*roots)
        with pytest.raises(error, match="a root "):
            database.at(root)
        proof = database.prove_changes(database.root, database.root)
        with pytest.raises(error, match="a root "):
            database.verify_changes(proof, root)
        with pytest.raises(error, match="a root "):
            merkledb.verify_range(database.prove_range(), root)
