"""Tests of what a request costs: the calls to the database and to the store, counted by proxies."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from registry.http.memory import SMALL_BODY
from tests.support.flaky import Flaky, flaky
from tests.support.kit import Kit
from tests.support.query_counter import QueryCounter, count_queries
from tests.support.servers.postgres import Cluster
from tests.support.servers.replicas import Replicas
from tests.support.servers.seaweed import Bucket
from tests.support.servers.server import serving

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("replicas")]

NAME = "team/app"
TIMES = 40
OTHERS = 5
"""Allowed round trips that no single request causes, such as a write of pull times."""


@dataclass(frozen=True)
class Measured:
    """A replica, and the proxies that count its calls to the database and to the bucket."""

    kit: Kit
    database: QueryCounter
    store: Flaky

    async def trips(self, method: str, path: str, status: int = 200) -> int:
        """Return the database round trips of TIMES requests, after warming up."""
        for _ in range(5):
            assert (await self.kit.http.request(method, path)).status_code == status
        self.store.seen.clear()
        before = self.database.trips
        for _ in range(TIMES):
            assert (await self.kit.http.request(method, path)).status_code == status
        return self.database.trips - before


@pytest.fixture(params=["false", "true"], ids=["through", "redirect"])
async def measured(
    request: pytest.FixtureRequest, postgres: Cluster, bucket: Bucket, tmp_path: Path
) -> AsyncIterator[Measured]:
    async with AsyncExitStack() as stack:
        url = stack.enter_context(postgres.database())
        database = stack.enter_context(count_queries(postgres.port))
        store = stack.enter_context(flaky(bucket.endpoint))
        replicas = Replicas(tmp_path, url, bucket)
        counting = {
            "database.url": url.replace(f":{postgres.port}/", f":{database.port}/"),
            "storage.endpoint": store.url,
            "storage.redirect": request.param,
            "jobs.in_serve": "false",  # jobs would add queries at any time
        }
        server = stack.enter_context(serving(replicas.make("measured", **counting)))
        http = httpx.AsyncClient(base_url=server.url, timeout=60)
        yield Measured(Kit(await stack.enter_async_context(http)), database, store)


async def test_of_pulls(measured: Measured, request: pytest.FixtureRequest) -> None:
    kit = measured.kit
    digest, _ = await kit.push_image(NAME, "v1")
    blob = await kit.push_blob(NAME, bytes(SMALL_BODY + 1))  # too large for memory
    for reference in ("v1", str(digest)):
        for method in ("GET", "HEAD"):
            trips = await measured.trips(method, f"/v2/{NAME}/manifests/{reference}")
            assert TIMES // 2 < trips <= TIMES + OTHERS
            assert measured.store.seen == []
    await measured.trips("HEAD", f"/v2/{NAME}/blobs/{blob}")
    assert measured.store.seen == []
    redirects = "redirect" in request.node.name
    await measured.trips("GET", f"/v2/{NAME}/blobs/{blob}", 307 if redirects else 200)
    assert [method for method, _ in measured.store.seen] == ["GET"] * (0 if redirects else TIMES)
