"""One claim of an upload session whose bytes are sent to a bucket.

An upload that fits into one part is put whole, under the key given to `finish`. A larger upload
becomes a multipart upload: a part is sent while the next one is filled. `sync` puts the bytes after
the last full part as a separate object, the tail, which the next claim reads back. Bytes are sent
only if their key is in the session's row and no other request can have claimed the session.
"""

import asyncio
import contextlib
import enum
from collections.abc import Iterator

from storage import keys
from storage.digest import Hasher
from storage.driver import SessionRecord
from storage.errors import (
    ObjectMissingError,
    StoreError,
    StoreUnavailableError,
    UploadDataLostError,
    UploadLockedError,
)
from storage.s3.bucket import S3Bucket
from storage.s3.errors import NoSuchUploadError
from storage.s3.parts import PartSender
from storage.s3.phases import (
    Completion,
    Growing,
    InBucket,
    InBuffer,
    Inline,
    InMemory,
    Multipart,
    Part,
    Phase,
    Sealed,
    Tail,
)
from storage.shield import run_to_completion

INLINE_LIMIT = 1 << 20
"""Bytes that a session may keep in memory without waiting for a buffer."""


class _Claim(enum.Enum):
    """Whether the claim can be used."""

    USABLE = enum.auto()
    BROKEN = enum.auto()
    """Bytes may be missing in the middle, until `truncate` returns to the durable state."""
    ENDED = enum.auto()


