"""Work that is out: who was sent for it, and how whoever is slower is called off.

What is out is with one peer, and with more once it is overdue.  An errand belongs to one peer and one time:
work that was called off and is taken again is another errand, even if the same peer takes it.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

import trio

from manager.work import Work


@dataclass(eq=False, slots=True)
class Errand:
    """What one peer was sent for.

    Attributes:
        peer: Who was sent.
        out: What it was sent for, with all who were.
        scope: Cancelled when it is called off.
        is_outrun: Whether it was called off for another peer was faster.
    """

    peer: Hashable
    out: "Out"
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_outrun: bool = False

    @property
    def work(self) -> Work:
        """What it was sent for."""
        return self.out.work


@dataclass(eq=False, slots=True)
class Out:
    """Work that is out.

    Attributes:
        work: What was taken.
        taken: When somebody took it last, in trio's seconds.
        errands: Who works on it.
    """

    work: Work
    taken: float = 0.0
    errands: list[Errand] = field(default_factory=list)
