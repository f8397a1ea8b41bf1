"""What a request adds to an upload session."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from registry.errors import SizeInvalidError


@dataclass(frozen=True, slots=True)
class Chunk:
    """A request body. `start` and `length` in bytes, where the request stated a range; `announced`
    as many as its Content-Length says.
    """

    body: AsyncIterable[bytes]
    start: int | None = None
    length: int | None = None
    announced: int | None = None


async def measured(chunk: Chunk) -> AsyncIterator[bytes]:
    """The body, ended with SizeInvalidError as soon as it is not as long as it was announced."""
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
