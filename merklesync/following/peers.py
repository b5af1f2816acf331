"""Meeting the peers that a command names: those that answer, or why none does.

What is said to one of them is ``manager.peers.probe``'s.
"""

from collections.abc import Callable, Sequence
from random import random
from typing import Final

import trio

from manager import Limits
from manager.peers.address import Address
from manager.peers.probe import ProbeFailure, ProbeResult, probe
from merklesync.console.output import print_note
from merklesync.console.signals import run_until_signal
from merklesync.errors import CommandError, ExitCode

# Once a peer greeted, those named before it get so long to greet too.  Three round trips around the world
# take less; who needs more is down, more likely than slow.
GRACE_SECONDS: Final = 1.0
# Overloaded peers are asked again as patiently as a sync asks them.
PATIENCE_SECONDS: Final = Limits().overload_patience_seconds
_MIN_PAUSE_SECONDS: Final = Limits().backoff_seconds
_MAX_PAUSE_SECONDS: Final = Limits().max_backoff_seconds / 2


def require_probes(
    addresses: tuple[Address, ...],
    patience_seconds: float = 0.0,
    is_usable: Callable[[ProbeResult], bool] | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> list[ProbeResult]:
    """Connect to all peers at once, and return those that greeted, at least one, in the order given.

    Args:
        addresses: Of the peers.
        patience_seconds: For how long they are tried again while none greets and some are overloaded.
        is_usable: Whether a greeting is enough to go on with; None to wait for all peers.
        grace_seconds: How long the other peers are waited for once a greeting is enough; not at all where it
            is the first peer's.

    Raises:
        CommandError: None could be reached, or those that could are overloaded, or refuse.
    """
    greetings = run_until_signal(_meet, addresses, patience_seconds, is_usable, grace_seconds)
    met = [greeting for greeting in greetings if isinstance(greeting, ProbeResult)]
    if met:
        return met
    failures = [greeting for greeting in greetings if isinstance(greeting, ProbeFailure)]
    reasons = "; ".join(f"{failure.address}: {failure.reason}" for failure in failures)
    if any(failure.is_overload for failure in failures):
        raise CommandError(
            f"every peer that answers is overloaded ({reasons}): try again later, or name another peer"
        )
    if any(failure.has_answered for failure in failures):
        raise CommandError(
            f"no peer that answers can help ({reasons}): check the address, or name another peer"
        )
    raise CommandError(
        f"no peer could be reached ({reasons}): check the address, and that a merklesync server runs there",
        ExitCode.UNREACHABLE,
    )


def probe_all(addresses: Sequence[Address], roots: Sequence[bytes] = ()) -> list[ProbeResult | ProbeFailure]:
    """Connect to all peers at once, and ask each which of ``roots`` it has.

    Returns:
        What each said, in the order given; one that is given twice, once.

    Raises:
        KeyboardInterrupt: A signal interrupted it.
    """
    return run_until_signal(_probe_all, addresses, roots)


async def _meet(
    addresses: Sequence[Address],
    patience_seconds: float,
    is_usable: Callable[[ProbeResult], bool] | None,
    grace_seconds: float,
) -> list[ProbeResult | ProbeFailure]:
    """Connect to all peers, and again as long as none greets and some say that they are overloaded."""
    deadline, has_noted = trio.current_time() + patience_seconds, False
    while True:
        greetings = await _probe_all(addresses, (), is_usable, grace_seconds)
        full = [
            each for each in greetings if isinstance(each, ProbeFailure) and each.retry_seconds is not None
        ]
        if not full or any(isinstance(each, ProbeResult) for each in greetings):
            return greetings
        asked = max(full[0].retry_seconds or 0.0, _MIN_PAUSE_SECONDS)
        pause = min(asked, _MAX_PAUSE_SECONDS) * (1 + random())  # noqa: S311 - jitter is no secret.
        if trio.current_time() + pause > deadline:
            return greetings
        if not has_noted:
            print_note(f"{full[0].address}: {full[0].reason}; waiting")
            has_noted = True
        await trio.sleep(pause)


async def _probe_all(
    addresses: Sequence[Address],
    roots: Sequence[bytes],
    is_usable: Callable[[ProbeResult], bool] | None = None,
    grace_seconds: float = 0.0,
) -> list[ProbeResult | ProbeFailure]:
    """Connect to all peers; leave those out that have not answered when another's greeting is enough."""
    greetings: dict[Address, ProbeResult | ProbeFailure] = {}
    async with trio.open_nursery() as nursery:

        async def keep(address: Address) -> None:
            greetings[address] = greeting = await probe(address, roots)
            if is_usable is not None and isinstance(greeting, ProbeResult) and is_usable(greeting):
                # Peers are preferred in the order given, so nobody waits for others after the first.
                grace = 0.0 if address == addresses[0] else grace_seconds
                scope = nursery.cancel_scope
                scope.deadline = min(scope.deadline, trio.current_time() + grace)

        for address in addresses:
            nursery.start_soon(keep, address)
    return [greetings[address] for address in dict.fromkeys(addresses) if address in greetings]
