"""A server whose clients come from networks that the test names, for tests of its places."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from server import Server, ServerLimits
from syncproto import Error, ErrorCode, Hello
from tests.support.fake_database import FakeDatabase, VirtualWorkers
from tests.support.protocol_client import Client, Site, running


class Town:
    """A running server whose clients say themselves where they come from."""

    def __init__(self) -> None:
        self._networks: list[str] = []
        self.site: Site

    def network_of(self, stream: trio.abc.Stream) -> str:
        # Memory streams tell no address, but they are accepted one after the other.
        return self._networks.pop(0)

    async def mute(self, network: str) -> Client:
        """Return a client that is connected and has said nothing."""
        self._networks.append(network)
        client = await self.site.client()
        await trio.testing.wait_all_tasks_blocked()
        return client

    async def client(self, network: str) -> Client:
        """Return a client that has said hello as soon as it was connected."""
        self._networks.append(network)
        client = await self.site.client()
        await client.send(client.connection.hello)
        await trio.testing.wait_all_tasks_blocked()
        return client

    async def greeted(self, network: str) -> Client:
        client = await self.client(network)
        assert isinstance(await client.receive(), Hello), "it got a place"
        return client

    async def refused(self, network: str) -> Error:
        message = await (await self.client(network)).receive()
        assert isinstance(message, Error)
        assert (message.request_id, message.code) == (0, ErrorCode.OVERLOADED)
        assert message.detail
        return message


@asynccontextmanager
async def a_town(
    database: FakeDatabase, limits: ServerLimits, executor: VirtualWorkers | None = None
) -> AsyncIterator[Town]:
    town = Town()
    server = Server(
        database, limits=limits, executor=executor or VirtualWorkers(), network_of=town.network_of
    )
    async with running(server) as site:
        town.site = site
        yield town
