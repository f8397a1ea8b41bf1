"""One bucket through boto3, which nothing else imports: threads, time-outs, retries, errors.

No call waits longer than 20 s: an attempt ends after 13 s without progress (3 s to connect, 10 s
between two reads), and it begins only in the first RETRY_WITHIN seconds, so that those for whom no
thread is free are told then, and need not stall in their turn.
"""

import asyncio
import contextlib
import logging
import os
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from urllib3.exceptions import HTTPError

from storage.errors import (
    ObjectDamagedError,
    ObjectMissingError,
    StoreError,
    StoreFullError,
    StoreRefusedError,
    StoreUnavailableError,
)
from storage.s3_settings import S3Settings
from storage.settled import settled

T = TypeVar("T")

logger = logging.getLogger(__name__)

CONNECT = 3.0
READ = 10.0
RETRY_WITHIN = 6.0
SEND = 600.0
"""For the body of a request, as long as it moves: 16 MiB at 30 kB a second."""
PAUSES = (0.1, 0.3, 0.9)
"""Seconds before the second, third and fourth attempt, each varied by half."""

LATE = RETRY_WITHIN + CONNECT + SEND + READ + 60.0
"""Seconds after which what a call has sent is there or will never be; the last of them for the
store to make up its mind when nobody waits for it any more.
"""

SLICE = 1 << 16
SLICES = 1.0
"""Seconds after which what there is of a piece has to do: a slow body may not keep its thread."""

THREADS = 16
"""For reads and for small writes each."""

BROKEN_AFTER = 3
"""Attempts in a row without any answer after which the store counts as gone."""

TRY_AGAIN = 1.0
"""Seconds between two looks at a store that is gone."""

_FAILURES = (BotoCoreError, HTTPError, OSError)
"""What no answer looks like: boto3's own, and what comes through while a body is read."""

_CODE = re.compile(r"[A-Za-z0-9]{1,64}")
_MISSING = {"NoSuchKey", "NotFound", "404"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
_AGAIN = {"RequestTimeout", "SlowDown", "ConditionalRequestConflict", "OperationAborted"}
# The clock of a machine that has just started may be set later.
_PASSING = {"RequestTimeTooSkewed"}
_SENTENCE = 300
"""Characters of the store's own words that are kept."""


class UploadGoneError(StoreError):
    """The store knows no such multipart upload: completed, aborted, or never begun."""

    def __init__(self, *, repeated: bool) -> None:
        """`repeated`: an earlier attempt got no answer and may have been what completed it."""
        super().__init__("the store knows no such multipart upload")
        self.repeated = repeated


class ConditionFailedError(StoreError):
    """There is an object under the key already, or not the one that was meant."""


class NotImplementedByStoreError(StoreError):
    """The store does not know a feature that was asked for."""


_BY_CODE: dict[str, type[StoreError]] = {
    **dict.fromkeys(_MISSING, ObjectMissingError),
    **dict.fromkeys(_FULL, StoreFullError),
    "PreconditionFailed": ConditionFailedError,
    "412": ConditionFailedError,
    "InvalidRange": ObjectDamagedError,
    "416": ObjectDamagedError,
    "NotImplemented": NotImplementedByStoreError,
}


class _NoAnswerError(Exception):
    """The store did not answer, or cut its answer off."""


class _Breaker:
    """Whether the store is there: a dead one is left alone, except for one try a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unanswered = 0
        self._next_try = 0.0
        self._reason = ""

    def require_closed(self) -> None:
        with self._lock:
            if self._unanswered < BROKEN_AFTER:
                return
            now = time.monotonic()
            if now < self._next_try:
                unavailable = StoreUnavailableError("the object store does not answer")
                unavailable.reason = self._reason
                raise unavailable
            self._next_try = now + TRY_AGAIN

    def note(self, *, answered: bool, reason: str = "") -> None:
        """Count an attempt. `reason`: why there was no answer."""
        with self._lock:
            self._reason = reason
            before, self._unanswered = self._unanswered, 0 if answered else self._unanswered + 1
            if self._unanswered == BROKEN_AFTER:
                self._next_try = time.monotonic() + TRY_AGAIN
                logger.error("the object store does not answer")
        if answered and before >= BROKEN_AFTER:
            logger.warning("the object store answers again")


class _Body:
    """Bytes to send, as a file. A byte array would be handed to the socket at once, and all of
    them be given the time that a connection may take: too little for a part on a slow line.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self._view = memoryview(data)
        self._at = 0
        self._until = time.monotonic() + SEND

    def read(self, size: int = -1) -> bytes:
        if time.monotonic() > self._until:
            raise TimeoutError("the body takes too long to send")
        end = len(self._view) if size < 0 else self._at + size
        piece = bytes(self._view[self._at : end])
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._view)}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        """Let go of the bytes, whose owner may want to shorten them."""
        self._view.release()


