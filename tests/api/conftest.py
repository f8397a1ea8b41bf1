"""The whole application in process, on every pair of database and store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from registry.app import Opened, asgi, compose
from registry.config import Settings, load
from tests.support.kit import Kit


@dataclass(frozen=True)
class Api(Kit):
    """A client, and what is behind the server, for looking at what no client can see."""

    opened: Opened
    settings: Settings


Started = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture(params=["local", "memory"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start_api(database_url: str, driver: str, tmp_path: Path) -> Started:
    """Start an application with settings of the test's own, `{"content.delete": "false"}`."""

    @asynccontextmanager
    async def start(overrides: dict[str, str] | None = None) -> AsyncIterator[Api]:
        settings = load(
            config=None,
            data=tmp_path,
            overrides={
                "database.url": database_url,
                "storage.driver": driver,
                "storage.reserve": "0B",
                **(overrides or {}),
            },
            environ={},
        )
        opened = compose(settings)
        async with _lifespan(settings, opened) as http:
            yield Api(http, opened, settings)

    return start


@pytest.fixture
async def api(start_api: Started) -> AsyncIterator[Api]:
    async with start_api() as started:
        yield started


@asynccontextmanager
async def _lifespan(settings: Settings, opened: Opened) -> AsyncIterator[httpx.AsyncClient]:
    """What a server does around an application: start it, talk to it, stop it."""
    app = asgi(settings, opened)
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
        async with httpx.AsyncClient(transport=transport, base_url="http://registry") as http:
            yield http
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
        await task
