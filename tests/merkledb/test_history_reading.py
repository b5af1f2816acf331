"""Any retained root reads and proves, byte by byte, as it did when it was the head."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import merkledb
from merkledb import EMPTY_ROOT, Database, Scheme
from merkledb.history.revisions import SEQUENCE_BYTES
from tests.support import oracle
from tests.support.databases import new_database
from tests.support.merkledb_strategies import commit_sequences, contents, limits, near_keys, ranges, schemes
from tests.support.oracle import Contents
from tests.support.proof_verdicts import change_proof_of, proof_of
from tests.support.state_assertions import (
    Clock,
    Request,
    assert_proves_as,
    assert_reads_as,
    assert_reads_range_as,
    small_windows,
)
from tests.support.thoroughness import amount

# Neighbours that differ in the last bit, in the first, in a nibble; prefixes of each other; the empty key.
KEYS = (b"", b"\x00", b"\x10\x00", b"\x10\x01", b"\x80")


@pytest.mark.slow
@given(
    data=st.data(),
    scheme=schemes(),
    first=contents(),
    commits=commit_sequences(),
    windows=st.integers(1, 5),
    window_bytes=st.sampled_from([1, 64, 1 << 20]),
    large=st.lists(st.binary(max_size=2), max_size=3),
)
@settings(max_examples=amount(50, soak=4_000))
def test_every_retained_root_reads_as_it_did(
    data: st.DataObject,
    scheme: Scheme,
    first: dict[bytes, bytes],
    commits: list[dict[bytes, bytes | None]],
    windows: int,
    window_bytes: int,
    large: list[bytes],
) -> None:
    # Values that take pages of their own are read in another way; some come and go.
    states = [
        {**state, **{key: bytes([at // 2]) * 5000 for key in large[: at % 4]}}
        for at, state in enumerate([{}, *itertools.accumulate(commits, oracle.changed, initial=first)])
    ]
    pool = sorted({key for state in states for key in state})
    request = Request(*data.draw(ranges(pool)), *data.draw(limits()))
    start, end = data.draw(ranges(pool))
    with small_windows(windows, window_bytes), new_database(scheme=scheme) as database:
        answers = {database.root: request.answer(database)}
        for before, after in itertools.pairwise(states):
            database.commit(oracle.changes_between(before, after))
            answers[database.root] = request.answer(database)
        for state in states:
            with database.at(oracle.root_of(state, scheme)) as snapshot:
                assert_reads_as(snapshot, state, scheme)
                assert_reads_range_as(snapshot, state, start, end)
                assert_proves_as(snapshot, state, scheme, start, end)
                assert request.answer(snapshot) == answers[snapshot.root]
                absent = data.draw(near_keys(pool))
                assert (snapshot.get(absent), absent in snapshot) == (state.get(absent), absent in state)
                assert snapshot.get(bytes(600)) is None
        old, new = data.draw(st.sampled_from(states)), data.draw(st.sampled_from(states))
        assert_leads(database, old, new, start, end)


def assert_leads(
    database: Database, old: Contents, new: Contents, start: bytes | None, end: bytes | None
) -> None:
    """Fail unless the differences and the changes of a range are those between the two states."""
    scheme = database.scheme
    roots = oracle.root_of(old, scheme), oracle.root_of(new, scheme)
    differences = list(database.differences(*roots, start, end))
    changes = oracle.changes_between(old, new, start, end)
    assert [tuple(each) for each in differences] == [(key, old.get(key), new.get(key)) for key in changes]
    for max_keys in (None, 1, 2):
        proof = database.prove_changes(*roots, start, end, max_keys=max_keys or 4096, max_bytes=1 << 26)
        assert proof == change_proof_of(old, new, scheme, start, end, max_keys)


# ------------------------------------------------------------------------------------- all small histories


def walk_of_all_triples(symbols: int) -> Iterator[int]:
    """A walk in which any three symbols follow each other once: a de Bruijn sequence, by Lyndon words."""
    word = [-1]
    while word:
        word[-1] += 1
        if 3 % len(word) == 0:
            yield from word
        period = len(word)
        word += [word[at % period] for at in range(period, 3)]
        while word and word[-1] == symbols - 1:
            word.pop()
    yield from (0, 0)


def test_the_walk_meets_every_triple() -> None:
    walk = list(walk_of_all_triples(4))
    triples = list(zip(walk, walk[1:], walk[2:], strict=False))
    assert sorted(triples) == list(itertools.product(range(4), repeat=3))


# The middle keys share all but their last token; with the empty key above and others beside them, branches
# come, go and move in every way that four keys allow.
SMALL: dict[str, tuple[Scheme, Sequence[bytes]]] = {
    "four keys": (Scheme("sha256", 16), (b"", b"\x10\x00", b"\x10\x01", b"\x80")),
    "chains": (Scheme("blake3", 256), (b"a", b"aa", b"aaa")),
    "bits": (Scheme("sha256", 2), (b"\x00", b"\x01", b"\x03")),
    "zeros": (Scheme("blake3", 4), (b"", b"\x00", b"\x00\x00")),
}


# So heavy that all of them are buckets, some, or none.
@pytest.mark.slow
@pytest.mark.parametrize("value", [b"v", b"m" * 200, b"h" * 600], ids=lambda value: f"{len(value)} bytes")
@pytest.mark.parametrize("name", SMALL)
def test_every_root_reads_and_proves_the_same_after_any_two_steps_between_small_stores(
    name: str, value: bytes
) -> None:
    scheme, keys = SMALL[name]
    worlds = list(oracle.worlds_over(keys, [value]))
    roots = [oracle.root_of(world, scheme) for world in worlds]
    proofs = [[proof_of(world, scheme, key, key).encode() for key in keys] for world in worlds]
    with new_database(scheme=scheme) as database:
        recent: list[int] = []
        for now in walk_of_all_triples(len(worlds)):
            database.commit({key: worlds[now].get(key) for key in keys})
            recent = [now, *recent[:2]]
            for earlier in recent:
                with database.at(roots[earlier]) as snapshot:
                    assert list(snapshot.items()) == sorted(worlds[earlier].items())
                    assert [snapshot.prove(key).encode() for key in keys] == proofs[earlier]
        database.check()


# ------------------------------------------------------------------------------------------- many revisions


def assert_revisions(database: Database, states: Sequence[Contents]) -> None:
    """Fail unless the retained revisions are these states, the newest last, numbered without a gap."""
    found = database.revisions()
    assert [revision.root for revision in found] == [
        oracle.root_of(state, database.scheme) for state in reversed(states)
    ]
    assert [revision.keys for revision in found] == [len(state) for state in reversed(states)]
    assert [revision.number for revision in found] == [database.revision - at for at in range(len(found))]
    assert found[0] == database.head


def test_a_new_database_has_the_empty_revision() -> None:
    with new_database() as database:
        assert_revisions(database, [{}])
        with database.at(EMPTY_ROOT) as snapshot:
            assert (snapshot.revision, len(snapshot), list(snapshot.items())) == (0, 0, [])
            assert snapshot.prove(b"key") == proof_of({}, database.scheme, b"key", b"key")


def test_a_root_that_came_back_is_one_root_with_two_revisions(tmp_path: Path) -> None:
    a, b = {b"key": b"a", b"other": b"1"}, {b"key": b"b"}
    with merkledb.open(tmp_path / "store", history=3) as database:
        states: list[Contents] = [{}]
        for state in (a, b, a, b, a):
            database.commit(oracle.changes_between(states[-1], state))
            states = [*states, state][-3:]
            assert_revisions(database, states)
            for retained in states:
                with database.at(oracle.root_of(retained, database.scheme)) as snapshot:
                    assert_reads_as(snapshot, retained, database.scheme)
            assert_leads(database, states[0], states[-1], None, None)
        with database.at(database.root) as snapshot:
            assert snapshot.revision == 5
        # The older of both revisions is pruned, and then the newer; only then the root is gone.
        for number, is_retained in ((6, True), (7, True), (8, False)):
            database.commit({b"new": b"%d" % number})
            root = oracle.root_of(a, database.scheme)
            if is_retained:
                database.at(root).close()
            else:
                with pytest.raises(merkledb.HistoryGone) as caught:
                    database.at(root)
                assert caught.value.root == root


def test_a_commit_that_changes_nothing_makes_no_revision() -> None:
    with new_database({b"key": b"value"}) as database:
        head = database.head
        for nothing in ({}, {b"absent": None}, {b"key": b"value"}, {b"key": b"value", b"absent": None}):
            assert database.commit(nothing) == database.root
        with database.batch():
            pass
        assert database.head == head
        assert [revision.number for revision in database.revisions()] == [1, 0]


def test_roots_that_never_were_and_roots_that_are_gone_are_told_apart(tmp_path: Path) -> None:
    with merkledb.open(tmp_path / "store", history=2) as database:
        roots = [database.root, *(database.commit({b"key": b"%d" % number}) for number in range(4))]
        for root in roots[:3]:
            for use in (
                lambda root=root: database.at(root),
                lambda root=root: database.prove_changes(root, roots[-1]),
                lambda root=root: database.prove_changes(roots[-1], root),
                lambda root=root: list(database.differences(root, roots[-1])),
            ):
                with pytest.raises(merkledb.HistoryGone) as gone:
                    use()
                assert gone.value.root == root
        with pytest.raises(merkledb.UnknownRoot) as unknown:
            database.at(b"\x01" * 32)
        assert unknown.value.root == b"\x01" * 32
        for root in (b"", bytes(7), bytes(31), bytes(33), (1).to_bytes(7)):
            with pytest.raises(ValueError, match=f"a root has 32 bytes, not {len(root)}"):
                database.at(root)
        for root in roots[3:]:
            database.at(root).close()


@pytest.mark.parametrize("history", [1, 2, 3, 5])
def test_as_many_revisions_are_retained_as_was_asked_for(tmp_path: Path, history: int) -> None:
    states: list[Contents] = [{}]
    with merkledb.open(tmp_path / "store", history=history) as database:
        for number in range(8):
            state = {bytes([at]): b"%d" % (number // 2 * at) for at in range(number + 2)}
            database.commit(oracle.changes_between(states[-1], state))
            states.append(state)
            assert_revisions(database, states[-history:])
            # History holds rows of the steps between retained revisions, and of no others.
            assert len(history_sequences(database)) == min(number + 1, history - 1)
            database.check()
    with merkledb.open(tmp_path / "store") as database:
        assert_revisions(database, states[-history:])
        database.commit({b"new": b""})
        assert len(database.revisions()) == history


def test_how_much_is_retained_may_be_changed_at_opening(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with merkledb.open(path, history=10) as database:
        for number in range(6):
            database.commit({b"key": b"%d" % number})
    with merkledb.open(path, history=2) as database:
        database.commit({b"key": b"more"})
        assert [revision.number for revision in database.revisions()] == [7, 6]
    with merkledb.open(path) as database:
        database.commit({b"key": b"still two"})
        assert [revision.number for revision in database.revisions()] == [8, 7]
    with merkledb.open(path, history=4) as database:
        for number in range(3):
            database.commit({b"key": b"%d again" % number})
        assert [revision.number for revision in database.revisions()] == [11, 10, 9, 8]


def test_a_commit_may_forget_all_that_was(tmp_path: Path) -> None:
    with merkledb.open(tmp_path / "store", history=5) as database:
        states: list[Contents] = [{}]
        for number in range(3):
            states.append({**states[-1], bytes([number]): b"v"})
            database.commit(states[-1])
        assert database.commit({b"key": b"1"}) == database.commit({b"key": b"1"}, keep_history=False)
        assert len(database.revisions()) == 5
        states.append({**states[-1], b"key": b"2"})
        database.commit({b"key": b"2"}, keep_history=False)
        assert_revisions(database, states[-1:])
        for state in states[:-1]:
            with pytest.raises(merkledb.HistoryGone):
                database.at(oracle.root_of(state, database.scheme))
        states.append({})
        database.commit(dict.fromkeys(states[-2]))
        assert_revisions(database, states[-2:])
        with database.at(oracle.root_of(states[-2], database.scheme)) as snapshot:
            assert_reads_as(snapshot, states[-2], database.scheme)


def test_roots_are_known_to_be_gone_for_a_while_and_then_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("merkledb.history.revisions.REMEMBERED_REVISIONS", 3)
    with merkledb.open(tmp_path / "store", history=2) as database:
        roots = [database.root]
        for number in range(8):
            # One root comes back while its older revision is being forgotten.
            content = b"again" if number in (0, 4) else b"%d" % number
            roots.append(database.commit({b"key": content}))
        for root in roots[7:]:
            database.at(root).close()
        for root in (*roots[4:7], roots[1]):
            with pytest.raises(merkledb.HistoryGone):
                database.at(root)
        for root in (roots[0], *roots[2:4]):
            with pytest.raises(merkledb.UnknownRoot):
                database.at(root)
        with database._store.read() as transaction:
            # A row of each revision, and one of each root.
            assert database._store.entries(transaction, database._store.revisions) <= 2 * (2 + 3 + 1)


@pytest.mark.parametrize("history", [0, -1, 2**56, 10**20])
def test_a_history_without_the_head_is_refused(tmp_path: Path, history: int) -> None:
    with pytest.raises(ValueError, match="history"):
        merkledb.open(tmp_path / "store", history=history)


def numbers(database: Database) -> list[int]:
    return [revision.number for revision in database.revisions()]


def commit_many(database: Database, count: int) -> None:
    for _ in range(count):
        database.commit({b"key": b"%d" % database.revision})


def test_revisions_older_than_the_age_are_pruned_but_never_the_newest_few(tmp_path: Path) -> None:
    clock = Clock()
    with merkledb.open(tmp_path / "store", history=20, history_seconds=100, clock=clock) as database:
        for _ in range(12):
            clock.now += 10
            commit_many(database, 1)
        # Made every ten seconds: the oldest is 100 seconds older than the revision before the newest.
        assert [clock.now - revision.time for revision in database.revisions()] == list(range(0, 120, 10))
        clock.now += 1000
        commit_many(database, 1)
        assert len(database.revisions()) == 12, "one revision alone may be of a clock that jumped"
        commit_many(database, 1)
        assert len(database.revisions()) == merkledb.history.revisions.MIN_RETAINED_REVISIONS
        clock.now += 1000
        database.commit({})
        assert database.revision == 14
        commit_many(database, 30)
        assert len(database.revisions()) == 20


def test_a_clock_that_jumps_ahead_and_is_set_right_takes_nothing_away(tmp_path: Path) -> None:
    clock = Clock()
    with merkledb.open(tmp_path / "store", history_seconds=100, clock=clock) as database:
        commit_many(database, 20)
        clock.now += 1e9
        commit_many(database, 1)
        clock.now -= 1e9
        commit_many(database, 5)
        assert numbers(database) == list(range(26, -1, -1))
        clock.now += 2e9
        commit_many(database, 40)
        assert len(database.revisions()) == 40, "the newest few, and what was made since"


def test_a_clock_that_stays_ahead_leaves_the_newest_few(tmp_path: Path) -> None:
    clock = Clock()
    with merkledb.open(tmp_path / "store", history_seconds=100, clock=clock) as database:
        commit_many(database, 20)
        clock.now += 1e9
        commit_many(database, 2)
        assert len(database.revisions()) == merkledb.history.revisions.MIN_RETAINED_REVISIONS


@pytest.mark.parametrize("ahead", [1, 30])
def test_revisions_stamped_years_ahead_do_not_end_pruning(tmp_path: Path, ahead: int) -> None:
    clock = Clock()
    with merkledb.open(tmp_path / "store", history_seconds=100, clock=clock) as database:
        clock.now += 1e9
        commit_many(database, ahead)
        clock.now -= 1e9
        commit_many(database, 10)
        clock.now += 200
        commit_many(database, 10)
        # The revisions from the future are gone, with those behind them that are too old.
        assert numbers(database) == list(range(ahead + 20, ahead + 10, -1))
        assert all(revision.time == clock.now for revision in database.revisions())


def test_a_clock_that_goes_back_prunes_nothing_too_early(tmp_path: Path) -> None:
    clock = Clock()
    with merkledb.open(tmp_path / "store", history_seconds=100, clock=clock) as database:
        commit_many(database, 10)
        clock.now -= 10_000
        commit_many(database, 10)
        clock.now += 50
        commit_many(database, 10)
        assert numbers(database) == list(range(30, -1, -1))


@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf, -1, 1.7e12, 10**400, None, "now"])
def test_a_clock_that_tells_no_time_is_refused_and_nothing_is_written(tmp_path: Path, time: object) -> None:
    clock = Clock()
    with merkledb.open(tmp_path / "store", clock=clock) as database:
        commit_many(database, 1)
        clock.now = time  # type: ignore[assignment]  # what is no time is what is tested
        with pytest.raises(merkledb.ImplausibleTime):
            database.commit({b"more": b""})
        assert numbers(database) == [1, 0]
        assert b"more" not in database
        clock.now = merkledb.history.revisions.MAX_TIME
        commit_many(database, 1)
        assert database.revisions()[0].time == merkledb.history.revisions.MAX_TIME
        clock.now = 0
        commit_many(database, 1)
    clock.now = time  # type: ignore[assignment]
    with pytest.raises(merkledb.ImplausibleTime):
        merkledb.open(tmp_path / "new", clock=clock)
    assert not (tmp_path / "new").exists()


def test_pruning_takes_all_rows_away_in_bounded_steps(tmp_path: Path) -> None:
    some = random.Random(5)
    with small_windows(4096, pruned_rows=40), merkledb.open(tmp_path / "store", history=40) as database:
        for _ in range(30):
            database.commit({some.randbytes(4): some.randbytes(40) for _ in range(30)})
        rows = history_rows(database)
    with small_windows(4096, pruned_rows=40), merkledb.open(tmp_path / "store", history=1) as database:
        for _ in range(rows):
            database.commit({b"key": some.randbytes(8)})
            assert len(database.revisions()) == 1
            left = history_rows(database)
            assert left < rows or left == 0
            assert rows - left <= 40, "a commit prunes a bounded number of rows"
            rows = left
            if not rows:
                break
        assert rows == 0
        database.check()


def history_rows(database: Database) -> int:
    return sum(history_sequences(database).values())


def history_sequences(database: Database) -> Counter[bytes]:
    """How many rows history holds of each revision."""
    store = database._store
    with store.read() as transaction:
        return Counter(
            row[:SEQUENCE_BYTES]
            for table in (store.value_history, store.branch_history)
            for row, _ in transaction.cursor(db=table)
        )


def test_snapshots_in_use_read_on_while_everything_is_pruned(tmp_path: Path) -> None:
    some = random.Random(8)
    with merkledb.open(tmp_path / "store", history=2) as database:
        states: list[Contents] = [{}]
        for _ in range(6):
            change = {some.randbytes(1): some.randbytes(some.randrange(40)) for _ in range(20)}
            database.commit(change)
            states.append(oracle.changed(states[-1], change))
        old, head = database.at(oracle.root_of(states[-2], database.scheme)), database.snapshot()
        for number in range(12):
            database.commit({bytes([at]): None if at % 3 else b"%d" % number for at in range(256)})
        for snapshot, state in ((old, states[-2]), (head, states[-1])):
            with pytest.raises(merkledb.HistoryGone):
                database.at(snapshot.root)
            assert_reads_as(snapshot, state, database.scheme)
            assert_proves_as(snapshot, state, database.scheme, b"\x20", b"\xc0")
            snapshot.close()


@pytest.mark.slow
def test_a_large_store_reads_and_proves_at_old_roots_what_it_did_at_them(tmp_path: Path) -> None:
    # Over 4,096 rows and over a megabyte lie in the tables, in history, and in both; windows end in each.
    some = random.Random(11)
    keys = sorted(some.randbytes(some.randrange(1, 9)) for _ in range(9000))
    first = {key: key * 3 for key in keys} | {key: bytes([1]) * 200_000 for key in keys[100:8000:900]}
    steps: list[dict[bytes, bytes | None]] = [
        dict.fromkeys(keys[1000:7000]),
        {**dict.fromkeys(keys[2000:3000], b"again"), **{key + b"\x00": b"new" for key in keys[:5500]}},
        dict.fromkeys(keys),
        dict.fromkeys(keys[4000:4100], b"back"),
    ]
    requests = [
        Request(),
        Request(keys[500]),
        Request(keys[3000], keys[6500], 700),
        Request(None, keys[50], 1),
    ]
    requests += [Request(keys[150], None, 5000, 1 << 22), Request(keys[7000], None, 4096, 100_000)]
    with new_database(first) as database:
        states: list[Contents] = [first]
        answers = [[request.answer(database) for request in requests]]
        for step in steps:
            database.commit(step)
            states.append(oracle.changed(states[-1], step))
            answers.append([request.answer(database) for request in requests])
        for state, expected in zip(states, answers, strict=True):
            with database.at(merkledb.root_of(state)) as snapshot:
                assert len(snapshot) == len(state)
                assert list(snapshot.items()) == sorted(state.items())
                assert list(snapshot.items(reverse=True)) == sorted(state.items(), reverse=True)
                middle = list(oracle.pairs_in(state, keys[800], keys[6000]).items())
                assert list(snapshot.items(keys[800], keys[6000], reverse=True)) == middle[::-1]
                assert [request.answer(snapshot) for request in requests] == expected
                # An iteration that is left early costs no more than it reads.
                assert list(itertools.islice(snapshot.items(keys[800]), 3)) == middle[:3]
        roots = [merkledb.root_of(state) for state in states]
        for (at, old), (to, new) in itertools.permutations(enumerate(states), 2):
            changes = oracle.changes_between(old, new)
            found = [(each.key, each.new) for each in database.differences(roots[at], roots[to])]
            assert found == list(changes.items())
            proof = database.prove_changes(roots[at], roots[to], keys[40], max_keys=5000, max_bytes=1 << 26)
            assert list(proof.keys) == [key for key in changes if key >= keys[40]][:5000]


def test_large_values_at_old_roots_are_all_found(tmp_path: Path) -> None:
    first = {bytes([number]): bytes([number]) * 600_000 for number in range(6)}
    steps: list[dict[bytes, bytes | None]] = [
        {b"other": b"x"},
        {bytes([number]): None if number % 2 else b"small" for number in range(6)},
        {bytes([number, 1]): bytes(700_000) for number in range(6)},
    ]
    request = Request(None, None, 4096, 1 << 26)
    with new_database(first) as database:
        states, answers = [first], [request.answer(database)]
        for step in steps:
            database.commit(step)
            states.append(oracle.changed(states[-1], step))
            answers.append(request.answer(database))
        for state, answer in zip(states, answers, strict=True):
            with database.at(merkledb.root_of(state)) as snapshot:
                assert_reads_as(snapshot, state, database.scheme)
                assert request.answer(snapshot) == answer
            assert_leads(database, first, state, None, None)


def test_iterations_of_old_roots_go_on_while_commits_are_made() -> None:
    mapping = {bytes([number]): b"%d" % number for number in range(200)}
    with small_windows(7), new_database(mapping) as database:
        root = database.root
        database.commit(dict.fromkeys(list(mapping)[::2]))
        with database.at(root) as snapshot:
            seen = []
            for key, value in snapshot.items():
                seen.append((key, value))
                database.commit({key: None, b"new" + key: b""})
            assert seen == sorted(mapping.items())
        different = []
        for difference in database.differences(root, database.root):
            different.append(difference.key)
            database.commit({difference.key: b"again"})
        assert different == sorted([*mapping, *(b"new" + key for key in mapping)])
        database.check()


def test_what_outlives_its_database_says_so(tmp_path: Path) -> None:
    database = merkledb.open(tmp_path / "store")
    roots = [database.commit({bytes([number]): b"%d" % number for number in range(at)}) for at in (3, 6)]
    with small_windows(1):
        old = database.at(roots[0])
        outliving: list[Iterator[object]] = [
            database.differences(*roots),
            old.items(),
            old.items(reverse=True),
        ]
        for iterator in outliving:
            next(iterator)
        database.close()
        for iterator in outliving:
            with pytest.raises(merkledb.DatabaseClosed):
                next(iterator)
    old.close()


def test_history_survives_a_restart_and_is_read_by_other_openings_for_reading(tmp_path: Path) -> None:
    path, states = tmp_path / "store", [{}, {b"a": b"1", b"ab": b"2"}, {b"ab": b"3"}, {b"c": b"4"}]
    with merkledb.open(path) as database:
        for before, after in itertools.pairwise(states):
            database.commit(oracle.changes_between(before, after))
        revisions = database.revisions()
    for readonly in (True, False):
        with merkledb.open(path, readonly=readonly) as database:
            assert database.revisions() == revisions
            for state in states:
                with database.at(oracle.root_of(state, database.scheme)) as snapshot:
                    assert_reads_as(snapshot, state, database.scheme)
            assert_leads(database, states[1], states[3], None, None)


def test_the_longest_keys_have_a_history_too() -> None:
    for scheme in (Scheme("blake3", 2), Scheme("sha256", 4), Scheme("blake3", 16), Scheme("sha256", 256)):
        longest = scheme.max_key_bytes
        keys = [bytes(longest), bytes(longest - 1) + b"\x01", b"\xff" * longest, b"\xff" * (longest - 1)]
        states: list[Contents] = [
            {},
            dict.fromkeys(keys, b"v"),
            {keys[0]: b"w"},
            dict.fromkeys(keys[::2], b"x"),
            {},
        ]
        with new_database(scheme=scheme) as database:
            for before, after in itertools.pairwise(states):
                database.commit(oracle.changes_between(before, after))
            for state in states[1:]:
                with database.at(oracle.root_of(state, scheme)) as snapshot:
                    assert_reads_as(snapshot, state, scheme)
                    assert_proves_as(snapshot, state, scheme, keys[0], keys[2])
                assert_leads(database, states[1], state, None, None)


def test_a_closed_snapshot_of_an_old_root_says_so() -> None:
    with new_database({b"key": b"value"}) as database:
        root = database.root
        database.commit({b"key": b"other"})
        snapshot = database.at(root)
        snapshot.close()
        snapshot.close()
        for use in (
            lambda: snapshot[b"key"],
            lambda: list(snapshot.items()),
            lambda: list(snapshot.items(reverse=True)),
            snapshot.prove_range,
        ):
            with pytest.raises(merkledb.DatabaseClosed):
                use()


def test_far_more_changes_afterwards_than_before_do_not_hide_what_was_changed() -> None:
    first, last = bytes(2), b"\xff\xff"
    everything = {number.to_bytes(2): b"first" for number in range(0, 65_536, 64)} | {last: b"first"}
    with new_database(everything) as database:
        old = database.root
        new = database.commit({first: b"second", last: b"second"})
        database.commit(dict.fromkeys(everything, b"third"))
        for roots, values in (((old, new), (b"first", b"second")), ((new, old), (b"second", b"first"))):
            found = [tuple(each) for each in database.differences(*roots)]
            assert found == [(first, *values), (last, *values)]
