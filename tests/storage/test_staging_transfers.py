"""Tests of bodies that a thread writes and hashes as it receives them."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator

import pytest

from storage.digest import Digest
from storage.driver import Driver, Sink
from storage.errors import StoreFullError
from storage.local.driver import LocalDriver
from storage.staging import CHUNK_SIZE, StagedUpload, StagingArea

pytestmark = pytest.mark.anyio

DATA = os.urandom(2 * CHUNK_SIZE)


class Arriving:
    """A body that arrives in turns in pieces and in transfers of `step` bytes."""

    def __init__(self, data: bytes, step: int, transfers: int = 3) -> None:
        self._data = data
        self._step = step
        self._transfers = transfers
        self._at = 0
        self.transferred = 0

    def _take(self) -> bytes:
        self._at += self._step
        return self._data[self._at - self._step : self._at]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := self._take():
            self._left = self._transfers
            yield piece

    async def transfer(self, sink: Sink, most: int) -> int:
        assert most > self._step
        self._left -= 1
        piece = self._take() if self._left >= 0 else b""
        if piece:
            view = memoryview(bytearray(piece))  # overwritten, as the buffer of a receiver
            half = len(view) // 2
            await asyncio.to_thread(sink, [view[:half], view[half:]])
            view[:] = bytes(len(view))
        self.transferred += len(piece)
        return len(piece)


async def resume(staging: StagingArea, session: str) -> StagedUpload:
    staged = await staging.claim(session)
    await staged.resume(0, "sha256", None)
    return staged


@pytest.mark.parametrize("step", [10_007, 100_003, CHUNK_SIZE // 2, CHUNK_SIZE])
async def test_pieces_and_transfers_stay_in_order(
    driver: Driver, session: str, key: str, step: int
) -> None:
    body = Arriving(DATA, step)
    staged = await resume(StagingArea(driver), session)
    await staged.append(body, body.transfer)
    assert (staged.offset, staged.prefix_digest()) == (len(DATA), Digest.of(DATA))
    assert (body.transferred > 0) == (staged._upload.append_now is not None)
    await staged.seal()
    await staged.publish(key)
    reader = await driver.open(key)
    assert b"".join([piece async for piece in reader.read(0, len(DATA))]) == DATA
    await reader.close()


async def test_a_full_disk_ends_the_body_and_its_bytes_are_dropped(
    local: LocalDriver, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, at: int) -> int:
        room = CHUNK_SIZE - at
        if room <= 0:
            raise OSError(errno.ENOSPC, "made up")
        return real(fd, data[:room], at)

    staged = await resume(StagingArea(local), session)
    body = Arriving(DATA, 100_003)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(StoreFullError):
            await staged.append(body, body.transfer)
    assert 0 < staged.offset <= CHUNK_SIZE
    assert staged.prefix_digest() == Digest.of(DATA[: staged.offset])
    assert (local.directory.staging / session).stat().st_size == staged.offset
    await staged.rollback()
    await staged.append(Arriving(DATA, 50_000))
    assert staged.prefix_digest() == Digest.of(DATA)
    await staged.abort()


async def test_a_cancelled_transfer_keeps_what_was_written(
    local: LocalDriver, session: str
) -> None:
    staged = await resume(StagingArea(local), session)
    body = Arriving(DATA, 100_003)

    async def transfer(sink: Sink, most: int) -> int:
        count = await body.transfer(sink, most)
        if body.transferred > CHUNK_SIZE:
            raise asyncio.CancelledError
        return count

    with pytest.raises(asyncio.CancelledError):
        await staged.append(body, transfer)
    assert CHUNK_SIZE < staged.offset < len(DATA)
    assert staged.prefix_digest() == Digest.of(DATA[: staged.offset])
    await staged.abort()
