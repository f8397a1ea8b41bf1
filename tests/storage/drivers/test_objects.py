"""Contract of all drivers: listings and objects."""

import asyncio
import time
import uuid

import pytest

from storage.digest import Digest, Hasher
from storage.driver import Driver
from storage.errors import ObjectCorruptError, ObjectMissingError
from storage.keys import blob_key, new_generation
from tests.storage.drivers.helpers import MANY, key_of, put, read, read_object

pytestmark = pytest.mark.anyio


class TestListing:
    """The listing of all objects."""

    async def test_lists_each_once_in_the_order_of_keys(
        self, driver: Driver, session: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("storage.local.driver.PAGE_SIZE", 3)
        monkeypatch.setattr("storage.s3.bucket.PAGE_SIZE", 3)
        before = time.time_ns() // 1000
        # Some share one directory on disk, which then needs two pages.
        digests = [Digest("sha256", f"{n % 2:02x}{n:062x}") for n in range(8)]
        keys = sorted(blob_key(digest, new_generation()) for digest in digests)
        for n, key in enumerate(keys):
            await put(driver, b"x" * n, key)
        removed = await put(driver, b"removed")
        await driver.delete(removed)
        upload = await driver.claim(session)
        await upload.append(b"staged", None)
        await upload.sync()
        await upload.release()
        pages = [page async for page in driver.iter_objects()]
        assert all(pages)
        found = [each for page in pages for each in page]
        named = [each.key for each in found]
        assert named == sorted(named)
        staged = [key for key in named if not key.startswith("blobs/")]
        assert len(staged) == (0 if driver.supports_locking else 1)
        assert all(key.startswith(f"staging/{session}/") for key in staged)
        assert [(each.key, each.size) for each in found if each.key not in staged] == [
            (key, n) for n, key in enumerate(keys)
        ]
        minute = 60_000_000  # the clocks of stores differ
        assert all(abs(each.written_at - before) < minute for each in found)
        assert len(pages) > 2 or driver.name == "memory"

    async def test_an_empty_store_has_none(self, driver: Driver) -> None:
        assert [page async for page in driver.iter_objects() if page] == []


class TestObjects:
    """Published objects."""

    async def test_missing(self, driver: Driver, key: str) -> None:
        with pytest.raises(ObjectMissingError):
            await driver.stat(key)
        with pytest.raises(ObjectMissingError):
            await driver.open(key)

    async def test_same_digest_under_two_keys(self, driver: Driver) -> None:
        """Deleting the old object cannot affect the new one."""
        old, new = await put(driver, b"same"), await put(driver, b"same")
        await driver.delete(old)
        assert await read_object(driver, new) == b"same"
        with pytest.raises(ObjectMissingError):
            await driver.stat(old)

    async def test_delete_of_nothing(self, driver: Driver, key: str) -> None:
        await driver.delete(key)
        key = await put(driver, b"data")
        await driver.delete(key)
        await driver.delete(key)
        with pytest.raises(ObjectMissingError):
            await driver.open(key)

    async def test_open_object_outlives_its_key(self, driver: Driver) -> None:
        key = await put(driver, MANY)
        reader = await driver.open(key)
        await driver.delete(key)
        assert reader.size == len(MANY)
        assert await read(reader, 0, reader.size) == MANY
        await reader.close()

    @pytest.mark.parametrize(
        ("start", "length"),
        [
            (0, 0),
            (0, 1),
            (7, 100),
            (len(MANY), 0),
            (len(MANY) - 1, 1),
            (1 << 20, 1 << 20),
            ((1 << 20) - 1, (2 << 20) + 2),
            (3, len(MANY) - 3),
            (0, len(MANY)),
        ],
    )
    async def test_read_a_part(self, driver: Driver, start: int, length: int) -> None:
        reader = await driver.open(await put(driver, MANY))
        assert await read(reader, start, length) == MANY[start : start + length]
        await reader.close()

    async def test_read_again_and_backwards(self, driver: Driver) -> None:
        reader = await driver.open(await put(driver, b"0123456789"))
        assert await read(reader, 5, 5) == b"56789"
        assert await read(reader, 0, 3) == b"012"
        assert await read(reader, 0, 3) == b"012"
        await reader.close()

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (5, 6), (10, 1), (11, 1)])
    async def test_read_past_the_end(self, driver: Driver, start: int, length: int) -> None:
        reader = await driver.open(await put(driver, b"0123456789"))
        with pytest.raises(ObjectCorruptError):
            await read(reader, start, length)
        await reader.close()

    async def test_two_readers_of_one_object(self, driver: Driver) -> None:
        key = await put(driver, MANY)
        readers = [await driver.open(key) for _ in range(2)]
        one, other = await asyncio.gather(
            read(readers[0], 0, len(MANY)), read(readers[1], 5, len(MANY) - 5)
        )
        assert one == MANY
        assert other == MANY[5:]
        for reader in readers:
            await reader.close()

    async def test_reader_left_half_way(self, driver: Driver) -> None:
        reader = await driver.open(await put(driver, MANY))
        async for _ in reader.read(0, len(MANY)):
            break
        await reader.close()
        await reader.close()


async def test_sessions_in_parallel_keep_their_bytes_apart(driver: Driver) -> None:
    async def push(number: int) -> tuple[str, bytes]:
        upload = await driver.claim(str(uuid.uuid4()))
        hasher = Hasher("sha256")
        piece = number.to_bytes(2, "big") * 2000
        for _ in range(20):
            await upload.append(piece, hasher)
            await asyncio.sleep(0)
        key = key_of(piece * 20)
        assert hasher.digest() == Digest.of(piece * 20)
        await upload.finish(key)
        return key, piece * 20

    for key, data in await asyncio.gather(*(push(number) for number in range(64))):
        assert await driver.stat(key) == len(data)
        assert await read_object(driver, key) == data
