"""Damaged stores: one row is made another, and then everything is done with the store that can be done.

Each operation gives a result, or a typed error, within a bounded number of calls.  Where the damage is not in
the content but in what is said of it (tip, revisions, retention, the progress of a sync), a result
is the right one: whoever asks for a root gets that root or an error.  Wherever the damage is, a result of a
verified read is right, and where a check of all history finds none, so is every other one.

    python -m tests.support.damaged_stores --seeds 2000 --kernel compiled
"""

import argparse
import contextlib
import itertools
import logging
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import lmdb

import merkledb
from manager.keyspace.range_map import RangeMap
from manager.scheduling.checkpoint import Checkpoint, encode_checkpoint
from manager.scheduling.pivot import Target
from manager.scheduling.resume import load_resume_point
from merkledb import ChangeProof, Database, MerkleDBError, RangeProof, Scheme, Snapshot, VerifiedRange
from merkledb.kernel import choice
from merkledb.kernel.choice import VARIABLE

TABLES: Final = (b"values", b"branches", b"value_history", b"branch_history", b"revisions", b"meta", b"sync")
# What is said of the content, and is not content itself.
SAID: Final = (b"revisions", b"meta", b"sync")
# An operation on an honest store takes some thousands.
MAX_CALLS: Final = 400_000
SCHEMES: Final = (Scheme(), Scheme("sha256", 256), Scheme("blake3", 2), Scheme("sha256", 4))
KINDS: Final = ("at rest", "in a sync", "in a first sync")


class TooMuchWork(Exception):
    """An operation made more calls than any on a store of this size has to."""


class Failure(NamedTuple):
    """What was wrong with one operation on one damaged store."""

    seed: int
    damage: str
    operation: str
    error: str


class Honest(NamedTuple):
    """A store without damage, and what is known of it.

    Attributes:
        path: Its folder.
        scheme: Its scheme.
        contents: By root, what a revision holds, also of those that are not retained any more.
        range_proof: Of another content, and its root.
        change_proof: From what the tables hold to another content, and its root.
        rows: By table, its rows.
    """

    path: Path
    scheme: Scheme
    contents: dict[bytes, dict[bytes, bytes]]
    range_proof: tuple[RangeProof, bytes]
    change_proof: tuple[ChangeProof, bytes]
    rows: dict[bytes, list[tuple[bytes, bytes]]]


