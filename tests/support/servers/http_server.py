"""HTTP server of Moorage in the test process, for any ASGI application."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from registry.server.answers import Answers
from registry.server.limits import ServerLimits
from registry.server.server import Server


@dataclass
class Echo:
    """Application that responds with the length of the request body.

    `seen` holds method, path and body of all requests in order. Responses wait until `gate` is set.
    """

    seen: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    headers: list[dict[bytes, bytes]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    body: bytes | None = None
    """Response body instead of the length."""

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.seen.append((scope["method"], scope["raw_path"], body))
        self.headers.append(dict(scope["headers"]))
        await self.gate.wait()
        answer = str(len(body)).encode() if self.body is None else self.body
        length = (b"content-length", str(len(answer)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": answer})


async def answer_lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


@dataclass(frozen=True)
class Served:
    """A server that listens on `port`."""

    server: Server
    port: int


@asynccontextmanager
async def serving_app(
    app: ASGIApp,
    limits: ServerLimits | None = None,
    tls: ssl.SSLContext | None = None,
    drain: float = 30.0,
    answers: Answers | None = None,
) -> AsyncIterator[Served]:
    """Serve `app` without the signal handlers and pauses of a process."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(app, limits or ServerLimits(), drain=drain, tls=tls, answers=answers)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listening])
    try:
        yield Served(server, listening.getsockname()[1])
    finally:
        for listener in server.servers:
            listener.close()
            listener.abort_opening()
            await listener.wait_closed()
        server.admission.stop()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        await asyncio.gather(*server.server_state.tasks)
        while server.server_state.connections:
            await asyncio.sleep(0)
        await server.lifespan.shutdown()


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; raise TimeoutError after 10 seconds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
