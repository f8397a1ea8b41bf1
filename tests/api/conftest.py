"""Fixtures for tests of the whole application in this process.

The tests run on each pair of database (SQLite, PostgreSQL) and store (disk, bucket). A test that
does not depend on the database or the store limits itself to one of them.

With MOORAGE_TEST_SERVED=1, the tests use a uvicorn server on a port. With
MOORAGE_TEST_SERVED=differential, each read goes to two servers, of which one answers from memory.
`test_served.py` runs the suite, or parts of it, that way.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.app import Runtime, compose
from registry.app.asgi import create_app
from registry.config import Settings, load
from registry.server.answers import Answers
from registry.services.content import upload_leases
from tests.support.kit import Kit
from tests.support.servers.differential import Differential, count_hits
from tests.support.servers.http_server import answer_lifespan, serving_app
from tests.support.servers.seaweed import Bucket

MODE = os.environ.get("MOORAGE_TEST_SERVED", "")
SERVED = bool(MODE)


@dataclass(frozen=True)
class Api(Kit):
    """Client with access to the registry behind the server, for state that no client can see."""

    opened: Runtime
    settings: Settings


Started = Callable[..., AbstractAsyncContextManager[Api]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests that send nothing over the wire."""
    if SERVED:
        items[:] = [item for item in items if "start_api" in getattr(item, "fixturenames", ())]


@pytest.fixture(params=["local", "s3"])
def driver(request: pytest.FixtureRequest) -> str:
    """Return each storage driver. Test files that do not depend on it override this fixture."""
    return str(request.param)


@pytest.fixture
def store(
    request: pytest.FixtureRequest, driver: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Return the settings of the store."""
    settings = {"storage.driver": driver, "storage.min_free_space": "0B"}
    if driver == "s3":
        # A short heartbeat lets a request see quickly that the holder of a session is alive.
        monkeypatch.setattr(upload_leases, "HEARTBEAT_S", 0.3)
        bucket: Bucket = request.getfixturevalue("bucket")
        settings |= bucket.overrides()
    return settings


@pytest.fixture
def start_api(database_url: str, store: dict[str, str], tmp_path: Path) -> Started:
    """Return a function that starts an application with settings such as `content.allow_delete`."""

    @asynccontextmanager
    async def start(overrides: dict[str, str] | None = None) -> AsyncIterator[Api]:
        settings = load(
            config=None,
            data=tmp_path,
            overrides={
                "database.url": database_url,
                "jobs.in_serve": "false",  # tests of jobs run them explicitly
                **store,
                **(overrides or {}),
            },
            environ={},
        )
        opened = compose(settings)
        app = create_app(settings, opened)
        async with _served(app, opened) if SERVED else in_process(app) as http:
            yield Api(http, opened, settings)

    return start


@pytest.fixture
async def api(start_api: Started) -> AsyncIterator[Api]:
    async with start_api() as started:
        yield started


@asynccontextmanager
async def in_process(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """Run the lifespan of an application in this process, and yield a client."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def run() -> None:
        await app(scope, to_app.get, from_app.put)

    task = asyncio.create_task(run())
    await to_app.put({"type": "lifespan.startup"})
    assert (await from_app.get())["type"] == "lifespan.startup.complete"
    try:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield http
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
        await task


class _Wire(httpx.ASGITransport):
    """Transport over the network that keeps the application for tests that call it directly."""

    def __init__(self, app: ASGIApp, wire: httpx.AsyncBaseTransport) -> None:
        super().__init__(app)
        self._wire = wire

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._wire.handle_async_request(request)

    async def aclose(self) -> None:
        await self._wire.aclose()


@asynccontextmanager
async def _served(app: ASGIApp, opened: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the application with uvicorn, with answers from memory.

    To compare the responses, it is served without them, too.
    """

    async def plain_app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        else:
            await app(scope, receive, send)

    async with AsyncExitStack() as stack:
        answers = Answers(opened.watch, 16 << 20)
        served = await stack.enter_async_context(serving_app(app, answers=answers))
        wire: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport()
        if MODE == "differential":
            plain = await stack.enter_async_context(serving_app(plain_app))
            wire = Differential(opened, httpx.URL(f"http://127.0.0.1:{plain.port}"))
        client = httpx.AsyncClient(
            transport=_Wire(app, wire), base_url=f"http://127.0.0.1:{served.port}", timeout=30
        )
        yield await stack.enter_async_context(client)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many requests were answered from memory, for `tests/server/test_served.py`."""
    if SERVED:
        terminalreporter.write_line(f"answers from memory: {count_hits():.0f}")