class Lane:
    """A boto3 client with threads of its own, made at its first use."""

    def __init__(self, name: str, threads: int, connect: Callable[[], Any]) -> None:
        self.threads = ThreadPoolExecutor(threads, f"s3-{name}")
        self._connect = connect
        self._lock = threading.Lock()
        self._client: Any = None

    def client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def close(self) -> None:
        self.threads.shutdown()
        if self._client is not None:
            self._client.close()


def _connector(settings: S3Settings) -> Callable[[str], Any]:
    """What makes clients of an endpoint; they share what boto3 knows of S3, which takes 13 MiB."""
    lock = threading.Lock()
    session: Session | None = None

    def connect(endpoint: str) -> Any:
        nonlocal session
        with lock:
            if session is None:
                session = Session(
                    aws_access_key_id=settings.access_key or None,
                    aws_secret_access_key=settings.secret_key or None,
                    region_name=settings.region or None,
                )
            return session.client(
                "s3",
                endpoint_url=endpoint or None,
                region_name=session.region_name or "us-east-1",
                config=_config(settings),
            )

    return connect


def _config(settings: S3Settings) -> Config:
    return Config(
        connect_timeout=CONNECT,
        read_timeout=READ,
        retries={"total_max_attempts": 1},  # repeated by `S3Client.call`, which has a limit
        max_pool_connections=4 * THREADS + settings.upload_concurrency,
        signature_version="s3v4",  # else a URL that is signed for others may get the version before
        # Some stores write the trailers of newer checksums into objects (boto3#4435).
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if settings.path_style else "auto"},
    )


