"""Failing writes, flushes and publications of the local driver."""

import errno
import os
import stat
from pathlib import Path

import pytest

from storage.digest import Digest, Hasher
from storage.errors import (
    ObjectMissingError,
    StoreFullError,
    StoreUnavailableError,
    UploadLockedError,
)
from storage.local.driver import LocalDriver
from tests.storage.local_faults.helpers import failing, hash_of

pytestmark = pytest.mark.anyio


async def test_short_writes_are_looped(
    local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = os.pwrite, []

    def pwrite(fd: int, data: memoryview, at: int) -> int:
        sizes.append(real(fd, data[:7], at))
        return sizes[-1]

    monkeypatch.setattr(os, "pwrite", pwrite)
    upload = await local.claim(session)
    data = bytes(range(100))
    await upload.append(data[:40], None)
    await upload.append(data[40:], None)
    assert upload.size == 100
    assert sizes == [7] * 5 + [5] + [7] * 8 + [4]
    await upload.finish(key)
    assert local.path(key).read_bytes() == data


class TestFull:
    """A full disk: half-written bytes do not count as staged."""

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
    async def test_append(
        self,
        local: LocalDriver,
        session: str,
        key: str,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
    ) -> None:
        upload = await local.claim(session)
        hasher = Hasher("sha256")
        await upload.append(b"before,", hasher)
        real = os.pwrite

        def pwrite(fd: int, data: memoryview, at: int) -> int:
            if at > len("before,"):
                raise OSError(number, "made up")
            return real(fd, data[:3], at)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            with pytest.raises(StoreFullError):
                await upload.append(b"lost", hasher)
        assert upload.size == len(b"before,")
        assert hasher.digest() == await hash_of(upload) == Digest.of(b"before,")
        await upload.append(b"now", hasher)
        await upload.finish(key)
        assert local.path(key).read_bytes() == b"before,now"

    async def test_what_was_half_written_is_no_part_of_the_object(
        self, local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = await local.claim(session)
        real = os.pwrite

        def pwrite(fd: int, data: memoryview, at: int) -> int:
            if at:
                raise OSError(errno.ENOSPC, "made up")
            return real(fd, data[:3], at)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            with pytest.raises(StoreFullError):
                await upload.append(b"lost", None)
        assert await hash_of(upload) == Digest.of(b"")
        await upload.finish(key)
        assert local.path(key).read_bytes() == b""

    async def test_no_room_for_a_name(self, local: LocalDriver, session: str) -> None:
        with failing("open", errno.ENOSPC), pytest.raises(StoreFullError):
            await local.claim(session)


class TestFsync:
    """A failed fsync is final for its file: the kernel would report success for the next one."""

    @pytest.mark.parametrize("end", ["sync", "finish"])
    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
    async def test_file_is_dropped(
        self, local: LocalDriver, session: str, key: str, end: str, number: int
    ) -> None:
        upload = await local.claim(session)
        await upload.append(b"never durable", None)
        with (
            failing("fsync", number, lambda path: session in path) as failed,
            pytest.raises(StoreUnavailableError) as caught,
        ):
            await (upload.sync() if end == "sync" else upload.finish(key))
        assert isinstance(caught.value, StoreFullError) == (number == errno.ENOSPC)
        assert len(failed) == 1
        assert await local.list_staged() == []
        with pytest.raises(ObjectMissingError):
            await local.stat(key)
        await upload.release()

    @pytest.mark.parametrize("end", ["sync", "finish"])
    async def test_never_synced_again(
        self, local: LocalDriver, session: str, key: str, end: str
    ) -> None:
        """The rule holds even if the caller continues after the error."""
        upload = await local.claim(session)
        await upload.append(b"never durable", None)
        with failing("fsync", errno.EIO), pytest.raises(StoreUnavailableError):
            await upload.sync()
        with failing("fsync", errno.EIO) as failed, pytest.raises(UploadLockedError):
            await (upload.sync() if end == "sync" else upload.finish(key))
        assert failed == []
        with pytest.raises(ObjectMissingError):
            await local.stat(key)
        await upload.release()

    @pytest.mark.parametrize("deed", ["append", "sync", "finish", "discard"])
    async def test_its_name_may_be_anothers_by_then(
        self, local: LocalDriver, session: str, key: str, deed: str
    ) -> None:
        upload = await local.claim(session)
        with failing("fsync", errno.EIO), pytest.raises(StoreUnavailableError):
            await upload.sync()
        other = await local.claim(session)
        await other.append(b"the other's", None)
        with failing("fsync", errno.EIO), pytest.raises(UploadLockedError):
            await {
                "append": lambda: upload.append(b"late", None),
                "sync": upload.sync,
                "finish": lambda: upload.finish("blobs/sha256/00/late"),
                "discard": upload.abort,
            }[deed]()
        await upload.release()
        await other.finish(key)
        assert local.path(key).read_bytes() == b"the other's"

    async def test_of_the_folder(self, local: LocalDriver, session: str) -> None:
        """Otherwise the name of the file may be lost, and its bytes with it."""
        upload = await local.claim(session)
        with (
            failing("fsync", errno.EIO, lambda path: path.endswith("/staging")),
            pytest.raises(StoreUnavailableError),
        ):
            await upload.sync()
        assert await local.list_staged() == []
        await upload.release()

    async def test_of_the_last_piece(self, local: LocalDriver, session: str) -> None:
        upload = await local.claim(session)
        with failing("fsync", errno.EIO), pytest.raises(StoreUnavailableError):
            await upload.append_and_sync(b"never durable", None)
        assert await local.list_staged() == []
        with failing("fsync", errno.EIO) as failed, pytest.raises(UploadLockedError):
            await upload.sync_bytes()
        assert failed == []
        await upload.release()

    async def test_disk_turned_read_only(self, local: LocalDriver, session: str) -> None:
        """File systems turn read-only after a failed write. Then discarding is impossible too."""
        upload = await local.claim(session)
        with (
            failing("fsync", errno.EIO),
            failing("unlink", errno.EROFS),
            pytest.raises(StoreUnavailableError),
        ):
            await upload.sync()
        with failing("fsync", errno.EIO) as failed, pytest.raises(UploadLockedError):
            await upload.sync()
        assert failed == []
        await (await local.claim(session)).abort()


class TestPublishing:
    """A publication that fails after the bytes are durable."""

    async def test_rename(self, local: LocalDriver, session: str, key: str, root: Path) -> None:
        upload = await local.claim(session)
        await upload.append(b"kept", None)
        with failing("rename", errno.EIO), pytest.raises(StoreUnavailableError):
            await upload.finish(key)
        with pytest.raises(ObjectMissingError):
            await local.stat(key)
        # A process that is not root must be able to open it again.
        assert stat.S_IMODE((root / "staging" / session).stat().st_mode) == 0o600
        again = await local.claim(session)  # the failed publication ended the claim
        assert again.size == len(b"kept")
        await again.finish(key)
        assert local.path(key).read_bytes() == b"kept"

    @pytest.mark.parametrize("deed", ["append", "truncate"])
    async def test_fsync_of_the_shard(
        self, local: LocalDriver, session: str, key: str, deed: str
    ) -> None:
        """The object exists, but may be lost in a power cut. It must not be written to."""
        upload = await local.claim(session)
        await upload.append(b"published", None)
        shard = str(local.path(key).parent)
        with (
            failing("fsync", errno.EIO, lambda path: path == shard),
            pytest.raises(StoreUnavailableError),
        ):
            await upload.finish(key)
        with pytest.raises(UploadLockedError):
            await (upload.append(b"late", None) if deed == "append" else upload.truncate(0))
        assert local.path(key).read_bytes() == b"published"
        assert await local.list_staged() == []

    async def test_key_of_an_ended_session(
        self, local: LocalDriver, session: str, key: str
    ) -> None:
        """A request that read the session before its end must not replace the object."""
        upload = await local.claim(session)
        await upload.append(b"published", None)
        await upload.finish(key)
        late = await local.claim(session)
        await late.append(b"other", None)
        with pytest.raises(UploadLockedError):
            await late.finish(key)
        assert local.path(key).read_bytes() == b"published"
        await (await local.claim(session)).abort()

    async def test_discard(self, local: LocalDriver, session: str) -> None:
        upload = await local.claim(session)
        with failing("unlink", errno.EIO), pytest.raises(StoreUnavailableError):
            await upload.abort()
        await (await local.claim(session)).abort()
