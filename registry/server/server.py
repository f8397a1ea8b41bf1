"""The uvicorn server of one process, with connections of our own."""

import asyncio
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType
from typing import Literal

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from registry.server.admission import Admission
from registry.server.connection import Connection
from registry.server.limits import ServerLimits
from registry.server.listener import Listener
from registry.server.places import Slot

logger = logging.getLogger(__name__)

LINGER = 1.0
"""Seconds for which a stopping server goes on to answer on connections that are open."""


_OPS_LIMITS = ServerLimits(connections=32, per_address=0)


def _configure(app: ASGIApp, lifespan: Literal["on", "off"], drain: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,  # type: ignore[arg-type] # buffered protocols serve as well
        ws="none",
        loop="asyncio",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # registry.api.proxies reads them
        timeout_graceful_shutdown=max(1, round(drain)),
    )


class Server(uvicorn.Server):
    """Runs an application until SIGTERM or SIGINT.

    Connections of uvicorn 0.54 are replaced; its handling of signals, lifespan and shutdown is
    used as it is. `tests/server/test_uvicorn.py` fails where a new version moves what is relied on.
    """

    servers: list[Listener]  # type: ignore[assignment] # closed and awaited as uvicorn's are

    def __init__(
        self,
        app: ASGIApp,
        limits: ServerLimits,
        *,
        drain: float,
        stop_delay: float = 0.0,
        tls: ssl.SSLContext | None = None,
        background: Callable[[], Awaitable[None]] | None = None,
        on_stop: Callable[[], None] = lambda: None,
        ops_app: ASGIApp | None = None,
        ops_sockets: Sequence[socket.socket] = (),
    ) -> None:
        """`drain` and `stop_delay` are seconds: that requests may take to finish after SIGTERM, and
        that new ones are still taken. `background` runs while the server does; `on_stop` is called
        as soon as it is told to stop. On `ops_sockets`, `ops_app` is served by plain HTTP, with
        limits of its own: health checks are answered when clients have taken all connections.
        """
        super().__init__(_configure(app, "on", drain))
        self.admission = Admission(limits)
        self._ops_config = _configure(ops_app, "off", drain) if ops_app else None
        self._ops_sockets = ops_sockets
        self._ops_admission = Admission(_OPS_LIMITS)
        self._tls = tls
        self._stop_delay = stop_delay
        self._background = background
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept connections from `sockets`."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        self.admission.start()
        make = self._make_by(self.config, self.admission)
        self.servers = [Listener(each, self.admission, make, self._tls) for each in sockets or ()]
        if self._ops_config is not None:
            self._ops_config.load()
            self._ops_admission.start()
            make = self._make_by(self._ops_config, self._ops_admission)
            self.servers += [
                Listener(each, self._ops_admission, make, None) for each in self._ops_sockets
            ]
        self.started = True

    def _make_by(
        self, config: uvicorn.Config, admission: Admission
    ) -> Callable[[Slot], Connection]:
        loop = asyncio.get_running_loop()

        def make(slot: Slot) -> Connection:
            return Connection(
                config,
                self.server_state,
                self.lifespan.state,
                loop,
                admission=admission,
                slot=slot,
            )

        return make

    def end(self) -> None:
        """Stop as soon as possible: the application cannot serve."""
        self._stop_delay = 0
        self.should_exit = True

    async def main_loop(self) -> None:
        """Serve until told to stop, and for `stop_delay` after that."""
        background = asyncio.ensure_future(self._background()) if self._background else None
        await super().main_loop()
        # From now on every connection is of one request more: who is told so sends no other.
        self.server_state.default_headers += [(b"connection", b"close")]
        await asyncio.sleep(self._stop_delay)
        if background:
            background.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no connections, end those that are in use after their next answers, and only then
        those that are idle: a proxy may be sending on one at the very moment at which it is closed,
        and must not repeat a body of which a part was sent.
        """
        for listener in self.servers:
            listener.close()
        until = time.monotonic() + LINGER
        while self._is_in_use() and time.monotonic() < until:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)
        for listener in self.servers:
            listener.abort_opening()
        await super().shutdown(sockets)
        self.admission.stop()
        self._ops_admission.stop()

    def _is_in_use(self) -> bool:
        opening = any(listener.opening for listener in self.servers)
        return opening or bool(self.server_state.connections)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop (uvicorn calls this for SIGTERM and SIGINT)."""
        self._on_stop()
        if sig == signal.SIGINT:
            self._stop_delay = 0  # a person at a terminal waits
        super().handle_exit(sig, frame)
