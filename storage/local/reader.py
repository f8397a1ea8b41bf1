"""Readers of objects on the local disk."""

import errno
import os
import stat
from collections.abc import AsyncIterator
from io import FileIO
from pathlib import Path

from aiofiles.threadpool import wrap

from storage.errors import ObjectCorruptError, ObjectMissingError
from storage.local.os_errors import translate_os_errors
from storage.local.threads import DiskThreads
from storage.piece_budget import PieceBudget
from storage.shield import run_to_completion

SMALL_READ = 64 << 10
"""Size of an object, in bytes, up to which it is read when it is opened."""


def open_object(path: Path) -> tuple[FileIO, int] | bytes:
    """Open an object and return its size; return its bytes instead if it is small.

    Blocks. Raises ObjectMissingError and OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP}:
            raise ObjectMissingError(path.name) from error
        raise
    try:
        size = _find_size(fd)
        data = _read_all(fd, size) if size <= SMALL_READ else None
        if data is None:
            return FileIO(fd, "rb"), size
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return data


def _find_size(fd: int) -> int:
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        raise ObjectMissingError
    return about.st_size


def _read_all(fd: int, size: int) -> bytes | None:
    """Return the bytes; None if they cannot be read, which the reader of the file finds again."""
    try:
        data = os.pread(fd, size, 0)
    except OSError:
        return None
    return data if len(data) == size else None


class LocalReader:
    """An open object, read through aiofiles."""

    def __init__(self, file: FileIO, size: int, threads: DiskThreads, budget: PieceBudget) -> None:
        self.size = size
        self.file = file
        self._reads = wrap(file, executor=threads.readers)
        self._budget = budget

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        with translate_os_errors("seeking"):
            await run_to_completion(self._reads.seek(start))
        while length:
            with self._budget.take() as size:
                try:
                    piece = await run_to_completion(self._reads.read(min(size, length)))
                except OSError as error:
                    raise ObjectCorruptError("the object cannot be read") from error
                if not piece:
                    raise ObjectCorruptError("the object is shorter than expected")
                length -= len(piece)
                yield piece

    async def close(self) -> None:
        await run_to_completion(self._reads.close())


class SmallReader:
    """The bytes of a small object."""

    file = None

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        if start + length > self.size:
            raise ObjectCorruptError("the object is shorter than expected")
        if length:
            yield self._data[start : start + length]

    async def close(self) -> None:
        """Do nothing: the file is closed already."""


async def open_reader(
    path: Path, threads: DiskThreads, budget: PieceBudget
) -> LocalReader | SmallReader:
    """Open an object, with one job on a thread. Raises ObjectMissingError."""
    with translate_os_errors("opening an object"):
        found = await threads.read(lambda: open_object(path), on_abandoned=_close)
    if isinstance(found, bytes):
        return SmallReader(found)
    return LocalReader(*found, threads, budget)


async def _close(found: tuple[FileIO, int] | bytes) -> None:
    if isinstance(found, tuple):
        found[0].close()
