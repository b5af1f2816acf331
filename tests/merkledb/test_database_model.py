"""A database behaves as a dictionary with a root, whatever is committed, applied, reopened or kept open."""

import contextlib
import itertools
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import merkledb
from merkledb import EMPTY_ROOT, Database, Scheme, verify_range
from tests.support import oracle
from tests.support.databases import new_database
from tests.support.merkledb_strategies import (
    SCHEMES,
    changes,
    commit_sequences,
    contents,
    near_keys,
    ranges,
    schemes,
)
from tests.support.state_assertions import assert_reads_as
from tests.support.thoroughness import amount

Bound = bytes | None


# --------------------------------------------------------------------------------- commits, one by one


@pytest.mark.slow
@given(scheme=schemes(), commits=commit_sequences())
@settings(max_examples=amount(60, soak=4_000))
def test_every_commit_of_a_sequence_has_the_root_of_the_mapping(
    scheme: Scheme, commits: list[dict[bytes, bytes | None]]
) -> None:
    model: dict[bytes, bytes] = {}
    with new_database(scheme=scheme) as database:
        revision = 0
        for change in commits:
            revision += oracle.changed(model, change) != model
            model = oracle.changed(model, change)
            root = database.commit(change)
            assert root == merkledb.root_of(model, scheme)
            assert database.revision == revision
            assert_reads_as(database, model, scheme)
            database.check()


@given(scheme=schemes(), mapping=contents(max_size=40))
@settings(max_examples=amount(50, soak=3_000))
def test_root_of_takes_mappings_and_pairs_in_any_order(scheme: Scheme, mapping: dict[bytes, bytes]) -> None:
    expected = oracle.root_of(mapping, scheme)
    assert merkledb.root_of(mapping, scheme) == expected
    assert merkledb.root_of(reversed(list(mapping.items())), scheme) == expected
    assert merkledb.root_of(iter(mapping.items()), scheme) == expected


@given(scheme=schemes(), mapping=contents(min_size=1), data=st.data())
@settings(max_examples=amount(30, soak=2_000))
def test_content_has_one_root_however_it_was_reached(
    data: st.DataObject, scheme: Scheme, mapping: dict[bytes, bytes]
) -> None:
    detour = data.draw(changes(sorted(mapping)))
    back: dict[bytes, bytes | None] = {key: mapping.get(key) for key in detour}
    with new_database(scheme=scheme) as database:
        for key in data.draw(st.permutations(sorted(mapping))):
            database.commit({key: mapping[key]})
        assert database.root == merkledb.root_of(mapping, scheme)
        database.commit(detour)
        assert database.commit(back) == merkledb.root_of(mapping, scheme)
        database.check()
        assert database.commit(dict.fromkeys(mapping)) == EMPTY_ROOT
        assert_reads_as(database, {}, scheme)
        database.check()


@given(data=st.data(), scheme=schemes(), mapping=contents())
@settings(max_examples=amount(60, soak=4_000))
def test_items_of_a_range_come_in_order_and_in_reverse(
    data: st.DataObject, scheme: Scheme, mapping: dict[bytes, bytes]
) -> None:
    start, end = data.draw(ranges(sorted(mapping)))
    expected = list(oracle.pairs_in(mapping, start, end).items())
    with new_database(mapping, scheme) as database:
        assert list(database.items(start, end)) == expected
        assert list(database.items(start, end, reverse=True)) == expected[::-1]
        with database.snapshot() as snapshot:
            assert list(snapshot.items(start, end)) == expected
            assert list(snapshot.items(start, end, reverse=True)) == expected[::-1]


@given(data=st.data(), scheme=schemes(), mapping=contents())
@settings(max_examples=amount(30, soak=2_000))
def test_absent_keys_read_as_absent(data: st.DataObject, scheme: Scheme, mapping: dict[bytes, bytes]) -> None:
    key = data.draw(near_keys(sorted(mapping)).filter(lambda key: key not in mapping) | st.just(bytes(600)))
    with new_database(mapping, scheme) as database, database.snapshot() as snapshot:
        for reader in (database, snapshot):
            assert reader.get(key) is None
            assert reader.get(key, "default") == "default"
            assert key not in reader
            with pytest.raises(KeyError):
                reader[key]


def test_a_new_database_is_empty() -> None:
    with new_database() as database:
        assert_reads_as(database, {}, Scheme())
        assert (database.root, database.revision) == (EMPTY_ROOT, 0)
        assert database.scheme == Scheme("blake3", 16)
        assert not database.written_locally
        database.check()


