"""Request bodies of blob uploads."""

import contextlib
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from registry.errors import SizeInvalidError, UploadOutOfOrderError
from registry.services.quotas.quotas import Room
from storage.errors import StoreError, UploadLockedError
from storage.staging import StagedUpload


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
            f"the body has a different size than its Content-Range: {chunk.length} bytes",
            {"announced": chunk.length},
        )


async def append_chunk(
    staged: StagedUpload, chunk: Chunk, room: Room | None, *, then_sync: bool
) -> None:
    """Append the body to the staged bytes, if it continues them and fits into `room`.

    `then_sync` is as in `StagedUpload.append`. If the body is interrupted, the bytes that arrived
    are kept. If it does not fit into the store or its stated range, they are dropped. Raises
    UploadOutOfOrderError, QuotaExceededError, SizeInvalidError, StoreError.
    """
    if chunk.start is not None and chunk.start != staged.offset:
        raise UploadOutOfOrderError(staged.offset)
    body = measured(chunk)
    if room is not None:
        room.require(chunk.announced or 0)
        body = room.bound(body)
    try:
        await staged.append(body, then_sync=then_sync)
    except (SizeInvalidError, StoreError):
        with contextlib.suppress(UploadLockedError):  # a failed sync has dropped all of them
            await staged.rollback()
        raise
