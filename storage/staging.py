"""The bytes of upload sessions: received, hashed while they arrive, verified, published."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterable

from storage.digest import Digest, Hasher
from storage.driver import Driver, Upload
from storage.errors import StagedLostError
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

    async def claim(self, session: str) -> "Staged":
        """Hold the session's bytes; StagedBusyError while another request does."""
        return Staged(self, session, await self._driver.claim(session))

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
        self._staging = staging
        self._session = session
        self._upload = upload
        self._hasher: Hasher | None = None
        self._mark: tuple[int, Hasher | None] = (0, None)

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
        """
        buffer = bytearray()
        writing: asyncio.Task[None] | None = None
        try:
            async for chunk in body:
                buffer += chunk
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

    def prefix(self) -> Digest | None:
        """The digest of what is staged, if it was hashed without a gap."""
        return self._hasher.digest() if self._hasher else None

    async def digest(self, algorithm: str, prefix: Digest | None) -> Digest:
        """The digest of all staged bytes: running, or `prefix` as stored, or read once more."""
        for known in (self.prefix(), prefix if self.offset == self._mark[0] else None):
            if known is not None and known.algorithm == algorithm:
                return known
        hasher = Hasher(algorithm)
        await self._upload.hash(hasher)
        return hasher.digest()

    async def publish(self, key: str) -> None:
        """Let the bytes appear durably under `key`. The hold ends."""
        self._hasher = None
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
