"""Request bodies, read piece by piece and never waited for too long."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from registry.api.memory import SMALL, MemoryBudget, find_patience
from registry.errors import BodyStalledError, BodyTooLargeError, ClientGoneError

_LENGTH = re.compile(r"[0-9]{1,19}")


def read_length(request: Request) -> int | None:
    """The announced length of the body in bytes; None where there is none that can be read."""
    length = request.headers.get("content-length", "")
    return int(length) if _LENGTH.fullmatch(length) else None


MINIMUM_RATE = 500
"""Bytes a second that a body delivers at least while it is waited for; Apache's default."""

RATE_WINDOW = 30.0
"""Seconds of waiting over which the rate is measured."""


async def iter_body(request: Request, idle: float) -> AsyncIterator[bytes]:
    """Yield the body as it arrives.

    BodyStalledError when nothing came for `idle` seconds, or less than MINIMUM_RATE, so that single
    bytes do not keep a request alive; ClientGoneError when the connection closed before the end.
    """
    more = True
    waited, received = 0.0, 0
    while more:
        began = time.monotonic()
        try:
            async with asyncio.timeout(idle):
                message = await request.receive()
        except TimeoutError as error:
            raise BodyStalledError(f"the body delivered nothing for {idle:g} s") from error
        waited += time.monotonic() - began
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client closed the connection")
        more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        if piece:
            yield piece
        received += len(piece)
        if more and waited >= RATE_WINDOW:
            if received < MINIMUM_RATE * RATE_WINDOW:
                raise BodyStalledError(
                    f"the body delivered {received} bytes in {waited:.0f} s;"
                    f" at least {MINIMUM_RATE} a second are required"
                )
            waited, received = 0.0, 0


@asynccontextmanager
async def read_body(
    request: Request, idle: float, limit: int, budget: MemoryBudget
) -> AsyncIterator[bytes]:
    """Hold the whole body; BodyTooLargeError as soon as it is known to exceed `limit` bytes.

    A large one is read once the budget has room for it, and then must come fast enough; it counts
    there for as long as the context lasts. BusyError, BodyStalledError, ClientGoneError.
    """
    announced = read_length(request)
    too_large = BodyTooLargeError(f"a body has at most {limit} bytes here", {"limit": limit})
    if announced is not None and announced > limit:
        raise too_large
    body = bytearray()
    pieces = iter_body(request, idle)
    size = limit if announced is None else announced
    # The length of a chunked body shows only as it comes.
    if (announced is None or size <= SMALL) and await _read(pieces, body, SMALL):
        yield bytes(body)
        return
    async with budget.reserve(size):
        patience = find_patience(size)
        try:
            async with asyncio.timeout(patience):
                complete = await _read(pieces, body, limit)
        except TimeoutError as error:
            raise BodyStalledError(
                f"a body of {size} bytes must come within {patience:.0f} s"
            ) from error
        if not complete:
            raise too_large
        raw = bytes(body)
        body.clear()
        yield raw


async def _read(pieces: AsyncIterator[bytes], body: bytearray, limit: int) -> bool:
    """Add to the body until it exceeds `limit` bytes; whether it has come to its end."""
    while len(body) <= limit:
        piece = await anext(pieces, None)
        if piece is None:
            return True
        body += piece
    return False
