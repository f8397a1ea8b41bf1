"""One claim of an upload session whose bytes are sent to a bucket.

An upload that fits into one part is put whole, under the key given to `finish`. A larger upload
becomes a multipart upload: a part is sent while the next one is filled. `sync` puts the bytes after
the last full part as a separate object, the tail, which the next claim reads back. Bytes are sent
only if their key is in the session's row and no other request can have claimed the session.
"""

import asyncio
import time
from dataclasses import replace

from storage import keys
from storage.digest import Hasher
from storage.driver import SessionRecord
from storage.errors import (
    ObjectMissingError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UploadDataLostError,
    UploadLockedError,
)
from storage.s3.bucket import S3Bucket
from storage.s3.client import NoSuchUploadError
from storage.s3.state import MultipartState
from storage.shield import run_to_completion

INLINE_LIMIT = 1 << 20
"""Bytes that a session may keep in memory without waiting for a buffer."""

PART_NUMBER_BATCH = 64
"""Part numbers that a claim reserves in the row at once."""

MAX_PARTS = 10_000
"""Maximum number of parts, and maximum part number, of a multipart upload.

Source: Amazon S3 multipart upload limits.
"""


class S3Upload:
    """An upload to a bucket.

    `_state` is what the row has, or is about to have. Everything else is lost with the process.
    """

    def __init__(self, bucket: S3Bucket, session: str, record: SessionRecord) -> None:
        self._bucket = bucket
        self._record = record
        self._session = session
        self._state = MultipartState.from_json(record.state)
        self._state.part_size = self._state.part_size or bucket.part_size
        self.size = self._state.size
        self.sealed = self._state.sealed
        self._open = True
        self._staged = False
        self._completed = False
        # A holder that died may have completed the upload that it sealed.
        self._unsure = self.sealed
        self._next = self._state.reserved + 1
        self._used_before = self._state.reserved
        self._buffer: bytearray | None = None
        self._filled = 0
        self._since = 0.0
        self._reset()

    def _reset(self) -> None:
        """Return to the durable state."""
        self.size = self._state.size
        self._synced = True
        self._parts = list(self._state.parts)
        # The bytes after the last part are in `_few` or `_buffer`. If both are None, the bytes have
        # to be read back.
        self._few: bytearray | None = None if self._state.tail else bytearray()
        self._sending: list[asyncio.Task[tuple[int, str]]] = []
        self._broken = False

    @property
    def resume_state(self) -> str:
        return self._state.to_json()

    @property
    def is_stalled(self) -> bool:
        return self._buffer is not None and self._bucket.buffers.is_overdue(self._since)

    def final_key(self, key: str) -> str:
        return self._key if self.sealed else key

    def _require_open(self) -> None:
        if not self._open:
            raise UploadLockedError

    def _require_whole(self) -> None:
        """Raise if the claim has ended, or if bytes in the middle are missing."""
        self._require_open()
        if self._broken:
            raise StoreUnavailableError(
                "some bytes of this upload could not be sent to the object store; resume it"
            )

    # --- adding -------------------------------------------------------------------------------

    async def append(self, data: bytes, hasher: Hasher | None) -> None:
        self._require_whole()
        if self.sealed:
            raise UploadLockedError
        # Stays set if an exception interrupts this method, because then bytes are missing in
        # between.
        self._broken = True
        await self._reload_tail()
        await self._buffer_bytes(memoryview(data))
        if hasher is not None:
            await self._hash(hasher, data)
        self.size += len(data)
        self._synced = self._synced and not data
        self._broken = False

    async def _buffer_bytes(self, rest: memoryview) -> None:
        """Append bytes to those in memory: a few in `_few`, more in a buffer."""
        if self._few is not None:
            if len(self._few) + len(rest) <= INLINE_LIMIT:
                self._few += rest
                return
            few, self._few = self._few, None
            await self._buffer_bytes(memoryview(few))
        while rest:
            if self._buffer is not None and self._filled == len(self._buffer):
                await self._send_buffer(self._buffer)
            if self._buffer is None:
                self._buffer = await self._bucket.buffers.acquire(self._state.part_size)
                self._filled, self._since = 0, time.monotonic()
            piece = rest[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            rest = rest[len(piece) :]

    def _pending(self) -> memoryview:
        """Return the bytes after the last part."""
        if self._buffer is not None:
            return memoryview(self._buffer)[: self._filled]
        return memoryview(self._few or b"")

    async def _hash(self, hasher: Hasher, data: bytes | memoryview) -> None:
        loop = asyncio.get_running_loop()
        await run_to_completion(loop.run_in_executor(self._bucket.hashers, hasher.update, data))

    def _free(self) -> None:
        buffer, self._buffer, self._filled = self._buffer, None, 0
        if buffer is not None:
            self._bucket.buffers.release(buffer)

    async def _reload_tail(self) -> None:
        """Read back the tail that another claim put."""
        if self._few is not None or self._buffer is not None or self._state.tail is None:
            return
        length = self._state.size - len(self._state.parts) * self._state.part_size
        before, self._broken = self._broken, True
        self._few = bytearray()
        try:
            reader = await self._bucket.open(self._state.tail)
        except ObjectMissingError as error:
            raise UploadDataLostError from error
        try:
            if reader.size != length:
                raise UploadDataLostError
            with self._bucket.buffers.in_use():
                async for piece in reader.read(0, length):
                    await self._buffer_bytes(memoryview(piece))
        finally:
            await reader.close()
        self._broken = before

    # --- parts --------------------------------------------------------------------------------

    async def _send_buffer(self, buffer: bytearray) -> None:
        """Send the buffer as a part, while the next one is filled."""
        with self._bucket.buffers.in_use():
            await self._begin()
        number = await self._take_number()
        if self._filled < len(buffer):
            del buffer[self._filled :]
        self._buffer, self._filled = None, 0
        self._sending.append(asyncio.create_task(self._send(number, buffer)))
        await self._raise_failed()

    async def _send(self, number: int, buffer: bytearray) -> tuple[int, str]:
        try:
            await self._record.ensure_lease()
            with self._bucket.buffers.in_use():
                answer = await self._bucket.write(
                    "upload_part",
                    self._key,
                    UploadId=self._state.upload_id,
                    PartNumber=number,
                    body=buffer,
                )
        except NoSuchUploadError as error:
            raise UploadDataLostError from error
        finally:
            self._bucket.buffers.release(buffer)
        return number, str(answer["ETag"])

    @property
    def _key(self) -> str:
        if self._state.key is None:
            raise RuntimeError("no multipart upload was started")
        return self._state.key

    async def _begin(self) -> None:
        """Begin the multipart upload. Its key is saved before, its ID directly after."""
        if self._state.upload_id is not None:
            return
        if self._state.key is None:
            await self._save(replace(self._state, key=keys.new_multipart_key()))
        else:
            # A holder that died may have begun an upload of this key. Nothing would abort it once
            # the key belongs to a blob.
            await self._bucket.abort_all(self._key)
        await self._record.ensure_lease()
        upload = await self._bucket.begin(self._key)
        try:
            await self._save(replace(self._state, upload_id=upload))
        except BaseException:
            await self._bucket.abort(self._key, upload)
            raise

    async def _take_number(self) -> int:
        number = self._next
        if number > MAX_PARTS:
            raise StoreFullError(
                f"the blob needs more than {MAX_PARTS} parts; raise storage.part_size"
            )
        if number > self._state.reserved:
            reserved = min(number + PART_NUMBER_BATCH - 1, MAX_PARTS)
            await self._save(replace(self._state, reserved=reserved))
        self._next = number + 1
        return number

    async def _save(self, state: MultipartState) -> None:
        """Write to the row what must be there before bytes are sent.

        The synced fields stay as they are.
        """
        await self._record.save_state(state.to_json())
        self._state = state

    async def _raise_failed(self) -> None:
        """Collect parts that were sent, and raise the error of one that failed."""
        while self._sending and self._sending[0].done():
            self._parts.append(await self._sending.pop(0))

    async def _settle(self) -> None:
        """Wait until every part is sent."""
        while self._sending:
            self._parts.append(await run_to_completion(self._sending.pop(0)))

    # --- sync, seal, publish ------------------------------------------------------------------

    async def truncate(self, size: int) -> None:
        self._require_open()
        if size == self.size and not self._broken:
            return
        if size != self._state.size:
            raise ValueError("truncate accepts only the last synced size")
        await self._drop()

    async def _drop(self) -> None:
        for task in self._sending:
            await run_to_completion(asyncio.wait([task]))
        for task in self._sending:
            task.exception()  # Mark the exception as retrieved.
        self._free()
        self._reset()

    async def sync(self) -> None:
        self._require_whole()
        if self._synced:
            return
        self._broken = True
        if self._buffer is not None and self._filled == len(self._buffer) and self._is_large():
            await self._send_buffer(self._buffer)
            self._few = bytearray()
        await self._settle()
        tail = await self._put_tail()
        self._record_parts(tail=tail, sealed=False)
        self._broken = False

    async def _put_tail(self) -> str | None:
        """Put the bytes after the last part, if any, under the tail key and return that key."""
        here = self._pending()
        if not here:
            return None
        if self._staged:
            raise ValueError("a claim has one tail key, which must not be used twice")
        self._staged = True
        key = keys.staged_key(self._session, self._record.claim)
        await self._record.ensure_lease()
        with self._bucket.buffers.in_use():
            await self._bucket.put(key, bytes(here))
        return key

    def _record_parts(self, *, tail: str | None, sealed: bool) -> None:
        """Set the new durable state.

        Every part is sent, so reserved part numbers that were not used are given back.
        """
        self._state = replace(
            self._state,
            claim=self._record.claim,
            size=self.size,
            tail=tail,
            parts=list(self._parts),
            reserved=max(self._next - 1, self._used_before),
            sealed=sealed,
        )
        self.sealed = sealed
        self._synced = True

    async def seal(self) -> None:
        self._require_whole()
        if self.sealed:
            return
        if not self._is_large():
            # The bytes fit into one object. No tail may be put from here on.
            self._state = replace(self._state, claim=self._record.claim)
            self._staged = True
            return
        await self._reload_tail()
        if self._few:
            few, self._few = self._few, None
            self._buffer = await self._bucket.buffers.acquire(len(few))
            self._buffer[:], self._filled = few, len(few)
        if self._buffer is not None:
            await self._send_buffer(self._buffer)
        await self._settle()
        self._record_parts(tail=None, sealed=True)

    def _is_large(self) -> bool:
        """Return whether there are parts already. If not, the bytes may fit into one object."""
        return bool(self._sending or self._parts)

    async def hash(self, hasher: Hasher) -> None:
        self._require_whole()
        if not self.sealed:
            await self._reload_tail()
            await self._hash(hasher, self._pending())
            return
        await self._complete()
        reader = await self._bucket.open(self._key)
        try:
            async for piece in reader.read(0, self.size):
                await self._hash(hasher, piece)
        finally:
            await reader.close()

    async def finish(self, key: str) -> None:
        self._require_whole()
        if self.sealed:
            await self._complete()
        else:
            await self._reload_tail()
            if self._buffer is not None:
                del self._buffer[self._filled :]
            await self._record.ensure_lease()
            with self._bucket.buffers.in_use():
                await self._bucket.put(key, self._buffer or self._few or b"")
                await self._bucket.require_size(key, self.size)
        self._end()

    async def _complete(self) -> None:
        """Complete the multipart upload and check the size of the object."""
        if self._completed:
            return
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in self._parts]
        await self._record.ensure_lease()
        try:
            await self._bucket.write(
                "complete_multipart_upload",
                self._key,
                UploadId=self._state.upload_id,
                MultipartUpload={"Parts": parts},
            )
        except NoSuchUploadError as error:
            # An attempt that got no answer completed it, or a holder that died afterwards.
            if not (self._unsure or error.repeated):
                raise UploadDataLostError from error
        except StoreError:
            self._unsure = True
            raise
        await self._bucket.require_size(self._key, self.size)
        self._completed = True

    async def abort(self) -> None:
        self._require_open()
        await self._drop()
        self._end()

    async def release(self) -> None:
        if self._open:
            self._open = False
            await self._drop()

    def _end(self) -> None:
        self._open = False
        self._free()
