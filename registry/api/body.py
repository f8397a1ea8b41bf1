"""Request bodies, read piece by piece and never waited for too long."""

import asyncio
import re
from collections.abc import AsyncIterator

from starlette.requests import Request

from registry.errors import BodyStalledError, BodyTooLargeError, ClientGoneError

_LENGTH = re.compile(r"[0-9]{1,19}")


def read_length(request: Request) -> int | None:
    """The announced length of the body in bytes; None where there is none that can be read."""
    length = request.headers.get("content-length", "")
    return int(length) if _LENGTH.fullmatch(length) else None


async def iter_body(request: Request, idle: float) -> AsyncIterator[bytes]:
    """Yield the body as it arrives.

    BodyStalledError when nothing came for `idle` seconds, ClientGoneError when the connection
    closed before the end.
    """
    more = True
    while more:
        try:
            async with asyncio.timeout(idle):
                message = await request.receive()
        except TimeoutError as error:
            raise BodyStalledError(f"the body delivered nothing for {idle:g} s") from error
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client closed the connection")
        more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        if piece:
            yield piece


async def read_body(request: Request, idle: float, limit: int) -> bytes:
    """The whole body; BodyTooLargeError as soon as it is known to exceed `limit` bytes."""
    too_large = BodyTooLargeError(f"a body has at most {limit} bytes here", {"limit": limit})
    if (read_length(request) or 0) > limit:
        raise too_large
    body = bytearray()
    async for piece in iter_body(request, idle):
        body += piece
        if len(body) > limit:
            raise too_large
    return bytes(body)
