"""Limits of request bodies whose bytes arrive in transfers."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.errors import QuotaExceededError, SizeInvalidError
from registry.metadata.quotas.quotas import QuotaRow, Standing
from registry.services.content.upload_chunks import Chunk, append_chunk
from registry.services.quotas.quotas import Room
from storage.driver import Sink
from storage.local.driver import LocalDriver
from storage.staging import StagedUpload, StagingArea

pytestmark = pytest.mark.anyio

DATA = os.urandom(100_000)
FIRST = 1000


class Body:
    """A body of which the first bytes are yielded, and the others transferred if allowed."""

    def __init__(self, data: bytes) -> None:
        self.left = data
        self.transferred = 0

    def take(self, size: int) -> bytes:
        piece, self.left = self.left[:size], self.left[size:]
        return piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.left:
            yield self.take(FIRST)

    async def transfer(self, sink: Sink, most: int) -> int:
        piece = self.take(min(most, 30_000))
        if piece:
            sink([memoryview(piece)])
        self.transferred += len(piece)
        return len(piece)


@pytest.fixture
async def staged(tmp_path: Path) -> AsyncIterator[StagedUpload]:
    driver = LocalDriver(tmp_path / "blobs")
    await driver.start()
    staged = await StagingArea(driver).claim("00000000-0000-4000-8000-000000000000")
    await staged.resume(0, "sha256", None)
    yield staged
    await staged.release()
    await driver.close()


def room(size: int) -> Room:
    row = QuotaRow(1, "team/**", size)
    return Room(Standing(row, "team/**", used=0, reserved=0, grown=0))


async def append(staged: StagedUpload, data: bytes, size: int | None, left: int | None) -> Body:
    body = Body(data)
    chunk = Chunk(body, 0 if size else None, size, None, body.transfer)
    await append_chunk(staged, chunk, None if left is None else room(left), then_sync=False)
    return body


@pytest.mark.parametrize("left", [None, len(DATA), 1 << 40])
@pytest.mark.parametrize("size", [None, len(DATA)])
async def test_a_body_that_fits_is_transferred(
    staged: StagedUpload, size: int | None, left: int | None
) -> None:
    body = await append(staged, DATA, size, left)
    assert staged.offset == len(DATA)
    assert body.transferred == len(DATA) - FIRST


@pytest.mark.parametrize("left", [FIRST, FIRST + 1, 50_000, len(DATA) - 1])
async def test_no_byte_above_the_quota_is_transferred(staged: StagedUpload, left: int) -> None:
    with pytest.raises(QuotaExceededError):
        await append(staged, DATA, None, left)
    assert staged.size <= left


@pytest.mark.parametrize("size", [FIRST, FIRST + 1, 50_000, len(DATA) - 1, len(DATA) + 1])
async def test_a_body_that_differs_from_its_range_is_dropped(
    staged: StagedUpload, size: int
) -> None:
    with pytest.raises(SizeInvalidError):
        await append(staged, DATA, size, None)
    assert staged.size == 0
