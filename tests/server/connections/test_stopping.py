"""A stop takes little more time than the limit for running requests."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest
from starlette.types import Receive, Scope, Send

from registry.server import server
from tests.support.servers.http_server import serving_app
from tests.support.servers.raw import Wire

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@dataclass
class Receiving:
    """Application that reads bodies and is slow to clean up. `events` records the order."""

    cleanup: float
    """Duration of the cleanup in seconds; it ends earlier if `wakes` is set."""
    events: list[str] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    wakes: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.events.append("closed")
            await send({"type": "lifespan.shutdown.complete"})
            return
        try:
            while (await receive())["type"] == "http.request":
                self.began.set()
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wakes.wait(), self.cleanup)
            self.events.append("cleaned up")


async def flood(wire: Wire) -> None:
    with contextlib.suppress(OSError):
        while True:
            await wire.send(bytes(64 << 10))


async def test_the_application_closes_after_requests_that_were_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: the application closed its threads while requests needed them to clean up."""
    monkeypatch.setattr(server, "LINGER", 0.1)
    app = Receiving(cleanup=0.2)
    async with serving_app(app, drain=0.1) as served:
        wire = await Wire.open(served.port)
        await wire.send_head("PUT", "/", Content_Length=1 << 40)
        flooding = asyncio.create_task(flood(wire))
        await app.began.wait()
        await served.server.shutdown()
        assert app.events == ["cleaned up", "closed"]
        assert not served.server.server_state.connections
        await flooding
        wire.abort()


async def test_a_request_that_cannot_be_cancelled_does_not_hold_up_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "LINGER", 0.1)
    monkeypatch.setattr(server, "CANCEL", 0.05)
    app = Receiving(cleanup=30)
    async with serving_app(app, drain=0.1) as served:
        wire = await Wire.open(served.port)
        await wire.send_head("PUT", "/", Content_Length=1 << 40)
        await wire.send(b"x")
        await app.began.wait()
        await served.server.shutdown()
        assert app.events == ["closed"]
        app.wakes.set()
        wire.abort()
