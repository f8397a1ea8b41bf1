"""The uvicorn server of one process, with the connection class of this package."""

import asyncio
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType
from typing import Literal, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from registry.server.admission import Admission
from registry.server.answers import Answers
from registry.server.body_receiver import BodyReceiver
from registry.server.connection import Connection
from registry.server.file_sender import FileSender
from registry.server.limits import ServerLimits
from registry.server.listener import Listener
from registry.server.places import Slot

logger = logging.getLogger(__name__)

LINGER = 1.0
"""The time for which a stopping server still answers on open connections, in seconds."""

CANCEL = 2.0
"""The time that cancelled requests have to clean up, in seconds."""

FLUSH = 0.5
"""The time that clients have to read the last responses, in seconds.

Together with `LINGER` and `CANCEL`, this is less than the 5 seconds after which the parent process
kills a worker.
"""

_OPS_LIMITS = ServerLimits(connections=32, per_address=0)


def _configure(app: ASGIApp, lifespan: Literal["on", "off"]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,  # type: ignore[arg-type] # buffered protocols work too
        ws="none",
        loop="asyncio",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # registry.http.forwarded reads them
    )


class Server(uvicorn.Server):
    """Runs an application until SIGTERM or SIGINT.

    This class replaces the connections and the shutdown of uvicorn 0.54, and uses its signal and
    lifespan handling. `tests/server/connections/test_uvicorn.py` fails if a new version changes the
    parts that this class relies on.
    """

    servers: list[Listener]  # type: ignore[assignment] # closed and awaited like uvicorn's servers

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
        answers: Answers | None = None,
    ) -> None:
        """Create a server. `drain` and `stop_delay` are in seconds.

        Requests have `drain` to finish after SIGTERM, and new ones are accepted for `stop_delay`.
        `background` runs while the server does. `on_stop` is called as soon as the server is told
        to stop. `ops_sockets` serve `ops_app` over plain HTTP, with separate limits, so that health
        checks get a response even if clients use all connections. `answers` repeats responses of
        `app`.
        """
        super().__init__(_configure(app, "on"))
        self.admission = Admission(limits)
        self._ops_config = _configure(ops_app, "off") if ops_app else None
        self._ops_sockets = ops_sockets
        self._ops_admission = Admission(_OPS_LIMITS)
        self.files = FileSender()
        self.bodies = BodyReceiver()
        self._answers = answers
        self._tls = tls
        self._drain = drain
        self._stop_delay = stop_delay
        self._background = background
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept connections from `sockets`."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        self.admission.start()
        make = self._make_by(self.config, self.admission, self._answers)
        self.servers = [Listener(each, self.admission, make, self._tls) for each in sockets or ()]
        if self._ops_config is not None:
            self._ops_config.load()
            self._ops_admission.start()
            make = self._make_by(self._ops_config, self._ops_admission, None)
            self.servers += [
                Listener(each, self._ops_admission, make, None) for each in self._ops_sockets
            ]
        self.started = True

    def _make_by(
        self, config: uvicorn.Config, admission: Admission, answers: Answers | None
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
                files=self.files,
                bodies=self.bodies,
                answers=answers,
            )

        return make

    def end(self) -> None:
        """Stop as soon as possible, because the application cannot serve."""
        self._stop_delay = 0
        self.should_exit = True

    async def main_loop(self) -> None:
        """Serve until told to stop, and for `stop_delay` after that."""
        background = asyncio.ensure_future(self._background()) if self._background else None
        await super().main_loop()
        # From now on every response closes its connection, so the client sends no other request on
        # it.
        if self._answers is not None:
            self._answers.close()
        self.server_state.default_headers += [(b"connection", b"close")]
        await asyncio.sleep(self._stop_delay)
        if background:
            background.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, finish requests in progress and close all connections.

        Connections first get time to end with their next response. Idle ones are closed only after
        that: a proxy may be sending on an idle connection while it is closed, and must not repeat a
        body that it has sent in part.
        """
        del sockets  # the listeners close them
        for listener in self.servers:
            listener.close()
        await self._wait_until(lambda: not self._is_in_use(), LINGER)
        for listener in self.servers:
            listener.abort_opening()
            await listener.wait_closed()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        await self._wait_until(lambda: not (state.connections or state.tasks), self._drain)
        await self._cut()
        if not self.force_exit:
            await self.lifespan.shutdown()
        self.admission.stop()
        self._ops_admission.stop()
        self.files.close()
        self.bodies.close()

    async def _cut(self) -> None:
        """Cancel unfinished requests, and abort the remaining connections.

        The application is closed after that: it needs its threads to cancel a request, and clients
        that keep sending would delay it.
        """
        state = self.server_state
        if state.tasks:
            logger.error(
                "%d requests did not finish within http.drain_timeout and are cut", len(state.tasks)
            )
        for task in state.tasks:
            task.cancel()
        await self._wait_until(lambda: not state.tasks, CANCEL)
        for connection in list(state.connections):
            connection.shutdown()  # a response that has just been written is still sent
        await self._wait_until(lambda: not state.connections, FLUSH)
        for connection in list(state.connections):
            cast(Connection, connection).abort()

    async def _wait_until(self, condition: Callable[[], bool], limit: float) -> None:
        """Wait for `condition`, for at most `limit` seconds or until a second SIGINT."""
        until = time.monotonic() + limit
        while not (condition() or self.force_exit or time.monotonic() > until):  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def _is_in_use(self) -> bool:
        opening = any(listener.opening for listener in self.servers)
        return opening or bool(self.server_state.connections)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop (uvicorn calls this for SIGTERM and SIGINT)."""
        self._on_stop()
        if sig == signal.SIGINT:
            self._stop_delay = 0  # a person is waiting at a terminal
        super().handle_exit(sig, frame)
