"""Tests of upload sessions on every store. Variables stand for the rows of the service."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from storage import staging as module
from storage.digest import Digest, Hasher
from storage.driver import Driver, Upload
from storage.errors import (
    ObjectMissingError,
    UploadDataLostError,
    UploadLockedError,
)
from storage.staging import CHUNK_SIZE, StagedUpload, StagingArea

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * ((2 * CHUNK_SIZE + CHUNK_SIZE // 2) // 256)
"""Two and a half chunks."""


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def in_chunks(data: bytes, length: int = 65_521) -> AsyncIterator[bytes]:
    return body(*(data[at : at + length] for at in range(0, len(data), length)))


async def read(driver: Driver, key: str) -> bytes:
    reader = await driver.open(key)
    try:
        return b"".join([piece async for piece in reader.read(0, reader.size)])
    finally:
        await reader.close()


async def resume(
    staging: StagingArea,
    session: str,
    offset: int = 0,
    prefix: Digest | None = None,
    algorithm: str = "sha256",
) -> StagedUpload:
    staged = await staging.claim(session)
    await staged.resume(offset, algorithm, prefix)
    return staged


async def patch_up(
    staging: StagingArea, session: str, data: bytes, offset: int = 0, prefix: Digest | None = None
) -> tuple[int, Digest | None]:
    """Append `data` in one request. Return what its row would record."""
    staged = await resume(staging, session, offset, prefix)
    await staged.append(body(data))
    await staged.sync()
    row = staged.offset, staged.prefix_digest()
    await staged.release()
    return row


def count_reads(staged: StagedUpload) -> list[Upload]:
    """Return a list that grows by one whenever the staged bytes are read a second time."""
    upload = staged._upload
    reads: list[Upload] = []
    real = upload.hash

    async def counted(hasher: Hasher) -> None:
        reads.append(upload)
        await real(hasher)

    upload.hash = counted  # type: ignore[method-assign]
    return reads


@pytest.fixture
def staging(driver: Driver) -> StagingArea:
    return StagingArea(driver)


class TestOneRequest:
    """A session that starts and ends with one claim."""

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    @pytest.mark.parametrize("data", [b"", b"small", LARGE], ids=["empty", "small", "large"])
    async def test_publish(
        self,
        staging: StagingArea,
        session: str,
        key: str,
        data: bytes,
        algorithm: str,
    ) -> None:
        staged = await resume(staging, session, algorithm=algorithm)
        reads = count_reads(staged)
        await staged.append(in_chunks(data))
        assert staged.offset == len(data)
        assert staged.prefix_digest() == Digest.of(data, algorithm)
        assert await staged.digest(algorithm, None) == Digest.of(data, algorithm)
        await staged.publish(key)
        await staged.release()
        assert await read(staging._driver, key) == data
        assert reads == []
        assert await staging.list_sessions() == []

    async def test_several_bodies(self, staging: StagingArea, session: str) -> None:
        staged = await resume(staging, session)
        for data in (b"one", b"", LARGE, b"two"):
            await staged.append(in_chunks(data))
        assert await staged.digest("sha256", None) == Digest.of(b"one" + LARGE + b"two")
        await staged.release()

    @pytest.mark.parametrize(
        "length", [1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, 5 * CHUNK_SIZE]
    )
    async def test_chunks_of_any_length(
        self, staging: StagingArea, session: str, length: int
    ) -> None:
        data = LARGE if length > 1 else b"short"
        staged = await resume(staging, session)
        await staged.append(in_chunks(data, length))
        assert staged.offset == len(data)
        assert staged.prefix_digest() == Digest.of(data)
        await staged.release()

    async def test_discard(self, staging: StagingArea, session: str, key: str) -> None:
        staged = await resume(staging, session)
        await staged.append(body(b"gone"))
        await staged.abort()
        await staged.release()
        assert await staging.list_sessions() == []
        with pytest.raises(ObjectMissingError):
            await read(staging._driver, key)

    async def test_hold_is_exclusive(self, staging: StagingArea, session: str) -> None:
        staged = await staging.claim(session)
        with pytest.raises(UploadLockedError):
            await staging.claim(session)
        assert await staging.list_sessions() == ([session] if staging.supports_locking else [])
        await staged.release()
        await staged.release()
        await (await staging.claim(session)).release()

    async def test_another_algorithm_is_read(self, staging: StagingArea, session: str) -> None:
        staged = await resume(staging, session)
        await staged.append(in_chunks(LARGE))
        reads = count_reads(staged)
        assert await staged.digest("sha512", staged.prefix_digest()) == Digest.of(LARGE, "sha512")
        assert len(reads) == 1
        await staged.release()


class TestResume:
    """A session that continues where it was acknowledged."""

    async def test_lost_bytes(self, staging: StagingArea, session: str) -> None:
        _, prefix = await patch_up(staging, session, b"12345")
        staged = await staging.claim(session)
        with pytest.raises(UploadDataLostError):
            await staged.resume(6, "sha256", prefix)
        await staged.resume(5, "sha256", prefix)
        await staged.release()

    @pytest.mark.parametrize("acknowledged", [0, 3])
    async def test_what_was_not_acknowledged_is_dropped(
        self, staging: StagingArea, session: str, key: str, acknowledged: int
    ) -> None:
        if not staging.supports_locking:
            pytest.skip("bytes are staged and acknowledged by one write of the row")
        await patch_up(staging, session, b"12345")
        staged = await resume(staging, session, acknowledged)
        assert staged.offset == acknowledged
        await staged.append(body(b"abc"))
        assert await staged.digest("sha256", None) == Digest.of(b"12345"[:acknowledged] + b"abc")
        await staged.publish(key)
        assert await read(staging._driver, key) == b"12345"[:acknowledged] + b"abc"

    async def test_running_hash_is_kept_between_requests(
        self, staging: StagingArea, session: str
    ) -> None:
        row = await patch_up(staging, session, LARGE)
        row = await patch_up(staging, session, b"more", *row)
        assert row == (len(LARGE) + 4, Digest.of(LARGE + b"more"))
        staged = await resume(staging, session, *row)
        reads = count_reads(staged)
        await staged.append(body(b"last"))
        assert await staged.digest("sha256", row[1]) == Digest.of(LARGE + b"morelast")
        assert reads == []
        await staged.release()

    async def test_elsewhere_it_is_read_once_at_the_end(self, driver: Driver, session: str) -> None:
        """The control of the test above: a process that has not seen the first bytes."""
        row = await patch_up(StagingArea(driver), session, LARGE)
        elsewhere = StagingArea(driver)
        row = await patch_up(elsewhere, session, b"more", *row)
        assert row == (len(LARGE) + 4, None)
        staged = await resume(elsewhere, session, *row)
        reads = count_reads(staged)
        await staged.append(body(b"last"))
        assert reads == []
        assert await staged.digest("sha256", row[1]) == Digest.of(LARGE + b"morelast")
        assert len(reads) == 1
        await staged.release()

    async def test_running_hash_is_handed_out_once(
        self, staging: StagingArea, session: str
    ) -> None:
        offset, prefix = await patch_up(staging, session, b"12345")
        assert staging.take_running_hash(session, prefix) is not None
        assert staging.take_running_hash(session, prefix) is None
        assert prefix == Digest.of(b"12345")
        staged = await resume(staging, session, offset, prefix)
        assert staged.prefix_digest() is None
        await staged.release()

    async def test_without_the_stored_digest_a_running_hash_proves_nothing(
        self, staging: StagingArea, session: str
    ) -> None:
        offset, _ = await patch_up(staging, session, b"12345")
        staged = await resume(staging, session, offset, None)
        assert staged.prefix_digest() is None
        assert await staged.digest("sha256", None) == Digest.of(b"12345")
        await staged.release()

    async def test_running_hash_of_bytes_that_another_process_replaced(
        self, driver: Driver, session: str, key: str
    ) -> None:
        """Otherwise a client could publish any bytes under the digest of others.

        For example bytes that were never acknowledged here, while others of the same length were
        acknowledged elsewhere.
        """
        here, elsewhere = StagingArea(driver), StagingArea(driver)
        staged = await resume(here, session)
        await staged.append(body(b"promised"))
        await staged.release()  # broken off before its row was written
        row = await patch_up(elsewhere, session, b"smuggled")
        staged = await resume(here, session, *row)
        assert staged.prefix_digest() != Digest.of(b"promised")
        assert await staged.digest("sha256", row[1]) == Digest.of(b"smuggled")
        await staged.append(body(b"!"))
        assert await staged.digest("sha256", row[1]) == Digest.of(b"smuggled!")
        await staged.publish(key)
        assert await read(driver, key) == b"smuggled!"

    async def test_stored_digest_serves_where_nothing_was_appended(
        self, driver: Driver, session: str
    ) -> None:
        offset, prefix = await patch_up(StagingArea(driver), session, LARGE)
        staged = await resume(StagingArea(driver), session, offset, prefix)
        reads = count_reads(staged)
        await staged.append(body())
        assert await staged.digest("sha256", prefix) == Digest.of(LARGE)
        assert reads == []
        assert await staged.digest("sha512", prefix) == Digest.of(LARGE, "sha512")
        assert len(reads) == 1
        await staged.append(body(b"+"))
        assert await staged.digest("sha256", prefix) == Digest.of(LARGE + b"+")
        assert len(reads) == 2
        await staged.release()

    async def test_session_that_starts_again_at_nothing(
        self, staging: StagingArea, session: str
    ) -> None:
        if not staging.supports_locking:
            pytest.skip("bytes are staged and acknowledged by one write of the row")
        _, prefix = await patch_up(staging, session, b"12345")
        staged = await resume(staging, session, 0)
        assert staged.prefix_digest() == Digest.of(b"")
        assert staging.take_running_hash(session, prefix) is None
        await staged.release()

    async def test_second_release_takes_nothing_from_the_next(
        self, staging: StagingArea, session: str
    ) -> None:
        first = await resume(staging, session)
        await first.append(body(b"one"))
        await first.sync()
        await first.release()
        row = await patch_up(staging, session, b"two", 3, Digest.of(b"one"))
        await first.release()
        staged = await resume(staging, session, *row)
        assert staged.prefix_digest() == Digest.of(b"onetwo")
        await first.release()
        await staged.publish("blobs/sha256/00/key")
        await first.release()
        assert staging.take_running_hash(session, Digest.of(b"onetwo")) is None

    @pytest.mark.parametrize("end", ["publish", "discard"])
    async def test_ended_session_is_forgotten(
        self, staging: StagingArea, session: str, key: str, end: str
    ) -> None:
        row = await patch_up(staging, session, b"12345")
        staged = await resume(staging, session, *row)
        await (staged.publish(key) if end == "publish" else staged.abort())
        await staged.release()
        assert list(staging._running) == []

    async def test_running_hashes_are_bounded(
        self, staging: StagingArea, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_RUNNING_HASHES", 3)
        for session in "abcd":
            staging.keep_running_hash(session, Hasher("sha256"))
        staging.keep_running_hash("b", Hasher("sha256"))
        staging.keep_running_hash("e", Hasher("sha256"))
        assert list(staging._running) == ["d", "b", "e"]


class TestRollback:
    """The rollback of bytes appended since `resume`."""

    @pytest.mark.parametrize("rejected", [b"", b"rejected", LARGE], ids=["none", "some", "much"])
    async def test_bytes_and_hash(
        self,
        staging: StagingArea,
        session: str,
        key: str,
        rejected: bytes,
    ) -> None:
        row = await patch_up(staging, session, b"kept,")
        staged = await resume(staging, session, *row)
        await staged.append(in_chunks(rejected))
        await staged.rollback()
        assert (staged.offset, staged.prefix_digest()) == row
        await staged.append(body(b"accepted"))
        reads = count_reads(staged)
        assert await staged.digest("sha256", row[1]) == Digest.of(b"kept,accepted")
        assert reads == []
        await staged.publish(key)
        assert await read(staging._driver, key) == b"kept,accepted"

    async def test_next_request_goes_on_there(self, staging: StagingArea, session: str) -> None:
        row = await patch_up(staging, session, b"kept,")
        staged = await resume(staging, session, *row)
        await staged.append(body(b"rejected"))
        await staged.rollback()
        await staged.release()
        assert await patch_up(staging, session, b"next", *row) == (9, Digest.of(b"kept,next"))

    async def test_without_running_hash(self, driver: Driver, session: str) -> None:
        row = await patch_up(StagingArea(driver), session, b"kept,")
        staged = await resume(StagingArea(driver), session, *row)
        await staged.append(body(b"rejected"))
        await staged.rollback()
        assert staged.prefix_digest() is None
        assert await staged.digest("sha256", row[1]) == Digest.of(b"kept,")
        await staged.release()


async def test_many_sessions_at_once(driver: Driver) -> None:
    staging = StagingArea(driver)

    async def push(number: int) -> None:
        session = f"00000000-0000-0000-0000-{number:012x}"
        data = hashlib.shake_128(session.encode()).digest(CHUNK_SIZE + 1000 * number)
        row: tuple[int, Any] = (0, None)
        for part in (data[:CHUNK_SIZE], data[CHUNK_SIZE:]):
            row = await patch_up(staging, session, part, *row)
        staged = await resume(staging, session, *row)
        assert await staged.digest("sha256", row[1]) == Digest.of(data)
        key = f"blobs/sha256/{number:02x}/key"
        await staged.publish(key)
        await staged.release()
        assert await read(driver, key) == data

    await asyncio.gather(*(push(number) for number in range(24)))
    assert await staging.list_sessions() == []
