"""Contract of all drivers: claims and staged bytes."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest

from storage.digest import Digest, Hasher
from storage.driver import Driver, StagedReader, StagedState, Upload
from storage.errors import ObjectMissingError, UploadLockedError
from tests.storage.drivers.helpers import MANY, hash_of, key_of, put, read_object

pytestmark = pytest.mark.anyio

CHUNK = 300_000


async def open_staged(driver: Driver, session: str) -> StagedReader:
    reader = await driver.open_staged(session)
    assert reader is not None
    return reader


async def test_has_a_name_and_says_whether_it_is_shared(driver: Driver) -> None:
    assert driver.name
    assert isinstance(driver.shared, bool)


async def test_started_store_can_be_reached(driver: Driver) -> None:
    await driver.check()


async def test_starting_again_loses_nothing(driver: Driver, session: str) -> None:
    key = await put(driver, b"published")
    upload = await driver.claim(session)
    await upload.append(b"staged", None)
    await upload.sync()
    await upload.release()
    await driver.start()
    assert await read_object(driver, key) == b"published"
    assert (await driver.claim(session)).size == len(b"staged")


class TestClaim:
    """Claims on a session's staged bytes."""

    async def test_none_are_staged_at_first(self, driver: Driver, session: str) -> None:
        upload = await driver.claim(session)
        assert upload.size == 0
        assert await hash_of(upload) == Digest.of(b"")
        await upload.release()

    async def test_hold_is_exclusive(self, driver: Driver, session: str) -> None:
        upload = await driver.claim(session)
        for _ in range(2):  # a refused claim does not affect the holder
            with pytest.raises(UploadLockedError):
                await driver.claim(session)
        await upload.append(b"mine", None)
        await upload.sync()
        await upload.release()
        again = await driver.claim(session)
        assert again.size == len(b"mine")
        await again.release()

    async def test_one_of_many_at_once_gets_it(self, driver: Driver, session: str) -> None:
        answers = await asyncio.gather(
            *(driver.claim(session) for _ in range(32)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, BaseException)]
        assert [type(error) for error in refused] == [UploadLockedError] * 31

    async def test_sessions_do_not_meet(self, driver: Driver, session: str) -> None:
        one, other = await driver.claim(session), await driver.claim(str(uuid.uuid4()))
        await one.append(b"one", None)
        await other.append(b"other", None)
        assert await hash_of(one) == Digest.of(b"one")
        assert await hash_of(other) == Digest.of(b"other")
        await one.release()
        await other.release()

    async def test_release_may_be_called_twice(self, driver: Driver, session: str) -> None:
        upload = await driver.claim(session)
        await upload.release()
        again = await driver.claim(session)
        await upload.release()  # does not affect the present holder
        with pytest.raises(UploadLockedError):
            await driver.claim(session)
        await again.release()

    @pytest.mark.parametrize("end", ["finish", "discard"])
    async def test_release_may_follow_the_end(
        self, driver: Driver, session: str, key: str, end: str
    ) -> None:
        upload = await driver.claim(session)
        await (upload.finish(key) if end == "finish" else upload.abort())
        await upload.release()
        await upload.release()
        again = await driver.claim(session)
        assert again.size == 0
        await again.release()

    async def test_list_staged(self, driver: Driver) -> None:
        if not driver.supports_locking:
            pytest.skip("rows know")
        sessions = [str(uuid.uuid4()) for _ in range(4)]
        uploads = [await driver.claim(session) for session in sessions]
        for upload in uploads:
            await upload.append(b"staged", None)
        assert sorted(await driver.list_staged()) == sorted(sessions)  # includes claimed ones
        await uploads[0].finish(key_of(b"staged"))
        await uploads[1].abort()
        await uploads[2].release()
        assert sorted(await driver.list_staged()) == sorted(sessions[2:])
        await uploads[3].release()

    async def test_nothing_is_staged_in_an_empty_store(self, driver: Driver) -> None:
        await put(driver, b"published")
        assert await driver.list_staged() == []


Deed = Callable[[Upload], Awaitable[None]]

