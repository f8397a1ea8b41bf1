"""Fixtures for tests with a server in separate processes."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.kit import Kit
from tests.support.servers.server import Server, serving


@pytest.fixture(params=[1, 3])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Run a server with one worker, and with several."""
    with serving(Server(tmp_path / "data", request.param)) as server:
        yield server


@pytest.fixture
async def kit(server: Server) -> AsyncIterator[Kit]:
    # Without keep-alive, each request can reach another worker.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as http:
        yield Kit(http)
