"""Listening sockets: accepting connections, TLS handshakes, and running out of descriptors."""

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable

from registry.server.admission import Admission
from registry.server.connection import Connection
from registry.server.places import Slot
from registry.server.tls_transport import TlsTransport

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0
"""The time that a client has for its TLS handshake, in seconds."""

BATCH = 64
"""The number of connections to accept before other tasks run."""

PAUSE_S = 0.1
"""The pause in accepting after a lack of resources, in seconds."""

LOG_INTERVAL = 1.0
"""The minimum time between two log lines about the same lack of resources, in seconds."""

_LACKS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_LOST = frozenset(
    {
        *(errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET),
        *(errno.ECONNRESET, errno.ETIMEDOUT),
    }
)
"""Errors of a single connection in accept(2). The next connection may be fine."""


class _Opening:
    """An accepted connection whose handshake is in progress."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def check_deadlines(self, now: float) -> None:
        del now  # the task has a time limit

    def give_way(self) -> None:
        self._task.cancel()


class Listener:
    """One listening socket."""

    def __init__(
        self,
        listening: socket.socket,
        admission: Admission,
        make: Callable[[Slot], Connection],
        tls: ssl.SSLContext | None,
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._admission = admission
        self._make = make
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self.opening: set[asyncio.Task[None]] = set()
        """Handshakes in progress."""
        self._timer: asyncio.TimerHandle | None = None
        self._logged_at = -LOG_INTERVAL
        self._closed = False
        self._resume()

    def close(self) -> None:
        """Stop accepting connections. Open connections remain."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()  # else the kernel accepts connections that nobody answers

    def abort_opening(self) -> None:
        """Abort connections whose handshakes are in progress."""
        for task in self.opening:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait for handshakes in progress."""
        if self.opening:
            await asyncio.wait(self.opening)

    def _resume(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _LOST:
                    logger.debug("a connection was lost before it was accepted: %s", error.strerror)
                    continue
                self._pause(error)
                return
            self._admit(accepted, address)

    def _pause(self, error: OSError) -> None:
        """Pause accepting: the kernel queues new connections until then."""
        remedy = ""
        if error.errno in _LACKS:
            self._admission.evict_idle()
            remedy = (
                ". Raise the limit of open files (LimitNOFILE, ulimit -n)"
                " or lower limits.connections"
            )
        if time.monotonic() - self._logged_at >= LOG_INTERVAL:
            self._logged_at = time.monotonic()
            logger.error(
                "cannot accept connections: %s; %d are open%s",
                error.strerror,
                len(self._admission),
                remedy,
            )
        self._loop.remove_reader(self._listening)
        self._timer = self._loop.call_later(PAUSE_S, self._resume)

    def _admit(self, accepted: socket.socket, address: object) -> None:
        accepted.setblocking(False)
        host = str(address[0]) if isinstance(address, tuple) else ""
        slot = self._admission.admit(host)
        if slot is None:
            accepted.close()
            return
        task = self._loop.create_task(self._open(accepted, slot, host))
        self.opening.add(task)
        slot.member = _Opening(task)
        self._admission.set_idle(slot)

        def end(task: asyncio.Task[None]) -> None:
            self.opening.discard(task)
            if task.cancelled():  # perhaps before its first step
                self._admission.release(slot)
                accepted.close()

        task.add_done_callback(end)

    async def _open(self, accepted: socket.socket, slot: Slot, host: str) -> None:
        try:
            if self._tls is None:
                await self._loop.connect_accepted_socket(lambda: self._make(slot), accepted)
            else:
                await self._shake_hands(TlsTransport(self._tls, self._make(slot)), accepted)
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            self._admission.release(slot)
            accepted.close()
            logger.debug("TLS handshake with %s failed: %s", host, str(error) or "time-out")

    async def _shake_hands(self, tls: TlsTransport, accepted: socket.socket) -> None:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            await self._loop.connect_accepted_socket(lambda: tls, accepted)
            try:
                await tls.opened
            except BaseException:
                tls.abort()
                raise
