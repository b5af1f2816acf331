"""The one writer of a sync: collects verified ranges, and applies many of them in one transaction.

The range map goes to disk in the same transaction as the content that it describes, so a crash at any moment
leaves both before or both after.  Ranges are applied in the order of their keys: the store fills its pages
best so.

A transaction begins when enough is collected, when the oldest range has waited long enough, when somebody
needs the memory that the ranges hold, or when nothing more will come.  Its thread is never abandoned:
cancelled, the writer lets the transaction finish.
"""

from collections.abc import Callable
from functools import partial

import trio

from manager.budget import ByteBudget
from manager.large import LargePairs
from manager.ledger import Ledger, Piece
from manager.limits import Limits
from manager.processor import Processor
from merkledb import Database


class Writer:
    """Applies verified ranges to a database.

    Args:
        database: Written by nobody else meanwhile.
        ledger: The books of the sync.
        limits: How much goes into a transaction.
        processor: Where transactions run.
        applied: Called after every transaction.

    Attributes:
        budget: The memory for all that is fetched and not on disk yet, but for large pairs.
        large_pairs: Who fetches a large pair, and the memory for it until it is on disk.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        limits: Limits,
        processor: Processor,
        applied: Callable[[], None],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._limits = limits
        self.budget = ByteBudget(limits.buffered_bytes, self._wake)
        self.large_pairs = LargePairs(limits.request_timeout_seconds, self._wake)
        self._processor = processor
        self._applied = applied
        # Each piece with the budget that its memory is reserved in.
        self._pieces: list[tuple[Piece, ByteBudget]] = []
        self._collected_bytes = 0
        self._oldest = 0.0
        self._changed = trio.lowlevel.ParkingLot()

    def put(self, piece: Piece, budget: ByteBudget) -> None:
        """Hand over a verified range; its memory is reserved in ``budget`` until it is applied."""
        if not self._pieces:
            self._oldest = trio.current_time()
        self._pieces.append((piece, budget))
        self._collected_bytes += piece.memory_bytes
        self._wake()

    def _wake(self) -> None:
        """Let ``run`` look again whether a transaction is due."""
        self._changed.unpark_all()

    async def run(self) -> None:
        """Apply what comes until everything was fetched and is on disk.

        Raises:
            MerkleDBError: The database cannot be written; nothing of the failed transaction is in it.
        """
        while self._pieces or not self._ledger.is_fetched:
            if self._is_due():
                await self._apply()
            else:
                await self._wait()

    def _is_due(self) -> bool:
        if not self._pieces:
            return False
        return (
            self._collected_bytes >= self._limits.transaction_bytes
            or self._is_withholding()
            or self._ledger.is_fetched
            or trio.current_time() >= self._oldest + self._limits.transaction_seconds
        )

    def _is_withholding(self) -> bool:
        """Whether somebody waits for memory of which a good part is held here.

        What requests in flight hold, no transaction can free; they end, and then all of it is here.
        """
        return any(
            budget.is_starving and self._held_bytes(budget) * 4 >= budget.reserved_bytes
            for budget in (self.budget, self.large_pairs.budget)
        )

    def _held_bytes(self, budget: ByteBudget) -> int:
        return sum(piece.memory_bytes for piece, reserved_in in self._pieces if reserved_in is budget)

    async def _wait(self) -> None:
        """Wait until something changed, or the oldest range has waited long enough."""
        deadline = self._oldest + self._limits.transaction_seconds if self._pieces else float("inf")
        with trio.move_on_at(deadline):
            await self._changed.park()

    async def _apply(self) -> None:
        held, self._pieces, self._collected_bytes = self._pieces, [], 0
        pieces = sorted((piece for piece, _ in held), key=lambda piece: piece.start)
        ranges, progress = self._ledger.plan(pieces)
        verified = [piece.verified for piece in pieces]
        await self._processor.run(partial(self._database.apply, verified, progress=progress))
        self._ledger.settle(pieces, ranges, trio.current_time())
        for piece, budget in held:
            budget.release(piece.memory_bytes)
        self._applied()
