"""The folder of a backup.

    VERSION, staging/, blobs/<algorithm>/<first two hex>/<hex>    a local store (`storage.keys`)
    snapshots/<id>/metadata.db        all rows
    snapshots/<id>/keys.json          private keys, encrypted, if they were asked for
    snapshots/<id>/snapshot.json      what it is, with the digests of the other two
    snapshots/<id>.partial/           being made, or being removed
    lock

A snapshot gets its name when all that it needs is there and durable, and loses it before anything
of it goes: whatever has a name is whole.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

from registry.errors import BackupError, DigestMismatchError
from registry.metadata.snapshots import SnapshotFile
from registry.services.backup import snapshot
from registry.services.backup.snapshot import KEYS, METADATA, File, Snapshot
from storage.digest import ALGORITHMS, Digest, Hasher
from storage.driver import Driver, Reader
from storage.errors import ObjectDamagedError, ObjectMissingError, StoreError
from storage.keys import archive_key, shard
from storage.open import open_driver
from storage.settled import settled
from storage.staging import Staging

T = TypeVar("T")

_PARTIAL = ".partial"

MISSING = "missing"
DAMAGED = "damaged"


class Target:
    """An open folder of backups."""

    def __init__(self, folder: Path, driver: Driver) -> None:
        self.folder = folder
        self._snapshots = folder / "snapshots"
        self._driver = driver
        self._staging = Staging(driver)

    # --- snapshots -----------------------------------------------------------------------------

    def list_ids(self) -> list[str]:
        """The snapshots that are complete, the oldest first. Blocking, as all without `async`."""
        with self._faults():
            names = [path.name for path in self._snapshots.iterdir()]
        return sorted(filter(snapshot.is_id, names))

    def find_newest(self) -> str:
        """The newest snapshot; BackupError if there is none."""
        ids = self.list_ids()
        if not ids:
            raise BackupError(f"there is no complete snapshot in {self.folder}")
        return ids[-1]

    def read(self, name: str) -> Snapshot:
        """What a snapshot says about itself; BackupError if there is none, or it is damaged."""
        if name not in self.list_ids():
            raise BackupError(f"there is no snapshot {name} in {self.folder}")
        with self._faults():
            return snapshot.decode((self._path(name) / snapshot.NAME).read_bytes(), name)

    def list_damaged(self, found: Snapshot) -> dict[str, str]:
        """Which files of the snapshot are not what was written, and why. They are read to their
        end.
        """
        reasons = {name: self._find_fault(found, name) for name in found.files}
        return {name: reason for name, reason in reasons.items() if reason}

    def require_metadata(self, found: Snapshot) -> None:
        """BackupError unless the rows of the snapshot are as they were written."""
        if reason := self._find_fault(found, METADATA):
            raise BackupError(f"the snapshot {found.id} cannot be used: {METADATA} is {reason}")

    def _find_fault(self, found: Snapshot, name: str) -> str:
        with self._faults():
            try:
                actual = snapshot.hash_file(self._path(found.id) / name)
            except FileNotFoundError:
                return MISSING
        return "" if actual == found.files[name] else DAMAGED

    def copy_metadata(self, found: Snapshot, to: Path) -> None:
        """Copy the rows of a snapshot; BackupError unless they are as they were written."""
        self.require_metadata(found)
        try:
            shutil.copyfile(self.metadata_of(found.id), to)
        except OSError as error:
            raise BackupError(f"{error.filename}: {error.strerror}") from error

    def read_keys(self, name: str) -> bytes:
        with self._faults():
            return (self._path(name) / KEYS).read_bytes()

    def metadata_of(self, name: str) -> Path:
        return self._path(name) / METADATA

    def open_metadata(self, name: str) -> SnapshotFile:
        return SnapshotFile(self.metadata_of(name))

    def begin(self, name: str) -> Path:
        """The folder in which a snapshot is made."""
        with self._faults():
            path = self.unfinished(name)
            path.mkdir(mode=0o700)
            return path

    def unfinished(self, name: str) -> Path:
        """Where a snapshot is before it has its name."""
        return self._path(name + _PARTIAL)

    def write_keys(self, name: str, raw: bytes) -> None:
        with self._faults():
            _write(self.unfinished(name) / KEYS, raw)

    def measure(self, name: str, file: str) -> File:
        """Make a file of an unfinished snapshot durable; what it is."""
        path = self.unfinished(name) / file
        with self._faults():
            path.chmod(0o600)
            _fsync(path)
            return snapshot.hash_file(path)

    def finish(self, made: Snapshot) -> None:
        """Give the snapshot its name: all that it names is durable."""
        partial = self.unfinished(made.id)
        with self._faults():
            _write(partial / snapshot.NAME, snapshot.encode(made))
            _fsync(partial)
            partial.rename(self._path(made.id))
            _fsync(self._snapshots)

    def remove(self, name: str) -> None:
        """Take the name away, then the files. Its blobs stay."""
        partial = self.unfinished(name)
        with self._faults():
            self._path(name).rename(partial)
            _fsync(self._snapshots)
            shutil.rmtree(partial)

    def _path(self, name: str) -> Path:
        return self._snapshots / name

    # --- blobs ---------------------------------------------------------------------------------

    async def has(self, digest: Digest, size: int) -> bool:
        """Whether the blob is there, in its length."""
        return await self._find_size(digest) == size

    async def _find_size(self, digest: Digest) -> int | None:
        with contextlib.suppress(ObjectMissingError), self._store_faults():
            return await self._driver.stat(archive_key(digest))
        return None

    async def put(self, digest: Digest, body: AsyncIterable[bytes]) -> None:
        """Write a blob durably, verified while it is written; DigestMismatchError if it is another,
        BackupError, and what `body` raises: then nothing of it is there.
        """
        with self._store_faults():
            staged = await self._staging.claim(str(uuid.uuid4()))
            try:
                await staged.resume(0, digest.algorithm, None)
                await staged.append(body)
                _require_same(digest, await staged.digest(digest.algorithm, None))
                await staged.publish(archive_key(digest))
            except BaseException:
                with contextlib.suppress(StoreError):
                    await staged.discard()
                raise
            finally:
                await staged.release()

    async def open(self, digest: Digest, size: int) -> Reader | None:
        """The blob, if it is there in its length. The caller closes it."""
        with contextlib.suppress(ObjectMissingError), self._store_faults():
            reader = await self._driver.open(archive_key(digest))
            if reader.size == size:
                return reader
            await reader.close()
        return None

    async def find_fault(self, digest: Digest, size: int) -> str:
        """What is wrong with the blob, all of which is read; empty: nothing."""
        reader = await self.open(digest, size)
        if reader is None:
            return MISSING if await self._find_size(digest) is None else DAMAGED
        hasher = Hasher(digest.algorithm)
        try:
            async for piece in reader.read(0, size):
                await asyncio.to_thread(hasher.update, piece)
        except ObjectDamagedError:
            return DAMAGED
        finally:
            await reader.close()
        return "" if hasher.digest() == digest else DAMAGED

    async def iter_blobs(self) -> AsyncIterator[tuple[Digest, int]]:
        """All blobs there are with their sizes, in order of digests; other files are left out."""
        for algorithm in sorted(ALGORITHMS):
            for first in range(256):
                for found in await self.run(lambda a=algorithm, f=first: self._list(a, f"{f:02x}")):  # type: ignore[misc]
                    yield found

    def _list(self, algorithm: str, first: str) -> list[tuple[Digest, int]]:
        found = []
        with self._faults(), os.scandir(self.folder / shard(algorithm, first)) as entries:
            for entry in entries:
                with contextlib.suppress(ValueError):
                    digest = Digest.parse(f"{algorithm}:{entry.name}")
                    found.append((digest, entry.stat().st_size))
        return sorted(found)

    async def delete(self, digest: Digest) -> None:
        with self._store_faults():
            await self._driver.delete(archive_key(digest))

    # --- the folder ----------------------------------------------------------------------------

    async def tidy(self) -> None:
        """Remove what a command left that was killed; the blobs that it copied are kept."""
        await self.run(self._remove_partial)
        with self._store_faults():
            for name in await self._driver.list_staged():
                staged = await self._staging.claim(name)
                await staged.discard()

    def _remove_partial(self) -> None:
        with self._faults():
            for path in self._snapshots.glob(f"*{_PARTIAL}"):
                shutil.rmtree(path)

    @staticmethod
    async def run(job: Callable[[], T]) -> T:
        """Do what blocks on a thread, to its end."""
        return await settled(asyncio.to_thread(job))

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            name = error.filename or self.folder
            raise BackupError(f"{name}: {error.strerror}") from error

    @contextlib.contextmanager
    def _store_faults(self) -> Iterator[None]:
        """Tell this folder's failures from those of the registry's store."""
        try:
            yield
        except ObjectMissingError:
            raise
        except StoreError as error:
            raise BackupError(f"{self.folder}: {error}") from error


@contextlib.asynccontextmanager
async def open_target(folder: Path, *, alone: bool, create: bool = False) -> AsyncIterator[Target]:
    """Open a folder of backups, `alone` to change what is in it; with `create`, one that is empty
    or not there becomes one. BackupError.
    """
    driver = open_driver("local", root=folder, beside=("lock", "snapshots"))
    target = Target(folder, driver)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, await target.run(lambda: _lock(folder, alone, create)))
        try:
            await driver.start(create=create)
        except StoreError as error:
            raise BackupError(f"{folder}: {error}") from error
        try:
            yield target
        finally:
            await driver.close()


def _lock(folder: Path, alone: bool, create: bool) -> int:
    """Hold the folder until the descriptor is closed."""
    try:
        if create:
            _create(folder)
        if not (folder / "snapshots").is_dir():
            raise BackupError(f"there are no backups in {folder}")
        if (folder / "VERSION").exists():
            _complete(folder)
        flags = os.O_RDWR | os.O_CREAT if alone else os.O_RDONLY
        descriptor = os.open(folder / "lock", flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BackupError(f"{folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            raise BackupError(f"another command is at work on {folder}") from error
        raise BackupError(f"{folder}: {error.strerror}") from error
    return descriptor


def _create(folder: Path) -> None:
    """Make the folder, unless it is a backup already; BackupError if it is anything else."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / "snapshots").is_dir():
        return
    if any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty, and holds no backups: name another folder")
    (folder / "snapshots").mkdir(mode=0o700)
    _fsync(folder)
    _fsync(folder.parent)


def _complete(folder: Path) -> None:
    """Make the folders that are empty anew: buckets have none, and many tools leave them out."""
    shards = [shard(algorithm, f"{n:02x}") for algorithm in sorted(ALGORITHMS) for n in range(256)]
    for name in ("staging", *shards):
        path = folder / name
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _require_same(expected: Digest, actual: Digest) -> None:
    if actual != expected:
        raise DigestMismatchError("the bytes do not have this digest")


def _write(path: Path, raw: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