def test_empty_key_and_empty_value_are_a_key_and_a_value() -> None:
    with new_database({b"": b""}) as database:
        assert_reads_as(database, {b"": b""}, Scheme())
        assert database.commit({b"": None}) == EMPTY_ROOT


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_keys_up_to_the_documented_length_are_kept_and_longer_ones_refused(scheme: Scheme) -> None:
    longest = {byte * scheme.max_key_bytes: byte for byte in (b"\x00", b"\x7f", b"\xff")}
    assert scheme.max_key_bytes == {2: 63, 4: 126, 16: 252, 256: 504}[scheme.branch_factor]
    with new_database(longest, scheme) as database:
        database.check()
        assert_reads_as(database, longest, scheme)
        for change in ({bytes(scheme.max_key_bytes + 1): b""}, {b"other": b"", bytes(600): b"x"}):
            with pytest.raises(merkledb.KeyTooLong) as caught:
                database.commit(change)
            assert caught.value.limit == scheme.max_key_bytes
            assert caught.value.length == max(map(len, change))
        assert_reads_as(database, longest, scheme)


def test_values_up_to_the_limit_are_kept_and_longer_ones_refused() -> None:
    limit = merkledb.MAX_VALUE_BYTES
    assert limit == 64 * 1024 * 1024
    with new_database({b"key": b"value"}) as database:
        before = database.root
        with pytest.raises(merkledb.ValueTooLong) as caught:
            database.commit({b"other": b"", b"large": bytes(limit + 1)})
        assert (caught.value.length, caught.value.limit) == (limit + 1, limit)
        assert database.root == before
        database.commit({b"large": bytes(limit)})
        assert len(database[b"large"]) == limit
        proof = database.prove(b"large")
        verified = verify_range(proof, database.root, b"large", b"large")
        assert verified.value_bytes == limit


@pytest.mark.parametrize(
    "change", [{b"key": "text"}, {b"key": 1}, {"text": b"value"}, {b"key": ["list"]}, {None: b""}]
)
def test_a_change_that_is_not_of_bytes_is_a_type_error_and_changes_nothing(
    change: dict[bytes, bytes],
) -> None:
    for scheme in (Scheme(branch_factor=16), Scheme(branch_factor=256)):
        with new_database({b"key": b"before", b"text": b""}, scheme) as database:
            with pytest.raises(TypeError):
                database.commit({**change, b"other": b"value"})
            assert_reads_as(database, {b"key": b"before", b"text": b""}, scheme)


def test_a_batch_is_one_commit_of_its_last_words() -> None:
    with new_database({b"a": b"1", b"b": b"2"}) as database:
        revision = database.revision
        with database.batch() as batch:
            batch[b"a"] = b"first"
            batch[b"a"] = b"last"
            del batch[b"b"]
            batch[b"c"] = b"3"
            assert dict(database.items()) == {b"a": b"1", b"b": b"2"}
        assert dict(database.items()) == {b"a": b"last", b"c": b"3"}
        assert database.revision == revision + 1


def test_a_batch_that_ends_in_an_exception_commits_nothing() -> None:
    with new_database({b"a": b"1"}) as database:
        before = database.root
        with contextlib.suppress(RuntimeError), database.batch() as batch:
            batch[b"b"] = b"2"
            raise RuntimeError("out of the batch")
        assert database.root == before


def test_items_may_be_changed_while_they_are_iterated() -> None:
    mapping = {bytes([number]): b"" for number in range(100)}
    with new_database(mapping) as database:
        seen = []
        for key, value in database.items():
            seen.append((key, value))
            database.commit({key: None, b"new" + key: b""})
        assert seen == sorted(mapping.items())
        assert len(database) == len(mapping)
        database.check()


