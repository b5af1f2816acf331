"""What was written here is not replaced without leave, whenever and by whomever the target is named."""

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from manager import LocalContent, Manager
from tests.support.databases import new_database
from tests.support.fake_servers import FakeServer, InEventLoop


@pytest.mark.parametrize("trust_peers", [True, False], ids=["announced", "named later"])
async def test_a_target_that_comes_late_replaces_no_local_content(
    autojump_clock: MockClock, *, trust_peers: bool
) -> None:
    with new_database({b"theirs": b"1"}) as source, new_database({b"ours": b"2"}) as copy:
        before = copy.root
        async with trio.open_nursery() as nursery:
            peer = FakeServer(source).peer(nursery)
            manager = Manager(copy, [peer], executor=InEventLoop(), trust_peers=trust_peers)
            if not trust_peers:
                nursery.start_soon(name_later, partial(manager.update_target, source.root))
            with pytest.raises(LocalContent):
                await manager.follow()
            nursery.cancel_scope.cancel()
        assert (copy.root, dict(copy.items()), copy.written_locally) == (before, {b"ours": b"2"}, True)


async def name_later(name: partial[None]) -> None:
    await trio.sleep(5)
    name()
