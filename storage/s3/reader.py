"""Reader of an object in a bucket, whose open request already asks for the bytes."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Self

from storage.errors import (
    ObjectCorruptError,
    ObjectMissingError,
    StoreUnavailableError,
)
from storage.piece_budget import PieceBudget
from storage.s3.client import RETRY_WITHIN_S, S3Client
from storage.s3.errors import ConditionFailedError
from storage.shield import run_to_completion

MAX_RESUMES = 3
"""Number of times that a broken body is requested again from where it ended."""


class S3Reader:
    """An open object in a bucket.

    A sequential read continues the body that `open` requested. Any other read sends a new request.
    """

    file = None

    def __init__(self, client: S3Client, key: str, budget: PieceBudget) -> None:
        self.size = 0
        self._client = client
        self._key = key
        self._budget = budget
        self._etag: str | None = None
        self._body: Any = None
        self._at = 0
        self._end = 0

    @classmethod
    async def open(
        cls, client: S3Client, key: str, budget: PieceBudget, start: int, length: int | None
    ) -> Self:
        reader = cls(client, key, budget)
        await reader._request(start, length, time.monotonic())
        return reader

    async def _request(self, start: int, length: int | None, since: float) -> None:
        """Request this range of the same version of the object. `since`: see `S3Client.call`."""
        await self.close()
        arguments: dict[str, Any] = {"Key": self._key}
        if start or length is not None:
            last = "" if length is None else start + max(length, 1) - 1
            arguments["Range"] = f"bytes={start}-{last}"
        if self._etag is not None:
            arguments["IfMatch"] = self._etag
        answer = await self._client.read(
            "get_object", on_abandoned=_close_body, since=since, **arguments
        )
        self._body = answer["Body"]
        given = answer["ContentLength"]
        if "ContentRange" in answer:
            self._at = int(answer["ContentRange"].removeprefix("bytes ").partition("-")[0])
            self.size = int(answer["ContentRange"].rpartition("/")[2])
        else:
            self._at, self.size = 0, given
        self._end = self._at + given
        self._etag = answer.get("ETag")
        if self._at != start:
            raise StoreUnavailableError("the object store does not support range requests")

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        end = start + length
        resumes = MAX_RESUMES
        if end > self.size:
            raise ObjectCorruptError("the object is shorter than expected")
        since = time.monotonic()
        while start < end:
            if self._body is None or self._at != start or self._end < end:
                await self._request_same_version(start, end - start, since)
            with self._budget.take() as size:
                piece = await self._client.read_piece(self._body, min(size, end - start), since)
                if piece:
                    start += len(piece)
                    self._at = start
                    yield piece
                    since = time.monotonic()
                    continue
            await self.close()
            if resumes == 0 or time.monotonic() - since > RETRY_WITHIN_S:
                raise StoreUnavailableError(
                    "the object store closed the connection before the end of the object"
                )
            resumes -= 1
            await asyncio.sleep(0.1 * (MAX_RESUMES - resumes))

    async def _request_same_version(self, start: int, length: int, since: float) -> None:
        try:
            await self._request(start, length, since)
        except (ConditionFailedError, ObjectMissingError) as error:
            raise ObjectCorruptError(
                "the object was deleted or replaced while it was read"
            ) from error

    async def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            await run_to_completion(asyncio.to_thread(body.close))


async def _close_body(answer: Any) -> None:
    await run_to_completion(asyncio.to_thread(answer["Body"].close))