@contextlib.contextmanager
def running(kernel: str) -> Iterator[None]:
    """Let ``pure`` or ``compiled`` be the kernel."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = kernel
    choice.kernel.cache_clear()
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before
        choice.kernel.cache_clear()


@contextlib.contextmanager
def bounded(max_calls: int) -> Iterator[None]:
    """Raise TooMuchWork at so many calls of functions, of Python's or of C's."""
    calls = itertools.count()

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        if event.endswith("call") and next(calls) > max_calls:
            raise TooMuchWork

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)


def honest_store(path: Path, kind: str, scheme: Scheme) -> Honest:
    """Make a store with some revisions, of which the oldest are pruned, and a range of everything in it."""
    some = random.Random(7)
    # Keys that lie close together, are prefixes of each other, are empty, or begin with zeros.
    keys = [b"", b"\0", b"\0\0", b"\1", b"a", b"ab", b"abc", b"\xff" * 3]
    keys += [some.randbytes(some.choice([1, 2, 2, 8])) for _ in range(120)]
    sizes = [0, 1, 31, 32, 40, 70, 200, 600]
    content: dict[bytes, bytes] = {}
    bucket_pairs: dict[bytes, bytes] = {}
    contents: dict[bytes, dict[bytes, bytes]] = {merkledb.EMPTY_ROOT: {}}
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(
            merkledb.open(path.with_name(path.name + " source"), scheme=scheme, history=20)
        )
        database = stack.enter_context(merkledb.open(path, scheme=scheme, history=5))
        for number in range(8):
            changes: dict[bytes, bytes | None] = {
                key: None if key in content and some.random() < 0.3 else some.randbytes(some.choice(sizes))
                for key in some.sample(keys, 60 if number == 0 else 12)
            }
            if number == 6:
                # Back to what was there before, so that a root comes twice.
                changes = {key: bucket_pairs.get(key) for key in bucket_pairs.keys() | content.keys()}
            bucket_pairs = dict(content)
            content.update({key: value for key, value in changes.items() if value is not None})
            content = {key: value for key, value in content.items() if changes.get(key, value) is not None}
            contents[source.commit(changes)] = dict(content)
            if kind != "in a first sync":
                database.commit(changes)
        head = source.root
        newer = source.commit({key: some.randbytes(50) for key in keys[::3]} | {keys[1]: None})
        newest = source.commit({key: some.randbytes(30) for key in keys[::5]} | {keys[4]: None})
        ranges = RangeMap(scheme.max_key_bytes, None if kind == "in a first sync" else head)
        at = head
        if kind != "at rest":
            part = source.prove_range(b"\x20", b"\xa0", max_keys=20)
            verified = merkledb.verify_range(part, newest, b"\x20", b"\xa0", scheme=scheme, max_keys=20)
            ranges.set(b"\x20", part.end, newest)
            checkpoint = Checkpoint(Target(newest, 10), 20, 0, 400, 100, ranges, (0.25,) * len(ranges))
            database.apply(verified, progress=encode_checkpoint(checkpoint))
            at = newest
        else:
            checkpoint = Checkpoint(Target(newest, 10), 20, 0, 400, 100, ranges, (0.25,) * len(ranges))
            database.set_progress(encode_checkpoint(checkpoint))
        range_proof = source.prove_range(b"\x40", b"\xc0"), newest
        # The range that was replaced already holds the newest content.
        change_proof = source.prove_changes(at, newer if at == newest else newest, b"\x30", b"\x38")
    return Honest(
        path,
        scheme,
        contents,
        range_proof,
        (change_proof, newer if at == newest else newest),
        _rows_of(path),
    )


def _environment(path: Path) -> "lmdb.Environment":
    return lmdb.open(str(path), max_dbs=16, map_size=1 << 30, lock=False, sync=False)


def _rows_of(path: Path) -> dict[bytes, list[tuple[bytes, bytes]]]:
    with _environment(path) as environment:
        tables = {name: environment.open_db(name, create=False) for name in TABLES}
        with environment.begin() as transaction:
            return {name: list(transaction.cursor(db=table)) for name, table in tables.items()}


# Damages: each takes a source of chance, and a key and a value; what becomes of them.


def _truncate(some: random.Random, data: bytes) -> bytes:
    return data[: some.randrange(len(data) + 1)]


def _extend(some: random.Random, data: bytes) -> bytes:
    return data + some.choice([b"\0", b"\xff", some.randbytes(3), some.randbytes(600), bytes(40)])


def _flip(some: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\1"
    changed = bytearray(data)
    changed[some.randrange(len(data))] ^= 1 << some.randrange(8)
    return bytes(changed)


def _flip_head(some: random.Random, data: bytes) -> bytes:
    return _flip(some, data[:4]) + data[4:]


def _flip_tail(some: random.Random, data: bytes) -> bytes:
    return data[:-20] + _flip(some, data[-20:])


def _extreme(some: random.Random, data: bytes) -> bytes:
    """Put a number at either end of what a field holds."""
    width = some.choice([1, 2, 7, 8])
    at = some.choice([some.randrange(max(len(data) - width, 0) + 1), 32, 40, 48, 0])
    number = some.choice(
        [b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + b"\0" * 7, b"\0" * 7 + b"\1"]
    )
    return data[:at] + number[:width] + data[at + width :]


def _insert(some: random.Random, data: bytes) -> bytes:
    at = some.randrange(len(data) + 1)
    return data[:at] + some.randbytes(some.choice([1, 1, 33])) + data[at:]


def _cut_out(some: random.Random, data: bytes) -> bytes:
    at = some.randrange(len(data) + 1)
    return data[:at] + data[at + some.choice([1, 2, 33]) :]


def _noise(some: random.Random, data: bytes) -> bytes:
    return some.randbytes(len(data))


CHANGES: Final = (
    _truncate, _extend, _flip, _flip, _flip_head, _flip_tail, _extreme, _extreme, _insert, _cut_out, _noise,
)  # fmt: skip


def damage(some: random.Random, honest: Honest, path: Path) -> tuple[bytes, str]:
    """Damage one row of the store at ``path``; return its table, and what was done."""
    table = some.choice([name for name in TABLES if honest.rows[name]])
    rows = honest.rows[table]
    key, value = some.choice(rows)
    what = some.choice(["value", "value", "value", "value", "key", "missing", "swapped"])
    with _environment(path) as environment:
        opened = environment.open_db(table, create=False)
        with environment.begin(write=True) as transaction:
            if what == "value":
                change = some.choice(CHANGES)
                new = change(some, value)
                transaction.put(key, new, db=opened)
                said = f"{change.__name__} of the value at {key.hex()}: {value[:90].hex()} → {new[:90].hex()}"
            elif what == "key":
                change = some.choice(CHANGES)
                new = change(some, key)[:511] or b"\0"
                transaction.delete(key, db=opened)
                transaction.put(new, value, db=opened)
                said = f"{change.__name__} of the key {key.hex()} → {new.hex()}"
            elif what == "missing":
                transaction.delete(key, db=opened)
                said = f"no row {key.hex()}"
            else:
                other, other_value = some.choice(rows)
                transaction.put(key, other_value, db=opened)
                transaction.put(other, value, db=opened)
                said = f"swapped {key.hex()} and {other.hex()}"
    return table, f"{table.decode()}: {said}"


# Operations.


def _equal(found: object, right: object) -> None:
    if found != right:
        raise AssertionError(f"{found!r:.200} is not {right!r:.200}")


def _verify(
    proof: RangeProof, root: bytes, start: bytes | None, end: bytes | None, scheme: Scheme
) -> VerifiedRange:
    """Verify a proof that must hold; one that does not is no typed error, but a wrong result."""
    try:
        return merkledb.verify_range(proof, root, start, end, scheme=scheme)
    except merkledb.InvalidProof as error:
        raise AssertionError(str(error)) from error


Operation = Callable[[Database, Honest, bool], None]


def _read_head(database: Database, honest: Honest, is_said: bool) -> None:
    root = database.root
    len(database)
    repr(
        (database.head, database.revision, database.tip_root, database.catching_up, database.written_locally)
    )
    found = {key: database.get(key) for key in [b"", b"\0", b"a", b"ab", b"\x7fx", *list(honest.rows)]}
    if is_said:
        _equal(found, {key: honest.contents[root].get(key) for key in found})


def _list_head(database: Database, honest: Honest, is_said: bool) -> None:
    ascending, descending = list(database.items()), list(database.items(reverse=True))
    list(database.items(b"\x30", b"\x90"))
    list(database.items(b"\x30", b"\x90", reverse=True))
    if is_said:
        _equal(dict(ascending), honest.contents[database.root])
        _equal(ascending, descending[::-1])


def _prove_head(database: Database, honest: Honest, is_said: bool) -> None:
    root = database.root
    for key in (b"", b"a", b"abc", b"\x55", b"\xff" * 3):
        proof = database.prove(key)
        if is_said:
            _verify(proof, root, key, key, honest.scheme)
    for start, end in ((None, None), (b"", b"a"), (b"\x20", b"\xc0"), (b"ab", None)):
        proof = database.prove_range(start, end, max_keys=20)
        if is_said:
            _verify(proof, root, start, end, honest.scheme)


def _read_past(database: Database, honest: Honest, is_said: bool) -> None:
    for root, content in honest.contents.items():
        try:
            snapshot = database.at(root)
        except MerkleDBError:
            continue
        with snapshot:
            _equal(snapshot.root, root)
            for use in (_read_snapshot, _list_snapshot, _prove_snapshot):
                with contextlib.suppress(MerkleDBError):
                    use(snapshot, content, is_said=is_said)


def _read_snapshot(snapshot: Any, content: dict[bytes, bytes], *, is_said: bool) -> None:
    len(snapshot)
    for key in [b"", b"a", b"\x7f", *itertools.islice(content, 10)]:
        found = snapshot.get(key)
        if is_said:
            _equal(found, content.get(key))


def _list_snapshot(snapshot: Any, content: dict[bytes, bytes], *, is_said: bool) -> None:
    for reverse in (False, True):
        found = list(snapshot.items(reverse=reverse))
        list(snapshot.items(b"\x30", b"\x90", reverse=reverse))
        if is_said:
            _equal(dict(found), content)


def _prove_snapshot(snapshot: Any, content: dict[bytes, bytes], *, is_said: bool) -> None:
    for start, end in ((b"a", b"a"), (b"\x55", b"\x55"), (None, None), (b"\x20", b"\xc0"), (b"ab", None)):
        proof = snapshot.prove_range(start, end, max_keys=20)
        if is_said:
            shown = _verify(proof, snapshot.root, start, end, snapshot.scheme)
            _equal([content.get(key) for key in shown.keys], list(shown.values))


def _compare(database: Database, honest: Honest, is_said: bool) -> None:
    roots = list(honest.contents)[-6:]
    for old, new in itertools.pairwise([roots[0], *roots, roots[1], roots[4], roots[2], roots[5], roots[0]]):
        try:
            found = {each.key: (each.old, each.new) for each in database.differences(old, new)}
            database.prove_changes(old, new, b"\x20", None, max_keys=9)
        except MerkleDBError:
            continue
        if is_said:
            before, after = honest.contents[old], honest.contents[new]
            both = {key: (before.get(key), after.get(key)) for key in before.keys() | after.keys()}
            _equal(found, {key: pair for key, pair in both.items() if pair[0] != pair[1]})


def _list_revisions(database: Database, honest: Honest, is_said: bool) -> None:
    for revision in database.revisions():
        repr(revision)


def _check(database: Database, honest: Honest, is_said: bool) -> None:
    database.check()


def _read_verified(database: Database, honest: Honest, is_said: bool) -> None:
    for root, content in honest.contents.items():
        for read in (_list_verified, _get_verified):
            with contextlib.suppress(MerkleDBError), database.at(root) as snapshot:
                read(snapshot, content)


def _list_verified(snapshot: Snapshot, content: dict[bytes, bytes]) -> None:
    pairs = sorted(content.items())
    part = [pair for pair in pairs if b"\x30" <= pair[0] <= b"\x90"]
    for found, right in (
        (snapshot.folded_items(), pairs),
        (snapshot.verified_items(), pairs),
        (snapshot.verified_items(reverse=True), pairs[::-1]),
        (snapshot.verified_items(b"\x30", b"\x90"), part),
    ):
        with contextlib.suppress(MerkleDBError):
            _equal(list(found), right)


def _get_verified(snapshot: Snapshot, content: dict[bytes, bytes]) -> None:
    for key in [b"", b"a", b"\x7f", *itertools.islice(content, 10)]:
        with contextlib.suppress(MerkleDBError):
            _equal(snapshot.verified_get(key), content.get(key))


def _check_history(database: Database, honest: Honest, is_said: bool) -> None:
    database.check(history=True)
    # Nothing was found, so nothing is wrong: not even a read that is not verified may be another now.
    for revision in database.revisions():
        content = honest.contents[revision.root]
        with database.at(revision.root) as snapshot:
            _equal(len(snapshot), len(content))
            for key in [b"", b"a", b"\x7f", *content]:
                _equal(snapshot.get(key), content.get(key))
            _list_snapshot(snapshot, content, is_said=True)
            _prove_snapshot(snapshot, content, is_said=True)


def _view(database: Database, honest: Honest, is_said: bool) -> None:
    with database.view({b"a": b"new", b"\x7f": b"", b"ab": None, b"abcd": bytes(300)}) as view:
        with view.view({b"\x55\1": b"x", b"a": None}) as other:
            list(other.items())
            list(other.items(reverse=True))
            len(other)
            other.prove(b"a")
            other.prove_range(b"\x20", b"\xf0")
            other.get(b"ab")
        view.prove_range()


def _resume_point(database: Database, honest: Honest, is_said: bool) -> None:
    load_resume_point(database)


def _verify_changes(database: Database, honest: Honest, is_said: bool) -> None:
    proof, root = honest.change_proof
    with contextlib.suppress(merkledb.InvalidProof):
        database.apply(database.verify_changes(proof, root, b"\x30", b"\x38"))


def _apply(database: Database, honest: Honest, is_said: bool) -> None:
    proof, root = honest.range_proof
    verified = merkledb.verify_range(proof, root, b"\x40", b"\xc0", scheme=honest.scheme)
    database.apply(verified, progress=database.progress)


def _roll_back(database: Database, honest: Honest, is_said: bool) -> None:
    database.roll_back()


def _commit(database: Database, honest: Honest, is_said: bool) -> None:
    database.commit({b"a": b"new", b"\x7f": b"", b"ab": None, b"abcd": bytes(300), b"\x55": None})
    some = random.Random(4)
    database.commit({some.randbytes(2): some.randbytes(40) for _ in range(60)})


def _commit_view(database: Database, honest: Honest, is_said: bool) -> None:
    with database.view({bytes([number]): b"v" for number in range(0, 256, 9)}) as view:
        view.commit()


def _commit_without_history(database: Database, honest: Honest, is_said: bool) -> None:
    database.commit({b"b": b"new"}, keep_history=False)


# The first ones only read, and so all come after each other; the others each get a store of their own.
READING: Final[tuple[Operation, ...]] = (
    _read_head, _list_head, _prove_head, _read_past, _compare, _list_revisions, _check, _view,
)  # fmt: skip
WRITING: Final[tuple[tuple[Operation, ...], ...]] = (
    (_commit, _commit, _check, _read_past),
    (_apply, _verify_changes, _roll_back, _check),
    (_verify_changes, _apply, _resume_point, _read_past),
    (_resume_point, _commit, _compare),
    (_roll_back, _commit, _compare),
    (_commit_view, _commit_without_history, _list_revisions),
)


class Search:
    """Damages stores and uses them.

    Args:
        folder: Where they are made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._honest: dict[tuple[str, Scheme], Honest] = {}
        self.failures: list[Failure] = []
        self.outcomes: Counter[str] = Counter()

    def run(self, seed: int) -> None:
        """Damage one store, and use it."""
        some = random.Random(seed)
        kind, scheme = some.choice(KINDS), some.choice(SCHEMES)
        honest = self._honest.get((kind, scheme))
        if honest is None:
            path = self._folder / f"{kind} {scheme}".replace(" ", "-")
            honest = self._honest[kind, scheme] = honest_store(path, kind, scheme)
        path = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            shutil.copyfile(honest.path / "data.mdb", path / "data.mdb")
            table, said = damage(some, honest, path)
            said = f"{kind}, {scheme}, {said}"
            damaged = (path / "data.mdb").read_bytes()
            # A content that another row is said to belong to is content again.
            is_said = table in SAID
            reading = (*some.sample(READING, 5), _read_verified, _check_history)
            self._use(path, honest, seed, said, reading, is_said=is_said)
            operations_of_writer = some.choice(WRITING)
            (path / "data.mdb").write_bytes(damaged)
            # What was written to a damaged store is not known beforehand.
            self._use(path, honest, seed, said, operations_of_writer, is_said=False)
        finally:
            shutil.rmtree(path)

    def _use(
        self, path: Path, honest: Honest, seed: int, said: str, operations: Any, *, is_said: bool
    ) -> None:
        try:
            with merkledb.open(path, scheme=None) as database:
                for operation in operations:
                    self._try(database, honest, seed, said, operation, is_said=is_said)
        except MerkleDBError as error:
            self.outcomes[type(error).__name__] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as in ``_try``.
            self._fail(seed, said, "open", error)

    def _try(
        self, database: Database, honest: Honest, seed: int, said: str, operation: Operation, *, is_said: bool
    ) -> None:
        try:
            with bounded(MAX_CALLS):
                operation(database, honest, is_said)
            self.outcomes["result"] += 1
        except MerkleDBError as error:
            self.outcomes[type(error).__name__] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - all that is not typed is looked for, a panic too.
            self._fail(seed, said, operation.__name__, error)

    def _fail(self, seed: int, said: str, name: str, error: BaseException) -> None:
        where = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in where][-6:]
        what = f"{type(error).__name__}: {error!s:.300} at {' '.join(places)}"
        self.failures.append(Failure(seed, said, name, what))


def main() -> None:
    """Search by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many stores to damage")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--kernel", choices=["pure", "compiled"], default="compiled")
    arguments = parser.parse_args()
    logging.disable()
    with running(arguments.kernel), tempfile.TemporaryDirectory() as folder:
        search, shown = Search(Path(folder)), 0
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            search.run(seed)
            for failure in search.failures[shown:]:
                print(*failure, sep="\n    ", flush=True)  # noqa: T201 - a command.
            shown = len(search.failures)
        print(f"{len(search.failures)} failures; {dict(search.outcomes)}")  # noqa: T201 - a command.
    sys.exit(bool(search.failures))


if __name__ == "__main__":
    main()
