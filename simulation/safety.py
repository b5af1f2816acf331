"""What must hold at every moment, whatever goes wrong: the store never shows what is not true.

- The head, and every retained revision, has exactly the content that the model has for its root.
- A head that was shown once gives way to newer ones only, crashes or not, and never to none.
- No pair is in the tables that no root of the writer has.
- What the stored progress says of each range is true of what the tables hold there.
- The manager never finds that its scheduler is wrong about the store.
- A peer that is honest, and whose bytes arrive as it sent them, is not dropped for an invalid proof.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from random import Random
from typing import Final

from manager.keyspace.range_map import RangeMap
from manager.scheduling.checkpoint import decode_checkpoint
from merkledb import Database, InvalidProof, Revision, verify_range
from merkledb.storage.store import key_of_row
from simulation.model import Contents, Model

# How often a look is not only at content, but at proofs and differences too.
_PROVED_SHARE: Final = 0.2
# Who warns that what is written down is not what is there.
_DISTRUSTFUL: Final = ("manager.scheduling.resume", "manager.transfer.sync_writer")
# Who warns that a peer is dropped; the arguments of the warning are its name and the failure.
_DROPPING: Final = "manager.peer_session"
# Called with a peer that is dropped and why, by the tasks of a replica's manager.
ON_DROP: ContextVar[Callable[[str, object], None]] = ContextVar("ON_DROP")


class Violation(Exception):
    """Something happened that must never happen."""


class Unsafe(Violation):
    """A store shows, or holds, what is not true."""


class NotLive(Violation):
    """A replica did not reach the newest root, although nothing has gone wrong for long enough."""


class Unexpected(Violation):
    """Something was raised, or reported, that nothing in the simulation explains.

    Args:
        what: What happened.
        error: Its cause, if it was an error.
    """

    def __init__(self, what: str, error: BaseException | None = None) -> None:
        super().__init__(what)
        self.__cause__ = error


class _Alarm(logging.Handler):
    """Turns a warning into a violation."""

    def __init__(self, violate: Callable[[Violation], None]) -> None:
        super().__init__(logging.WARNING)
        self._violate = violate

    def emit(self, record: logging.LogRecord) -> None:
        """Report a warning."""
        if record.name in _DISTRUSTFUL:
            self._violate(Unexpected(f"the manager distrusts its scheduler: {record.getMessage()}"))
        elif record.name == _DROPPING and isinstance(record.args, tuple):
            peer, failure = record.args
            ON_DROP.get()(str(peer), failure)


@contextmanager
def warnings_are_violations(violate: Callable[[Violation], None]) -> Iterator[None]:
    """Let nobody warn that scheduler and store differ: the manager then begins anew, which hides a mistake.

    Args:
        violate: Called with each warning.
    """
    loggers = [logging.getLogger("manager"), logging.getLogger("server")]
    alarm, before = _Alarm(violate), [each.propagate for each in loggers]
    for each in loggers:
        each.addHandler(alarm)
        each.propagate = False
    try:
        yield
    finally:
        for each, propagate in zip(loggers, before, strict=True):
            each.removeHandler(alarm)
            each.propagate = propagate


class Safety:
    """Looks at stores.

    Args:
        model: The truth.
        random: Chooses what is looked at when there is too much.
    """

    def __init__(self, model: Model, random: Random) -> None:
        self._model = model
        self._random = random

    def look(self, database: Database) -> None:
        """Check what a store shows and holds at this moment, and one of its older revisions.

        Raises:
            Unsafe: Something is not true.
        """
        held = pairs_held(database)
        self._check_pairs(held)
        self._check_progress(database, held)
        self._check_head(database, held)
        revisions = database.revisions()
        if revisions:
            root = self._random.choice(revisions).root
            self._check_revision(database, root)
            if self._random.random() < _PROVED_SHARE:
                self._check_proof(database, root)
                self._check_differences(database, root, self._random.choice(revisions).root)

    def look_closely(self, database: Database) -> None:
        """Check everything there is.

        Raises:
            Unsafe: Something is not true.
            CorruptDatabase: The store contradicts itself.
        """
        self.look(database)
        database.check(history=True)
        for revision in database.revisions():
            self._check_revision(database, revision.root)

    def _expected(self, root: bytes) -> Contents:
        contents = self._model.contents_of(root)
        if contents is None:
            raise Unsafe(f"it shows root {root.hex()}, which never was")
        return contents

    def _check_pairs(self, held: Contents) -> None:
        false = held.items() - self._model.pairs
        if false:
            raise Unsafe(f"it holds {len(false)} pairs that no root has, such as {min(false)!r:.100}")

    def _check_head(self, database: Database, held: Contents) -> None:
        head = database.head
        if head is None:
            if database.revisions():
                raise Unsafe("it has revisions, and no head")
            return
        expected = self._expected(head.root)
        _require_same(dict(database.items()), expected, f"the head {head.root.hex()[:8]}")
        if len(database) != len(expected) or head.keys != len(expected):
            raise Unsafe(f"it counts {len(database)} pairs of {len(expected)}")
        if not database.catching_up:
            _require_same(held, expected, "what the tables hold")
            if database.tip_root != head.root:
                raise Unsafe("it does not catch up, and its tip is not the head")

    def _check_revision(self, database: Database, root: bytes) -> None:
        expected = self._expected(root)
        with database.at(root) as snapshot:
            found = dict(snapshot.items())
            if len(snapshot) != len(expected):
                raise Unsafe(f"it counts {len(snapshot)} pairs of {len(expected)} at {root.hex()[:8]}")
        _require_same(found, expected, f"the revision {root.hex()[:8]}")

    def _check_proof(self, database: Database, root: bytes) -> None:
        """Check that a proof of some range at a root holds, and that it shows what is there."""
        expected = self._expected(root)
        bounds = sorted(self._random.choices([*sorted(expected), b"", b"\x80"], k=2))
        start, end = bounds[0], self._random.choice([bounds[1], None])
        with database.at(root) as snapshot:
            proof = snapshot.prove_range(start, end, max_keys=self._random.choice([1, 5, 1000]))
        try:
            verified = verify_range(proof, root, start, end, scheme=database.scheme)
        except InvalidProof as error:
            raise Unsafe(f"its own proof at {root.hex()[:8]} does not hold") from error
        found = dict(zip(verified.keys, verified.values, strict=True))
        _require_same(found, _within(expected, start, verified.end), f"a proof at {root.hex()[:8]}")

    def _check_differences(self, database: Database, old: bytes, new: bytes) -> None:
        """Check what a store says that differs between two of its roots."""
        before, after = self._expected(old), self._expected(new)
        expected = [
            (key, before.get(key), after.get(key))
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key)
        ]
        if [tuple(each) for each in database.differences(old, new)] != expected:
            raise Unsafe(f"other things differ between {old.hex()[:8]} and {new.hex()[:8]} than it says")

    def _check_progress(self, database: Database, held: Contents) -> None:
        """Check that what the progress says is true of what the tables hold."""
        progress = database.progress
        if progress is not None:
            self.check_ranges(decode_checkpoint(progress, database.scheme.max_key_bytes).ranges, held)

    def check_ranges(self, ranges: RangeMap, held: Contents) -> None:
        """Check that each range of a map holds what its root says.

        Raises:
            Unsafe: A range holds something else.
        """
        for start, end, root in ranges:
            if root is not None:
                expected = self._expected(root)
                where = f"the range from 0x{start.hex()} to {end and end.hex()} at {root.hex()[:8]}"
                _require_same(_within(held, start, end), _within(expected, start, end), where)


class Witness:
    """Remembers what a store has shown, in all its lives, and holds it to that.

    A head that was seen once is durable, and gives way only to a newer one.
    """

    def __init__(self) -> None:
        self._shown: Revision | None = None

    def forget(self) -> None:
        """Expect nothing, for everything was lost."""
        self._shown = None

    def look(self, head: Revision | None) -> None:
        """Look at the head that a store shows.

        Raises:
            Unsafe: It shows none any more, or an older one.
        """
        shown, self._shown = self._shown, head
        # A new store shows that it is empty until its first sync begins.
        if shown is None or not shown.number:
            return
        if head is None:
            raise Unsafe(f"it went dark, and had shown revision {shown.number}")
        if head.number < shown.number or (head.number == shown.number and head.root != shown.root):
            raise Unsafe(f"it shows revision {head.number}, and had shown {shown.number}")


def pairs_held(database: Database) -> dict[bytes, bytes]:
    """Return all pairs that are in the tables, whatever they belong to."""
    store = database._store
    with store.read() as transaction:
        return {key_of_row(row): value for row, value in transaction.cursor(db=store.values)}


def _within(contents: Contents, start: bytes, end: bytes | None) -> Contents:
    return {key: value for key, value in contents.items() if start <= key and (end is None or key <= end)}


def _require_same(found: Mapping[bytes, bytes], expected: Contents, where: str) -> None:
    if found == expected:
        return
    missing = sorted(expected.keys() - found.keys())
    added = sorted(found.keys() - expected.keys())
    other = sorted(key for key in expected.keys() & found.keys() if found[key] != expected[key])
    words = [
        f"{len(keys)} keys {what}, such as 0x{keys[0].hex()}"
        for keys, what in ((missing, "are missing"), (added, "are too many"), (other, "have another value"))
        if keys
    ]
    raise Unsafe(f"{where}: {'; '.join(words)}")
