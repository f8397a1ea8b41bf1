"""Staging of upload sessions: bytes are received, hashed on arrival, verified and published."""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import AsyncIterable, Sequence
from typing import Any

from storage.digest import Digest, Hasher
from storage.driver import Driver, SessionRecord, StagedReader, Transfer, Upload, WholeDriver
from storage.errors import StoreUnavailableError, UploadDataLostError
from storage.job_threads import Then
from storage.shield import run_to_completion

CHUNK_SIZE = 1 << 20
"""Bytes per thread job."""

LARGE_PIECE = 512 << 10
"""Bytes of a piece of a body that gets a thread job of its own, without being copied."""

MAX_RUNNING_HASHES = 10_000
"""Running hashes kept between requests. A dropped hash costs one more read of the upload's bytes.
"""


class StagingArea:
    """Claims of sessions, and running hashes kept between requests.

    With its hash kept, a session that continues in this process is not read a second time. A hash
    state never leaves the process.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._whole = driver if isinstance(driver, WholeDriver) else None
        self._running: OrderedDict[str, Hasher] = OrderedDict()

    @property
    def supports_locking(self) -> bool:
        """Whether `claim` itself excludes others. If not, it needs the session's row."""
        return self._driver.supports_locking

    async def claim(self, session: str, record: SessionRecord | None = None) -> "StagedUpload":
        """Claim the session's bytes. Raises UploadLockedError while another request holds them."""
        return StagedUpload(self, session, await self._driver.claim(session, record))

    @property
    def takes_whole(self) -> bool:
        """Whether `receive_whole` and `publish_whole` are possible."""
        return self._whole is not None

    async def receive_whole(self, session: str, data: bytes, hasher: Hasher, then: Then) -> Any:
        """Stage all bytes of a session without any, sync them, and pass the job on.

        Returns its result. Raises StagedSizeError if the session has bytes.
        """
        assert self._whole is not None  # noqa: S101 - `takes_whole`
        upload, result = await self._whole.receive_whole(session, data, hasher, then)
        self.keep_running_hash(session, hasher)
        await upload.release()
        return result

    async def publish_whole(self, session: str, size: int, key: str, then: Then) -> Any:
        """Publish the `size` acknowledged bytes of a session under `key`, and pass the job on.

        Returns its result. Raises StagedSizeError if the session has another number of bytes.
        """
        assert self._whole is not None  # noqa: S101 - `takes_whole`
        result = await self._whole.publish_whole(session, size, key, then)
        self._running.pop(session, None)
        return result

    def possible_keys(self, session: str, state: str, claim: int) -> set[str]:
        """Return every key that may hold bytes of the session, if only its row knows them."""
        return self._driver.possible_keys(session, state, claim)

    async def open_reader(self, session: str) -> StagedReader | None:
        """Open the session's bytes for reading while they grow; None if that is not possible."""
        return await self._driver.open_staged(session)

    async def list_sessions(self) -> list[str]:
        return await self._driver.list_staged()

    def keep_running_hash(self, session: str, hasher: Hasher) -> None:
        self._running[session] = hasher
        self._running.move_to_end(session)
        while len(self._running) > MAX_RUNNING_HASHES:
            self._running.popitem(last=False)

    def take_running_hash(self, session: str, prefix_digest: Digest | None) -> Hasher | None:
        """Return the running hash if this process has it and it matches, and forget it.

        A comparison of offsets would not be enough: another process may have dropped bytes that
        were hashed here but never acknowledged, and have acknowledged others in their place.
        """
        hasher = self._running.pop(session, None)
        return hasher if hasher is not None and hasher.digest() == prefix_digest else None


