"""A store copied by proofs, applied in any order over any other content, ends with its content and root."""

from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import merkledb
from merkledb import Database, LimitTooSmall, Scheme, VerifiedRange, verify_range
from tests.support import oracle
from tests.support.databases import new_database
from tests.support.merkledb_strategies import SCHEMES, Limits, contents, limits, near_keys, ranges, schemes
from tests.support.proof_verdicts import overlaid
from tests.support.thoroughness import amount


def walk(
    source: Database, limit: Limits, start: bytes | None = None, end: bytes | None = None
) -> Iterator[VerifiedRange]:
    """Copy a range as a manager would: one verified piece after the other until one is complete."""
    max_bytes = limit.max_bytes
    while True:
        try:
            proof = source.prove_range(start, end, max_keys=limit.max_keys, max_bytes=max_bytes)
        except LimitTooSmall as error:
            max_bytes = error.needed_bytes
            continue
        verified = verify_range(proof, source.root, start, end, scheme=source.scheme, max_bytes=max_bytes)
        yield verified
        if verified.complete:
            return
        assert verified.end is not None
        assert start is None or verified.end >= start, "a proof that was cut off makes progress"
        start, max_bytes = verified.end + b"\x00", limit.max_bytes


def assert_holds(database: Database, expected: Mapping[bytes, bytes]) -> None:
    """Fail unless this is the head, and nothing is on the way."""
    assert_tip_holds(database, expected)
    assert not database.catching_up
    assert dict(database.items()) == expected
    assert database.root == database.tip_root
    assert len(database) == len(expected)


def assert_tip_holds(database: Database, expected: Mapping[bytes, bytes]) -> None:
    """Fail unless this is what the tables hold, be it a mixture that nobody sees."""
    database.check()
    assert database.tip_root == oracle.root_of(expected, database.scheme)


@pytest.mark.slow
@given(
    data=st.data(),
    scheme=schemes(),
    source=contents(),
    local=contents(max_size=8),
    shared=st.booleans(),
    limit=limits(),
)
@settings(max_examples=amount(100, soak=6_000))
def test_pieces_applied_in_any_order_end_at_the_same_root(
    data: st.DataObject,
    scheme: Scheme,
    source: dict[bytes, bytes],
    local: dict[bytes, bytes],
    shared: bool,
    limit: Limits,
) -> None:
    expected = local | dict(list(source.items())[::2]) if shared else local
    with new_database(source, scheme) as origin, new_database(expected, scheme) as copy:
        for verified in data.draw(st.permutations(list(walk(origin, limit)))):
            root = copy.apply(verified)
            expected = overlaid(expected, verified)
            assert root == copy.tip_root
            assert_tip_holds(copy, expected)
        assert_holds(copy, source)
        assert copy.root == origin.root


@given(data=st.data(), scheme=schemes(), source=contents(), local=contents(max_size=8), limit=limits())
@settings(max_examples=amount(30, soak=2_000))
def test_many_pieces_applied_at_once_do_what_they_do_one_by_one(
    data: st.DataObject, scheme: Scheme, source: dict[bytes, bytes], local: dict[bytes, bytes], limit: Limits
) -> None:
    with new_database(source, scheme) as origin, new_database(local, scheme) as copy:
        pieces = data.draw(st.permutations(list(walk(origin, limit))))
        at = data.draw(st.integers(0, len(pieces)))
        expected = local
        for batch in (pieces[:at], pieces[at:]):
            copy.apply(batch, progress=b"state")
            for verified in batch:
                expected = overlaid(expected, verified)
            assert_tip_holds(copy, expected)
        assert_holds(copy, source)
        assert copy.progress == b"state"


