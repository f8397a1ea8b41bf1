"""Operations on the objects below a prefix of a bucket."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from storage import keys
from storage.driver import StoredObject
from storage.errors import ObjectCorruptError, StoreRefusedError
from storage.piece_budget import PieceBudget
from storage.s3.buffers import BufferPool
from storage.s3.client import S3Client
from storage.s3.errors import (
    ConditionFailedError,
    NoSuchUploadError,
    NotImplementedByStoreError,
)
from storage.s3.reader import S3Reader
from storage.s3.settings import S3Settings
from storage.shield import run_to_completion

SELFTEST = (
    b"Moorage writes this object and reads it back, to check that the store changes nothing.\n"
)

_NO_BUCKET_CODES = {"NoSuchBucket", "404"}
_CHECK_CREDENTIALS = (
    "check access_key and secret_key, or the AWS environment variables, files or role that provide "
    "the credentials"
)
_GRANT_PERMISSIONS = (
    "permit these credentials to list, read, write and delete objects in the bucket"
)
_CHECK_REGION = "check the settings region and endpoint"
_REMEDIES = {
    **dict.fromkeys(_NO_BUCKET_CODES, "create it, or correct the setting bucket"),
    **dict.fromkeys(
        ("", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"),
        _CHECK_CREDENTIALS,
    ),
    **dict.fromkeys(
        ("AccessDenied", "AllAccessDisabled", "403"),
        f"{_CHECK_CREDENTIALS}, and {_GRANT_PERMISSIONS}",
    ),
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed", "301"), _CHECK_REGION),
}
"""Remedies by error code of the object store. An empty code means that no credentials were found.
"""

PAGE_SIZE = 1000
"""Objects per listing request; no store returns more."""


class S3Bucket:
    """A bucket with its prefix, and the resources that this process may use for it."""

    def __init__(self, settings: S3Settings) -> None:
        self.part_size = settings.part_size
        self.buffers = BufferPool(settings.upload_concurrency, settings.part_size)
        self.hashers = ThreadPoolExecutor(2, "s3-hash")
        self._client = S3Client(settings)
        self._budget = PieceBudget()
        self._bucket = settings.bucket
        prefix = settings.prefix.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._put_conditions = {"IfNoneMatch": "*"}
        self._object_options: dict[str, str] = {}
        if settings.sse:
            self._object_options["ServerSideEncryption"] = settings.sse
        if settings.storage_class:
            self._object_options["StorageClass"] = settings.storage_class

    async def self_test(self) -> None:
        """Check that the store returns what was sent, and detect support for conditional puts.

        Raises StoreRefusedError if the store changes the content.
        """
        await self.write("put_object", "SELFTEST", body=SELFTEST, **self._object_options)
        stored = await self.fetch("SELFTEST")
        if stored != SELFTEST:
            change = "adds checksums inside" if SELFTEST in stored else "changes the bytes of"
            raise StoreRefusedError(
                f"the object store {change} the objects it stores; upgrade it, or use another one"
            )
        if not await self._supports_conditional_puts():
            self._put_conditions = {}

    async def _supports_conditional_puts(self) -> bool:
        """Return whether the store refuses to overwrite the object of the self-test."""
        try:
            await self.write("put_object", "SELFTEST", body=SELFTEST, **self._put_conditions)
        except ConditionFailedError:
            return True
        except NotImplementedByStoreError:
            return False
        return False  # the condition was ignored

    async def list_names(self) -> list[str]:
        """Return at most PAGE_SIZE names directly below the prefix, without a final slash.

        Raises StoreRefusedError, with the remedy, if the bucket cannot be listed.
        """
        try:
            names = await self._list_level("")
        except StoreRefusedError as error:
            raise _explain(error, self._bucket) from error
        return [name for name in names if name]

    async def exists(self, path: str) -> bool:
        """Return whether the bucket has an object at this path, or objects below it."""
        return path in await self._list_level(path)

    async def _list_level(self, start: str) -> list[str]:
        """Return the paths that begin with `start`, up to the next slash, at most PAGE_SIZE."""
        answer = await self._client.read(
            "list_objects_v2", Prefix=self._prefix + start, Delimiter="/", MaxKeys=PAGE_SIZE
        )
        folders = [each["Prefix"] for each in answer.get("CommonPrefixes", ())]
        objects = [each["Key"] for each in answer.get("Contents", ())]
        return [each.removeprefix(self._prefix).rstrip("/") for each in (*folders, *objects)]

    async def iter_objects(self, below: str) -> AsyncIterator[list[StoredObject]]:
        """Yield all objects whose keys begin with `below`, in pages as returned by the store."""
        last = self._prefix + below
        while True:
            answer = await self._client.read(
                "list_objects_v2", Prefix=self._prefix + below, StartAfter=last, MaxKeys=PAGE_SIZE
            )
            found = answer.get("Contents", [])
            if found:
                last = found[-1]["Key"]
                yield [
                    StoredObject(
                        each["Key"].removeprefix(self._prefix),
                        each["Size"],
                        int(each["LastModified"].timestamp() * 1_000_000),
                    )
                    for each in found
                ]
            if not (found and answer["IsTruncated"]):
                return

    async def stat(self, key: str) -> int:
        """Return the object's length in bytes."""
        answer = await self._client.read("head_object", Key=self._prefix + key)
        return int(answer["ContentLength"])

    async def require_size(self, key: str, size: int) -> None:
        """Raise ObjectCorruptError unless the stored object has `size` bytes."""
        if await self.stat(key) != size:
            raise ObjectCorruptError("the object store kept less or more than it was sent")

    async def open(self, key: str, start: int = 0, length: int | None = None) -> S3Reader:
        return await S3Reader.open(self._client, self._prefix + key, self._budget, start, length)

    async def fetch(self, key: str) -> bytes:
        """Return the content of a small object."""
        reader = await self.open(key)
        try:
            return b"".join([piece async for piece in reader.read(0, reader.size)])
        finally:
            await reader.close()

    async def sign(self, key: str, life: float) -> str:
        """Return a presigned URL that is valid for `life` seconds."""
        return await self._client.sign(self._prefix + key, int(life))

    async def write(self, operation: str, key: str, **arguments: Any) -> Any:
        return await self._client.write(operation, Key=self._prefix + key, **arguments)

    async def put(self, key: str, data: bytes | bytearray) -> None:
        """Put a whole object, unless the key has one already: no key is used for two objects."""
        try:
            await self.write(
                "put_object", key, body=data, **self._put_conditions, **self._object_options
            )
        except ConditionFailedError:
            await self.require_size(key, len(data))

    async def begin(self, key: str) -> str:
        """Begin a multipart upload and return its ID."""

        async def abort_others(since: float) -> None:
            # The attempt that got no answer may have begun an upload.
            await self.abort_all(key, since)

        answer = await self.write(
            "create_multipart_upload", key, before_retry=abort_others, **self._object_options
        )
        return str(answer["UploadId"])

    async def delete(self, key: str) -> None:
        """Delete the object and abort every multipart upload of its key.

        This includes an upload whose ID was never saved.
        """
        if key.startswith(keys.MULTIPART_PREFIX):
            await self.abort_all(key)
        await self.write("delete_object", key)

    async def abort_all(self, key: str, since: float | None = None) -> None:
        """Abort every multipart upload of the key. `since` is as in `S3Client.call`."""
        listing = "list_multipart_uploads"
        answer = await self._client.write(listing, Prefix=self._prefix + key, since=since)
        for upload in answer.get("Uploads", ()):
            if upload["Key"] == self._prefix + key:
                await self.abort(key, upload["UploadId"], since)

    async def abort(self, key: str, upload: str, since: float | None = None) -> None:
        """Abort a multipart upload. No error if it has ended."""
        try:
            await self.write("abort_multipart_upload", key, UploadId=upload, since=since)
        except NoSuchUploadError:
            return

    async def close(self) -> None:
        await self._client.close()
        await run_to_completion(asyncio.to_thread(self.hashers.shutdown))


def _explain(error: StoreRefusedError, bucket: str) -> StoreRefusedError:
    """Return the error with the remedy and the store's own message."""
    remedy = _REMEDIES.get(error.code, "check the settings of the store")
    if error.code in _NO_BUCKET_CODES:
        what = f'no such bucket: "{bucket}"'
    else:
        what = f'the object store denies access to the bucket "{bucket}"'
    said = f"{error.code}: {error.reason}" if error.reason else error.code or str(error)
    explained = StoreRefusedError(f"{what} ({said}); {remedy}")
    explained.code = error.code
    return explained
