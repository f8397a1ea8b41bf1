"""Staged bytes of one upload session in a locked file.

A durable write always has the same sequence: write all bytes, fsync the file, rename it into place,
fsync the directory. A failed fsync is final for its file (PostgreSQL's fsyncgate, 2018): the kernel
may have dropped the pages and would report success the second time.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from storage.digest import Hasher
from storage.errors import StagedSizeError, StoreUnavailableError, UploadLockedError
from storage.job_threads import Then
from storage.local.directory import StoreDirectory, fsync_directory
from storage.local.os_errors import translate_os_errors
from storage.local.threads import DiskThreads

T = TypeVar("T")

CHUNK_SIZE = 1 << 20
"""Bytes read per thread job: enough to make the thread switch cheap, few enough to be bounded."""


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


class LocalUpload:
    """A locked file descriptor of one staged file.

    Jobs on it run one at a time. After it is closed, they raise UploadLockedError.
    """

    resume_state = ""
    sealed = False
    is_stalled = False

    def __init__(
        self, directory: StoreDirectory, threads: DiskThreads, path: Path, fd: int
    ) -> None:
        self.size = os.fstat(fd).st_size
        self._directory = directory
        self._threads = threads
        self._path = path
        self._fd = fd
        self._is_synced = False
        self._jobs = 0
        self._mutex = threading.Lock()

    @classmethod
    async def claim(
        cls, directory: StoreDirectory, threads: DiskThreads, session: str
    ) -> "LocalUpload":
        """Lock the session's staged file, creating it if it is missing."""

        def job() -> "LocalUpload":
            return cls._open(directory, threads, session)

        return await threads.write(job, on_abandoned=LocalUpload.release)

    @classmethod
    def _open(cls, directory: StoreDirectory, threads: DiskThreads, session: str) -> "LocalUpload":
        path = directory.staging / session
        with translate_os_errors("opening staged bytes"):
            directory.require_mounted()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                flock_if_still_linked(fd, path)
                return cls(directory, threads, path, fd)
            except BaseException:
                os.close(fd)
                raise

    @classmethod
    async def receive_whole(
        cls,
        directory: StoreDirectory,
        threads: DiskThreads,
        session: str,
        data: bytes,
        hasher: Hasher,
        *,
        then: Then,
    ) -> tuple["LocalUpload", Any]:
        """Do as `WholeDriver.receive_whole`."""
        opened: list[LocalUpload] = []

        def job() -> None:
            upload = cls._open(directory, threads, session)
            opened.append(upload)
            if upload.size:
                raise StagedSizeError
            upload._run_now("writing", lambda fd: upload._append_and_sync(fd, data, hasher))  # noqa: SLF001

        try:
            result: Any = await threads.write(job, then=then)
        except BaseException:
            for upload in opened:
                await upload.release()
            raise
        return opened[0], result

    @classmethod
    async def publish_whole(
        cls,
        directory: StoreDirectory,
        threads: DiskThreads,
        session: str,
        size: int,
        key: str,
        *,
        then: Then,
    ) -> Any:
        """Do as `WholeDriver.publish_whole`."""

        def job() -> None:
            upload = cls._open(directory, threads, session)
            try:
                if upload.size != size:
                    raise StagedSizeError
                upload._is_synced = True  # noqa: SLF001
                upload._run_now("publishing", lambda fd: upload._publish(fd, key))  # noqa: SLF001
            finally:
                upload._close()  # noqa: SLF001

        return await threads.write(job, then=then)

    async def _run(self, doing: str, job: Callable[[int], T], *, last: bool = False) -> T:
        self._jobs += 1
        try:
            return await self._threads.write(lambda: self._run_now(doing, job, last=last))
        finally:
            self._jobs -= 1

    def _run_now(self, doing: str, job: Callable[[int], T], *, last: bool = False) -> T:
        with self._mutex, translate_os_errors(doing):
            if self._fd < 0:
                raise UploadLockedError
            try:
                return job(self._fd)
            finally:
                if last:
                    self._close()

    def _close(self) -> None:
        """Close the descriptor, which releases the lock.

        Another request may own the path afterwards.
        """
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def final_key(self, key: str) -> str:
        return key

    async def resume(self, size: int) -> None:
        if self.size > size:
            await self.truncate(size)
        else:
            # A new file was never synced, not even its length of zero bytes.
            self._is_synced = size > 0

    async def append(self, data: bytes, hasher: Hasher | None) -> None:
        await self._run("writing", lambda fd: self._append(fd, (data,), hasher))

    def append_now(self, pieces: Sequence[bytes | memoryview], hasher: Hasher | None) -> None:
        self._run_now("writing", lambda fd: self._append(fd, pieces, hasher))

    async def append_and_sync(self, data: bytes, hasher: Hasher | None) -> None:
        await self._run("writing", lambda fd: self._append_and_sync(fd, data, hasher))

    def _append_and_sync(self, fd: int, data: bytes, hasher: Hasher | None) -> None:
        self._append(fd, (data,), hasher)
        self._sync_file(fd)

    def _append(self, fd: int, pieces: Sequence[bytes | memoryview], hasher: Hasher | None) -> None:
        self._directory.require_free_space(sum(map(len, pieces)))
        self._is_synced = False
        at = self.size
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    written = os.pwrite(fd, rest, at)
                    at += written
                    rest = rest[written:]
        except OSError:
            os.ftruncate(fd, self.size)
            raise
        if hasher is not None:
            for piece in pieces:
                hasher.update(piece)
        self.size = at

    async def truncate(self, size: int) -> None:
        def job(fd: int) -> None:
            self._is_synced = False
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
        self._sync_file(fd)
        with self._dropping_unless_synced():
            fsync_directory(self._path.parent)

    async def sync_bytes(self) -> None:
        if not self._is_synced:
            await self._run("syncing", self._sync_file)

    def _sync_file(self, fd: int) -> None:
        if not self._is_synced:
            with self._dropping_unless_synced():
                os.fsync(fd)
            self._is_synced = True

    @contextlib.contextmanager
    def _dropping_unless_synced(self) -> Iterator[None]:
        """Delete the file if an fsync within this context fails."""
        try:
            yield
        except OSError:
            try:
                self._path.unlink(missing_ok=True)
            finally:
                self._close()
            raise

    async def finish(self, key: str) -> None:
        await self._run("publishing", lambda fd: self._publish(fd, key), last=True)

    def _publish(self, fd: int, key: str) -> None:
        final = self._directory.path(key)
        if final.exists():
            # A key belongs to one session, which has ended since the caller read its row.
            raise UploadLockedError
        # The rename is synced with the directory of the object, so the staged name is not.
        self._sync_file(fd)
        os.rename(self._path, final)  # noqa: PTH104 - without a new Path
        # Not before the rename: staged bytes that could not be published must stay writable.
        os.fchmod(fd, 0o400)
        fsync_directory(final.parent)

    async def abort(self) -> None:
        def job(_fd: int) -> None:
            self._path.unlink(missing_ok=True)

        await self._run("deleting staged bytes", job, last=True)

    async def release(self) -> None:
        if self._fd < 0:
            return
        if self._is_synced and not self._jobs:
            # Nothing is left to write, so this does not block. It takes 5 µs, and a job 60.
            with translate_os_errors("closing staged bytes"):
                self._close()
            return

        def job() -> None:
            with self._mutex, translate_os_errors("closing staged bytes"):
                self._close()

        await self._threads.write(job)
