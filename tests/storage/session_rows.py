"""Session rows for a store without locks, as the registry keeps them."""

from collections.abc import AsyncIterator
from typing import Any

from storage.digest import Hasher
from storage.driver import Driver, Reader, SessionRecord, StagedReader, StoredObject, Upload
from storage.errors import UploadLockedError


class SessionRowDriver:
    """A driver that keeps claims as rows in a dictionary: state and number of each session."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.name, self.shared = driver.name, driver.shared
        self.supports_locking, self.stat_is_cheap = driver.supports_locking, driver.stat_is_cheap
        self.signed_url_ttl, self.late_write_window = (
            driver.signed_url_ttl,
            driver.late_write_window,
        )
        self.rows: dict[str, tuple[str, int]] = {}
        self.held: set[str] = set()
        self.pending_deletions: set[str] = set()

    async def claim(self, session: str, record: SessionRecord | None = None) -> Upload:
        assert record is None
        if session in self.held:
            raise UploadLockedError
        state, claim = self.rows.get(session, ("", 0))
        self.rows[session] = state, claim + 1
        self.held.add(session)

        async def ensure_lease() -> None:
            if self.rows[session][1] != claim + 1:
                raise UploadLockedError

        async def save_state(state: str) -> None:
            await ensure_lease()
            self.rows[session] = state, claim + 1

        upload = await self.driver.claim(
            session, SessionRecord(claim + 1, state, save_state, ensure_lease)
        )
        return SessionRowUpload(self, session, upload)

    def end(self, session: str, kept: str | None = None) -> None:
        """Queue deletion of the keys that the session owned."""
        self.pending_deletions |= self.possible_keys(session, *self.rows.pop(session)) - {kept}
        self.held.discard(session)

    def possible_keys(self, session: str, state: str, claim: int) -> set[str]:
        return self.driver.possible_keys(session, state, claim)

    async def start(self, *, create: bool = True) -> None:
        await self.driver.start(create=create)

    async def probe(self) -> None:
        await self.driver.probe()

    async def check(self) -> None:
        await self.driver.check()

    async def open_staged(self, session: str) -> StagedReader | None:
        return await self.driver.open_staged(session)

    async def list_staged(self) -> list[str]:
        return await self.driver.list_staged()

    def iter_objects(self, since: int = 0) -> AsyncIterator[list[StoredObject]]:
        return self.driver.iter_objects(since)

    async def stat(self, key: str) -> int:
        return await self.driver.stat(key)

    async def open(self, key: str, start: int = 0, length: int | None = None) -> Reader:
        return await self.driver.open(key, start, length)

    async def presigned_url(self, key: str) -> str | None:
        return await self.driver.presigned_url(key)

    async def delete(self, key: str) -> None:
        await self.driver.delete(key)

    async def close(self) -> None:
        await self.driver.close()


class SessionRowUpload:
    """An upload that saves the state to its row after each sync or seal."""

    def __init__(self, driver: SessionRowDriver, session: str, upload: Upload) -> None:
        self._driver = driver
        self._session = session
        self._upload = upload
        self._open = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upload, name)

    def write(self) -> None:
        """Save the state to the row, and queue deletion of the keys that it no longer owns."""
        driver, session = self._driver, self._session
        state, claim = driver.rows[session]
        driver.rows[session] = self._upload.resume_state, claim
        now = driver.possible_keys(session, *driver.rows[session])
        driver.pending_deletions |= driver.possible_keys(session, state, claim - 1) - now

    async def append_and_sync(self, data: bytes, hasher: Hasher | None) -> None:
        await self._upload.append_and_sync(data, hasher)
        self.write()

    async def sync(self) -> None:
        await self._upload.sync()
        self.write()

    async def sync_bytes(self) -> None:
        await self._upload.sync_bytes()
        self.write()

    async def seal(self) -> None:
        await self._upload.seal()
        self.write()

    async def finish(self, key: str) -> None:
        await self._upload.finish(key)
        self._open = False
        self._driver.end(self._session, self._upload.final_key(key))

    async def abort(self) -> None:
        await self._upload.abort()
        self._open = False
        self._driver.end(self._session)

    async def release(self) -> None:
        await self._upload.release()
        if self._open:
            self._open = False
            self._driver.held.discard(self._session)
