"""What one peer says that its head is, and whether that is followed.

Nothing proves a head before something of it was fetched.  A peer that announced a root that no peer shows is
disbelieved for a while, longer each time, and believed again when a head of its was reached.  It decides
nothing else: which head is followed is the manager's choice.
"""

from collections.abc import Callable

import trio

from manager.peers.health import Backoff
from manager.scheduling.pivot import SeenHead


class AnnouncedHead:
    """The head of one peer.

    Args:
        disbelief: How long none of its heads is followed after one that could not be had.
        wake: Called when there is another time at which its heads are followed again.

    Attributes:
        head: What it says that its head is; None while it is not connected.
        disbelieved_until: Until when none of its heads is followed, in trio's seconds.
    """

    def __init__(self, disbelief: Backoff, wake: Callable[[], None]) -> None:
        self.head: SeenHead | None = None
        self.disbelieved_until = 0.0
        self._disbelief = disbelief
        self._wake = wake
        # A head that it announced, root and number, and that nobody could show.
        self._denied: tuple[bytes | None, int] | None = None

    @property
    def is_believed(self) -> bool:
        """Whether the last of its heads that was followed could be had, or none was followed yet."""
        return self._disbelief.failures == 0

    def shows(self, root: bytes) -> bool:
        """Whether ``root`` is its head's."""
        return self.head is not None and self.head.root == root

    def hear(self, head: SeenHead) -> None:
        """Note what it says that its head is."""
        self.head = head
        if (head.root, head.revision) != self._denied:
            # Should it come back to the root that it was denied, it may have it then.
            self._denied = None

    def disbelieve(self, root: bytes) -> None:
        """Follow none of its heads for a while, for it announced a root that nobody shows."""
        now, shows_it = trio.current_time(), self.shows(root)
        # Several requests in flight may find out the same.
        if self.disbelieved_until <= now or (shows_it and self._denied is None):
            self.disbelieved_until = now + self._disbelief.failed()
            self._wake()
        if self.head is not None and shows_it:
            self._denied = (root, self.head.revision)

    def believe(self, root: bytes) -> None:
        """Follow its heads as before, where its head is this root, all of which is here."""
        if self.shows(root):
            self._denied = None
            self.disbelieved_until = 0.0
            self._disbelief.succeeded()

    def forget_denial(self) -> None:
        """Take the same head for a new one when it is announced again."""
        self._denied = None
