"""Meeting the peers that a command names: how long silent ones are waited for, and what is said of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import MockClock

from manager.peers.address import Address
from manager.peers.probe import PROBE_TIMEOUT_SECONDS, ProbeFailure, ProbeResult
from merklesync.commands.options import SchemeOption
from merklesync.commands.sync import meet_peers
from merklesync.errors import CommandError, ExitCode
from merklesync.following import peers
from merklesync.following.peers import GRACE_SECONDS
from syncproto import Hello

FIRST, SECOND, THIRD = (Address("peer.example", port) for port in (1, 2, 3))
ALL = (FIRST, SECOND, THIRD)
BLAKE3, ANY = SchemeOption("blake3", 16), SchemeOption(None, None)


def greeting(address: Address, hasher: str = "blake3", root: bytes | None = b"r" * 32) -> ProbeResult:
    hello = Hello(hasher=hasher, branch_factor=16, root=root, revision=1, max_frame_bytes=4096)
    return ProbeResult(address, hello, 0.1, {})


class Words(NamedTuple):
    """What a peer says, and when."""

    seconds: float
    greeting: Callable[[Address], ProbeResult | ProbeFailure] = greeting


SILENT = Words(PROBE_TIMEOUT_SECONDS, partial(ProbeFailure, reason="it said nothing within 10 seconds"))


@pytest.fixture
def meet(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Address], float]]:
    """Return a function that meets peers as a command does: it returns which, and how long that took."""

    def run_on_virtual_clock(function: Callable[..., Any], *arguments: Any) -> Any:
        return trio.run(function, *arguments, clock=MockClock(autojump_threshold=0))

    def meet(
        script: Mapping[Address, Words], option: SchemeOption | None, *, trust_peer: bool
    ) -> tuple[list[Address], float]:
        took = [0.0]

        async def probe(address: Address, roots: Sequence[bytes]) -> ProbeResult | ProbeFailure:
            try:
                await trio.sleep(script[address].seconds)
            finally:
                took[0] = max(took[0], trio.current_time() - began)
            return script[address].greeting(address)

        began = 0.0

        async def main(*arguments: Any) -> Any:
            nonlocal began
            began = trio.current_time()
            return await original(*arguments)

        original = peers._meet
        monkeypatch.setattr(peers, "_meet", main)
        monkeypatch.setattr(peers, "probe", probe)
        monkeypatch.setattr(peers, "run_until_signal", run_on_virtual_clock)
        met = meet_peers(tuple(script), option, trust_peer=trust_peer, needs_root=trust_peer)
        return [peer.address for peer in met], round(took[0], 3)

    return meet


Meet = Callable[..., tuple[list[Address], float]]


def test_with_a_root_the_first_greeting_of_the_scheme_is_enough(meet: Meet) -> None:
    script = {FIRST: SILENT, SECOND: Words(0.3), THIRD: Words(0.5)}
    assert meet(script, BLAKE3, trust_peer=False) == ([SECOND], 0.3)


def test_with_a_root_a_greeting_of_another_scheme_is_not_enough(meet: Meet) -> None:
    script = {FIRST: Words(0.1, partial(greeting, hasher="sha256")), SECOND: SILENT, THIRD: Words(5.0)}
    assert meet(script, BLAKE3, trust_peer=False) == ([FIRST, THIRD], 5.0)


def test_where_the_first_peer_decides_it_gets_a_grace_after_the_greeting_of_another(meet: Meet) -> None:
    silent = {FIRST: SILENT, SECOND: Words(0.3)}
    assert meet(silent, ANY, trust_peer=True) == ([SECOND], 0.3 + GRACE_SECONDS)
    late = {FIRST: Words(0.9), SECOND: Words(0.3), THIRD: SILENT}
    assert meet(late, ANY, trust_peer=True) == ([FIRST, SECOND], 0.9)


def test_a_peer_without_a_complete_root_is_not_enough_where_the_root_is_its_to_say(meet: Meet) -> None:
    script = {FIRST: Words(0.1, partial(greeting, root=None)), SECOND: Words(4.0)}
    assert meet(script, None, trust_peer=True) == ([FIRST, SECOND], 4.0)


def test_no_greeting_is_waited_for_in_full(meet: Meet) -> None:
    with pytest.raises(CommandError, match="no peer could be reached") as caught:
        meet({FIRST: SILENT, SECOND: SILENT}, ANY, trust_peer=True)
    assert caught.value.exit_code is ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    "reason", ["it refused: the server failed", "it does not speak merklesync: no frame is that long"]
)
def test_a_peer_that_answered_was_reached(meet: Meet, reason: str) -> None:
    answering = Words(0.1, partial(ProbeFailure, reason=reason, has_answered=True))
    with pytest.raises(CommandError, match=f"no peer that answers can help.*{reason}") as caught:
        meet({FIRST: answering, SECOND: SILENT}, ANY, trust_peer=True)
    assert caught.value.exit_code is ExitCode.FAILED
