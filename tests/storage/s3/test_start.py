"""Fencing, sealed uploads, the start, and reads of the S3 driver."""

import json

import pytest

from storage.errors import (
    ObjectCorruptError,
    ObjectMissingError,
    StoreUnavailableError,
    UploadDataLostError,
    UploadLockedError,
)
from storage.s3.bucket import SELFTEST, S3Bucket
from storage.s3.driver import S3Driver
from storage.s3.parts import PART_NUMBER_BATCH
from tests.storage.drivers.helpers import read_object
from tests.storage.s3.helpers import DATA, PART, add, append, finish, state_of
from tests.storage.session_rows import SessionRowDriver
from tests.support.servers.seaweed import Bucket

pytestmark = pytest.mark.anyio


class TestFence:
    """Two processes that both believe to hold a session: the later one wins."""

    async def test_part_numbers_are_never_used_twice(
        self, driver: SessionRowDriver, session: str, key: str
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
        self, driver: SessionRowDriver, bucket: Bucket, session: str
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

    async def test_by_the_next_holder(
        self, driver: SessionRowDriver, session: str, key: str
    ) -> None:
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
        self, driver: SessionRowDriver, session: str, key: str
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
        self, driver: SessionRowDriver, session: str, key: str
    ) -> None:
        await self._seal(driver, session)
        await driver.delete(str(state_of(driver, session).key))
        upload = await driver.claim(session)
        with pytest.raises((ObjectMissingError, UploadDataLostError)):
            await upload.finish(key)
        await upload.release()

    async def test_an_object_of_another_length_is_refused(
        self, driver: SessionRowDriver, session: str, key: str
    ) -> None:
        await self._seal(driver, session)
        state = json.loads(driver.rows[session][0])
        driver.rows[session] = json.dumps({**state, "size": len(DATA) + 1}), 1
        upload = await driver.claim(session)
        with pytest.raises(ObjectCorruptError):
            await upload.finish(key)
        await upload.release()

    async def _seal(self, driver: SessionRowDriver, session: str) -> None:
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

    async def test_a_row_is_needed(self, driver: SessionRowDriver, session: str) -> None:
        with pytest.raises(ValueError, match="row"):
            await driver.driver.claim(session)


class TestRead:
    """Reads, which need one request each."""

    async def test_a_part_is_asked_for_at_once(
        self, driver: SessionRowDriver, bucket: Bucket, key: str
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
        self, driver: SessionRowDriver, bucket: Bucket, key: str
    ) -> None:
        bucket.put(key, b"short")
        with pytest.raises(ObjectCorruptError):
            await driver.open(key, 5, 1)

    async def test_an_object_that_was_replaced_is_not_mixed(
        self, driver: SessionRowDriver, bucket: Bucket, key: str
    ) -> None:
        bucket.put(key, b"one")
        reader = await driver.open(key)
        bucket.put(key, b"two")
        with pytest.raises(ObjectCorruptError):
            _ = [piece async for piece in reader.read(1, 2)]
        await reader.close()
