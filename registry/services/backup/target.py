"""The backup directory.

    VERSION, staging/, blobs/<algorithm>/<first two hex>/<hex>    a local store (`storage.keys`)
    snapshots/<id>/metadata.db        all rows
    snapshots/<id>/keys.json          private keys, encrypted, if requested
    snapshots/<id>/snapshot.json      description, with the digests of the other two files
    snapshots/<id>.partial/           being created or deleted
    lock

A snapshot gets its final name when everything it needs is durable, and loses it before anything is
deleted. Every snapshot with a final name is therefore complete.
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
from registry.metadata.maintenance.backup_snapshot import SnapshotFile
from registry.services.backup import snapshot
from registry.services.backup.snapshot import KEYS, METADATA, File, Snapshot
from storage.digest import ALGORITHMS, Digest, Hasher
from storage.driver import Driver, Reader
from storage.errors import ObjectCorruptError, ObjectMissingError, StoreError
from storage.factory import create_driver
from storage.keys import archive_key, shard
from storage.shield import run_to_completion
from storage.staging import StagingArea

T = TypeVar("T")

_PARTIAL = ".partial"

MISSING = "missing"
DAMAGED = "damaged"


class BackupRepository:
    """An open backup directory. Methods without `async` are blocking."""

    def __init__(self, folder: Path, driver: Driver) -> None:
        self.folder = folder
        self._snapshots = folder / "snapshots"
        self._driver = driver
        self._staging = StagingArea(driver)

    # --- snapshots -----------------------------------------------------------------------------

    def list_ids(self) -> list[str]:
        """Return the ids of the complete snapshots, oldest first."""
        with self._translate_os_errors():
            names = [path.name for path in self._snapshots.iterdir()]
        return sorted(filter(snapshot.is_id, names))

    def find_newest(self) -> str:
        """Return the newest snapshot. Raises BackupError if there is none."""
        ids = self.list_ids()
        if not ids:
            raise BackupError(f"no complete snapshot in {self.folder}")
        return ids[-1]

    def read(self, name: str) -> Snapshot:
        """Return the description of a snapshot. Raises BackupError if it is missing or damaged."""
        if name not in self.list_ids():
            raise BackupError(f"no snapshot {name} in {self.folder}")
        with self._translate_os_errors():
            return snapshot.decode((self._path(name) / snapshot.NAME).read_bytes(), name)

    def list_damaged(self, found: Snapshot) -> dict[str, str]:
        """Return the damaged or missing files of the snapshot, with reasons.

        All files are read completely.
        """
        reasons = {name: self._find_fault(found, name) for name in found.files}
        return {name: reason for name, reason in reasons.items() if reason}

    def require_metadata(self, found: Snapshot) -> None:
        """Raise BackupError if the metadata file of the snapshot is missing or damaged."""
        if reason := self._find_fault(found, METADATA):
            raise BackupError(f"snapshot {found.id} cannot be used: {METADATA} is {reason}")

    def _find_fault(self, found: Snapshot, name: str) -> str:
        with self._translate_os_errors():
            try:
                actual = snapshot.hash_file(self._path(found.id) / name)
            except FileNotFoundError:
                return MISSING
        return "" if actual == found.files[name] else DAMAGED

    def copy_metadata(self, found: Snapshot, to: Path) -> None:
        """Copy the metadata file of a snapshot. Raises BackupError if it is missing or damaged."""
        self.require_metadata(found)
        try:
            shutil.copyfile(self.metadata_of(found.id), to)
        except OSError as error:
            raise BackupError(f"{error.filename}: {error.strerror}") from error

    def read_keys(self, name: str) -> bytes:
        with self._translate_os_errors():
            return (self._path(name) / KEYS).read_bytes()

    def metadata_of(self, name: str) -> Path:
        return self._path(name) / METADATA

    def open_metadata(self, name: str) -> SnapshotFile:
        return SnapshotFile(self.metadata_of(name))

    def begin(self, name: str) -> Path:
        """Create the directory of an unfinished snapshot."""
        with self._translate_os_errors():
            path = self.unfinished(name)
            path.mkdir(mode=0o700)
            return path

    def unfinished(self, name: str) -> Path:
        """Return the directory of a snapshot without its final name."""
        return self._path(name + _PARTIAL)

    def write_keys(self, name: str, raw: bytes) -> None:
        with self._translate_os_errors():
            _write(self.unfinished(name) / KEYS, raw)

    def measure(self, name: str, file: str) -> File:
        """Make a file of an unfinished snapshot durable. Return its size and digest."""
        path = self.unfinished(name) / file
        with self._translate_os_errors():
            path.chmod(0o600)
            _fsync(path)
            return snapshot.hash_file(path)

    def finish(self, made: Snapshot) -> None:
        """Give the snapshot its final name. All its blobs and files must be durable."""
        partial = self.unfinished(made.id)
        with self._translate_os_errors():
            _write(partial / snapshot.NAME, snapshot.encode(made))
            _fsync(partial)
            partial.rename(self._path(made.id))
            _fsync(self._snapshots)

    def remove(self, name: str) -> None:
        """Delete a snapshot, its name first. Its blobs are not deleted."""
        partial = self.unfinished(name)
        with self._translate_os_errors():
            self._path(name).rename(partial)
            _fsync(self._snapshots)
            shutil.rmtree(partial)

    def _path(self, name: str) -> Path:
        return self._snapshots / name

    # --- blobs ---------------------------------------------------------------------------------

    async def has(self, digest: Digest, size: int) -> bool:
        """Return whether the blob exists with this size."""
        return await self._find_size(digest) == size

    async def _find_size(self, digest: Digest) -> int | None:
        with contextlib.suppress(ObjectMissingError), self._translate_store_errors():
            return await self._driver.stat(archive_key(digest))
        return None

    async def put(self, digest: Digest, body: AsyncIterable[bytes]) -> None:
        """Write and verify a blob, durably.

        Raises DigestMismatchError if the bytes do not match, BackupError, and the errors of `body`.
        Nothing is stored then.
        """
        with self._translate_store_errors():
            staged = await self._staging.claim(str(uuid.uuid4()))
            try:
                await staged.resume(0, digest.algorithm, None)
                await staged.append(body)
                _require_same(digest, await staged.digest(digest.algorithm, None))
                if await self._find_size(digest) is not None:
                    await self._driver.delete(archive_key(digest))  # damaged, and never overwritten
                await staged.publish(archive_key(digest))
            except BaseException:
                with contextlib.suppress(StoreError):
                    await staged.abort()
                raise
            finally:
                await staged.release()

    async def open(self, digest: Digest, size: int) -> Reader | None:
        """Open the blob, or return None if no blob of this size exists. The caller closes it."""
        with contextlib.suppress(ObjectMissingError), self._translate_store_errors():
            reader = await self._driver.open(archive_key(digest))
            if reader.size == size:
                return reader
            await reader.close()
        return None

    async def find_fault(self, digest: Digest, size: int) -> str:
        """Read the blob completely. Return its problem, or an empty string."""
        reader = await self.open(digest, size)
        if reader is None:
            return MISSING if await self._find_size(digest) is None else DAMAGED
        hasher = Hasher(digest.algorithm)
        try:
            async for piece in reader.read(0, size):
                await asyncio.to_thread(hasher.update, piece)
        except ObjectCorruptError:
            return DAMAGED
        finally:
            await reader.close()
        return "" if hasher.digest() == digest else DAMAGED

    async def iter_blobs(self) -> AsyncIterator[tuple[Digest, int]]:
        """Yield all blobs with their sizes, in digest order. Other files are ignored."""
        for algorithm in sorted(ALGORITHMS):
            for first in range(256):
                for found in await self.run(lambda a=algorithm, f=first: self._list(a, f"{f:02x}")):  # type: ignore[misc]
                    yield found

    def _list(self, algorithm: str, first: str) -> list[tuple[Digest, int]]:
        found = []
        with (
            self._translate_os_errors(),
            os.scandir(self.folder / shard(algorithm, first)) as entries,
        ):
            for entry in entries:
                with contextlib.suppress(ValueError):
                    digest = Digest.parse(f"{algorithm}:{entry.name}")
                    found.append((digest, entry.stat().st_size))
        return sorted(found)

    async def delete(self, digest: Digest) -> None:
        with self._translate_store_errors():
            await self._driver.delete(archive_key(digest))

    # --- the folder ----------------------------------------------------------------------------

    async def tidy(self) -> None:
        """Delete what a killed command has left. Blobs that it copied are kept."""
        await self.run(self._remove_partial)
        with self._translate_store_errors():
            for name in await self._driver.list_staged():
                staged = await self._staging.claim(name)
                await staged.abort()

    def _remove_partial(self) -> None:
        with self._translate_os_errors():
            for path in self._snapshots.glob(f"*{_PARTIAL}"):
                shutil.rmtree(path)

    @staticmethod
    async def run(job: Callable[[], T]) -> T:
        """Run a blocking function on a thread, to completion even if the caller is cancelled."""
        return await run_to_completion(asyncio.to_thread(job))

    @contextlib.contextmanager
    def _translate_os_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            name = error.filename or self.folder
            raise BackupError(f"{name}: {error.strerror}") from error

    @contextlib.contextmanager
    def _translate_store_errors(self) -> Iterator[None]:
        """Convert store errors of this directory to BackupError.

        This tells them apart from errors of the registry's store.
        """
        try:
            yield
        except ObjectMissingError:
            raise
        except StoreError as error:
            raise BackupError(f"{self.folder}: {error}") from error


@contextlib.asynccontextmanager
async def open_target(
    folder: Path, *, exclusive: bool, create: bool = False
) -> AsyncIterator[BackupRepository]:
    """Open a backup directory, exclusively if `exclusive`.

    With `create`, a missing or empty directory is initialized. Raises BackupError.
    """
    driver = create_driver("local", root=folder, ignored=("lock", "snapshots"))
    target = BackupRepository(folder, driver)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, await target.run(lambda: _lock(folder, exclusive, create)))
        try:
            await driver.start(create=create)
        except StoreError as error:
            raise BackupError(f"{folder}: {error}") from error
        try:
            yield target
        finally:
            await driver.close()


def _lock(folder: Path, exclusive: bool, create: bool) -> int:
    """Lock the directory until the returned descriptor is closed."""
    try:
        if create:
            _create(folder)
        if not (folder / "snapshots").is_dir():
            raise BackupError(f"no backups in {folder}")
        if (folder / "VERSION").exists():
            _complete(folder)
        flags = os.O_RDWR | os.O_CREAT if exclusive else os.O_RDONLY
        descriptor = os.open(folder / "lock", flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BackupError(f"{folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            raise BackupError(
                f"another command is using {folder}; wait until it has ended"
            ) from error
        raise BackupError(f"{folder}: {error.strerror}") from error
    return descriptor


def _create(folder: Path) -> None:
    """Initialize the directory unless it is a backup. Raises BackupError if it is anything else."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / "snapshots").is_dir():
        return
    if any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty and contains no backups: use another directory")
    (folder / "snapshots").mkdir(mode=0o700)
    _fsync(folder)
    _fsync(folder.parent)


def _complete(folder: Path) -> None:
    """Create missing directories: buckets and many copy tools drop empty ones."""
    shards = [shard(algorithm, f"{n:02x}") for algorithm in sorted(ALGORITHMS) for n in range(256)]
    for name in ("staging", *shards):
        path = folder / name
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _require_same(expected: Digest, actual: Digest) -> None:
    if actual != expected:
        raise DigestMismatchError("the bytes do not match the digest")


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
