"""Tests of upload bodies: broken, refused by the store, or faster than the store."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator

import pytest

from storage.digest import Digest, Hasher
from storage.driver import Driver
from storage.errors import StoreFullError, StoreUnavailableError, UploadDataLostError
from storage.local.driver import LocalDriver
from storage.staging import CHUNK_SIZE, StagedUpload, StagingArea

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * ((2 * CHUNK_SIZE + CHUNK_SIZE // 2) // 256)
"""Two and a half chunks."""

Row = tuple[int, Digest | None]
"""The row of a session: its offset, and the digest of the bytes before it."""


class BodyError(Exception):
    """The client has disconnected."""


async def body(data: bytes, error: BaseException | None = None) -> AsyncIterator[bytes]:
    """Yield `data` in pieces as a server does, then raise `error`."""
    for at in range(0, len(data), 65_521):
        yield data[at : at + 65_521]
    if error is not None:
        raise error


async def resume(staging: StagingArea, session: str, row: Row = (0, None)) -> StagedUpload:
    staged = await staging.claim(session)
    await staged.resume(row[0], "sha256", row[1])
    return staged


async def add(staging: StagingArea, session: str, data: bytes, row: Row = (0, None)) -> Row:
    """Append `data` in one ordinary request. Return the row."""
    staged = await resume(staging, session, row)
    await staged.append(body(data))
    await staged.sync()
    row = staged.offset, staged.prefix_digest()
    await staged.release()
    return row


async def full(_data: bytes, _hasher: Hasher | None) -> None:
    """Fail like the `append` of a full store."""
    await asyncio.sleep(0.01)
    raise StoreFullError("made up")


@pytest.fixture
def staging(driver: Driver) -> StagingArea:
    return StagingArea(driver)


class TestBrokenBody:
    """A body that breaks: the received bytes are kept, and the error propagates."""

    @pytest.mark.parametrize("length", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, len(LARGE)])
    @pytest.mark.parametrize("error", [BodyError(), asyncio.CancelledError()], ids=repr)
    async def test_keeps_what_arrived(
        self, staging: StagingArea, session: str, length: int, error: BaseException
    ) -> None:
        staged = await resume(staging, session)
        with pytest.raises(type(error)):
            await staged.append(body(LARGE[:length], error))
        assert staged.offset == length
        assert staged.prefix_digest() == Digest.of(LARGE[:length])
        await staged.sync()
        await staged.release()
        row = await add(staging, session, b"rest", (length, Digest.of(LARGE[:length])))
        assert row == (length + 4, Digest.of(LARGE[:length] + b"rest"))

    async def test_cancelled_request(self, staging: StagingArea, session: str) -> None:
        waiting = asyncio.Event()

        async def stalled() -> AsyncIterator[bytes]:
            yield b"arrived"
            waiting.set()
            await asyncio.sleep(60)

        staged = await resume(staging, session)
        task = asyncio.create_task(staged.append(stalled()))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (staged.offset, staged.prefix_digest()) == (7, Digest.of(b"arrived"))
        await staged.release()

    @pytest.mark.parametrize("length", [100, CHUNK_SIZE + CHUNK_SIZE // 2])
    async def test_store_fails_too(
        self, staging: StagingArea, session: str, monkeypatch: pytest.MonkeyPatch, length: int
    ) -> None:
        """The store's error propagates, because the received bytes were not kept."""
        staged = await resume(staging, session)
        monkeypatch.setattr(staged._upload, "append", full)
        with pytest.raises(StoreFullError) as caught:
            await staged.append(body(LARGE[:length], BodyError()))
        assert isinstance(caught.value.__context__, BodyError)
        assert staged.offset == 0
        await staged.release()


