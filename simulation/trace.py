"""What happened in a simulation: a line for each event, and a digest of them all.

Two runs of one seed give the same digest, in any process on any machine; a test holds that.  The digest also
takes what is too much for a line, such as every piece of bytes that arrives.
"""

from collections import Counter
from hashlib import blake2b

import trio


class Trace:
    """The events of one simulation.

    Args:
        keep_lines: Whether the lines are wanted; without them only the digest and the counts are kept.

    Attributes:
        lines: What happened, in order.
        counts: How often each kind of event happened.
    """

    def __init__(self, *, keep_lines: bool = False) -> None:
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()
        self._keep_lines = keep_lines
        self._hash = blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """The digest of all that happened so far."""
        return self._hash.hexdigest()

    def note(self, kind: str, who: str, detail: str = "") -> None:
        """Note an event.

        Args:
            kind: What the summary counts it as.
            who: The node or the connection that it happened to.
            detail: What else a reader of the log wants to know.
        """
        self.counts[kind] += 1
        line = f"{trio.current_time():10.4f}  {who:<14} {kind}{': ' if detail else ''}{detail}"
        self._hash.update(line.encode())
        if self._keep_lines:
            self.lines.append(line)

    def mix(self, data: bytes) -> None:
        """Take something into the digest that is too much for a line."""
        self._hash.update(data)
