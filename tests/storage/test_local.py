"""Tests of the store on disk: layout, start, and the order and modes of a durable write."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.digest import ALGORITHMS, Digest, Hasher
from storage.driver import StoredObject
from storage.errors import ObjectMissingError, StoreFullError, StoreUnavailableError
from storage.layouts import MARKER
from storage.local.directory import StoreDirectory
from storage.local.driver import LocalDriver
from storage.local.upload import CHUNK_SIZE
from tests.storage.stored_files import mode_of, put

pytestmark = pytest.mark.anyio


class TestStart:
    """The start on a directory: it becomes a store, or is refused."""

    async def test_makes_every_folder_private(self, tmp_path: Path) -> None:
        root = tmp_path / "storage"
        driver = LocalDriver(root)
        await driver.start()
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        # root, staging, blobs, and one directory with 256 in it for each algorithm
        assert len(folders) == 3 + len(ALGORITHMS) * 257
        assert {mode_of(folder) for folder in folders} == {0o700}
        assert [path.name for path in root.rglob("*") if path.is_file()] == ["VERSION"]
        await driver.close()

    async def test_every_folder_is_durable_before_the_store_is_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            path = Path(f"/proc/self/fd/{fd}").readlink()
            mark = "" if (root / "VERSION").exists() else " before VERSION"
            synced.append(f"{path.relative_to(tmp_path)}{mark}")
            real(fd)

        root = tmp_path / "made" / "too" / "storage"
        monkeypatch.setattr(os, "fsync", fsync)
        driver = LocalDriver(root)
        await driver.start()
        before = [entry.removesuffix(" before VERSION") for entry in synced[:-1]]
        assert [f"{entry} before VERSION" for entry in before] == synced[:-1]
        # The parents of new directories, and the file that becomes VERSION.
        assert sorted(entry for entry in before if "VERSION" not in entry) == [
            ".",
            "made",
            "made/too",
            "made/too/storage/blobs",
            *(f"made/too/storage/blobs/{algorithm}" for algorithm in sorted(ALGORITHMS)),
        ]
        assert Path(before[-1]).name.startswith("VERSION.")
        assert synced[-1] == "made/too/storage"
        await driver.close()

    async def test_goes_on_where_a_crash_stopped_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = tmp_path / "storage"

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "power cut")

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", fail)
            driver = LocalDriver(root)
            with pytest.raises(StoreUnavailableError):
                await driver.start()
            with pytest.raises(StoreUnavailableError):
                await driver.check()
        await driver.start()
        await driver.check()
        await driver.close()

    async def test_several_processes_make_one_store(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A second process starts, and completes its start, in the middle of the first one's."""
        root = tmp_path / "storage"
        real = os.rename
        nested: list[bool] = []

        def rename(source: Path, target: Path) -> None:
            if not nested:
                nested.append(True)
                StoreDirectory(root).prepare(create=True)
            real(source, target)

        monkeypatch.setattr(os, "rename", rename)
        driver = LocalDriver(root)
        await driver.start()
        await driver.check()
        assert nested
        assert [path.name for path in root.glob("VERSION*")] == ["VERSION"]
        await driver.close()

    @pytest.mark.parametrize("text", [b"", b"moorage storage 2\n", b"moorage storage 1", b"\xff"])
    async def test_refuses_the_store_of_another_version(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "VERSION").write_bytes(text)
        driver = LocalDriver(tmp_path)
        with pytest.raises(StoreUnavailableError, match="another version"):
            await driver.start()
        assert [path.name for path in tmp_path.iterdir()] == ["VERSION"]
        await driver.close()

    async def test_refuses_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "storage").touch()
        driver = LocalDriver(tmp_path / "storage")
        with pytest.raises(StoreUnavailableError):
            await driver.start()
        await driver.close()

    async def test_refuses_when_staging_is_gone(self, tmp_path: Path) -> None:
        (tmp_path / "VERSION").write_bytes(MARKER)
        (tmp_path / "blobs").mkdir()
        driver = LocalDriver(tmp_path)
        with pytest.raises(StoreUnavailableError):
            await driver.start()
        (tmp_path / "staging").mkdir()
        await driver.start()
        await driver.close()

    async def test_refuses_two_file_systems(self, tmp_path: Path) -> None:
        other = Path("/proc")
        assert other.stat().st_dev != tmp_path.stat().st_dev
        (tmp_path / "VERSION").write_bytes(MARKER)
        (tmp_path / "blobs").mkdir()
        (tmp_path / "staging").symlink_to(other)
        driver = LocalDriver(tmp_path)
        with pytest.raises(StoreUnavailableError, match="one file system"):
            await driver.start()
        await driver.close()


async def list_objects(driver: LocalDriver) -> list[StoredObject]:
    return [each async for page in driver.iter_objects() for each in page]


Deed = Callable[[LocalDriver, str, str], Any]


