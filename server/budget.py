"""The memory that all answers of a server may take, from before they are made until they are sent.

No client waits for another that does not read: half of the memory is a pool that is given out in the order
of requests, and the other half is divided, so that each connection has a share of its own.  Where the pool
is empty, a connection gets shorter answers, one at a time, out of its share.

Invariant: what is taken from the pool and the shares together is at most ``max_bytes``.
"""


class Reservation:
    """Memory for one answer.

    Attributes:
        byte_count: How much it is.
    """

    def __init__(self, account: "Account", byte_count: int, *, is_share: bool) -> None:
        self._account = account
        self._is_share = is_share
        self.byte_count = byte_count

    def shrink(self, byte_count: int) -> None:
        """Give back what the answer does not need."""
        self._account.give_back(self.byte_count - byte_count, is_share=self._is_share)
        self.byte_count = byte_count

    def release(self) -> None:
        """Give all back; the second time, nothing happens."""
        self._account.forget(self, is_share=self._is_share)


class AnswerBudget:
    """The memory of one server.

    Args:
        max_bytes: In all.
        max_connections: Among which half of it is divided.

    Attributes:
        share_bytes: Each connection's own.
        held_bytes: How much is taken at this moment.
        peak_bytes: The most that ever was.
    """

    def __init__(self, max_bytes: int, max_connections: int) -> None:
        self.share_bytes = max_bytes // 2 // max_connections
        self._pool_bytes = max_bytes // 2
        self.held_bytes = 0
        self.peak_bytes = 0

    def account(self) -> "Account":
        """Return the account of a connection."""
        return Account(self)

    def take_from_pool(self, byte_count: int) -> bool:
        """Take memory that any connection may have; return whether there was enough."""
        if byte_count > self._pool_bytes:
            return False
        self._pool_bytes -= byte_count
        return True

    def return_to_pool(self, byte_count: int) -> None:
        """Give back what was taken, for any connection."""
        self._pool_bytes += byte_count

    def note(self, byte_count: int) -> None:
        """Count what was taken, or with a negative number given back."""
        self.held_bytes += byte_count
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)


class Account:
    """What one connection has taken.

    Args:
        budget: Of the server.
    """

    def __init__(self, budget: AnswerBudget) -> None:
        self._budget = budget
        self._reservations: set[Reservation] = set()
        self._is_share_taken = False

    def take(self, byte_count: int) -> Reservation | None:
        """Reserve memory for an answer.

        Args:
            byte_count: The longest that it may be.

        Returns:
            As much, or less; None while there is nothing until an answer of this connection is sent.
        """
        is_share = not self._budget.take_from_pool(byte_count)
        if is_share and self._is_share_taken:
            return None
        if is_share:
            self._is_share_taken = True
            byte_count = min(byte_count, self._budget.share_bytes)
        reservation = Reservation(self, byte_count, is_share=is_share)
        self._reservations.add(reservation)
        self._budget.note(byte_count)
        return reservation

    def give_back(self, byte_count: int, *, is_share: bool) -> None:
        """Note that a reservation takes less; a share stays with the connection."""
        self._budget.note(-byte_count)
        if not is_share:
            self._budget.return_to_pool(byte_count)

    def forget(self, reservation: Reservation, *, is_share: bool) -> None:
        """Give a reservation back, if that was not done."""
        if reservation not in self._reservations:
            return
        self._reservations.remove(reservation)
        self.give_back(reservation.byte_count, is_share=is_share)
        if is_share:
            self._is_share_taken = False

    def close(self) -> None:
        """Give everything back."""
        for reservation in list(self._reservations):
            reservation.release()
