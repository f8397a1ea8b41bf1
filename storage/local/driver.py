"""Local disk driver. `storage.keys` describes the layout."""

import contextlib
import re
import stat
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from storage.digest import Hasher
from storage.driver import Reader, SessionRecord, StagedReader, StoredObject
from storage.errors import ObjectMissingError
from storage.job_threads import Then
from storage.local.directory import StoreDirectory, all_shards, fsync_directory
from storage.local.os_errors import translate_os_errors
from storage.local.reader import open_reader
from storage.local.staged_reader import open_staged_reader
from storage.local.threads import DiskThreads
from storage.local.upload import LocalUpload
from storage.piece_budget import PieceBudget

PAGE_SIZE = 1000
"""Objects listed per thread job."""

_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class LocalDriver:
    """A store in one directory, on one file system."""

    shared = True
    supports_locking = True
    stat_is_cheap = True
    signed_url_ttl = 0.0
    late_write_window = 0.0

    def __init__(
        self, root: Path, *, name: str = "local", reserve: int = 0, ignored: Iterable[str] = ()
    ) -> None:
        """Create the driver. The arguments are those of StoreDirectory; `start` prepares it."""
        self.name = name
        self.directory = StoreDirectory(root, reserve=reserve, ignored=ignored)
        self._threads = DiskThreads()
        self._budget = PieceBudget()

    async def start(self, *, create: bool = True) -> None:
        await self._threads.write(lambda: self.directory.prepare(create=create))

    async def probe(self) -> None:
        await self._threads.read(self.directory.probe)

    async def check(self) -> None:
        await self._threads.read(self.directory.require_mounted)

    async def claim(self, session: str, record: SessionRecord | None = None) -> LocalUpload:
        del record  # the file lock and the file size replace the row
        _require_session_id(session)
        return await LocalUpload.claim(self.directory, self._threads, session)

    async def receive_whole(
        self, session: str, data: bytes, hasher: Hasher, then: Then
    ) -> tuple[LocalUpload, Any]:
        _require_session_id(session)
        return await LocalUpload.receive_whole(
            self.directory, self._threads, session, data, hasher, then=then
        )

    async def publish_whole(self, session: str, size: int, key: str, then: Then) -> Any:
        _require_session_id(session)
        return await LocalUpload.publish_whole(
            self.directory, self._threads, session, size, key, then=then
        )

    def possible_keys(self, session: str, state: str, claim: int) -> set[str]:
        del session, state, claim  # the end of the session deletes the file
        return set()

    async def open_staged(self, session: str) -> StagedReader | None:
        _require_session_id(session)
        return await open_staged_reader(self.directory.staging / session, self._threads)

    async def list_staged(self) -> list[str]:
        def job() -> list[str]:
            with translate_os_errors("listing staged bytes"):
                names = [path.name for path in self.directory.staging.iterdir()]
                return [name for name in names if _SESSION_ID.fullmatch(name)]

        return await self._threads.read(job)

    async def iter_objects(self, since: int = 0) -> AsyncIterator[list[StoredObject]]:
        shards = iter(all_shards())
        while found := await self._threads.read(lambda: self._list_next(shards, since)):
            for start in range(0, len(found), PAGE_SIZE):
                some = found[start : start + PAGE_SIZE]
                yield await self._threads.read(partial(self._stat_all, some))

    def _list_next(self, shards: Iterator[str], since: int) -> list[str]:
        """Return the keys in the next shard that has any; empty after the last shard."""
        with translate_os_errors("listing a directory"):
            for shard in shards:
                directory = self.path(shard)
                try:
                    # Publishing an object renames a file into the directory.
                    if directory.stat().st_mtime_ns // 1000 < since:
                        continue
                    names = sorted(path.name for path in directory.iterdir())
                except FileNotFoundError:
                    self.directory.require_mounted()
                    continue
                if names:
                    return [f"{shard}/{name}" for name in names]
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
        return await self._threads.read(lambda: self._stat(key))

    def _stat(self, key: str) -> int:
        with translate_os_errors("reading metadata of an object"):
            try:
                found = self.path(key).stat(follow_symlinks=False)
            except FileNotFoundError as error:
                self.directory.require_mounted()
                raise ObjectMissingError(key) from error
        if not stat.S_ISREG(found.st_mode):
            raise ObjectMissingError(key)
        return found.st_size

    async def open(self, key: str, start: int = 0, length: int | None = None) -> Reader:
        del start, length
        try:
            return await open_reader(self.path(key), self._threads, self._budget)
        except ObjectMissingError:
            await self._threads.read(self.directory.require_mounted)
            raise

    async def presigned_url(self, key: str) -> str | None:
        del key
        return None

    async def delete(self, key: str) -> None:
        def job() -> None:
            with translate_os_errors("deleting an object"):
                path = self.path(key)
                self.directory.require_mounted()
                path.unlink(missing_ok=True)
                # The deletion must be durable before its row in the queue is removed. Otherwise a
                # power cut restores a file that no row names.
                fsync_directory(path.parent)

        await self._threads.write(job)

    def path(self, key: str) -> Path:
        return self.directory.path(key)

    async def close(self) -> None:
        await self._threads.close()


def _require_session_id(session: str) -> None:
    if not _SESSION_ID.fullmatch(session):
        raise ValueError(session)
