"""Temporary files for blobs that are served while a store that cannot be read receives them."""

import asyncio
import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from storage.digest import Hasher
from storage.driver import StagedState
from storage.errors import StoreFullError, StoreUnavailableError
from storage.shield import run_to_completion


class Spool:
    """Files without a name in `folder`, with at most `most` bytes in all."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._left = most

    async def open(self, size: int) -> "SpoolFile | None":
        """Open a file for `size` bytes, which are reserved until it is closed; None if too many.

        Raises StoreUnavailableError.
        """
        if size > self._left:
            return None
        self._left -= size
        try:
            fd = await run_to_completion(asyncio.to_thread(self._open), _close)
        except BaseException:
            self._left += size
            raise
        return SpoolFile(self, fd, size)

    def _open(self) -> int:
        with _translate_errors(), tempfile.TemporaryFile(dir=self._folder) as file:
            return os.dup(file.fileno())

    def free(self, size: int) -> None:
        self._left += size


class SpoolFile:
    """A file that is read by position while it grows."""

    def __init__(self, spool: Spool, fd: int, reserved: int) -> None:
        self.size = 0
        self._spool = spool
        self._fd = fd
        self._reserved = reserved

    async def append(self, data: bytes, hasher: Hasher | None = None) -> None:
        """Append bytes, and feed them to `hasher`. Raises StoreUnavailableError."""

        def job() -> None:
            with _translate_errors():
                rest, at = memoryview(data), self.size
                while rest:
                    written = os.pwrite(self._fd, rest, at)
                    rest, at = rest[written:], at + written
            if hasher is not None:
                hasher.update(data)

        await run_to_completion(asyncio.to_thread(job))
        self.size += len(data)

    async def stat(self) -> StagedState:
        return StagedState(self.size, is_published=False)

    async def read(self, start: int, most: int) -> bytes:
        with _translate_errors():
            return await run_to_completion(asyncio.to_thread(os.pread, self._fd, most, start))

    async def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            await _close(fd)
            self._spool.free(self._reserved)


async def _close(fd: int) -> None:
    await run_to_completion(asyncio.to_thread(os.close, fd))


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "error")
        kind = StoreFullError if error.errno == errno.ENOSPC else StoreUnavailableError
        raise kind(f"a temporary file in the data directory failed ({name})") from error
