"""Accepts connections: admits them, performs the TLS handshake, survives a lack of descriptors."""

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable

from registry.server.admission import Admission, Slot

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a client has for its TLS handshake."""

SHUTDOWN_TIMEOUT = 1.0
"""Seconds that a client has to confirm the end of a TLS connection; an idle one may never do it."""

BATCH = 64
"""Connections accepted before others have their turn."""

PAUSE = 0.1
"""Seconds without accepting after a lack of resources."""

LOG_INTERVAL = 1.0
"""Seconds between two log lines on the same lack."""

_LACKS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """One listening socket; closed as uvicorn closes an `asyncio.Server`."""

    def __init__(
        self,
        listening: socket.socket,
        admission: Admission,
        make: Callable[[Slot], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._admission = admission
        self._make = make
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._logged_at = -LOG_INTERVAL
        self._closed = False
        self._resume()

    def close(self) -> None:
        """Accept no more connections; those that are open stay."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()  # else the kernel takes connections that nobody will answer

    async def wait_closed(self) -> None:
        """Wait for handshakes in progress."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _resume(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _LACKS:
                    raise
                self._wait_for_resources(error)
                return
            self._admit(accepted, address)

    def _wait_for_resources(self, error: OSError) -> None:
        """Close an idle connection and try again soon: the kernel keeps new ones meanwhile."""
        self._admission.evict_idle()
        if time.monotonic() - self._logged_at >= LOG_INTERVAL:
            self._logged_at = time.monotonic()
            logger.error(
                "cannot accept connections: %s; %d are open. Raise the limit of open files"
                " (LimitNOFILE, ulimit -n) or lower limits.connections",
                error.strerror,
                len(self._admission),
            )
        self._loop.remove_reader(self._listening)
        self._timer = self._loop.call_later(PAUSE, self._resume)

    def _admit(self, accepted: socket.socket, address: object) -> None:
        accepted.setblocking(False)
        host = str(address[0]) if isinstance(address, tuple) else ""
        slot = self._admission.admit(host)
        if slot is None:
            accepted.close()
            return
        task = self._loop.create_task(self._open(accepted, slot, host))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, accepted: socket.socket, slot: Slot, host: str) -> None:
        timeouts = (HANDSHAKE_TIMEOUT, SHUTDOWN_TIMEOUT) if self._tls else (None, None)
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._make(slot),
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=timeouts[0],
                ssl_shutdown_timeout=timeouts[1],
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            self._admission.release(slot)
            accepted.close()
            logger.debug("TLS handshake with %s failed: %s", host, str(error) or "time-out")