class S3Upload:
    """An upload to a bucket.

    The state of `_parts` is what the row has, or is about to have. Everything else is lost with the
    process.
    """

    def __init__(self, bucket: S3Bucket, session: str, record: SessionRecord) -> None:
        self._bucket = bucket
        self._record = record
        self._parts = PartSender(bucket, record)
        self.size = self._parts.state.size
        # The key under which this claim may put one tail; None once it is used.
        self._tail_key: str | None = keys.staged_key(session, record.claim_number)
        self._claim = _Claim.USABLE
        self._phase = self._durable_phase()

    def _durable_phase(self) -> Phase:
        """Return the phase of the durable state."""
        state = self._parts.state
        if state.sealed:
            # A holder that died may have completed the upload that it sealed.
            return Sealed(list(state.parts), Completion.UNCERTAIN)
        tail: Tail = InMemory()
        if state.tail is not None:
            tail = InBucket(state.tail, state.size - len(state.parts) * state.part_size)
        return Multipart(tail, list(state.parts)) if state.parts else Inline(tail)

    @property
    def sealed(self) -> bool:
        return self._parts.state.sealed

    @property
    def resume_state(self) -> str:
        return self._parts.state.to_json()

    append_now = None

    @property
    def is_stalled(self) -> bool:
        match self._phase:
            case Inline(InBuffer() as tail) | Multipart(InBuffer() as tail):
                return self._bucket.buffers.is_overdue(tail.since)
            case _:
                return False

    def final_key(self, key: str) -> str:
        return self._parts.key if self.sealed else key

    def _require_open(self) -> None:
        if self._claim is _Claim.ENDED:
            raise UploadLockedError

    def _require_usable(self) -> None:
        self._require_open()
        if self._claim is _Claim.BROKEN:
            raise StoreUnavailableError(
                "some bytes of this upload could not be sent to the object store; resume it"
            )

    def _growing(self) -> Growing:
        """Return the phase. Raises UploadLockedError if the upload takes no more bytes."""
        match self._phase:
            case Sealed():
                raise UploadLockedError
            case growing:
                return growing

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Leave the claim broken if the block is interrupted: bytes are missing then."""
        before, self._claim = self._claim, _Claim.BROKEN
        yield
        if self._claim is _Claim.BROKEN:
            self._claim = before

    # --- adding -------------------------------------------------------------------------------

    async def append_and_sync(self, data: bytes, hasher: Hasher | None) -> None:
        await self.append(data, hasher)
        await self.sync()

    async def append(self, data: bytes, hasher: Hasher | None) -> None:
        self._require_usable()
        self._growing()
        with self._changing():
            await self._load_tail()
            await self._add(memoryview(data))
            if hasher is not None:
                await self._hash(hasher, data)
            self.size += len(data)

    async def _add(self, rest: memoryview) -> None:
        """Append bytes to the tail, and send the buffer each time that more bytes follow it."""
        while rest:
            phase = self._growing()
            match phase.tail:
                case InMemory(data) if len(data) + len(rest) <= INLINE_LIMIT:
                    data += rest
                    return
                case InMemory(data):
                    phase.tail = await self._new_buffer(self._parts.state.part_size)
                    await self._add(memoryview(data))
                case InBuffer() as tail if tail.is_full:
                    await self._send_buffer(tail)
                    self._growing().tail = await self._new_buffer(self._parts.state.part_size)
                case InBuffer() as tail:
                    rest = tail.fill(rest)
                case InBucket():
                    raise RuntimeError("the tail was not read back")

    async def _new_buffer(self, size: int) -> InBuffer:
        return InBuffer(await self._bucket.buffers.acquire(size))

    async def _hash(self, hasher: Hasher, data: bytes | memoryview) -> None:
        loop = asyncio.get_running_loop()
        await run_to_completion(loop.run_in_executor(self._bucket.hashers, hasher.update, data))

    async def _load_tail(self) -> InMemory | InBuffer:
        """Return the tail. If another claim put it, read it back first."""
        phase = self._growing()
        match phase.tail:
            case InBucket() as stored:
                with self._changing():
                    phase.tail = InMemory()
                    await self._read_tail(stored)
                return await self._load_tail()
            case loaded:
                return loaded

    async def _read_tail(self, stored: InBucket) -> None:
        try:
            reader = await self._bucket.open(stored.key)
        except ObjectMissingError as error:
            raise UploadDataLostError from error
        try:
            if reader.size != stored.size:
                raise UploadDataLostError
            with self._bucket.buffers.in_use():
                async for piece in reader.read(0, stored.size):
                    await self._add(memoryview(piece))
        finally:
            await reader.close()

    # --- parts --------------------------------------------------------------------------------

    async def _send_buffer(self, tail: InBuffer) -> None:
        """Send the buffer as a part, while the next one is filled. The tail is empty then."""
        with self._bucket.buffers.in_use():
            await self._parts.begin()
        number = await self._parts.take_number()
        phase = self._growing()
        if isinstance(phase, Inline):
            phase = self._phase = Multipart(tail)
        buffer, phase.tail = tail.take(), InMemory()
        phase.sending.append(asyncio.create_task(self._parts.send(number, buffer)))
        # Raise the error of a part that failed.
        while phase.sending and phase.sending[0].done():
            phase.sent.append(await phase.sending.pop(0))

    async def _settle(self) -> list[Part]:
        """Wait until every part is sent, and return all parts."""
        match self._growing():
            case Inline():
                return []
            case Multipart(sent=sent, sending=sending):
                while sending:
                    sent.append(await run_to_completion(sending.pop(0)))
                return list(sent)

    # --- sync, seal, publish ------------------------------------------------------------------

    async def resume(self, size: int) -> None:
        if size != self.size:
            await self.truncate(size)

    async def truncate(self, size: int) -> None:
        self._require_open()
        if size == self.size and self._claim is _Claim.USABLE:
            return
        if size != self._parts.state.size:
            raise ValueError("truncate accepts only the last synced size")
        await self._drop()
        if self._claim is _Claim.BROKEN:
            self._claim = _Claim.USABLE

    async def _drop(self) -> None:
        """Return to the durable state."""
        if isinstance(self._phase, Multipart):
            for task in self._phase.sending:
                await run_to_completion(asyncio.wait([task]))
            for task in self._phase.sending:
                task.exception()  # Mark the exception as retrieved.
        self._free()
        self._phase = self._durable_phase()
        self.size = self._parts.state.size

    def _free(self) -> None:
        """Release the buffer, if there is one."""
        match self._phase:
            case (Inline(InBuffer(buffer)) | Multipart(InBuffer(buffer))) as phase:
                phase.tail = InMemory()
                self._bucket.buffers.release(buffer)
            case _:
                pass

    async def sync(self) -> None:
        self._require_usable()
        if self.size == self._parts.state.size:
            return
        with self._changing():
            match self._phase:
                case Multipart(InBuffer() as full) if full.is_full:
                    await self._send_buffer(full)
                case _:
                    pass
            parts = await self._settle()
            tail = await self._put_tail()
            self._parts.record(size=self.size, tail=tail, parts=parts, sealed=False)

    async def sync_bytes(self) -> None:
        await self.sync()

    async def _put_tail(self) -> str | None:
        """Put the bytes after the last part, if any, under the tail key and return that key."""
        tail = await self._load_tail()
        if not tail.view():
            return None
        key, self._tail_key = self._tail_key, None
        if key is None:
            raise ValueError("a claim has one tail key, which must not be used twice")
        await self._record.ensure_lease()
        with self._bucket.buffers.in_use():
            await self._bucket.put(key, bytes(tail.view()))
        return key

    async def seal(self) -> None:
        self._require_usable()
        match self._phase:
            case Inline():
                # The bytes fit into one object. No tail may be put from here on.
                self._parts.record_claim()
                self._tail_key = None
            case Multipart():
                with self._changing():
                    await self._send_tail()
                    parts = await self._settle()
                    self._parts.record(size=self.size, tail=None, parts=parts, sealed=True)
                    self._phase = Sealed(parts, Completion.OPEN)
            case Sealed():
                pass

    async def _send_tail(self) -> None:
        """Send the bytes after the last full part as the last part."""
        match await self._load_tail():
            case InMemory(data) if data:
                tail = self._growing().tail = await self._new_buffer(len(data))
                tail.fill(memoryview(data))
                await self._send_buffer(tail)
            case InBuffer() as tail:
                await self._send_buffer(tail)
            case InMemory():
                pass

    async def hash(self, hasher: Hasher) -> None:
        self._require_usable()
        match self._phase:
            case Inline():
                tail = await self._load_tail()
                # The thread may keep its reference for a moment, and a buffer cannot be shortened
                # while there is a view of it.
                with tail.view() as view:
                    await self._hash(hasher, view)
            case Multipart():
                raise RuntimeError("the upload is not sealed")
            case Sealed() as sealed:
                await self._complete(sealed)
                reader = await self._bucket.open(self._parts.key)
                try:
                    async for piece in reader.read(0, self.size):
                        await self._hash(hasher, piece)
                finally:
                    await reader.close()

    async def finish(self, key: str) -> None:
        self._require_usable()
        match self._phase:
            case Inline():
                tail = await self._load_tail()
                await self._record.ensure_lease()
                with self._bucket.buffers.in_use():
                    await self._bucket.put(key, tail.take())
                    await self._bucket.require_size(key, self.size)
            case Multipart():
                raise RuntimeError("the upload is not sealed")
            case Sealed() as sealed:
                await self._complete(sealed)
        self._end()

    async def _complete(self, sealed: Sealed) -> None:
        """Complete the multipart upload and check the size of the object."""
        if sealed.completion is Completion.DONE:
            return
        await self._record.ensure_lease()
        try:
            await self._parts.complete(sealed.parts)
        except NoSuchUploadError as error:
            # An attempt that got no answer completed it, or a holder that died afterwards.
            if not (sealed.completion is Completion.UNCERTAIN or error.repeated):
                raise UploadDataLostError from error
        except StoreError:
            sealed.completion = Completion.UNCERTAIN
            raise
        await self._bucket.require_size(self._parts.key, self.size)
        sealed.completion = Completion.DONE

    async def abort(self) -> None:
        self._require_open()
        await self._drop()
        self._end()

    async def release(self) -> None:
        if self._claim is not _Claim.ENDED:
            self._claim = _Claim.ENDED
            await self._drop()

    def _end(self) -> None:
        self._claim = _Claim.ENDED
        self._free()
