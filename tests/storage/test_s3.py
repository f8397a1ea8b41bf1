"""Tests of the bucket store alone: parts, tails, fencing, and no key without an owner."""

import asyncio
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator

import pytest

from storage.digest import Digest, Hasher
from storage.driver import Upload
from storage.errors import (
    ObjectCorruptError,
    ObjectMissingError,
    StoreFullError,
    StoreUnavailableError,
    UploadDataLostError,
    UploadLockedError,
)
from storage.keys import MULTIPART_PREFIX
from storage.s3 import buffers
from storage.s3.bucket import SELFTEST, S3Bucket
from storage.s3.driver import S3Driver
from storage.s3.parts import MAX_PARTS, PART_NUMBER_BATCH
from storage.s3.state import MultipartState
from storage.staging import StagingArea
from tests.storage.rowed import RowedDriver
from tests.storage.test_driver import read_object
from tests.support.seaweed import Bucket

pytestmark = pytest.mark.anyio

PART = 5 << 20
DATA = b"".join(n.to_bytes(4, "big") for n in range(3 * PART // 4)) + b"the end"
"""Bytes for three parts and a rest, different everywhere."""


@pytest.fixture
async def driver(bucket: Bucket) -> AsyncIterator[RowedDriver]:
    """Yield a store with the smallest possible parts."""
    store = S3Driver(bucket.settings(part_size=PART))
    await store.start()
    yield RowedDriver(store)
    await store.close()


async def add(driver: RowedDriver, session: str, data: bytes) -> None:
    """Append `data` in one request."""
    upload = await driver.claim(session)
    await append(upload, data)
    await upload.sync()
    await upload.release()


async def append(upload: Upload, data: bytes) -> None:
    for at in range(0, len(data), 1 << 20):
        await upload.append(data[at : at + (1 << 20)], None)


async def finish(driver: RowedDriver, session: str, key: str) -> str:
    upload = await driver.claim(session)
    await upload.seal()
    key = upload.final_key(key)
    await upload.finish(key)
    return key


async def sweep(driver: RowedDriver) -> None:
    for key in driver.doomed:
        await driver.delete(key)


def state_of(driver: RowedDriver, session: str) -> MultipartState:
    return MultipartState.from_json(driver.rows[session][0])


class TestParts:
    """Bytes that do not fit into one object stored whole."""

    @pytest.mark.parametrize("size", [PART - 1, PART, PART + 1, 2 * PART, len(DATA)])
    async def test_one_request(
        self, driver: RowedDriver, bucket: Bucket, session: str, key: str, size: int
    ) -> None:
        upload = await driver.claim(session)
        await append(upload, DATA[:size])
        await upload.seal()
        found = upload.final_key(key)
        assert found == key if size <= PART else found.startswith(MULTIPART_PREFIX)
        await upload.finish(key)
        assert await read_object(driver, found) == DATA[:size]
        await sweep(driver)
        assert bucket.list_keys("blobs/") + bucket.list_keys("staging/") == [found]
        assert bucket.list_uploads() == []

    @pytest.mark.parametrize("step", [PART // 2 + 1, PART, PART + 3, 2 * PART + 5])
    async def test_many_requests(
        self, driver: RowedDriver, bucket: Bucket, session: str, key: str, step: int
    ) -> None:
        for at in range(0, len(DATA), step):
            await add(driver, session, DATA[at : at + step])
            assert len(bucket.list_keys("staging/")) <= 1 + at // step  # others are doomed
        key = await finish(driver, session, key)
        assert await read_object(driver, key) == DATA
        await sweep(driver)
        assert bucket.list_keys("staging/") == []
        assert bucket.list_keys("blobs/") == [key]
        assert bucket.list_uploads() == []

    async def test_hash_of_sealed_parts_is_read_from_the_object(
        self, driver: RowedDriver, session: str, key: str
    ) -> None:
        await add(driver, session, DATA)
        upload = await driver.claim(session)
        await upload.seal()
        hasher = Hasher("sha512")
        await upload.hash(hasher)
        assert hasher.digest() == Digest.of(DATA, "sha512")
        await upload.finish(key)
        assert await read_object(driver, upload.final_key(key)) == DATA

    async def test_parts_keep_the_size_they_began_with(
        self, driver: RowedDriver, bucket: Bucket, session: str, key: str
    ) -> None:
        await add(driver, session, DATA[: PART + 1])
        other = RowedDriver(S3Driver(bucket.settings(part_size=3 * PART)))
        other.rows = driver.rows
        await add(other, session, DATA[PART + 1 :])
        key = await finish(driver, session, key)
        assert await read_object(driver, key) == DATA
        await other.close()

    async def test_a_request_that_is_taken_back(
        self, driver: RowedDriver, bucket: Bucket, session: str, key: str
    ) -> None:
        await add(driver, session, DATA[:1000])
        upload = await driver.claim(session)
        await append(upload, b"x" * (2 * PART + 7))
        await upload.truncate(1000)
        assert upload.size == 1000
        await append(upload, DATA[1000:])
        await upload.sync()
        await upload.release()
        key = await finish(driver, session, key)
        assert await read_object(driver, key) == DATA
        await sweep(driver)
        assert bucket.list_keys("blobs/") == [key]

    async def test_parts_taken_back_and_few_bytes_in_their_place(
        self, driver: RowedDriver, bucket: Bucket, session: str, key: str
    ) -> None:
        upload = await driver.claim(session)
        await append(upload, DATA)
        await upload.truncate(0)
        await append(upload, b"few")
        await upload.seal()
        assert upload.final_key(key) == key
        await upload.finish(key)
        assert await read_object(driver, key) == b"few"
        await sweep(driver)
        assert bucket.list_keys("blobs/") == [key]
        assert bucket.list_uploads() == []

    async def test_uploads_share_the_buffers_there_are(self, bucket: Bucket) -> None:
        store = RowedDriver(S3Driver(bucket.settings(part_size=PART, upload_concurrency=1)))

        async def push(number: int) -> str:
            session, data = str(uuid.uuid4()), bytes([number]) * (2 * PART + number)
            await add(store, session, data)
            key = await finish(store, session, f"blobs/sha256/00/{number}")
            assert await read_object(store, key) == data
            return key

        keys = await asyncio.gather(*(push(number) for number in range(4)))
        assert len(set(keys)) == 4
        buffers = store.driver._bucket.buffers  # type: ignore[attr-defined]
        assert not buffers._free.locked()
        assert len(buffers._kept) <= 1
        await store.close()

    @pytest.mark.parametrize("patience", [0.0, 3600.0])
    async def test_whoever_is_too_slow_gives_way(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, patience: float
    ) -> None:
        monkeypatch.setattr(buffers, "FILL_TIMEOUT_S", patience)
        store = RowedDriver(S3Driver(bucket.settings(part_size=PART, upload_concurrency=1)))
        waiting, ended = asyncio.Event(), asyncio.Event()

        async def trickle() -> AsyncIterator[bytes]:
            yield bytes(2 << 20)
            yield b"alone"  # no other upload waits, so it may be slow
            await waiting.wait()
            while not ended.is_set():
                yield b"."
                await asyncio.sleep(0.05)

        async def slow() -> None:
            staged = await StagingArea(store).claim(str(uuid.uuid4()))
            await staged.resume(0, "sha256", None)
            try:
                await staged.append(trickle())
            finally:
                await staged.release()

        trickling = asyncio.create_task(slow())
        while not store.driver._bucket.buffers._free.locked():  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
        pushing = asyncio.create_task(add(store, str(uuid.uuid4()), bytes(2 << 20)))
        waiting.set()
        done, _ = await asyncio.wait([pushing], timeout=20 if patience == 0 else 0.5)
        assert bool(done) == (patience == 0)
        if patience == 0:
            with pytest.raises(StoreUnavailableError, match="too slow"):
                await trickling
        ended.set()
        await asyncio.wait([trickling, pushing])
        await pushing
        await store.close()

    async def test_too_many_parts_are_refused(self, driver: RowedDriver, session: str) -> None:
        await add(driver, session, DATA)
        state = dataclasses.replace(state_of(driver, session), reserved=MAX_PARTS)
        driver.rows[session] = state.to_json(), 1
        upload = await driver.claim(session)
        with pytest.raises(StoreFullError, match=r"storage\.part_size"):
            await append(upload, DATA)
        await upload.release()


class TestOwners:
    """Every key is in a row before there are bytes under it."""

    async def test_the_row_is_written_before_the_store(
        self, driver: RowedDriver, session: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[tuple[str, bool]] = []
        real = S3Bucket.write

        async def noted(bucket: S3Bucket, operation: str, key: str, **arguments: object) -> object:
            owned = driver.possible_keys(session, *driver.rows[session])
            written.append((operation, key in owned))
            if operation == "upload_part":
                state = state_of(driver, session)
                assert arguments["UploadId"] == state.upload_id
                assert int(str(arguments["PartNumber"])) <= state.reserved
            return await real(bucket, operation, key, **arguments)

        monkeypatch.setattr(S3Bucket, "write", noted)
        await add(driver, session, DATA)
        await finish(driver, session, "no matter")
        assert [name for name, owned in written if not owned] == []
        assert {name for name, _ in written} == {
            "create_multipart_upload",
            "upload_part",
            "put_object",
            "complete_multipart_upload",
        }

    @pytest.mark.parametrize("moment", ["begun", "named", "sent", "synced", "staged"])
    async def test_whoever_dies_leaves_nothing(
        self,
        driver: RowedDriver,
        bucket: Bucket,
        session: str,
        moment: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A holder dies at each moment, and then the session ends."""
        await add(driver, session, b"tail")
        upload = await driver.claim(session)
        if moment == "begun":
            begin = S3Bucket.begin

            async def then_killed(bucket: S3Bucket, key: str) -> str:
                await begin(bucket, key)
                raise asyncio.CancelledError

            monkeypatch.setattr(S3Bucket, "begin", then_killed)
            with pytest.raises(asyncio.CancelledError):
                await append(upload, DATA)
            assert len(bucket.list_uploads()) == 1
        elif moment == "named":
            await append(upload, DATA[:100])
        elif moment == "sent":
            await append(upload, DATA)
        elif moment == "synced":
            await append(upload, DATA)
            await upload.sync()
        else:
            await append(upload, b" and more")
            await upload._upload.sync()  # type: ignore[attr-defined]
        driver.end(session)
        await upload.release()
        await sweep(driver)
        assert bucket.list_keys("blobs/") + bucket.list_keys("staging/") == []
        assert bucket.list_uploads() == []

    async def test_a_tail_put_by_a_holder_that_died_is_not_forgotten(
        self, driver: RowedDriver, bucket: Bucket, session: str, key: str
    ) -> None:
        upload = await driver.claim(session)
        await append(upload, b"never acknowledged")
        await upload._upload.sync()  # type: ignore[attr-defined]
        driver.held.clear()
        assert driver.possible_keys(session, *driver.rows[session]) == {f"staging/{session}/1"}
        await add(driver, session, b"acknowledged")
        assert sorted(bucket.list_keys("staging/")) == [f"staging/{session}/{n}" for n in (1, 2)]
        key = await finish(driver, session, key)
        assert await read_object(driver, key) == b"acknowledged"


class TestFence:
    """Two processes that both believe to hold a session: the later one wins."""

    async def test_part_numbers_are_never_used_twice(
        self, driver: RowedDriver, session: str, key: str
    ) -> None:
        await add(driver, session, DATA[:PART])
        late = await driver.claim(session)
        await append(late, b"x" * PART)
        driver.held.clear()
        upload = await driver.claim(session)
        await append(upload, DATA[PART : 2 * PART + 1])
        with pytest.raises(UploadLockedError):
            await append(late, b"x" * PART_NUMBER_BATCH * PART)
        await append(upload, DATA[2 * PART + 1 :])
        await upload.sync()
        await upload.release()
        numbers = [number for number, _ in state_of(driver, session).parts]
        assert numbers == sorted(set(numbers))
        assert numbers[1] > PART_NUMBER_BATCH
        key = await finish(driver, session, key)
        assert await read_object(driver, key) == DATA
        await late.release()

    async def test_a_late_holder_begins_nothing(
        self, driver: RowedDriver, bucket: Bucket, session: str
    ) -> None:
        late = await driver.claim(session)
        driver.held.clear()
        upload = await driver.claim(session)
        with pytest.raises(UploadLockedError):
            await append(late, DATA)
        assert bucket.list_uploads() == []
        await late.release()
        await upload.release()


class TestSealed:
    """A sealed session, which can only be completed."""

    async def test_by_the_next_holder(self, driver: RowedDriver, session: str, key: str) -> None:
        await self._seal(driver, session)
        upload = await driver.claim(session)
        assert upload.sealed
        assert upload.size == len(DATA)
        with pytest.raises(UploadLockedError):
            await upload.append(b"more", None)
        key = upload.final_key(key)
        await upload.finish(key)
        assert await read_object(driver, key) == DATA

    async def test_after_the_last_holder_completed_it(
        self, driver: RowedDriver, session: str, key: str
    ) -> None:
        await self._seal(driver, session)
        dying = await driver.claim(session)
        await dying._upload.finish(key)  # type: ignore[attr-defined]
        driver.held.clear()
        upload = await driver.claim(session)
        key = upload.final_key(key)
        await upload.finish(key)
        assert await read_object(driver, key) == DATA

    async def test_not_if_the_store_has_lost_it(
        self, driver: RowedDriver, session: str, key: str
    ) -> None:
        await self._seal(driver, session)
        await driver.delete(str(state_of(driver, session).key))
        upload = await driver.claim(session)
        with pytest.raises((ObjectMissingError, UploadDataLostError)):
            await upload.finish(key)
        await upload.release()

    async def test_an_object_of_another_length_is_refused(
        self, driver: RowedDriver, session: str, key: str
    ) -> None:
        await self._seal(driver, session)
        state = json.loads(driver.rows[session][0])
        driver.rows[session] = json.dumps({**state, "size": len(DATA) + 1}), 1
        upload = await driver.claim(session)
        with pytest.raises(ObjectCorruptError):
            await upload.finish(key)
        await upload.release()

    async def _seal(self, driver: RowedDriver, session: str) -> None:
        upload = await driver.claim(session)
        await append(upload, DATA)
        await upload.seal()
        await upload.release()


class TestStart:
    """The start: whose bucket it is, and whether it keeps what is stored."""

    async def test_a_bucket_that_is_not_there(self, bucket: Bucket) -> None:
        store = S3Driver(bucket.settings(bucket="nowhere"))
        with pytest.raises(StoreUnavailableError, match="no such bucket"):
            await store.start()
        await store.close()

    @pytest.mark.parametrize(
        ("key", "layout"),
        [
            ("docker/registry/v2/blobs/sha256/00/data", "contains the data of Distribution"),
            ("registry/v2/repositories/app/_layers/x", "contains the data of Distribution"),
            ("oci-layout", "contains an OCI image layout"),
            ("oci-layout-notes", r"is not empty \('oci-layout-notes'\)"),
            ("docker/compose.yaml", r"is not empty \('docker'\)"),
        ],
    )
    async def test_foreign_data_is_refused_by_its_layout(
        self, bucket: Bucket, key: str, layout: str
    ) -> None:
        bucket.put(key, b"theirs")
        store = S3Driver(bucket.settings())
        with pytest.raises(StoreUnavailableError, match=layout):
            await store.start()
        assert bucket.list_keys() == [key]
        await store.close()

    async def test_keys_that_are_refused(self, bucket: Bucket) -> None:
        store = S3Driver(bucket.settings(secret_key="wrong"))  # noqa: S106
        with pytest.raises(StoreUnavailableError) as refused:
            await store.start()
        assert "wrong" not in str(refused.value)
        await store.close()

    async def test_an_empty_place_where_there_must_be_blobs(self, bucket: Bucket) -> None:
        store = S3Driver(bucket.settings())
        with pytest.raises(StoreUnavailableError, match="no Moorage store"):
            await store.start(create=False)
        await store.start()
        await store.start(create=False)
        await store.check()
        await store.close()

    async def test_a_place_of_another_version(self, bucket: Bucket) -> None:
        bucket.put("VERSION", b"moorage storage 2\n")
        store = S3Driver(bucket.settings())
        with pytest.raises(StoreUnavailableError, match="another version"):
            await store.start()
        await store.close()

    @pytest.mark.parametrize(
        ("kept", "told"),
        [
            (b"53\r\n" + SELFTEST + b"\r\n0\r\nx-amz-checksum:", "checksums inside"),
            (b"?", "changes the bytes"),
        ],
    )
    async def test_a_store_that_changes_what_it_is_sent(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, kept: bytes, told: str
    ) -> None:
        async def fetch(*_: object) -> bytes:
            return kept

        monkeypatch.setattr(S3Bucket, "fetch", fetch)
        store = S3Driver(bucket.settings())
        with pytest.raises(StoreUnavailableError, match=told):
            await store.start()
        await store.close()

    async def test_a_row_is_needed(self, driver: RowedDriver, session: str) -> None:
        with pytest.raises(ValueError, match="row"):
            await driver.driver.claim(session)


class TestRead:
    """Reads, which need one request each."""

    async def test_a_part_is_asked_for_at_once(
        self, driver: RowedDriver, bucket: Bucket, key: str
    ) -> None:
        bucket.put(key, DATA)
        reader = await driver.open(key, 7, 10)
        bucket.delete(key)
        assert reader.size == len(DATA)
        assert b"".join([piece async for piece in reader.read(7, 10)]) == DATA[7:17]
        with pytest.raises(ObjectCorruptError):
            _ = [piece async for piece in reader.read(0, 1)]
        await reader.close()

    async def test_a_part_behind_the_end_is_damage(
        self, driver: RowedDriver, bucket: Bucket, key: str
    ) -> None:
        bucket.put(key, b"short")
        with pytest.raises(ObjectCorruptError):
            await driver.open(key, 5, 1)

    async def test_an_object_that_was_replaced_is_not_mixed(
        self, driver: RowedDriver, bucket: Bucket, key: str
    ) -> None:
        bucket.put(key, b"one")
        reader = await driver.open(key)
        bucket.put(key, b"two")
        with pytest.raises(ObjectCorruptError):
            _ = [piece async for piece in reader.read(1, 2)]
        await reader.close()