DEEDS: dict[str, Deed] = {
    "check": lambda driver, _session, _key: driver.check(),
    "claim": lambda driver, session, _key: driver.claim(session),
    "list_staged": lambda driver, _session, _key: driver.list_staged(),
    "iter_objects": lambda driver, _session, _key: list_objects(driver),
    "stat": lambda driver, _session, key: driver.stat(key),
    "open": lambda driver, _session, key: driver.open(key),
    "delete": lambda driver, _session, key: driver.delete(key),
}


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
class TestUnmounted:
    """A store whose disk is not mounted has not lost its objects."""

    async def test_empty_mount_point(
        self, tmp_path: Path, session: str, key: str, deed: Deed
    ) -> None:
        driver = LocalDriver(tmp_path)
        with pytest.raises(StoreUnavailableError):
            await deed(driver, session, key)
        assert list(tmp_path.iterdir()) == []
        await driver.close()

    async def test_with_its_disk_it_is_answered(
        self, local: LocalDriver, session: str, key: str, deed: Deed
    ) -> None:
        """The control of these tests."""
        if deed in (DEEDS["stat"], DEEDS["open"]):
            with pytest.raises(ObjectMissingError):
                await deed(local, session, key)
        elif deed is DEEDS["claim"]:
            await (await local.claim(session)).release()
        else:
            await deed(local, session, key)

    async def test_disk_that_cannot_be_asked(
        self, local: LocalDriver, session: str, key: str, deed: Deed, monkeypatch: Any
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, "no answer")

        for name in ("stat", "unlink", "listdir", "scandir"):
            monkeypatch.setattr(os, name, fail)
        with pytest.raises(StoreUnavailableError):
            await deed(local, session, key)


@pytest.mark.parametrize("name", ["check", "claim", "stat", "open", "delete"])
async def test_folders_without_marker_are_not_ours(
    tmp_path: Path, session: str, key: str, name: str
) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / key).parent.mkdir(parents=True)
    driver = LocalDriver(tmp_path)
    with pytest.raises(StoreUnavailableError):
        await DEEDS[name](driver, session, key)
    (tmp_path / "VERSION").write_bytes(MARKER)
    await driver.check()
    await driver.close()


async def test_reserve_is_kept_free(root: Path, session: str) -> None:
    free = os.statvfs(root)
    driver = LocalDriver(root, reserve=free.f_bavail * free.f_frsize + (1 << 40))
    upload = await driver.claim(session)
    with pytest.raises(StoreFullError):
        await upload.append(b"x", None)
    assert upload.size == 0
    driver.directory.reserve = 0
    await upload.append(b"x", None)
    driver.directory.reserve = 1 << 60
    await upload.abort()  # deletions may use the reserve
    await driver.close()


@pytest.mark.parametrize("session", ["", ".", "..", "../blobs", "a/b", "A" * 36, "VERSION"])
async def test_session_that_is_no_lower_case_uuid(local: LocalDriver, session: str) -> None:
    with pytest.raises(ValueError, match=r"^.*$"):
        await local.claim(session)
    with pytest.raises(ValueError, match=r"^.*$"):
        await local.claim("00000000-0000-0000-0000-00000000000A")


async def test_what_is_no_session_is_not_listed(local: LocalDriver, root: Path) -> None:
    (root / "staging" / "lost+found").mkdir()
    assert await local.list_staged() == []


async def test_empty_shards_cost_no_thread_job(
    local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[object] = []
    read = local._threads.read

    async def count(job: Any) -> Any:
        jobs.append(job)
        return await read(job)

    monkeypatch.setattr(local._threads, "read", count)
    assert await list_objects(local) == []
    assert len(jobs) == 1
    jobs.clear()
    await put(local, session, key, b"data")
    assert [each.key for each in await list_objects(local)] == [key]
    # The names in its shard, their metadata, and the shards that follow.
    assert len(jobs) == 3


@pytest.mark.parametrize("length", [0, 1, CHUNK_SIZE, 3 * CHUNK_SIZE + 1])
async def test_objects_are_read_in_pieces(
    local: LocalDriver, session: str, key: str, length: int
) -> None:
    await put(local, session, key, bytes(length))
    reader = await local.open(key)
    sizes = [len(piece) async for piece in reader.read(0, length)]
    assert sum(sizes) == length
    assert all(0 < size <= CHUNK_SIZE for size in sizes)
    await reader.close()


async def test_the_loop_never_waits_for_the_disk(
    local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that can wait for a disk runs on another thread than the loop's."""
    threads: dict[str, set[int]] = {}
    watched = "open close stat fstat statvfs pwrite pread ftruncate fsync fchmod rename unlink"

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **more: Any) -> Any:
            threads.setdefault(name, set()).add(threading.get_ident())
            return real(*args, **more)

        return call

    for name in (*watched.split(), "listdir", "scandir"):
        monkeypatch.setattr(os, name, noted(name))
    await local.start()
    await local.check()
    upload = await local.claim(session)
    await upload.append(b"data", None)
    await upload.truncate(3)
    await upload.hash(Hasher("sha256"))
    await upload.sync()
    await local.list_staged()
    await upload.finish(key)
    await list_objects(local)
    await local.stat(key)
    reader = await local.open(key)
    async for _ in reader.read(0, 3):
        pass
    await reader.close()
    await local.delete(key)
    await (await local.claim(session)).abort()
    assert set(threads) >= set(watched.split())
    here = threading.get_ident()
    assert [name for name, seen in threads.items() if here in seen] == []
    os.stat("/")  # noqa: PTH116 - the control: a call from here is seen
    assert here in threads["stat"]


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 1, 5, 6])
async def test_truncate_drops_from_anywhere_on(local: LocalDriver, session: str, size: int) -> None:
    """The bytes that a killed request had synced but not acknowledged are dropped too."""
    upload = await local.claim(session)
    await upload.append(b"abcdef", None)
    await upload.sync()
    await upload.release()
    upload = await local.claim(session)
    await upload.truncate(size)
    await upload.append(b"XY", None)
    hasher = Hasher("sha256")
    await upload.hash(hasher)
    assert hasher.digest() == Digest.of(b"abcdef"[:size] + b"XY")
    await upload.release()