class StagedUpload:
    """One request's claim on a session's staged bytes."""

    def __init__(self, staging: StagingArea, session: str, upload: Upload) -> None:
        self.offset = 0
        self.session_ended = False
        """Whether the session is known to have ended with this claim, which ends all claims."""
        self.published: str | None = None
        """The key under which bytes may have been published."""
        self._staging = staging
        self._session = session
        self._upload = upload
        self._hasher: Hasher | None = None
        self._checkpoint: tuple[int, Hasher | None] = (0, None)

    @property
    def resume_state(self) -> str:
        """State of the synced or sealed bytes, to save in the session's row."""
        return self._upload.resume_state

    @property
    def size(self) -> int:
        """Number of staged bytes, including those that were never acknowledged."""
        return self._upload.size

    @property
    def sealed(self) -> bool:
        """Whether an earlier claim sealed the session, so that it can only be completed."""
        return self._upload.sealed

    def final_key(self, key: str) -> str:
        """Return the key under which `publish(key)` publishes sealed bytes."""
        return self._upload.final_key(key)

    async def resume(self, offset: int, algorithm: str, prefix_digest: Digest | None) -> None:
        """Continue from the acknowledged `offset`, and drop the bytes that a killed request left.

        `prefix_digest` is the digest of the acknowledged bytes, if one is stored with `offset`.
        Raises UploadDataLostError if fewer bytes are staged than were acknowledged.
        """
        if self._upload.size < offset:
            raise UploadDataLostError
        await self._upload.resume(offset)
        self.offset = offset
        running = self._staging.take_running_hash(self._session, prefix_digest)
        self._hasher = running if offset else Hasher(algorithm)
        self._checkpoint = (offset, self._hasher.copy() if self._hasher else None)

    async def append(
        self,
        body: AsyncIterable[bytes],
        transfer: Transfer | None = None,
        *,
        then_sync: bool = False,
    ) -> None:
        """Append the body. One piece is written and hashed on a thread while the next one arrives.

        If the store supports it, the thread of a `transfer` writes and hashes what it receives.

        `then_sync` announces a call of `sync`. If the body breaks off, the bytes that arrived
        before are kept and the error propagates. Raises StoreUnavailableError if the body is too
        slow while other uploads wait for the store.
        """
        buffer = bytearray()
        writing: asyncio.Task[None] | None = None
        is_whole = False
        try:
            async for chunk in body:
                whole = not buffer and len(chunk) >= LARGE_PIECE  # needs no copy
                if not whole:
                    buffer += chunk
                if self._upload.is_stalled:
                    raise StoreUnavailableError("the upload is too slow while other uploads wait")
                if whole or len(buffer) >= CHUNK_SIZE:
                    if writing is not None:
                        await run_to_completion(writing)
                    writing = asyncio.create_task(self._write(chunk if whole else bytes(buffer)))
                    buffer = bytearray()
                if transfer is not None:
                    await self._transfer(transfer, buffer, writing)
            is_whole = True
        finally:
            if writing is not None:
                await run_to_completion(writing)
            if buffer:
                synced = is_whole and then_sync
                await run_to_completion(self._write(bytes(buffer), synced=synced))

    async def _transfer(
        self, transfer: Transfer, buffer: bytearray, writing: asyncio.Task[None] | None
    ) -> None:
        """Append the buffer and what the transfer passes on, until it is over or interrupted."""
        append = self._upload.append_now
        if append is None:
            return
        if writing is not None:
            await run_to_completion(writing)

        def sink(pieces: Sequence[memoryview]) -> None:
            if buffer:
                pieces = [memoryview(bytes(buffer)), *pieces]
                buffer.clear()
            append(pieces, self._hasher)

        try:
            while await transfer(sink, sys.maxsize):
                pass
        finally:
            self.offset = self._upload.size

    async def _write(self, piece: bytes, *, synced: bool = False) -> None:
        append = self._upload.append_and_sync if synced else self._upload.append
        await append(piece, self._hasher)
        self.offset = self._upload.size

    async def rollback(self) -> None:
        """Drop the bytes appended since `resume`."""
        self.offset, self._hasher = self._checkpoint
        await self._upload.truncate(self.offset)

    async def sync(self, *, with_name: bool = True) -> None:
        """Make the staged bytes durable, so that their offset may be acknowledged.

        Without `with_name`, a power cut may lose all of them, but never some.
        """
        await (self._upload.sync() if with_name else self._upload.sync_bytes())

    async def seal(self) -> None:
        """Accept no more bytes, so that the staged bytes can be read and published."""
        await self._upload.seal()

    def prefix_digest(self) -> Digest | None:
        """Return the digest of the staged bytes, if all of them were hashed."""
        return self._hasher.digest() if self._hasher else None

    def known_digest(self, algorithm: str, prefix_digest: Digest | None) -> Digest | None:
        """Return the digest of all staged bytes if it is known without reading them.

        It is the running hash, or `prefix_digest` as stored.
        """
        for known in (
            self.prefix_digest(),
            prefix_digest if self.offset == self._checkpoint[0] else None,
        ):
            if known is not None and known.algorithm == algorithm:
                return known
        return None

    async def digest(self, algorithm: str, prefix_digest: Digest | None) -> Digest:
        """Return the digest of all staged bytes, which must be sealed.

        Reads the bytes if their digest is not known.
        """
        known = self.known_digest(algorithm, prefix_digest)
        if known is not None:
            return known
        hasher = Hasher(algorithm)
        await self._upload.hash(hasher)
        return hasher.digest()

    async def publish(self, key: str) -> None:
        """Publish the sealed bytes durably under `final_key(key)`, which ends the claim."""
        self._hasher = None
        self.published = self.final_key(key)
        await self._upload.finish(key)

    async def abort(self) -> None:
        """Drop the bytes, which ends the claim."""
        self._hasher = None
        await self._upload.abort()

    async def release(self) -> None:
        """End the claim. Safe to call twice."""
        if self._hasher is not None and self.offset:
            self._staging.keep_running_hash(self._session, self._hasher)
            self._hasher = None
        await self._upload.release()
