"""In-memory store for trials and tests. Its content is lost when the process exits."""

import time
from collections.abc import AsyncIterator

from storage.digest import Hasher
from storage.driver import SessionRecord, StagedReader, StagedState, StoredObject
from storage.errors import ObjectCorruptError, ObjectMissingError, UploadLockedError


class MemoryStaged(bytearray):
    """The staged bytes of one session."""

    is_published = False


class MemoryDriver:
    """Objects and staged bytes in dictionaries, for a single process."""

    shared = False
    supports_locking = True
    stat_is_cheap = True
    signed_url_ttl = 0.0
    late_write_window = 0.0

    def __init__(self, *, name: str = "memory") -> None:
        self.name = name
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, int] = {}
        self.staged: dict[str, MemoryStaged] = {}
        self.held: set[str] = set()

    async def start(self, *, create: bool = True) -> None:
        del create  # there is nothing to prepare

    async def probe(self) -> None:
        """Do nothing: `start` cannot fail."""

    async def check(self) -> None:
        """Do nothing: memory is always reachable."""

    async def claim(self, session: str, record: SessionRecord | None = None) -> "MemoryUpload":
        del record
        if session in self.held:
            raise UploadLockedError
        self.held.add(session)
        return MemoryUpload(self, session)

    def possible_keys(self, session: str, state: str, claim: int) -> set[str]:
        del session, state, claim
        return set()

    async def open_staged(self, session: str) -> StagedReader | None:
        staged = self.staged.get(session)
        return None if staged is None else MemoryStagedReader(staged)

    async def list_staged(self) -> list[str]:
        return list(self.staged)

    async def iter_objects(self, since: int = 0) -> AsyncIterator[list[StoredObject]]:
        del since  # the listing costs the same
        yield [
            StoredObject(key, len(data), self.written.get(key, 0))
            for key, data in sorted(self.objects.items())
        ]

    async def stat(self, key: str) -> int:
        if key not in self.objects:
            raise ObjectMissingError(key)
        return len(self.objects[key])

    async def open(self, key: str, start: int = 0, length: int | None = None) -> "MemoryReader":
        del start, length
        await self.stat(key)
        return MemoryReader(self.objects[key])

    async def presigned_url(self, key: str) -> str | None:
        del key
        return None

    async def delete(self, key: str) -> None:
        self.objects.pop(key, None)
        self.written.pop(key, None)

    async def close(self) -> None:
        """Do nothing: there are no threads or connections."""


class MemoryUpload:
    """An exclusive claim on one staged bytearray."""

    resume_state = ""
    sealed = False
    is_stalled = False
    append_now = None

    def __init__(self, driver: MemoryDriver, session: str) -> None:
        self._driver = driver
        self._session = session
        self._open = True
        self._bytes = driver.staged.setdefault(session, MemoryStaged())
        self.size = len(self._bytes)

    def _require_open(self) -> None:
        if not self._open:
            raise UploadLockedError

    def final_key(self, key: str) -> str:
        return key

    async def resume(self, size: int) -> None:
        await self.truncate(size)

    async def append(self, data: bytes, hasher: Hasher | None) -> None:
        self._require_open()
        self._bytes += data
        if hasher is not None:
            hasher.update(data)
        self.size = len(self._bytes)

    async def append_and_sync(self, data: bytes, hasher: Hasher | None) -> None:
        await self.append(data, hasher)

    async def truncate(self, size: int) -> None:
        self._require_open()
        del self._bytes[size:]
        self.size = size

    async def hash(self, hasher: Hasher) -> None:
        self._require_open()
        hasher.update(self._bytes)

    async def sync(self) -> None:
        self._require_open()

    async def sync_bytes(self) -> None:
        await self.sync()

    async def seal(self) -> None:
        self._require_open()

    async def finish(self, key: str) -> None:
        self._require_open()
        staged = self._driver.staged.pop(self._session)
        self._driver.objects[key] = bytes(staged)
        staged.is_published = True
        self._driver.written[key] = time.time_ns() // 1000
        await self.release()

    async def abort(self) -> None:
        self._require_open()
        self._driver.staged.pop(self._session, None)
        await self.release()

    async def release(self) -> None:
        if self._open:
            self._open = False
            self._driver.held.discard(self._session)


class MemoryStagedReader:
    """Staged bytes that grow while they are read."""

    def __init__(self, staged: MemoryStaged) -> None:
        self._staged = staged

    async def stat(self) -> StagedState:
        return StagedState(len(self._staged), self._staged.is_published)

    async def read(self, start: int, most: int) -> bytes:
        return bytes(self._staged[start : start + most])

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


class MemoryReader:
    """The bytes of one object, readable after its key is deleted."""

    file = None

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        piece = self._data[start : start + length]
        if len(piece) < length:
            raise ObjectCorruptError("the object is shorter than expected")
        yield piece

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""
