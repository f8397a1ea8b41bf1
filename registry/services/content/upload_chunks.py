"""Request bodies of blob uploads."""

import contextlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from registry.errors import SizeInvalidError, UploadOutOfOrderError
from registry.services.quotas.quotas import Room
from storage.driver import Sink, Transfer
from storage.errors import StoreError, UploadLockedError
from storage.staging import StagedUpload


class WholeBody(Protocol):
    """A small request body that may have arrived completely."""

    async def find_size(self) -> int | None:
        """Return its size in bytes if all of it has arrived, else None. Waits for nothing."""
        ...

    async def receive(self) -> bytes:
        """Return the body, which has arrived."""
        ...


class Chunk(Struct, frozen=True):
    """A request body.

    `start` and `length` are in bytes and set if the request has a Content-Range. `announced` is the
    Content-Length in bytes. `transfer` receives parts of the body without the event loop. `whole`
    receives all of it at once.
    """

    body: AsyncIterable[bytes]
    start: int | None = None
    length: int | None = None
    announced: int | None = None
    transfer: Transfer | None = None
    whole: WholeBody | None = None

    def with_body(self, data: bytes) -> "Chunk":
        """Return the chunk for a body that was received from `whole`."""
        return replace(self, body=_iterate(data), transfer=None, whole=None)


async def _iterate(data: bytes) -> AsyncIterator[bytes]:
    yield data


class _LimitedBody:
    """The body of a chunk, which may not exceed its stated range and the room in quotas."""

    def __init__(self, chunk: Chunk, room: Room | None) -> None:
        self._chunk = chunk
        self._room = room
        self._received = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body.

        Raises SizeInvalidError as soon as its size differs from the stated range, and
        QuotaExceededError as soon as it does not fit.
        """
        length = self._chunk.length
        async for piece in self._chunk.body:
            self._received += len(piece)
            if length is not None and self._received > length:
                break
            if self._room is not None:
                self._room.require(self._received)
            yield piece
        if length is not None and self._received != length:
            raise SizeInvalidError(
                f"the body has a different size than its Content-Range: {length} bytes",
                {"announced": length},
            )

    async def transfer(self, sink: Sink, most: int) -> int:
        """Pass as much of the body to `sink` as the limits allow. The rest is yielded."""
        if self._chunk.length is not None:
            most = min(most, self._chunk.length - self._received)
        if self._room is not None:
            most = min(most, self._room.left - self._received)
        if self._chunk.transfer is None or most <= 0:
            return 0
        count = await self._chunk.transfer(sink, most)
        self._received += count
        return count


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
    if room is not None:
        room.require(chunk.announced or 0)
    body = _LimitedBody(chunk, room)
    transfer = body.transfer if chunk.transfer is not None else None
    try:
        await staged.append(body, transfer, then_sync=then_sync)
    except (SizeInvalidError, StoreError):
        with contextlib.suppress(UploadLockedError):  # a failed sync has dropped all of them
            await staged.rollback()
        raise
