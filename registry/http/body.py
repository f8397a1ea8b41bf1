"""Request bodies, read in pieces and with time limits."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request

from registry.errors import BodyStalledError, BodyTooLargeError, ClientDisconnectedError
from registry.http.memory import SMALL_BODY, MemoryBudget, transfer_timeout
from storage.driver import Transfer

TRANSFER = "moorage.transfer"
"""The key in the scope of a request under which the server offers a `Transfer` of its body."""

WHOLE = "moorage.whole_body"
"""The key in the scope of a request under which the server offers the size of its body.

The value is a function that returns the size in bytes if all of the body has arrived and none of it
was received, else None.
"""

_TURNS = 2
"""Turns of the event loop in which the rest of a small body may arrive."""

_LENGTH = re.compile(r"[0-9]{1,19}")


def read_length(request: Request) -> int | None:
    """Return the length of the body from Content-Length, in bytes; None without a valid one."""
    length = request.headers.get("content-length", "")
    return int(length) if _LENGTH.fullmatch(length) else None


def find_transfer(request: Request) -> Transfer | None:
    """Return what passes bytes of the body to a sink, if the server offers it."""
    transfer: Transfer | None = request.scope.get(TRANSFER)
    return transfer


class WholeBody:
    """A small request body that may have arrived completely."""

    def __init__(self, request: Request) -> None:
        self._request = request

    async def find_size(self) -> int | None:
        """Return its size in bytes if all of it has arrived, else None. Waits for nothing."""
        find: Callable[[], int | None] | None = self._request.scope.get(WHOLE)
        if find is None or (read_length(self._request) or 0) > LARGEST_WHOLE:
            return None
        for _ in range(_TURNS):
            if (size := find()) is not None:
                return size if size <= LARGEST_WHOLE else None
            await asyncio.sleep(0)
        return None

    async def receive(self) -> bytes:
        """Return the body, which has arrived."""
        message = await self._request.receive()
        body: bytes = message.get("body", b"")
        return body


LARGEST_WHOLE = 64 << 10
"""The size of a body up to which it is received at once, in bytes."""

MINIMUM_RATE = 500
"""The minimum rate of a body while it is awaited, in bytes per second. Apache's default."""

RATE_WINDOW = 30.0
"""The time of waiting over which the rate is measured, in seconds."""


async def iter_body(request: Request, idle: float) -> AsyncIterator[bytes]:
    """Yield the body as it arrives.

    Raises BodyStalledError if nothing arrives for `idle` seconds, or less than MINIMUM_RATE, so
    that single bytes do not keep a request alive. Raises ClientDisconnectedError if the connection
    closes before the end.
    """
    more = True
    waited, received = 0.0, 0
    while more:
        began = time.monotonic()
        try:
            async with asyncio.timeout(idle):
                message = await request.receive()
        except TimeoutError as error:
            raise BodyStalledError(f"no data of the body arrived for {idle:g} s") from error
        waited += time.monotonic() - began
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError("the client closed the connection")
        more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        if piece:
            yield piece
        received += len(piece)
        if more and waited >= RATE_WINDOW:
            if received < MINIMUM_RATE * RATE_WINDOW:
                raise BodyStalledError(
                    f"{received} bytes of the body arrived in {waited:.0f} s;"
                    f" at least {MINIMUM_RATE} per second are required"
                )
            waited, received = 0.0, 0


@asynccontextmanager
async def read_body(
    request: Request, idle: float, limit: int, budget: MemoryBudget
) -> AsyncIterator[bytes]:
    """Provide the whole body while the context lasts.

    A large body is read only after the budget has reserved memory for it, and must then arrive fast
    enough. The reservation ends with the context.

    Raises BodyTooLargeError as soon as the body is known to exceed `limit` bytes, BusyError,
    BodyStalledError, ClientDisconnectedError.
    """
    announced = read_length(request)
    too_large = BodyTooLargeError(f"the body may have at most {limit} bytes", {"limit": limit})
    if announced is not None and announced > limit:
        raise too_large
    body = bytearray()
    pieces = iter_body(request, idle)
    size = limit if announced is None else announced
    # The length of a chunked body is known only at its end.
    if (announced is None or size <= SMALL_BODY) and await _read(pieces, body, SMALL_BODY):
        yield bytes(body)
        return
    async with budget.reserve(size):
        timeout = transfer_timeout(size)
        try:
            async with asyncio.timeout(timeout):
                complete = await _read(pieces, body, limit)
        except TimeoutError as error:
            raise BodyStalledError(
                f"a body of {size} bytes must arrive within {timeout:.0f} s"
            ) from error
        if not complete:
            raise too_large
        raw = bytes(body)
        body.clear()
        yield raw


async def _read(pieces: AsyncIterator[bytes], body: bytearray, limit: int) -> bool:
    """Read until the body exceeds `limit` bytes; return whether it is complete."""
    while len(body) <= limit:
        piece = await anext(pieces, None)
        if piece is None:
            return True
        body += piece
    return False
