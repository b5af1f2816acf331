"""What a database, a snapshot and a view are to Python: true, not iterable, and of bytes only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import merkledb
from merkledb import Database, Scheme
from merkledb.readable import ReadableMapping
from tests.support.command_line import fail, succeed
from tests.support.databases import new_database

Opened = Callable[[Database], ReadableMapping]
KINDS: dict[str, Opened] = {
    "database": lambda database: database,
    "snapshot": lambda database: database.snapshot(),
    "view": lambda database: database.view({}),
    "view on a view": lambda database: database.view({}).view({}),
}
NO_BYTES: list[Any] = ["a", 0, None, bytearray(b"a"), memoryview(b"a"), 1.5]
READS: dict[str, Callable[[Any, Any], object]] = {
    "[]": lambda content, key: content[key],
    "get": lambda content, key: content.get(key, b"default"),
    "in": lambda content, key: key in content,
    "prove": lambda content, key: content.prove(key),
}
BOUNDS: dict[str, Callable[[Any, Any], object]] = {
    "start": lambda content, key: content.items(key),
    "end": lambda content, key: content.items(None, key),
    "both": lambda content, key: content.items(key, key),
    "reverse": lambda content, key: content.items(key, reverse=True),
    "proof from": lambda content, key: content.prove_range(key),
    "proof up to": lambda content, key: content.prove_range(None, key),
}
WRITES: dict[str, Callable[[Database, Any], object]] = {
    "a key": lambda database, key: database.commit({key: b""}),
    "a deleted key": lambda database, key: database.commit({key: None}),
    "a value": lambda database, value: database.commit({b"key": b"", b"a": value}),
    "a view": lambda database, key: database.view({key: b""}),
    "a view's value": lambda database, value: database.view({b"a": value}),
    "a batch": lambda database, key: database.batch().__setitem__(key, b""),
    "a batch's value": lambda database, value: database.batch().__setitem__(b"a", value),
    "a batch's deletion": lambda database, key: database.batch().__delitem__(key),
    "a root": lambda database, root: database.at(root),
    "progress": lambda database, progress: database.set_progress(progress),
    "a difference": lambda database, key: database.differences(database.root, database.root, key),
    "changes": lambda database, key: database.prove_changes(database.root, database.root, key),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pairs", [{}, {b"a": b"1"}])
def test_an_empty_one_is_as_true_as_a_full_one(kind: str, pairs: dict[bytes, bytes]) -> None:
    with new_database(pairs) as database, KINDS[kind](database) as content:
        assert bool(content) is True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("take", [list, dict, set, iter, sorted])
def test_none_is_iterable_and_the_error_names_items(kind: str, take: Callable[[Any], object]) -> None:
    with (
        new_database({b"ab": b"1"}) as database,
        KINDS[kind](database) as content,
        pytest.raises(TypeError, match=r"items\(\)"),
    ):
        take(content)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", READS)
def test_a_key_that_is_no_bytes_is_a_type_error(kind: str, read: str) -> None:
    with new_database({b"a": b"1"}) as database, KINDS[kind](database) as content:
        for key in NO_BYTES:
            with pytest.raises(TypeError, match="is bytes, not"):
                READS[read](content, key)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_that_is_no_bytes_is_a_type_error_before_anything_is_read(kind: str, bound: str) -> None:
    with new_database({b"a": b"1"}) as database, KINDS[kind](database) as content:
        for key in NO_BYTES:
            if key is not None:
                with pytest.raises(TypeError, match="is bytes, not"):
                    BOUNDS[bound](content, key)


@pytest.mark.parametrize("write", WRITES)
def test_what_is_no_bytes_is_never_written(write: str) -> None:
    with new_database({b"a": b"1"}) as database:
        for value in NO_BYTES:
            if value is None:
                continue  # It deletes, stands for no bound, or forgets.
            with pytest.raises(TypeError, match=r"bytes|unhashable"):
                WRITES[write](database, value)
        assert dict(database.items()) == {b"a": b"1"}
        assert database.revision == 1


def test_a_load_takes_the_scheme_of_an_empty_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    merkledb.open(store, scheme=Scheme("blake3", 2)).close()
    pairs = tmp_path / "pairs.csv"
    rows = [f"key {number:03},value" for number in range(300)]
    # Too long for branch factor 2, and known to be so before the first pair is written.
    pairs.write_text("\n".join(["key,value", *rows, "k" * 64 + ",value"]) + "\n")
    assert "line 302" in fail(1, "load", store, pairs)
    with merkledb.open(store, scheme=None, readonly=True) as database:
        assert (len(database), database.revision) == (0, 0)
    pairs.write_text("\n".join(["key,value", *rows]) + "\n")
    succeed("load", store, pairs)


@pytest.mark.parametrize("proof", [None, b"bytes", "text", 7])
def test_what_is_no_proof_at_all_is_the_callers_mistake(proof: Any) -> None:
    with pytest.raises(TypeError, match=r"RangeProof\.decode"):
        merkledb.verify_range(proof, merkledb.EMPTY_ROOT)


def test_a_root_or_a_bound_that_is_no_bytes_is_the_callers_mistake() -> None:
    with new_database({b"a": b"1", b"b": b"2"}) as database:
        proof, root = database.prove_range(), database.root
        mistakes: list[tuple[Any, Any, Any]] = [
            ("x", None, None),
            (None, None, None),
            (root, "a", None),
            (root, None, 7),
        ]
        for mistake in mistakes:
            with pytest.raises(TypeError, match="is bytes, not"):
                merkledb.verify_range(proof, *mistake)


@pytest.mark.parametrize("name", ["max_keys", "max_bytes"])
@pytest.mark.parametrize("most", [1.5, float("nan"), 1e6, True, "1", None])
def test_a_limit_that_is_no_whole_number_is_refused(name: str, most: Any) -> None:
    with new_database({b"a": b"1"}) as database:
        old, new = database.root, database.commit({b"b": b"2"})
        proof, changes, limit = database.prove_range(), database.prove_changes(old, new), {name: most}
        uses: list[Callable[[], object]] = [
            lambda: database.prove_range(**limit),
            lambda: database.prove_changes(old, new, **limit),
        ]
        if most is not None:
            uses.append(lambda: merkledb.verify_range(proof, new, **limit))
            uses.append(lambda: database.verify_changes(changes, new, **limit))
        for use in uses:
            with pytest.raises(TypeError, match=f"{name} is a whole number"):
                use()


@pytest.mark.parametrize("name", ["max_keys", "max_bytes"])
def test_a_negative_limit_is_refused(name: str) -> None:
    with new_database({b"a": b"1"}) as database:
        old, new = database.root, database.commit({b"b": b"2"})
        proof, changes = database.prove_range(), database.prove_changes(old, new)
        limit: dict[str, Any] = {name: -1}
        for use in (
            lambda: database.prove_range(**limit),
            lambda: database.prove_changes(old, new, **limit),
            lambda: merkledb.verify_range(proof, new, **limit),
            lambda: database.verify_changes(changes, new, **limit),
        ):
            with pytest.raises(ValueError, match=f"{name} is -1: "):
                use()


@pytest.mark.parametrize("name", ["start", "end"])
def test_a_bound_that_no_peer_takes_is_the_callers_mistake(name: str) -> None:
    with new_database({b"a": b"1"}) as database:
        old, new = database.root, database.commit({b"b": b"2"})
        proof, changes = database.prove_range(), database.prove_changes(old, new)
        for length in (1025, 5000):
            bound: dict[str, Any] = {name: b"a" * length}
            for use in (
                lambda bound=bound: database.prove_range(**bound),
                lambda bound=bound: database.prove_changes(old, new, **bound),
                lambda bound=bound: merkledb.verify_range(proof, new, **bound),
                lambda bound=bound: database.verify_changes(changes, new, **bound),
            ):
                with pytest.raises(merkledb.BoundTooLong, match=f"has {length} bytes, above 1024"):
                    use()
        bound = {name: b"a" * 1024}
        merkledb.verify_range(database.prove_range(**bound), new, **bound)
        database.verify_changes(database.prove_changes(old, new, **bound), new, **bound)


@pytest.mark.parametrize(
    "retention",
    [{"history": 0}, {"history": 10**400}, {"history_seconds": 10**400}, {"history_seconds": float("nan")}],
)
def test_a_retention_that_no_store_can_keep_is_refused(tmp_path: Path, retention: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a history holds"):
        merkledb.open(tmp_path / "store", **retention)