class S3Client:
    """Calls that end in time, with the store's own errors in the words of `storage.errors`."""

    def __init__(self, settings: S3Settings) -> None:
        connect = _connector(settings)
        near = partial(connect, settings.endpoint)
        self.reads = Lane("read", THREADS, near)
        # As many parts as there may be, and no small object has to wait for one of them.
        self.writes = Lane("write", THREADS + settings.upload_concurrency, near)
        # Signing asks nobody, but takes 0.3 ms and may have to fetch new keys first.
        self._signer = Lane(
            "sign", 2, partial(connect, settings.redirect_endpoint or settings.endpoint)
        )
        self._bucket = settings.bucket
        self._breaker = _Breaker()

    async def read(self, operation: str, **arguments: Any) -> Any:
        return await self.call(self.reads, operation, **arguments)

    async def write(self, operation: str, **arguments: Any) -> Any:
        return await self.call(self.writes, operation, **arguments)

    async def call(
        self,
        lane: Lane,
        operation: str,
        *,
        undo: Callable[[Any], Awaitable[None]] | None = None,
        between: Callable[[float], Awaitable[None]] | None = None,
        body: bytes | bytearray | None = None,
        since: float | None = None,
        **arguments: Any,
    ) -> Any:
        """One operation on the bucket, with a body to send or without. `undo` closes an answer that
        a cancelled caller never sees. `between` is called before what got no answer is repeated,
        with what then is its `since`: when the waiting began, of `time.monotonic`, by default now.

        ObjectMissingError, ObjectDamagedError, UploadGoneError and ConditionFailedError as the
        store says, StoreUnavailableError after the last attempt.
        """
        begun = time.monotonic() if since is None else since

        def attempt() -> Any:
            do = getattr(lane.client(), operation)
            if body is None:
                return do(Bucket=self._bucket, **arguments)
            with contextlib.closing(_Body(body)) as sent:
                return do(Bucket=self._bucket, Body=sent, **arguments)

        repeated = False
        told = reason = ""
        problem: Exception | None = None
        for pause in (*PAUSES, None):
            try:
                if repeated and between is not None:
                    await between(begun)
                return await self.on_thread(lane, attempt, undo, since=begun)
            except _NoAnswerError as error:
                repeated = True
                problem = error
                told = "the object store does not answer"
                reason = _bound(str(error.__cause__))
            except ClientError as error:
                problem = error
                told = _judge(error, operation, repeated=repeated)
                reason = _find_sentence(error)
            if pause is None or time.monotonic() - begun > RETRY_WITHIN:
                break
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
        unavailable = StoreUnavailableError(told)
        unavailable.reason = reason
        raise unavailable from problem

    async def on_thread(
        self,
        lane: Lane,
        job: Callable[[], T],
        undo: Callable[[T], Awaitable[None]] | None = None,
        *,
        since: float,
    ) -> T:
        """Run a job that talks to the store, if a thread is free in time after `since`; ClientError
        for its refusals.
        """
        self._breaker.require_closed()

        def begin() -> T:
            if time.monotonic() - since > RETRY_WITHIN:
                raise StoreUnavailableError("too many requests wait for the object store")
            return job()

        try:
            done = await settled(
                asyncio.get_running_loop().run_in_executor(lane.threads, begin), undo
            )
        except ClientError:
            self._breaker.note(answered=True)
            raise
        except NoCredentialsError as error:
            raise StoreRefusedError("there are no keys for the object store") from error
        except _FAILURES as error:
            self._breaker.note(answered=False, reason=_bound(str(error)))
            raise _NoAnswerError from error
        self._breaker.note(answered=True)
        return done

    async def read_piece(self, body: Any, length: int, since: float) -> bytes | None:
        """The next bytes of a body, at most `length`; None where it broke off. `since`: `call`."""

        def job() -> bytes:
            until = time.monotonic() + SLICES
            slices: list[bytes] = []
            left = length
            while left and (not slices or (slices[-1] and time.monotonic() < until)):
                slices.append(body.read(min(SLICE, left)))
                left -= len(slices[-1])
            return b"".join(slices)

        try:
            return await self.on_thread(self.reads, job, since=since)
        except _NoAnswerError:
            return None

    async def sign(self, key: str, life: int) -> str:
        """A URL at which whoever has it can read the object for `life` seconds."""

        def job() -> str:
            client = self._signer.client()
            place = {"Bucket": self._bucket, "Key": key}
            return str(client.generate_presigned_url("get_object", Params=place, ExpiresIn=life))

        loop = asyncio.get_running_loop()
        try:
            return await settled(loop.run_in_executor(self._signer.threads, job))
        except BotoCoreError as error:
            raise StoreUnavailableError("there are no keys for the object store") from error

    async def close(self) -> None:
        for lane in (self.reads, self.writes, self._signer):
            await settled(asyncio.to_thread(lane.close))


def _judge(error: ClientError, operation: str, *, repeated: bool) -> str:
    """Raise what a refusal means; return what to say of one that may pass."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    # Nothing else of the answer is passed on: it is the store's own text.
    shown = code if _CODE.fullmatch(code) else str(status)
    message = f"the object store answered {shown} to {operation}"
    if code == "NoSuchUpload":
        raise UploadGoneError(repeated=repeated) from error
    known = _BY_CODE.get(code) or _BY_CODE.get(str(status) if status != 404 else "")  # noqa: PLR2004
    if known is not None:
        raise known(message) from error
    if status >= 500 or status in {408, 429} or code in _AGAIN:  # noqa: PLR2004
        return message
    refused = StoreUnavailableError(message) if code in _PASSING else StoreRefusedError(message)
    refused.reason = _find_sentence(error)
    if isinstance(refused, StoreRefusedError):
        refused.code = shown
    raise refused from error


def _find_sentence(error: ClientError) -> str:
    """Return the store's own sentence of a refusal; empty if there is none, as after a HEAD."""
    return _bound(str(error.response.get("Error", {}).get("Message") or ""))


def _bound(text: str) -> str:
    """Return the first characters of what another server wrote, without control characters."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text[:_SENTENCE]
    )