DEEDS: dict[str, Deed] = {
    "append": lambda upload: upload.append(b"late", None),
    "truncate": lambda upload: upload.truncate(0),
    "sync": lambda upload: upload.sync(),
    "finish": lambda upload: upload.finish(key_of(b"late")),
    "discard": lambda upload: upload.abort(),
}


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
class TestEndedHold:
    """An upload handle whose claim has ended cannot change any byte."""

    async def test_published(self, driver: Driver, session: str, key: str, deed: Deed) -> None:
        upload = await driver.claim(session)
        await upload.append(b"published", None)
        await upload.finish(key)
        with pytest.raises(UploadLockedError):
            await deed(upload)
        assert await read_object(driver, key) == b"published"
        assert await driver.list_staged() == []

    async def test_published_and_claimed_again(
        self, driver: Driver, session: str, key: str, deed: Deed
    ) -> None:
        upload = await driver.claim(session)
        await upload.append(b"published", None)
        await upload.finish(key)
        await self._require_untouched(driver, session, upload, deed)
        assert await read_object(driver, key) == b"published"

    async def test_discarded(self, driver: Driver, session: str, deed: Deed) -> None:
        upload = await driver.claim(session)
        await upload.append(b"discarded", None)
        await upload.abort()
        await self._require_untouched(driver, session, upload, deed)

    async def test_released(self, driver: Driver, session: str, deed: Deed) -> None:
        upload = await driver.claim(session)
        await upload.release()
        await self._require_untouched(driver, session, upload, deed)

    async def _require_untouched(
        self, driver: Driver, session: str, ended: Upload, deed: Deed
    ) -> None:
        """Require that the next holder keeps its bytes and its claim."""
        upload = await driver.claim(session)
        await upload.append(b"next", None)
        with pytest.raises(UploadLockedError):
            await deed(ended)
        with pytest.raises(UploadLockedError):
            await driver.claim(session)
        assert await hash_of(upload) == Digest.of(b"next")
        key = key_of(b"next")
        await upload.finish(key)
        assert await read_object(driver, key) == b"next"


class TestStagedBytes:
    """Operations of a holder on staged bytes."""

    async def test_append_adds_at_the_end(self, driver: Driver, session: str) -> None:
        upload = await driver.claim(session)
        hasher = Hasher("sha512")
        for piece in (b"one", b"", b"two", MANY):
            await upload.append(piece, hasher)
        assert upload.size == len(b"onetwo") + len(MANY)
        assert hasher.digest() == Digest.of(b"onetwo" + MANY, "sha512")
        assert await hash_of(upload) == Digest.of(b"onetwo" + MANY)
        await upload.release()

    async def test_append_without_hasher(self, driver: Driver, session: str) -> None:
        upload = await driver.claim(session)
        await upload.append(b"one", None)
        assert await hash_of(upload) == Digest.of(b"one")
        await upload.release()

    async def test_next_holder_goes_on_at_the_end(self, driver: Driver, session: str) -> None:
        for number in range(3):
            upload = await driver.claim(session)
            assert upload.size == number
            await upload.append(b"%d" % number, None)
            await upload.sync()
            await upload.release()
        upload = await driver.claim(session)
        assert await hash_of(upload) == Digest.of(b"012")
        await upload.release()

    @pytest.mark.parametrize("size", [0, 1, 5, 6])
    async def test_truncate_drops_what_was_added_since(
        self, driver: Driver, session: str, size: int
    ) -> None:
        upload = await driver.claim(session)
        await upload.append(b"abcdef"[:size], None)
        await upload.sync()
        await upload.append(b"abcdef"[size:], None)
        await upload.truncate(size)
        assert upload.size == size
        await upload.append(b"XY", None)
        assert upload.size == size + 2
        assert await hash_of(upload) == Digest.of(b"abcdef"[:size] + b"XY")
        await upload.release()

    async def test_truncate_holds_for_the_next_one(self, driver: Driver, session: str) -> None:
        upload = await driver.claim(session)
        await upload.append(b"ab", None)
        await upload.sync()
        await upload.append(b"cdef", None)
        await upload.truncate(2)
        await upload.release()
        again = await driver.claim(session)
        assert again.size == 2
        await again.release()

    async def test_hash_reads_all_and_adds_to_what_was_there(
        self, driver: Driver, session: str
    ) -> None:
        upload = await driver.claim(session)
        await upload.append(MANY, None)
        hasher = Hasher("sha256")
        hasher.update(b"before")
        await upload.hash(hasher)
        assert hasher.digest() == Digest.of(b"before" + MANY)
        assert upload.size == len(MANY)
        await upload.release()

    async def test_sync_changes_nothing_to_be_seen(self, driver: Driver, session: str) -> None:
        upload = await driver.claim(session)
        await upload.append(b"synced", None)
        await upload.sync()
        await upload.sync()
        await upload.append(b" and more", None)
        assert await hash_of(upload) == Digest.of(b"synced and more")
        with pytest.raises(UploadLockedError):
            await driver.claim(session)
        await upload.release()

    @pytest.mark.parametrize("data", [b"", b"small", MANY], ids=["empty", "small", "large"])
    async def test_finish_lets_all_of_them_appear(
        self, driver: Driver, session: str, key: str, data: bytes
    ) -> None:
        upload = await driver.claim(session)
        await upload.append(data, None)
        with pytest.raises(ObjectMissingError):
            await driver.stat(key)
        await upload.finish(key)
        assert await driver.stat(key) == len(data)
        assert await read_object(driver, key) == data
        assert await driver.list_staged() == []

    async def test_discard_removes_them(self, driver: Driver, session: str) -> None:
        upload = await driver.claim(session)
        await upload.append(b"gone", None)
        await upload.abort()
        assert await driver.list_staged() == []
        again = await driver.claim(session)
        assert again.size == 0
        await again.release()

    async def test_session_of_a_published_blob_starts_empty(
        self, driver: Driver, session: str, key: str
    ) -> None:
        upload = await driver.claim(session)
        await upload.append(b"published", None)
        await upload.finish(key)
        again = await driver.claim(session)
        assert again.size == 0
        await again.append(b"other", None)
        await again.truncate(0)
        assert await read_object(driver, key) == b"published"
        await again.release()


