"""Request bodies of blob uploads."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from registry.errors import SizeInvalidError


@dataclass(frozen=True, slots=True)
class Chunk:
    """A request body.

    `start` and `length` are in bytes and set if the request has a Content-Range. `announced` is the
    Content-Length in bytes.
    """

    body: AsyncIterable[bytes]
    start: int | None = None
    length: int | None = None
    announced: int | None = None


async def measured(chunk: Chunk) -> AsyncIterator[bytes]:
    """Yield the body. Raises SizeInvalidError as soon as its size differs from the stated range."""
    received = 0
    async for piece in chunk.body:
        received += len(piece)
        if chunk.length is not None and received > chunk.length:
            break
        yield piece
    if chunk.length is not None and received != chunk.length:
        raise SizeInvalidError(
            f"the body has not the {chunk.length} bytes of its Content-Range",
            {"announced": chunk.length},
        )
