"""A server on loopback with configured responses, which records its requests."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

START = 10.0
"""Time limit for the first response, in seconds."""


@dataclass(frozen=True)
class Reply:
    """A response. `drip` is the delay in seconds before it, `stall` before its last byte."""

    body: bytes = b"{}"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drip: float = 0
    stall: float = 0
    announced: bool = True


@dataclass
class Upstream:
    """Running server.

    `replies` holds the responses by path; other paths are 404. `requests` holds path and headers of
    all requests in order.
    """

    port: int
    scheme: str
    replies: dict[str, Reply] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str = "", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def put(self, path: str, document: Any) -> str:
        """Set a JSON response for `path`, and return its URL."""
        self.replies[path] = Reply(json.dumps(document).encode())
        return self.url(path)

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((scope["path"], headers))
        reply = self.replies.get(scope["path"], Reply(b"no", 404))
        await asyncio.sleep(reply.drip)
        length = {"content-length": str(len(reply.body))} if reply.announced else {}
        sent = [(k.encode(), v.encode()) for k, v in {**length, **reply.headers}.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": sent})
        await send({"type": "http.response.body", "body": reply.body[:-1], "more_body": True})
        await asyncio.sleep(reply.stall)
        await send({"type": "http.response.body", "body": reply.body[-1:]})


@contextmanager
def upstream(
    address: str = "127.0.0.1", port: int = 0, tls: tuple[Path, Path] | None = None
) -> Iterator[Upstream]:
    """Run a server on a loopback port, with TLS if `tls` holds a certificate and its key."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        app = Upstream(listener.getsockname()[1], "https" if tls else "http")
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            ssl_certfile=tls[0] if tls else None,
            ssl_keyfile=tls[1] if tls else None,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            deadline = time.monotonic() + START
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield app
        finally:
            server.should_exit = True
            thread.join()
