"""Clients that send anything at all: the server goes on, fails at nothing, and keeps nothing of them."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from server import Server, ServerLimits
from server.limits import LINGER_SECONDS
from syncproto import (
    Cancel,
    GetChanges,
    GetHead,
    GetRange,
    Goodbye,
    Message,
    Ping,
    Pong,
    Range,
    Subscribe,
    encode,
)
from tests.support import syncproto_strategies as strategies
from tests.support.fake_database import FakeDatabase, FakeProof, VirtualWorkers
from tests.support.protocol_client import HELLO, Site, running

DATABASE = FakeDatabase({bytes([number]): bytes(number) for number in range(20)})
OLD_ROOT = DATABASE.root
DATABASE.commit({b"\x05": None, b"\x07": bytes(300), b"new": b"value"})
LIMITS = ServerLimits(max_requests=3, max_ordinary_bytes=100, max_bytes=1000)

small_ids = st.integers(1, 5)
roots = st.sampled_from([DATABASE.root, OLD_ROOT, bytes(32)])
bounds = st.none() | st.binary(max_size=2)
limits = (st.integers(1, 50), st.sampled_from([1, 10, 90, 1000, 100_000]))
plausible: st.SearchStrategy[Message] = st.one_of(
    st.builds(GetRange, small_ids, roots, bounds, bounds, *limits),
    st.builds(GetChanges, small_ids, roots, roots, bounds, bounds, *limits),
    st.builds(Subscribe, small_ids),
    st.builds(GetHead, small_ids),
    st.builds(Cancel, small_ids),
    st.builds(Ping, small_ids),
    st.builds(Pong, small_ids),
    st.just(Goodbye()),
)
pieces = st.one_of(
    plausible.map(lambda message: encode(message).data),
    strategies.messages.map(lambda message: encode(message).data),
    st.binary(max_size=20),
    st.just(encode(HELLO).data),
)
# What a client does next: sends bytes, waits some seconds, or reads some bytes.
# Now and then somebody commits meanwhile.
acts = st.one_of(pieces, pieces, st.floats(0, 200), st.integers(1, 100_000), st.none())
Act = bytes | float | int | None


async def misbehave(site: Site, steps: list[Act], greets: bool) -> None:
    stream = await site.listener.connect()
    try:
        if greets:
            await stream.send_all(encode(HELLO).data)
        for step in steps:
            with trio.move_on_after(50):
                if isinstance(step, bytes):
                    await stream.send_all(step)
                elif isinstance(step, int):
                    await stream.receive_some(step)
                elif step is None:
                    DATABASE.revision += 1
                    site.server.announce()
                else:
                    await trio.sleep(step)
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(stream)


@pytest.mark.slow
@pytest.mark.parametrize("lockstep", [False, True])
@given(
    st.lists(st.tuples(st.lists(acts, max_size=12), st.booleans()), min_size=1, max_size=3), st.floats(0, 5)
)
def test_whatever_clients_do_the_server_goes_on(
    lockstep: bool, clients: list[tuple[list[Act], bool]], seconds: float
) -> None:
    failures: list[Exception] = []

    async def scenario() -> None:
        server = Server(DATABASE, limits=LIMITS, executor=VirtualWorkers(seconds), on_failure=failures.append)
        async with running(server, lockstep=lockstep) as site:
            async with trio.open_nursery() as nursery:
                for steps, greets in clients:
                    nursery.start_soon(misbehave, site, steps, greets)
            await trio.sleep(60 + 20 * seconds + 3 * LINGER_SECONDS)
            assert server.counters.connections_open == 0
            modest = await site.greeted()
            answer = await modest.ask(modest.get_range(DATABASE.root, max_keys=2))
            assert isinstance(answer, Range)
            assert FakeProof.decode(answer.proof).keys == [b"\x00", b"\x01"]
            await modest.stream.aclose()
            server.stop()
            await site.stopped.wait()
        assert server.counters.connections_open == 0

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
    assert failures == []
