"""Eight clients push, mount, read, tag and delete while the collector runs continuously."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from registry.metadata import tables
from tests.scenarios.faults.conftest import SOAK
from tests.services.gc.stress import Client
from tests.support.kit import Kit
from tests.support.servers.replicas import until, variable
from tests.support.servers.seaweed import Bucket
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300 * SOAK)]

CLIENTS = 8
SECONDS = 6 * SOAK
GRACE = 1.0
PROMISE = 0.75 * GRACE
"""Guaranteed seconds: a touch within the last quarter of the grace period is not recorded again."""

LONGER = 60.0
"""Maximum seconds that clients continue if the machine is too slow for their work."""

ALL_GONE = 60.0
"""Seconds within which all unreferenced content must be deleted."""


@dataclass(frozen=True)
class Place:
    """The settings of a store, and a function that lists its keys."""

    settings: dict[str, str]
    list_keys: Callable[[], list[str]]


@pytest.fixture(params=["local", "s3"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        return Place(
            {"storage.driver": "s3", **bucket.overrides()}, lambda: bucket.list_keys("blobs/")
        )
    root = tmp_path / "data" / "storage"
    return Place(
        {"storage.driver": "local"},
        lambda: [str(path.relative_to(root)) for path in root.glob("blobs/*/*/*")],
    )


@pytest.fixture
def server(tmp_path: Path, database_url: str, stored: Place) -> Callable[[str], Server]:
    """Return a factory of servers with two workers that collect without a pause."""

    def make(grace: str) -> Server:
        settings = {
            "auth.mode": "none",
            "database.url": database_url,
            "gc.grace_period": grace,
            "gc.interval": "200ms",
            "gc.untagged": "delete",
            **stored.settings,
        }
        environ = {variable(key): text for key, text in settings.items()}
        return Server(tmp_path / "data", 2, environ)

    return make


async def run_clients(server: Server, enough: Callable[[list[Client]], bool]) -> list[Client]:
    """Run clients for a while, on a slow machine until they have done enough.

    They stop as soon as a promise is broken.
    """
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(CLIENTS):
            http = httpx.AsyncClient(base_url=server.url, timeout=60)
            kit = Kit(await stack.enter_async_context(http))
            clients.append(Client(kit, number, PROMISE))
        running = [asyncio.ensure_future(client.run_until(stop)) for client in clients]
        started = time.monotonic()

        def is_over() -> bool:
            passed = time.monotonic() - started
            return passed > SECONDS + LONGER or (passed > SECONDS and enough(clients))

        while not list_wrong(clients) and not is_over():
            await asyncio.sleep(0.1)
        stop.set()
        await asyncio.gather(*running)
        if list_wrong(clients):
            return clients
        await asyncio.sleep(2 * GRACE)
        for client in clients:
            for image in client.books.list_kept().values():
                await client.verify(image)
    return clients


def list_wrong(clients: list[Client]) -> list[str]:
    return [wrong for client in clients for wrong in client.books.wrong]


def all_have_pushed(clients: list[Client]) -> bool:
    return all(client.books.pushed > 0 for client in clients)


async def test_nothing_that_was_promised_is_ever_missing(
    server: Callable[[str], Server], database_url: str, stored: Place
) -> None:
    """In the end exactly the unreferenced content is deleted."""
    with serving(server(f"{GRACE:.0f}s")) as running:
        clients = await run_clients(running, all_have_pushed)
        assert list_wrong(clients) == []
        assert all_have_pushed(clients)
        kept = [image for client in clients for image in client.books.list_kept().values()]
        needed = {str(digest) for image in kept for digest in image.blobs}
        named = {str(image.digest) for image in kept}
        assert needed

        async def only_these() -> bool:
            blobs, manifests, keys = await asyncio.to_thread(list_digests, database_url)
            there = set(await asyncio.to_thread(stored.list_keys))
            return (blobs, manifests, there) == (needed, named, keys)

        await until(only_these, ALL_GONE)


async def test_without_a_grace_promises_are_broken(server: Callable[[str], Server]) -> None:
    """The negative control: these clients detect a collector that deletes too early."""
    with serving(server("1ms")) as running:
        assert list_wrong(await run_clients(running, lambda _: False))


def list_digests(url: str) -> tuple[set[str], set[str], set[str]]:
    """Return the digests of blobs and manifests, and the keys of blobs.

    In a bucket, deleted keys stay queued for some minutes, for a second delete.
    """
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:

        def every(column: sa.Column[Any]) -> set[str]:
            return {str(value) for value in connection.execute(sa.select(column)).scalars()}

        return (
            every(tables.blobs.c.digest),
            every(tables.manifests.c.digest),
            every(tables.blobs.c.key),
        )
