"""The bursts of one connection: parts of bodies that threads receive."""

import asyncio
from collections.abc import Callable

from registry.server.body_framing import ChunkedBody, FixedBody
from registry.server.body_receiver import TRANSFER, BodyReceiver, Burst
from storage.driver import Sink
from storage.shield import run_to_completion


class BodyBursts:
    """Starts bursts while a body arrives fast, and reports each to `on_burst` when it ends.

    The transport must not read during a burst. `arrives_fast` is set by the connection.
    """

    def __init__(self, receiver: BodyReceiver, on_burst: Callable[[Burst], None]) -> None:
        self.arrives_fast = False
        self._receiver = receiver
        self._on_burst = on_burst
        self._socket = -1
        self._burst: asyncio.Future[Burst] | None = None

    def enable(self, socket: int) -> None:
        """Receive from this descriptor, which carries the bytes of the bodies as they are."""
        self._socket = socket

    @property
    def is_running(self) -> bool:
        return self._burst is not None

    def is_possible(self, body: FixedBody | ChunkedBody) -> bool:
        """Return whether the next bytes of the body are worth a burst."""
        is_idle = self._socket >= 0 and self._burst is None
        return is_idle and self.arrives_fast and body.is_bulk

    def start(self, body: FixedBody | ChunkedBody) -> bool:
        """Start a burst whose bytes are kept; return whether a thread was free."""
        if self.is_possible(body):
            self._watch(self._receiver.start(self._socket, body))
        return self.is_running

    async def transfer(
        self,
        body: FixedBody | ChunkedBody,
        sink: Sink,
        most: int,
        is_open: Callable[[], bool],
    ) -> int:
        """Wait for a thread, and pass up to `most` bytes to `sink` there; return their number.

        `is_open` is whether the connection still receives this body. Raises errors of `sink`.
        """
        await self._receiver.reserve()
        if not (is_open() and self.is_possible(body)):
            self._receiver.release()
            return 0
        burst = self._receiver.start_reserved(self._socket, body, sink, min(most, TRANSFER))
        self._watch(burst)
        if burst is None:
            return 0
        received = await run_to_completion(burst)
        if received.failure is not None:
            raise received.failure
        return received.size

    def _watch(self, burst: asyncio.Future[Burst] | None) -> None:
        self._burst = burst
        if burst is not None:
            burst.add_done_callback(self._on_done)

    def _on_done(self, burst: asyncio.Future[Burst]) -> None:
        self._burst = None
        received = burst.result()
        if not received.size:
            self.arrives_fast = False
        self._on_burst(received)
