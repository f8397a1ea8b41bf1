"""The multipart upload of one session: what is saved about it, and its requests.

A key, an upload ID and part numbers are saved in the session's row before the store sees them.
"""

from dataclasses import replace

from storage import keys
from storage.driver import SessionRecord
from storage.errors import StoreFullError, UploadDataLostError
from storage.s3.bucket import S3Bucket
from storage.s3.errors import NoSuchUploadError
from storage.s3.phases import Part
from storage.s3.state import MultipartState

PART_NUMBER_BATCH = 64
"""Part numbers that a claim reserves in the row at once."""

MAX_PARTS = 10_000
"""Maximum number of parts, and maximum part number, of a multipart upload.

Source: Amazon S3 multipart upload limits.
"""


class PartSender:
    """Sends the parts of one claim.

    `state` is what the row has, or is about to have.
    """

    def __init__(self, bucket: S3Bucket, record: SessionRecord) -> None:
        self.state = MultipartState.from_json(record.state)
        self.state.part_size = self.state.part_size or bucket.part_size
        self._bucket = bucket
        self._record = record
        self._next_number = self.state.reserved + 1

    @property
    def key(self) -> str:
        if self.state.key is None:
            raise RuntimeError("no multipart upload was started")
        return self.state.key

    async def begin(self) -> None:
        """Begin the multipart upload. Its key is saved before, its ID directly after."""
        if self.state.upload_id is not None:
            return
        if self.state.key is None:
            await self._save(replace(self.state, key=keys.new_multipart_key()))
        else:
            # A holder that died may have begun an upload of this key. Nothing would abort it once
            # the key belongs to a blob.
            await self._bucket.abort_all(self.key)
        await self._record.ensure_lease()
        upload = await self._bucket.begin(self.key)
        try:
            await self._save(replace(self.state, upload_id=upload))
        except BaseException:
            await self._bucket.abort(self.key, upload)
            raise

    async def take_number(self) -> int:
        """Return a part number that no claim has used, reserved in the row."""
        number = self._next_number
        if number > MAX_PARTS:
            raise StoreFullError(
                f"the blob needs more than {MAX_PARTS} parts; raise storage.part_size"
            )
        if number > self.state.reserved:
            reserved = min(number + PART_NUMBER_BATCH - 1, MAX_PARTS)
            await self._save(replace(self.state, reserved=reserved))
        self._next_number = number + 1
        return number

    async def _save(self, state: MultipartState) -> None:
        """Write to the row what must be there before bytes are sent.

        The synced fields stay as they are.
        """
        await self._record.save_state(state.to_json())
        self.state = state

    async def send(self, number: int, buffer: bytearray) -> Part:
        """Send a part, then release its buffer."""
        try:
            await self._record.ensure_lease()
            with self._bucket.buffers.in_use():
                answer = await self._bucket.write(
                    "upload_part",
                    self.key,
                    UploadId=self.state.upload_id,
                    PartNumber=number,
                    body=buffer,
                )
        except NoSuchUploadError as error:
            raise UploadDataLostError from error
        finally:
            self._bucket.buffers.release(buffer)
        return number, str(answer["ETag"])

    async def complete(self, parts: list[Part]) -> None:
        """Complete the multipart upload. Raises NoSuchUploadError if it has ended."""
        await self._bucket.write(
            "complete_multipart_upload",
            self.key,
            UploadId=self.state.upload_id,
            MultipartUpload={"Parts": [{"PartNumber": n, "ETag": etag} for n, etag in parts]},
        )

    def record(self, *, size: int, tail: str | None, parts: list[Part], sealed: bool) -> None:
        """Set the new durable state, which the caller writes to the row.

        Every part is sent, so reserved part numbers that were not used are given back.
        """
        self.state = replace(
            self.state,
            claim=self._record.claim_number,
            size=size,
            tail=tail,
            parts=parts,
            reserved=self._next_number - 1,
            sealed=sealed,
        )

    def record_claim(self) -> None:
        """Set in the durable state that this claim puts no tail any more."""
        self.state = replace(self.state, claim=self._record.claim_number)
