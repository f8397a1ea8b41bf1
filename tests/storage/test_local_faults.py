"""Tests of a failing disk: promises hold, and operations without a promise are refused."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiofiles.threadpool.binary import AsyncFileIO

from storage.digest import Digest, Hasher
from storage.errors import (
    ObjectCorruptError,
    ObjectMissingError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UploadLockedError,
)
from storage.local.driver import LocalDriver
from storage.local.upload import CHUNK_SIZE, LocalUpload
from tests.support.kit import list_open_files

pytestmark = pytest.mark.anyio


@contextlib.contextmanager
def failing(
    name: str, number: int, when: Callable[[str], bool] = lambda _: True
) -> Iterator[list[str]]:
    """Let `os.<name>` fail with `number` on matching paths. Yield the paths it failed on."""
    failed: list[str] = []
    real = getattr(os, name)

    def call(what: int | str | Path, *args: object) -> object:
        path = str(Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else what)
        if when(path):
            failed.append(path)
            raise OSError(number, "made up", path)
        return real(what, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, call)
        yield failed


async def hash_of(upload: LocalUpload) -> Digest:
    hasher = Hasher("sha256")
    await upload.hash(hasher)
    return hasher.digest()


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

    async def test_discard(self, local: LocalDriver, session: str) -> None:
        upload = await local.claim(session)
        with failing("unlink", errno.EIO), pytest.raises(StoreUnavailableError):
            await upload.abort()
        await (await local.claim(session)).abort()


class TestStagedFile:
    """A staged file that is not what it must be, or cannot be used."""

    async def test_link(self, local: LocalDriver, session: str, root: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.write_bytes(b"not ours")
        (root / "staging" / session).symlink_to(target)
        with pytest.raises(StoreUnavailableError):
            await local.claim(session)
        assert target.read_bytes() == b"not ours"

    async def test_folder(self, local: LocalDriver, session: str, root: Path) -> None:
        (root / "staging" / session).mkdir()
        with pytest.raises(StoreUnavailableError):
            await local.claim(session)

    @pytest.mark.parametrize("name", ["open", "fstat"])
    async def test_claim_leaves_nothing_open(
        self, local: LocalDriver, session: str, name: str
    ) -> None:
        await local.check()  # starts its threads
        before = list_open_files(local.path(""))
        with failing(name, errno.EMFILE), pytest.raises(StoreUnavailableError):
            await local.claim(session)
        assert list_open_files(local.path("")) == before

    @pytest.mark.parametrize("name", ["pwrite", "ftruncate", "pread", "statvfs"])
    async def test_use(self, local: LocalDriver, session: str, name: str) -> None:
        upload = await local.claim(session)
        await upload.append(b"staged", None)
        with failing(name, errno.EIO), pytest.raises(StoreUnavailableError) as caught:
            await {
                "pwrite": lambda: upload.append(b"more", None),
                "statvfs": lambda: upload.append(b"more", None),
                "ftruncate": lambda: upload.truncate(0),
                "pread": lambda: upload.hash(Hasher("sha256")),
            }[name]()
        assert not isinstance(caught.value, StoreFullError)
        assert upload.size == len(b"staged")
        assert await hash_of(upload) == Digest.of(b"staged")
        await upload.release()

    async def test_shortened_behind_our_back(
        self, local: LocalDriver, session: str, root: Path
    ) -> None:
        upload = await local.claim(session)
        await upload.append(b"staged", None)
        os.truncate(root / "staging" / session, 3)
        with pytest.raises(StoreUnavailableError):
            await hash_of(upload)
        await upload.release()

    async def test_close(self, local: LocalDriver, session: str) -> None:
        """A descriptor is gone after close, whatever close returned."""
        upload = await local.claim(session)
        real = os.close

        def close(fd: int) -> None:
            real(fd)
            raise OSError(errno.EIO, "made up")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "close", close)
            with pytest.raises(StoreUnavailableError):
                await upload.release()
        await upload.release()
        await (await local.claim(session)).release()


class TestReading:
    """An object that has changed."""

    async def put(self, local: LocalDriver, session: str, key: str, data: bytes) -> Path:
        upload = await local.claim(session)
        await upload.append(data, None)
        await upload.finish(key)
        return local.path(key)

    @pytest.mark.parametrize("left", [0, 1, CHUNK_SIZE, 2 * CHUNK_SIZE - 1])
    async def test_cut_while_open(
        self, local: LocalDriver, session: str, key: str, left: int
    ) -> None:
        path = await self.put(local, session, key, bytes(2 * CHUNK_SIZE))
        reader = await local.open(key)
        os.truncate(path, left)
        got: list[int] = []

        async def read() -> None:
            async for piece in reader.read(0, reader.size):
                got.append(len(piece))  # noqa: PERF401 - kept when the reading ends in an error

        with pytest.raises(ObjectCorruptError):
            await read()
        assert sum(got) == left
        await reader.close()

    async def test_broken_sector(
        self, local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self.put(local, session, key, b"data")
        reader = await local.open(key)

        async def fail(*_: object) -> bytes:
            raise OSError(errno.EIO, "made up")

        monkeypatch.setattr(AsyncFileIO, "read", fail)
        with pytest.raises(ObjectCorruptError):
            async for _ in reader.read(0, 4):
                pass
        await reader.close()

    async def test_gone_between_look_and_open(
        self, local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = await self.put(local, session, key, b"data")
        real = local.stat

        async def stat_then_lose(key: str) -> int:
            size = await real(key)
            path.unlink()
            return size

        monkeypatch.setattr(local, "stat", stat_then_lose)
        with pytest.raises(ObjectMissingError):
            await local.open(key)

    async def test_too_many_open_files(
        self, local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self.put(local, session, key, b"data")

        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.EMFILE, "made up")

        monkeypatch.setattr("aiofiles.threadpool.sync_open", fail)
        with pytest.raises(StoreUnavailableError):
            await local.open(key)

    async def test_delete(self, local: LocalDriver, session: str, key: str) -> None:
        await self.put(local, session, key, b"data")
        with failing("unlink", errno.EROFS), pytest.raises(StoreUnavailableError):
            await local.delete(key)
        with failing("fsync", errno.EIO), pytest.raises(StoreUnavailableError):
            await local.delete(key)


@pytest.mark.parametrize("name", ["open", "pwrite", "fsync", "rename", "statvfs"])
async def test_no_message_holds_a_path(
    local: LocalDriver, session: str, key: str, root: Path, name: str
) -> None:
    async def push() -> None:
        upload = await local.claim(session)
        try:
            await upload.append(b"data", None)
            await upload.finish(key)
        finally:
            await upload.release()

    with failing(name, errno.EIO), pytest.raises(StoreError) as caught:
        await push()
    message = str(caught.value)
    assert "EIO" in message
    assert str(root) not in message
    assert session not in message
    assert "made up" not in message
    assert isinstance(caught.value.__cause__, OSError)  # for the log
