"""The bytes of upload sessions: received, hashed while they arrive, verified, published."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterable

from storage.digest import Digest, Hasher
from storage.driver import Driver, Record, Upload
from storage.errors import StagedLostError, StoreUnavailableError
from storage.settled import settled

PIECE = 1 << 20
"""Bytes handed to a thread at once."""

MAX_RUNNING = 10_000
"""Running hashes kept between requests; one beyond costs a second read at its end, no more."""


class Staging:
    """Claims sessions and remembers running hashes, so that a session continued on this process
    is not read a second time. A hash state never leaves the process.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._running: OrderedDict[str, Hasher] = OrderedDict()

    @property
    def locks(self) -> bool:
        """Whether `claim` keeps others out; where not, it is given the session's row."""
        return self._driver.locks

    async def claim(self, session: str, record: Record | None = None) -> "Staged":
        """Hold the session's bytes; StagedBusyError while another request does."""
        return Staged(self, session, await self._driver.claim(session, record))

    def list_keys(self, session: str, state: str, claim: int) -> set[str]:
        """Every key that may have bytes of the session, where only its row knows them."""
        return self._driver.list_keys(session, state, claim)

    async def list(self) -> list[str]:
        return await self._driver.list_staged()

    def remember(self, session: str, hasher: Hasher) -> None:
        self._running[session] = hasher
        self._running.move_to_end(session)
        while len(self._running) > MAX_RUNNING:
            self._running.popitem(last=False)

    def recall(self, session: str, prefix: Digest | None) -> Hasher | None:
        """The running hash, if this process has it and it is of these bytes. It is handed out once.

        Its offset would prove nothing: another process may have dropped bytes that were hashed
        here but never acknowledged, and have acknowledged others in their place.
        """
        hasher = self._running.pop(session, None)
        return hasher if hasher is not None and hasher.digest() == prefix else None


class Staged:
    """One request's hold of a session's staged bytes."""

    def __init__(self, staging: Staging, session: str, upload: Upload) -> None:
        self.offset = 0
        self.over = False
        """Whether its session is known to have ended with it, and with it every claim."""
        self.published: str | None = None
        """The key that bytes may have appeared under."""
        self._staging = staging
        self._session = session
        self._upload = upload
        self._hasher: Hasher | None = None
        self._mark: tuple[int, Hasher | None] = (0, None)

    @property
    def state(self) -> str:
        """What the session's row has to remember of the bytes that are synced or sealed."""
        return self._upload.state

    @property
    def sealed(self) -> bool:
        """Whether an earlier holder took the last byte; the session can only be completed."""
        return self._upload.sealed

    def key_for(self, key: str) -> str:
        """Where sealed bytes will appear that are published as `key`."""
        return self._upload.key_for(key)

    async def resume(self, offset: int, algorithm: str, prefix: Digest | None) -> None:
        """Go on from the acknowledged `offset`: what a killed request left beyond it is dropped.

        `prefix`: the digest of the acknowledged bytes as stored with `offset`, if it is.
        StagedLostError if there are fewer bytes than were acknowledged.
        """
        if self._upload.size < offset:
            raise StagedLostError
        if self._upload.size > offset:
            await self._upload.truncate(offset)
        self.offset = offset
        running = self._staging.recall(self._session, prefix)
        self._hasher = running if offset else Hasher(algorithm)
        self._mark = (offset, self._hasher.copy() if self._hasher else None)

    async def append(self, body: AsyncIterable[bytes]) -> None:
        """Add the body: one piece is written and hashed on a thread while the next arrives.

        When the body breaks off, what arrived before is kept, and the error goes on.
        StoreUnavailableError where it comes too slowly for a store that others wait for.
        """
        buffer = bytearray()
        writing: asyncio.Task[None] | None = None
        try:
            async for chunk in body:
                buffer += chunk
                if self._upload.overdue:
                    raise StoreUnavailableError("the upload is too slow while others wait")
                if len(buffer) >= PIECE:
                    if writing is not None:
                        await settled(writing)
                    writing = asyncio.create_task(self._write(bytes(buffer)))
                    buffer = bytearray()
        finally:
            if writing is not None:
                await settled(writing)
            if buffer:
                await settled(self._write(bytes(buffer)))

    async def _write(self, piece: bytes) -> None:
        await self._upload.append(piece, self._hasher)
        self.offset = self._upload.size

    async def rollback(self) -> None:
        """Forget what was appended since `resume`."""
        self.offset, self._hasher = self._mark
        await self._upload.truncate(self.offset)

    async def sync(self) -> None:
        """Make what is staged durable, so that its offset may be acknowledged."""
        await self._upload.sync()

    async def seal(self) -> None:
        """Take no more bytes, so that they can be read and published."""
        await self._upload.seal()

    def prefix(self) -> Digest | None:
        """The digest of what is staged, if it was hashed without a gap."""
        return self._hasher.digest() if self._hasher else None

    def known_digest(self, algorithm: str, prefix: Digest | None) -> Digest | None:
        """The digest of all staged bytes without reading them: running, or `prefix` as stored."""
        for known in (self.prefix(), prefix if self.offset == self._mark[0] else None):
            if known is not None and known.algorithm == algorithm:
                return known
        return None

    async def digest(self, algorithm: str, prefix: Digest | None) -> Digest:
        """The digest of all staged bytes, sealed ones: known, or by reading them once more."""
        known = self.known_digest(algorithm, prefix)
        if known is not None:
            return known
        hasher = Hasher(algorithm)
        await self._upload.hash(hasher)
        return hasher.digest()

    async def publish(self, key: str) -> None:
        """Let sealed bytes appear durably under `key_for(key)`. The hold ends."""
        self._hasher = None
        self.published = self.key_for(key)
        await self._upload.finish(key)

    async def discard(self) -> None:
        """Remove the bytes. The hold ends."""
        self._hasher = None
        await self._upload.discard()

    async def release(self) -> None:
        """End the hold. Safe to call twice."""
        if self._hasher is not None and self.offset:
            self._staging.remember(self._session, self._hasher)
            self._hasher = None
        await self._upload.release()
