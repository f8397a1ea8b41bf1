"""Failing staged files and reads of the local driver."""

import errno
import os
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
)
from storage.local.driver import LocalDriver
from storage.local.reader import SMALL_READ
from storage.local.upload import CHUNK_SIZE
from tests.storage.local_faults.helpers import failing, hash_of
from tests.support.kit import list_open_files

pytestmark = pytest.mark.anyio


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
        path.chmod(0o600)
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
        await self.put(local, session, key, bytes(SMALL_READ + 1))
        reader = await local.open(key)

        async def fail(*_: object) -> bytes:
            raise OSError(errno.EIO, "made up")

        monkeypatch.setattr(AsyncFileIO, "read", fail)
        with pytest.raises(ObjectCorruptError):
            async for _ in reader.read(0, 4):
                pass
        await reader.close()

    async def test_broken_sector_of_a_small_object(
        self, local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The object exists, so opening it succeeds as for a large one, and reading it fails."""
        await self.put(local, session, key, b"data")
        with failing("pread", errno.EIO):
            reader = await local.open(key)
        assert reader.size == 4

        async def fail(*_: object) -> bytes:
            raise OSError(errno.EIO, "made up")

        monkeypatch.setattr(AsyncFileIO, "read", fail)
        with pytest.raises(ObjectCorruptError):
            async for _ in reader.read(0, 4):
                pass
        await reader.close()

    async def test_cut_while_a_small_object_is_opened(
        self, local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = await self.put(local, session, key, b"data")
        real = os.pread

        def pread(fd: int, size: int, at: int) -> bytes:
            path.chmod(0o600)
            os.truncate(path, 3)
            return real(fd, size, at)

        monkeypatch.setattr(os, "pread", pread)
        reader = await local.open(key)
        with pytest.raises(ObjectCorruptError):
            async for _ in reader.read(0, 4):
                pass
        await reader.close()
        assert list_open_files(path) == []

    @pytest.mark.parametrize("size", [0, SMALL_READ, SMALL_READ + 1])
    async def test_small_objects_leave_no_file_open(
        self, local: LocalDriver, session: str, key: str, size: int
    ) -> None:
        path = await self.put(local, session, key, bytes(size))
        reader = await local.open(key)
        assert bool(list_open_files(path)) == (size > SMALL_READ) == (reader.file is not None)
        path.unlink()
        assert b"".join([piece async for piece in reader.read(0, size)]) == bytes(size)
        await reader.close()

    async def test_link_or_folder_in_place_of_an_object(
        self, local: LocalDriver, session: str, key: str, tmp_path: Path
    ) -> None:
        path = await self.put(local, session, key, b"data")
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ObjectMissingError):
            await local.open(key)
        path.unlink()
        path.mkdir()
        with pytest.raises(ObjectMissingError):
            await local.open(key)

    async def test_too_many_open_files(self, local: LocalDriver, session: str, key: str) -> None:
        await self.put(local, session, key, b"data")
        with failing("open", errno.EMFILE), pytest.raises(StoreUnavailableError):
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