class TestFailedWrite:
    """A store that refuses a piece."""

    async def test_ends_the_body(
        self, staging: StagingArea, session: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal given
            while True:
                given += 1
                yield bytes(CHUNK_SIZE)

        staged = await resume(staging, session)
        monkeypatch.setattr(staged._upload, "append", full)
        with pytest.raises(StoreFullError):
            await staged.append(endless())
        assert given == 2  # the second arrived during the write of the first
        await staged.release()

    async def test_rollback_to_what_was_acknowledged(
        self, local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        staging = StagingArea(local)
        row = await add(staging, session, b"kept,")
        real = os.pwrite

        def pwrite(fd: int, data: memoryview, at: int) -> int:
            room = CHUNK_SIZE + CHUNK_SIZE // 2 - at
            if room <= 0:
                raise OSError(errno.ENOSPC, "made up")
            return real(fd, data[:room], at)

        staged = await resume(staging, session, row)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            with pytest.raises(StoreFullError):
                await staged.append(body(LARGE))
        assert len(b"kept,") < staged.offset < len(LARGE)
        await staged.rollback()
        assert (staged.offset, staged.prefix_digest()) == row
        assert (local.directory.staging / session).read_bytes() == b"kept,"
        await staged.release()
        staged = await resume(staging, session, row)
        await staged.append(body(b"and more"))
        assert staged.prefix_digest() == Digest.of(b"kept,and more")
        await staged.publish(key)
        assert local.path(key).read_bytes() == b"kept,and more"

    async def test_failed_sync_loses_the_session(
        self, local: LocalDriver, session: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        staging = StagingArea(local)
        row = await add(staging, session, b"acknowledged")
        staged = await resume(staging, session, row)
        await staged.append(body(b" and not"))

        def fsync(_fd: int) -> None:
            raise OSError(errno.EIO, "made up")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(StoreUnavailableError):
                await staged.sync()
        await staged.release()
        staged = await staging.claim(session)
        with pytest.raises(UploadDataLostError):
            await staged.resume(row[0], "sha256", row[1])
        await staged.abort()

    async def test_failed_publication_can_be_tried_again(
        self, local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        staging = StagingArea(local)
        row = await add(staging, session, b"acknowledged")

        def rename(*_: object) -> None:
            raise OSError(errno.EIO, "made up")

        staged = await resume(staging, session, row)
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", rename)
            with pytest.raises(StoreUnavailableError):
                await staged.publish(key)
        await staged.release()
        staged = await resume(staging, session, row)
        assert await staged.digest("sha256", row[1]) == Digest.of(b"acknowledged")
        await staged.publish(key)
        assert local.path(key).read_bytes() == b"acknowledged"


class TestPieces:
    """Pieces: no part of the code holds a whole blob in memory."""

    async def test_body_waits_for_the_store(
        self, staging: StagingArea, session: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chunk, total, given = 65_536, 8 * CHUNK_SIZE, 0
        go_on = asyncio.Event()
        sizes: list[int] = []
        staged = await resume(staging, session)
        real = staged._upload.append

        async def append(data: bytes, hasher: Hasher | None) -> None:
            await go_on.wait()
            sizes.append(len(data))
            await real(data, hasher)

        async def generous() -> AsyncIterator[bytes]:
            nonlocal given
            while given < total:
                given += chunk
                yield bytes(chunk)

        monkeypatch.setattr(staged._upload, "append", append)
        task = asyncio.create_task(staged.append(generous()))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert given == 2 * CHUNK_SIZE  # one being written, one just received
        go_on.set()
        await task
        assert given == staged.offset == total
        assert sizes == [CHUNK_SIZE] * 8
        await staged.release()

    async def test_pieces_arrive_while_others_are_written(
        self, staging: StagingArea, session: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events: list[str] = []
        staged = await resume(staging, session)
        real = staged._upload.append

        async def append(data: bytes, hasher: Hasher | None) -> None:
            events.append("writing")
            await asyncio.sleep(0.01)
            await real(data, hasher)
            events.append("written")

        async def two() -> AsyncIterator[bytes]:
            yield bytes(CHUNK_SIZE)
            await asyncio.sleep(0)
            events.append("arrived")
            yield bytes(CHUNK_SIZE)

        monkeypatch.setattr(staged._upload, "append", append)
        await staged.append(two())
        assert events == ["writing", "arrived", "written", "writing", "written"]
        await staged.release()