@given(data=st.data(), scheme=schemes(), source=contents(), local=contents())
@settings(max_examples=amount(30, soak=2_000))
def test_any_single_range_replaces_exactly_that_range(
    data: st.DataObject, scheme: Scheme, source: dict[bytes, bytes], local: dict[bytes, bytes]
) -> None:
    start, end = data.draw(ranges(sorted({**source, **local})))
    with new_database(source, scheme) as origin, new_database(local, scheme) as copy:
        for verified in walk(origin, Limits(4, 1 << 20), start, end):
            copy.apply(verified)
        kept = {key: value for key, value in local.items() if not oracle.in_range(key, start, end)}
        assert_tip_holds(copy, kept | oracle.pairs_in(source, start, end))


@given(data=st.data(), scheme=schemes(), store=contents(min_size=1), limit=limits())
@settings(max_examples=amount(40, soak=2_000))
def test_the_rest_may_be_split_at_the_next_keys(
    data: st.DataObject, scheme: Scheme, store: dict[bytes, bytes], limit: Limits
) -> None:
    start, end = data.draw(ranges(sorted(store)))
    with new_database(store, scheme) as origin, new_database(scheme=scheme) as copy:
        first = next(walk(origin, limit, start, end))
        copy.apply(first)
        for split in reversed(first.next_keys):
            if end is None or split <= end:
                for piece in walk(origin, limit, split, end):
                    copy.apply(piece)
        assert_tip_holds(copy, oracle.pairs_in(store, start, end))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_walk_continues_behind_a_key_of_the_longest_length(scheme: Scheme) -> None:
    longest = scheme.max_key_bytes
    store = {
        bytes(longest): b"a",
        bytes(longest - 1): b"b",
        b"\xff" * longest: b"c",
        b"\xff" * (longest - 1): b"d",
    }
    with new_database(store, scheme) as origin, new_database(scheme=scheme) as copy:
        for verified in walk(origin, Limits(1, 1 << 20)):
            copy.apply(verified)
        assert_holds(copy, store)


@given(scheme=schemes(), source=contents(min_size=2), local=contents(min_size=1))
@settings(max_examples=amount(20, soak=2_000))
def test_progress_lives_and_dies_with_what_it_speaks_of(
    scheme: Scheme, source: dict[bytes, bytes], local: dict[bytes, bytes]
) -> None:
    with new_database(source, scheme) as origin, new_database(local, scheme) as copy:
        first, *others = walk(origin, Limits(1, 1 << 20))
        steps: list[tuple[Callable[[], object], bytes | None]] = [
            (lambda: None, None),
            (lambda: copy.apply(first, progress=b"one range"), b"one range"),
            (lambda: copy.set_progress(b"more"), b"more"),
            (lambda: copy.apply(others), None),
            (lambda: copy.set_progress(b"state"), b"state"),
            (lambda: copy.commit({b"key": b"local"}), None),
        ]
        for step, expected in steps:
            step()
            assert copy.progress == expected


@given(data=st.data(), scheme=schemes(), source=contents(), wrong=contents(max_size=3))
@settings(max_examples=amount(30, soak=2_000))
def test_only_what_was_verified_can_be_applied(
    data: st.DataObject, scheme: Scheme, source: dict[bytes, bytes], wrong: dict[bytes, bytes]
) -> None:
    with new_database(source, scheme) as origin, new_database(wrong, scheme) as copy:
        before = copy.root
        for thing in (
            origin.prove_range(),
            tuple(origin.prove_range()),
            dict(source),
            None,
            [origin.prove_range()],
        ):
            with pytest.raises(TypeError):
                copy.apply(thing)  # type: ignore[arg-type]  # the wrong type is what is tested
        assert copy.root == before


@given(scheme=schemes(), other=schemes(), source=contents(min_size=1, max_size=4), key=near_keys([]))
@settings(max_examples=amount(20, soak=2_000))
def test_a_range_of_another_scheme_is_refused(
    scheme: Scheme, other: Scheme, source: dict[bytes, bytes], key: bytes
) -> None:
    if scheme == other:
        return
    with new_database(source, scheme) as origin, new_database({key: b"local"}, other) as copy:
        (verified,) = walk(origin, Limits(100, 1 << 20))
        with pytest.raises(merkledb.MerkleDBError):
            copy.apply(verified)
        assert_holds(copy, {key: b"local"})
