"""Eight clients push, mount, look, tag and delete while the collector runs all the time."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from registry.metadata import tables
from tests.faults.conftest import SOAK
from tests.gc.stress import Client
from tests.support.kit import Kit
from tests.support.replicas import until, variable
from tests.support.seaweed import Bucket
from tests.support.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300 * SOAK)]

CLIENTS = 8
SECONDS = 6 * SOAK
GRACE = 1.0
PROMISE = 0.75 * GRACE
"""Seconds that are sure: what was touched in the last quarter of the grace is not touched again."""

ALL_GONE = 60.0
"""Seconds within which what nobody refers to must be gone."""


@pytest.fixture(params=["local", "s3"])
def stored(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of the store."""
    if request.param == "local":
        return {"storage.driver": "local"}
    bucket: Bucket = request.getfixturevalue("bucket")
    return {"storage.driver": "s3", **bucket.overrides()}


@pytest.fixture
def server(tmp_path: Path, database_url: str, stored: dict[str, str]) -> Callable[[str], Server]:
    """Makes a server of two workers that collects without a pause, with a grace."""

    def make(grace: str) -> Server:
        settings = {
            "auth.mode": "none",
            "database.url": database_url,
            "gc.grace": grace,
            "gc.interval": "200ms",
            "gc.untagged": "delete",
            **stored,
        }
        environ = {variable(key): text for key, text in settings.items()}
        return Server(tmp_path / "data", 2, environ)

    return make


async def run_clients(server: Server) -> list[Client]:
    """Let them work for a while."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(CLIENTS):
            http = httpx.AsyncClient(base_url=server.url, timeout=60)
            kit = Kit(await stack.enter_async_context(http))
            clients.append(Client(kit, number, PROMISE))
        running = [asyncio.ensure_future(client.run_until(stop)) for client in clients]
        await asyncio.sleep(SECONDS)
        stop.set()
        await asyncio.gather(*running)
        await asyncio.sleep(2 * GRACE)
        for client in clients:
            for image in client.books.list_kept().values():
                await client.verify(image)
    return clients


def list_wrong(clients: list[Client]) -> list[str]:
    return [wrong for client in clients for wrong in client.books.wrong]


async def test_nothing_that_was_promised_is_ever_missing(
    server: Callable[[str], Server], database_url: str
) -> None:
    """And in the end exactly what nobody refers to is gone."""
    with serving(server(f"{GRACE:.0f}s")) as running:
        clients = await run_clients(running)
        assert list_wrong(clients) == []
        assert all(client.books.pushed > 0 for client in clients)
        kept = [image for client in clients for image in client.books.list_kept().values()]
        needed = {str(digest) for image in kept for digest in image.blobs}
        named = {str(image.digest) for image in kept}
        assert needed

        async def only_these() -> bool:
            return await look(list_digests, database_url) == (needed, named, 0)

        await until(only_these, ALL_GONE)


async def test_without_a_grace_promises_are_broken(server: Callable[[str], Server]) -> None:
    """The negative control: what these clients do does find a collector that is too quick."""
    with serving(server("1ms")) as running:
        assert list_wrong(await run_clients(running))


def list_digests(url: str) -> tuple[set[str], set[str], int]:
    """Blobs, manifests and how many keys still wait to be removed."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        blobs = {str(d) for (d,) in connection.execute(sa.select(tables.blobs.c.digest))}
        manifests = {str(d) for (d,) in connection.execute(sa.select(tables.manifests.c.digest))}
        doomed = connection.execute(sa.select(sa.func.count()).select_from(tables.doomed))
        return blobs, manifests, int(doomed.scalar_one())


async def look(
    work: Callable[[str], tuple[set[str], set[str], int]], url: str
) -> tuple[set[str], set[str], int]:
    return await asyncio.to_thread(work, url)
