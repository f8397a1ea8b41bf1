"""Local disk driver. `storage.keys` describes the layout.

A durable write always has the same sequence: write all bytes, fsync the file, rename it into place,
fsync the directory. A failed fsync is final for its file (PostgreSQL's fsyncgate, 2018): the kernel
may have dropped the pages and would report success the second time.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import aiofiles
from aiofiles.threadpool.binary import AsyncFileIO

from storage import keys, layouts
from storage.digest import ALGORITHMS, Hasher
from storage.driver import SessionRecord, StoredObject
from storage.errors import (
    ObjectCorruptError,
    ObjectMissingError,
    StoreFullError,
    StoreRefusedError,
    StoreUnavailableError,
    UploadLockedError,
)
from storage.piece_budget import PieceBudget
from storage.shield import run_to_completion

T = TypeVar("T")

VERSION = "moorage storage 1\n"
CHUNK_SIZE = 1 << 20
"""Bytes read per thread job: enough to make the thread switch cheap, few enough to be bounded."""

PAGE_SIZE = 1000
"""Objects listed per thread job."""

_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OWN_NAME = re.compile(r"blobs|staging|VERSION[.][0-9a-f]+")
_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@contextlib.contextmanager
def translate_os_errors(doing: str) -> Iterator[None]:
    """Translate OSError into StoreFullError or StoreUnavailableError, without paths."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "error")
        if error.errno in _FULL_ERRNOS:
            raise StoreFullError(
                f"no space left on the storage disk ({name} while {doing})"
            ) from error
        raise StoreUnavailableError(f"the storage disk failed ({name} while {doing})") from error


@contextlib.contextmanager
def translate_denials(root: Path) -> Iterator[None]:
    """Translate permanent OSErrors into a StoreRefusedError that says how to fix the folder."""
    try:
        yield
    except OSError as error:
        user = f"{os.geteuid()}:{os.getegid()}"
        remedies = {
            errno.EACCES: f"this process runs as {user}; run: chown -R {user} {root}",
            errno.EPERM: f"this process runs as {user}; run: chown -R {user} {root}",
            errno.EROFS: "mount its file system read-write, or choose another folder",
            errno.EEXIST: "it must be a folder",
            errno.ENOTDIR: "it must be a folder",
        }
        if error.errno not in remedies:
            raise
        raise StoreRefusedError(
            f"the storage folder {root} cannot be used ({error.strerror}: {error.filename}); "
            f"{remedies[error.errno]}"
        ) from error


def _all_shards() -> list[str]:
    """Return all folders of objects, in key order."""
    return [keys.shard(a, f"{first:02x}") for a in sorted(ALGORITHMS) for first in range(256)]


def fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def flock_if_still_linked(fd: int, path: Path) -> None:
    """Lock the open file. Raises UploadLockedError if it is locked or no longer at `path`.

    Between open and flock, another request may have published this file. A write would then change
    a finished blob.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False)):
            return
    except (BlockingIOError, FileNotFoundError) as error:
        raise UploadLockedError from error
    raise UploadLockedError


class LocalDriver:
    """A store in one folder, on one file system.

    Writers and readers have separate threads, so that stalled uploads cannot starve pulls.
    """

    shared = True
    supports_locking = True
    stat_is_cheap = True
    signed_url_ttl = 0.0
    late_write_window = 0.0

    def __init__(
        self, root: Path, *, name: str = "local", reserve: int = 0, ignored: Iterable[str] = ()
    ) -> None:
        """Create the driver. `start` prepares the folder.

        `reserve` is the number of bytes kept free, so that the database can still delete rows on a
        full disk. `beside` are names in `root` that do not belong to the store and may exist before
        it.
        """
        self.name = name
        self._ignored = frozenset(ignored)
        self.reserve = reserve
        self._root = root
        self._staging = root / "staging"
        self._writers = ThreadPoolExecutor(16, "disk-write")
        self._readers = ThreadPoolExecutor(16, "disk-read")
        self._budget = PieceBudget()

    async def start(self, *, create: bool = True) -> None:
        await self.write(lambda: self._prepare(create=create))

    def _prepare(self, *, create: bool) -> None:
        with translate_os_errors("preparing the folder"), translate_denials(self._root):
            if not create:
                self._require_mounted()
            made = [p for p in (self._root, *self._root.parents) if not p.exists()]
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in made:
                fsync_directory(folder.parent)
            marker = self._root / "VERSION"
            if not marker.exists():
                self._refuse_foreign()
                self._create(marker)
            self._require_version(marker)
            # Publishing renames a file, and a rename is atomic only within one file system.
            if len({p.stat().st_dev for p in (self._staging, self._root / "blobs")}) != 1:
                raise StoreRefusedError(
                    f"staging/ and blobs/ in the storage folder {self._root} must be on one file "
                    "system; mount both from the same one"
                )

    @staticmethod
    def _require_version(marker: Path) -> None:
        if marker.read_bytes() != VERSION.encode():
            raise StoreRefusedError(
                f"the storage folder {marker.parent} has the format of another version of Moorage; "
                "start that version, or choose another folder"
            )

    def _refuse_foreign(self) -> None:
        """Raise StoreRefusedError if the folder has foreign files.

        Called before anything is written to it.
        """
        names = [path.name for path in self._root.iterdir()]
        own = {name for name in names if _OWN_NAME.fullmatch(name)}
        foreign = layouts.foreign_names(names, own | self._ignored)
        if foreign:
            layout = layouts.recognize(lambda path: (self._root / path).exists())
            what = layouts.describe(foreign, layout)
            raise StoreRefusedError(
                f"the storage folder {self._root} {what} and is not a Moorage store. "
                f"{layouts.REMEDY}"
            )

    def _create(self, marker: Path) -> None:
        """Create the folders, then the marker.

        All shards are created now, so that no later write depends on a new folder being durable.
        """
        blobs = self._root / "blobs"
        for folder in (self._staging, blobs):
            folder.mkdir(mode=0o700, exist_ok=True)
        for algorithm in ALGORITHMS:
            (blobs / algorithm).mkdir(mode=0o700, exist_ok=True)
        for shard in _all_shards():
            (self._root / shard).mkdir(mode=0o700, exist_ok=True)
        for algorithm in ALGORITHMS:
            fsync_directory(blobs / algorithm)
        fsync_directory(blobs)
        # A unique name, because several workers may create the same store at the same time.
        fresh = marker.with_suffix(f".{secrets.token_hex(8)}")
        with fresh.open("w") as file:
            file.write(VERSION)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(marker)
        fsync_directory(self._root)

    async def write(
        self, job: Callable[[], T], on_abandoned: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        return await run_to_completion(
            asyncio.get_running_loop().run_in_executor(self._writers, job), on_abandoned
        )

    async def _read(self, job: Callable[[], T]) -> T:
        return await run_to_completion(
            asyncio.get_running_loop().run_in_executor(self._readers, job)
        )

    async def probe(self) -> None:
        await self._read(self._probe)

    def _probe(self) -> None:
        with translate_os_errors("checking the folder"), translate_denials(self._root):
            marker = self._root / "VERSION"
            if marker.exists():
                self._require_version(marker)
            elif self._root.exists():
                self._refuse_foreign()
            there = next(p for p in (self._root, *self._root.parents) if p.exists())
            if not os.access(there, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))

    async def check(self) -> None:
        await self._read(self._require_mounted)

    def _require_mounted(self) -> None:
        """Raise unless the folder has a store.

        An empty mount point must not look like a store that has lost every object.
        """
        with translate_os_errors("checking the folder"):
            if not (self._root / "VERSION").exists():
                raise StoreUnavailableError(
                    "the storage folder is missing or empty; is its disk mounted?"
                )

    async def claim(self, session: str, record: SessionRecord | None = None) -> "LocalUpload":
        del record  # the file lock and the file size replace the row
        if not _SESSION_ID.fullmatch(session):
            raise ValueError(session)
        path = self._staging / session
        return await self.write(lambda: self._claim(path), on_abandoned=LocalUpload.release)

    def _claim(self, path: Path) -> "LocalUpload":
        with translate_os_errors("opening staged bytes"):
            self._require_mounted()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                flock_if_still_linked(fd, path)
                return LocalUpload(self, path, fd, os.fstat(fd).st_size)
            except BaseException:
                os.close(fd)
                raise

    def possible_keys(self, session: str, state: str, claim: int) -> set[str]:
        del session, state, claim  # the end of the session deletes the file
        return set()

    async def list_staged(self) -> list[str]:
        def job() -> list[str]:
            with translate_os_errors("listing staged bytes"):
                return [p.name for p in self._staging.iterdir() if _SESSION_ID.fullmatch(p.name)]

        return await self._read(job)

    async def iter_objects(self) -> AsyncIterator[list[StoredObject]]:
        for folder in _all_shards():
            names = await self._read(lambda folder=folder: self._list_names(folder))  # type: ignore[misc]
            for start in range(0, len(names), PAGE_SIZE):
                some = [f"{folder}/{name}" for name in names[start : start + PAGE_SIZE]]
                yield await self._read(lambda some=some: self._stat_all(some))  # type: ignore[misc]

    def _list_names(self, folder: str) -> list[str]:
        with translate_os_errors("listing a folder"):
            try:
                return sorted(path.name for path in self.path(folder).iterdir())
            except FileNotFoundError:
                self._require_mounted()
                return []

    def _stat_all(self, some: list[str]) -> list[StoredObject]:
        """Return metadata of those keys that are regular files."""
        found = []
        with translate_os_errors("reading metadata of objects"):
            for key in some:
                with contextlib.suppress(FileNotFoundError):  # deleted during the listing
                    about = self.path(key).stat(follow_symlinks=False)
                    if stat.S_ISREG(about.st_mode):
                        # ctime is when the object was published; mtime is when its last byte was
                        # written.
                        found.append(StoredObject(key, about.st_size, about.st_ctime_ns // 1000))
        return found

    async def stat(self, key: str) -> int:
        return await self._read(lambda: self._stat(key).st_size)

    def _stat(self, key: str) -> os.stat_result:
        with translate_os_errors("reading metadata of an object"):
            try:
                found = self.path(key).stat(follow_symlinks=False)
            except FileNotFoundError as error:
                self._require_mounted()
                raise ObjectMissingError(key) from error
        if not stat.S_ISREG(found.st_mode):
            raise ObjectMissingError(key)
        return found

    async def open(self, key: str, start: int = 0, length: int | None = None) -> "LocalReader":
        del start, length
        size = await self.stat(key)
        with translate_os_errors("opening an object"):
            try:
                file = await run_to_completion(
                    aiofiles.open(self.path(key), "rb", buffering=0, executor=self._readers),
                    on_abandoned=AsyncFileIO.close,
                )
            except FileNotFoundError as error:
                raise ObjectMissingError(key) from error
        return LocalReader(file, size, self._budget)

    async def presigned_url(self, key: str) -> str | None:
        del key
        return None

    async def delete(self, key: str) -> None:
        def job() -> None:
            with translate_os_errors("deleting an object"):
                path = self.path(key)
                self._require_mounted()
                path.unlink(missing_ok=True)
                # The deletion must be durable before its row in the queue is removed. Otherwise a
                # power cut restores a file that no row names.
                fsync_directory(path.parent)

        await self.write(job)

    def path(self, key: str) -> Path:
        return self._root / key

    def require_free_space(self, size: int) -> None:
        free = os.statvfs(self._root)
        if free.f_bavail * free.f_frsize < size + self.reserve:
            raise OSError(errno.ENOSPC, "free space is below the reserve")

    async def close(self) -> None:
        for pool in (self._writers, self._readers):
            await run_to_completion(asyncio.to_thread(pool.shutdown))


class LocalUpload:
    """A locked file descriptor of one staged file.

    Jobs on it run one at a time. After it is closed, they raise UploadLockedError.
    """

    resume_state = ""
    sealed = False
    is_stalled = False

    def __init__(self, driver: LocalDriver, path: Path, fd: int, size: int) -> None:
        self.size = size
        self._driver = driver
        self._path = path
        self._fd = fd
        self._mutex = threading.Lock()

    async def _run(self, doing: str, job: Callable[[int], T], *, last: bool = False) -> T:
        def on_thread() -> T:
            with self._mutex, translate_os_errors(doing):
                if self._fd < 0:
                    raise UploadLockedError
                try:
                    return job(self._fd)
                finally:
                    if last:
                        self._close()

        return await self._driver.write(on_thread)

    def _close(self) -> None:
        """Close the descriptor, which releases the lock.

        Another request may own the path afterwards.
        """
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def final_key(self, key: str) -> str:
        return key

    async def append(self, data: bytes, hasher: Hasher | None) -> None:
        def job(fd: int) -> None:
            self._driver.require_free_space(len(data))
            rest = memoryview(data)
            at = self.size
            try:
                while rest:
                    written = os.pwrite(fd, rest, at)
                    at += written
                    rest = rest[written:]
            except OSError:
                os.ftruncate(fd, self.size)
                raise
            if hasher is not None:
                hasher.update(data)
            self.size = at

        await self._run("writing", job)

    async def truncate(self, size: int) -> None:
        def job(fd: int) -> None:
            os.ftruncate(fd, size)
            self.size = size

        await self._run("truncating", job)

    async def hash(self, hasher: Hasher) -> None:
        def job(fd: int) -> int:
            piece = os.pread(fd, CHUNK_SIZE, at)
            hasher.update(piece)
            return len(piece)

        at = 0
        while at < self.size:
            got = await self._run("reading staged bytes", job)
            if got == 0:
                raise StoreUnavailableError("the staged bytes are shorter than expected")
            at += got

    async def seal(self) -> None:
        """Do nothing: a file can be read and hashed at any time."""

    async def sync(self) -> None:
        await self._run("syncing", self._sync)

    def _sync(self, fd: int) -> None:
        try:
            os.fsync(fd)
            fsync_directory(self._path.parent)
        except OSError:
            try:
                self._path.unlink(missing_ok=True)
            finally:
                self._close()
            raise

    async def finish(self, key: str) -> None:
        def job(fd: int) -> None:
            final = self._driver.path(key)
            self._sync(fd)
            self._path.rename(final)
            # Not before the rename: staged bytes that could not be published must stay writable.
            os.fchmod(fd, 0o400)
            fsync_directory(final.parent)

        await self._run("publishing", job, last=True)

    async def abort(self) -> None:
        def job(_fd: int) -> None:
            self._path.unlink(missing_ok=True)

        await self._run("deleting staged bytes", job, last=True)

    async def release(self) -> None:
        def job() -> None:
            with self._mutex, translate_os_errors("closing staged bytes"):
                self._close()

        await self._driver.write(job)


class LocalReader:
    """An open object, read through aiofiles."""

    def __init__(self, file: AsyncFileIO, size: int, budget: PieceBudget) -> None:
        self.size = size
        self._file = file
        self._budget = budget

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        with translate_os_errors("seeking"):
            await run_to_completion(self._file.seek(start))
        while length:
            with self._budget.take() as size:
                try:
                    piece = await run_to_completion(self._file.read(min(size, length)))
                except OSError as error:
                    raise ObjectCorruptError("the object cannot be read") from error
                if not piece:
                    raise ObjectCorruptError("the object is shorter than expected")
                length -= len(piece)
                yield piece

    async def close(self) -> None:
        await run_to_completion(self._file.close())
