"""Multipart uploads to SeaweedFS, and who owns their keys."""

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator

import pytest

from storage.digest import Digest, Hasher
from storage.errors import (
    StoreFullError,
    StoreUnavailableError,
)
from storage.keys import MULTIPART_PREFIX
from storage.s3 import buffers
from storage.s3.bucket import S3Bucket
from storage.s3.driver import S3Driver
from storage.s3.parts import MAX_PARTS
from storage.staging import StagingArea
from tests.storage.drivers.helpers import read_object
from tests.storage.s3.helpers import DATA, PART, add, append, finish, state_of, sweep
from tests.storage.session_rows import SessionRowDriver
from tests.support.servers.seaweed import Bucket

pytestmark = pytest.mark.anyio


class TestParts:
    """Bytes that do not fit into one object stored whole."""

    @pytest.mark.parametrize("size", [PART - 1, PART, PART + 1, 2 * PART, len(DATA)])
    async def test_one_request(
        self, driver: SessionRowDriver, bucket: Bucket, session: str, key: str, size: int
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
        self, driver: SessionRowDriver, bucket: Bucket, session: str, key: str, step: int
    ) -> None:
        for at in range(0, len(DATA), step):
            await add(driver, session, DATA[at : at + step])
            assert (
                len(bucket.list_keys("staging/")) <= 1 + at // step
            )  # others are queued for deletion
        key = await finish(driver, session, key)
        assert await read_object(driver, key) == DATA
        await sweep(driver)
        assert bucket.list_keys("staging/") == []
        assert bucket.list_keys("blobs/") == [key]
        assert bucket.list_uploads() == []

    async def test_hash_of_sealed_parts_is_read_from_the_object(
        self, driver: SessionRowDriver, session: str, key: str
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
        self, driver: SessionRowDriver, bucket: Bucket, session: str, key: str
    ) -> None:
        await add(driver, session, DATA[: PART + 1])
        other = SessionRowDriver(S3Driver(bucket.settings(part_size=3 * PART)))
        other.rows = driver.rows
        await add(other, session, DATA[PART + 1 :])
        key = await finish(driver, session, key)
        assert await read_object(driver, key) == DATA
        await other.close()

    async def test_a_request_that_is_taken_back(
        self, driver: SessionRowDriver, bucket: Bucket, session: str, key: str
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
        self, driver: SessionRowDriver, bucket: Bucket, session: str, key: str
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
        store = SessionRowDriver(S3Driver(bucket.settings(part_size=PART, upload_concurrency=1)))

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
        store = SessionRowDriver(S3Driver(bucket.settings(part_size=PART, upload_concurrency=1)))
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

    async def test_too_many_parts_are_refused(self, driver: SessionRowDriver, session: str) -> None:
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
        self, driver: SessionRowDriver, session: str, monkeypatch: pytest.MonkeyPatch
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
        driver: SessionRowDriver,
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
        self, driver: SessionRowDriver, bucket: Bucket, session: str, key: str
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
