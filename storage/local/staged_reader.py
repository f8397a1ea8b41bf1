"""Readers of staged files, which grow while they are read."""

import os
import stat
from pathlib import Path

from storage.driver import StagedState
from storage.local.os_errors import translate_os_errors
from storage.local.threads import DiskThreads


class LocalStagedReader:
    """An open staged file. It is read by position, so that calls may run at the same time."""

    def __init__(self, fd: int, threads: DiskThreads) -> None:
        self._fd = fd
        self._threads = threads

    async def stat(self) -> StagedState:
        with translate_os_errors("reading metadata of staged bytes"):
            about = os.fstat(self._fd)
        # A published file is read-only; `LocalUpload.finish` makes it so.
        return StagedState(about.st_size, is_published=not about.st_mode & stat.S_IWUSR)

    async def read(self, start: int, most: int) -> bytes:
        with translate_os_errors("reading staged bytes"):
            return await self._threads.read(lambda: os.pread(self._fd, most, start))

    async def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            await self._threads.read(lambda: os.close(fd))


async def open_staged_reader(path: Path, threads: DiskThreads) -> LocalStagedReader | None:
    """Open a staged file; None if it does not exist."""

    def job() -> LocalStagedReader | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        return LocalStagedReader(fd, threads)

    async def abandon(reader: LocalStagedReader | None) -> None:
        if reader is not None:
            await reader.close()

    with translate_os_errors("opening staged bytes"):
        return await threads.read(job, on_abandoned=abandon)