@pytest.mark.parametrize("driver", ["local", "memory"], indirect=True)
class TestStagedReader:
    """Readers of bytes that are being staged, in the stores that can read them."""

    async def test_reads_what_is_staged_so_far(self, driver: Driver, session: str) -> None:
        upload = await driver.claim(session)
        await upload.append(b"one", None)
        reader = await open_staged(driver, session)
        assert await reader.read(0, 100) == b"one"
        assert await reader.read(3, 100) == b""
        await upload.append(MANY, None)
        assert await reader.stat() == StagedState(3 + len(MANY), is_published=False)
        assert await reader.read(1, 4) == b"ne" + MANY[:2]
        ranges = range(0, 3 + len(MANY), CHUNK)
        pieces = await asyncio.gather(*(reader.read(start, CHUNK) for start in ranges))
        assert b"".join(pieces) == b"one" + MANY
        await reader.close()
        await reader.close()
        await upload.abort()

    async def test_stays_open_when_the_bytes_are_published(
        self, driver: Driver, session: str, key: str
    ) -> None:
        upload = await driver.claim(session)
        await upload.append(b"bytes", None)
        reader = await open_staged(driver, session)
        await upload.finish(key)
        assert await reader.stat() == StagedState(5, is_published=True)
        await driver.delete(key)
        assert await reader.read(0, 100) == b"bytes"
        await reader.close()

    async def test_stays_open_when_the_bytes_are_dropped(
        self, driver: Driver, session: str
    ) -> None:
        upload = await driver.claim(session)
        await upload.append(b"bytes", None)
        reader = await open_staged(driver, session)
        await upload.abort()
        assert not (await reader.stat()).is_published
        assert await reader.read(0, 100) == b"bytes"
        await reader.close()

    async def test_is_none_without_staged_bytes(self, driver: Driver, session: str) -> None:
        assert await driver.open_staged(session) is None


@pytest.mark.parametrize("driver", ["s3"], indirect=True)
async def test_staged_bytes_in_a_bucket_cannot_be_read(driver: Driver, session: str) -> None:
    upload = await driver.claim(session)
    await upload.append(MANY, None)
    assert await driver.open_staged(session) is None
    await upload.abort()