def test_readers_in_threads_see_whole_commits_while_a_writer_goes_on() -> None:
    mapping = {bytes([number]): b"0" for number in range(50)}
    errors: list[BaseException] = []

    def read(database: Database, done: threading.Event) -> None:
        try:
            while not done.is_set():
                with database.snapshot() as snapshot:
                    assert snapshot.root == merkledb.root_of(snapshot.items())
                    assert len({value for _, value in snapshot.items()}) == 1
        except BaseException as error:  # noqa: BLE001 - a failed assertion of a thread is reported by the test's own
            errors.append(error)

    with new_database(mapping) as database:
        done = threading.Event()
        threads = [threading.Thread(target=read, args=(database, done)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(60):
            database.commit(dict.fromkeys(mapping, b"%d" % number))
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_snapshot_may_go_from_thread_to_thread() -> None:
    with new_database({b"key": b"value"}) as database, database.snapshot() as snapshot:
        database.commit({b"key": None})
        found: list[object] = []
        thread = threading.Thread(
            target=lambda: found.extend([snapshot[b"key"], *snapshot.prove(b"key").keys])
        )
        thread.start()
        thread.join()
        assert found == [b"value", b"key"]


# ------------------------------------------------------------------------------------ many pairs at once


def nested_store(keys_wanted: int, dropped: int) -> dict[bytes, bytes]:
    """Chains of keys of which each is a prefix of the next: any cut through them meets a branch's value."""
    heads = (number.to_bytes(2, "big") for number in itertools.count())
    chains = (head + bytes(deeper) for head in heads for deeper in range(6))
    found = itertools.islice(chains, dropped, keys_wanted + dropped)
    return {key: b"%d" % at * (at % 9) for at, key in enumerate(found)}


@pytest.mark.slow
@pytest.mark.parametrize("dropped", range(6))
def test_work_that_is_cut_into_pieces_is_cut_anywhere(dropped: int) -> None:
    # A kernel takes a few thousand items at a time; where they are cut depends on how many come before.
    scheme = SCHEMES[dropped % len(SCHEMES)]
    store = nested_store(9000, dropped)
    expected = oracle.root_of(store, scheme)
    assert merkledb.root_of(store, scheme) == expected
    removed: dict[bytes, bytes | None] = dict.fromkeys(list(store)[dropped::2])
    left = oracle.changed(store, removed)
    with new_database(store, scheme) as database, new_database(left, scheme) as copy:
        assert database.root == expected
        proof = database.prove_range(max_keys=9000, max_bytes=1 << 24)
        verified = verify_range(proof, expected, scheme=scheme)
        assert (len(verified), verified.complete) == (9000, True)
        assert copy.apply(verified) == expected
        copy.check()
        assert database.commit(removed) == copy.commit(removed) == oracle.root_of(left, scheme)
        database.check()
        assert database.commit(store) == expected


# ----------------------------------------------------------------------------- what a sync may destroy


def test_only_local_commits_count_as_written_locally() -> None:
    with new_database({b"a": b"1"}) as origin, new_database() as copy:
        verified = verify_range(origin.prove_range(), origin.root)
        steps: list[tuple[Callable[[], object], bool]] = [
            (lambda: copy.apply(verified), False),
            (lambda: copy.commit({b"b": b"2"}), True),
            (lambda: copy.apply([]), True),
            (lambda: copy.apply(verified), False),
        ]
        assert origin.written_locally
        for step, expected in steps:
            step()
            assert copy.written_locally == expected


# --------------------------------------------------------------------- damage that check() must notice


def with_a_bit_flipped(row: bytes) -> bytes:
    return row[:-2] + bytes([row[-2] ^ 1]) + row[-1:]


# Table, row key, and what becomes of the row.
DAMAGE: dict[str, tuple[str, bytes, Callable[[bytes], bytes | None]]] = {
    "a value is altered": ("values", b"\x11\x22", lambda _: b"other"),
    "a value is missing": ("values", b"\x11\x22", lambda _: None),
    "a value is added": ("values", b"\x11\x23", lambda _: b""),
    "a value becomes its digest": ("values", b"\x33", Scheme().digest),
    "a branch is missing": ("branches", b"\x04", lambda _: None),
    "a branch is altered": ("branches", b"\x04", with_a_bit_flipped),
    "a weight is altered": ("branches", b"\x04", lambda row: row[:-1] + bytes([row[-1] + 1])),
    "a bucket's branch is stored": ("branches", b"\x01\x01", lambda _: b"\x00\x00"),
    "a branch is left over": ("branches", b"\x05\x05", lambda _: b"\x00\x00"),
    "the head has another root": ("meta", b"tip", lambda tip: bytes(32) + tip[32:]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_check_notices_damage(name: str) -> None:
    table_name, row, change = DAMAGE[name]
    mapping = {b"\x11\x22": b"a", b"\x11\x33": b"b", b"\x20": b"c", b"\x33": bytes(33)}
    mapping |= {bytes([0x40 + number]): bytes(60) for number in range(16)}
    with new_database(mapping) as database:
        database.check()
        store = database._store
        with store.write() as transaction:
            table = getattr(store, table_name)
            new = change(transaction.pop(row, db=table) or b"")
            if new is not None:
                transaction.put(row, new, db=table)
        with pytest.raises(merkledb.CorruptDatabase) as caught:
            database.check()
        assert caught.value.difference


def test_check_reports_how_many_pairs_it_has_done() -> None:
    with new_database({number.to_bytes(2, "big"): b"" for number in range(10_000)}) as database:
        counts: list[int] = []
        database.check(counts.append)
        assert sum(counts) == 10_000
        assert len(counts) > 1


def test_an_error_of_the_callback_is_the_callback_s_own() -> None:
    def fail(_: int) -> None:
        raise BrokenPipeError("the reader of the progress went away")

    with new_database({b"key": b"value"}) as database, pytest.raises(BrokenPipeError):
        database.check(fail)
