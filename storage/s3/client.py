"""Client of one bucket with threads, timeouts, retries and errors; the only user of boto3.

No call waits longer than 20 s without progress. An attempt ends after 13 s (3 s to connect, 10 s
between two reads), and it begins only within the first RETRY_WITHIN seconds. Requests therefore
fail fast when no thread is free, instead of queueing behind a stalled store.
"""

import asyncio
import contextlib
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
    ObjectCorruptError,
    ObjectMissingError,
    StoreError,
    StoreFullError,
    StoreRefusedError,
    StoreUnavailableError,
)
from storage.s3.breaker import CircuitBreaker
from storage.s3.errors import (
    ConditionFailedError,
    NoSuchUploadError,
    NotImplementedByStoreError,
)
from storage.s3.request_body import SEND_TIMEOUT_S, RequestBody
from storage.s3.settings import S3Settings
from storage.shield import run_to_completion

T = TypeVar("T")

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0
RETRY_WITHIN_S = 6.0
RETRY_PAUSES_S = (0.1, 0.3, 0.9)
"""Seconds before the second, third and fourth attempt, each with a jitter of 50 %."""

LATE_WINDOW_S = RETRY_WITHIN_S + CONNECT_TIMEOUT_S + SEND_TIMEOUT_S + READ_TIMEOUT_S + 60.0
"""Seconds after which the effect of a call is visible or never will be.

The last 60 s are for the store to finish a request whose client no longer waits.
"""

READ_CHUNK = 1 << 16
CHUNK_INTERVAL_S = 1.0
"""Seconds after which a read returns what it has, so that a slow body does not keep its thread."""

THREADS = 16
"""Threads for reads, and again for small writes."""

NO_CREDENTIALS = (
    "no credentials for the object store: set access_key and secret_key, or provide AWS "
    "environment variables, files or a role"
)

_FAILURES = (BotoCoreError, HTTPError, OSError)
"""Exceptions that mean "no answer": those of boto3, and others raised while a body is read."""

_CODE = re.compile(r"[A-Za-z0-9]{1,64}")
_MISSING_CODES = {"NoSuchKey", "NotFound", "404"}
_FULL_CODES = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
_RETRYABLE = {"RequestTimeout", "SlowDown", "ConditionalRequestConflict", "OperationAborted"}
# A machine that has just started may correct its clock later.
_TEMPORARY = {"RequestTimeTooSkewed"}
_MAX_MESSAGE_LENGTH = 300
"""Characters of the store's own message that are kept."""


_ERRORS_BY_CODE: dict[str, type[StoreError]] = {
    **dict.fromkeys(_MISSING_CODES, ObjectMissingError),
    **dict.fromkeys(_FULL_CODES, StoreFullError),
    "PreconditionFailed": ConditionFailedError,
    "412": ConditionFailedError,
    "InvalidRange": ObjectCorruptError,
    "416": ObjectCorruptError,
    "NotImplemented": NotImplementedByStoreError,
}


class _NoAnswerError(Exception):
    """The store did not answer, or its answer broke off."""


class ClientPool:
    """A boto3 client with its own threads. The client is created on first use."""

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
    """Return a function that creates clients of an endpoint.

    The clients share one session, because boto3's model of S3 takes 13 MiB.
    """
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
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": 1},  # `S3Client.call` retries, within a time limit
        max_pool_connections=4 * THREADS + settings.upload_concurrency,
        signature_version="s3v4",  # the default may sign URLs with the older version
        # Some stores write the trailers of newer checksums into objects (boto3#4435).
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if settings.path_style else "auto"},
    )


class S3Client:
    """S3 calls with a deadline, which raise the errors of `storage.errors`."""

    def __init__(self, settings: S3Settings) -> None:
        connect = _connector(settings)
        near = partial(connect, settings.endpoint)
        self.reads = ClientPool("read", THREADS, near)
        # Enough threads for all parts, so that small objects do not wait for a part.
        self.writes = ClientPool("write", THREADS + settings.upload_concurrency, near)
        # Signing sends no request, but takes 0.3 ms and may have to fetch new credentials first.
        self._signer = ClientPool(
            "sign", 2, partial(connect, settings.redirect_endpoint or settings.endpoint)
        )
        self._bucket = settings.bucket
        self._breaker = CircuitBreaker()

    async def read(self, operation: str, **arguments: Any) -> Any:
        return await self.call(self.reads, operation, **arguments)

    async def write(self, operation: str, **arguments: Any) -> Any:
        return await self.call(self.writes, operation, **arguments)

    async def call(
        self,
        pool: ClientPool,
        operation: str,
        *,
        on_abandoned: Callable[[Any], Awaitable[None]] | None = None,
        before_retry: Callable[[float], Awaitable[None]] | None = None,
        body: bytes | bytearray | None = None,
        since: float | None = None,
        **arguments: Any,
    ) -> Any:
        """Run one operation on the bucket, with retries.

        - `on_abandoned` closes an answer that a cancelled caller never receives.
        - `before_retry` is called before an unanswered attempt is repeated. Its argument is the
          value to pass as `since` in the calls that it makes.
        - `body` is the request body.
        - `since` is the `time.monotonic` at which the waiting began, by default now.

        Raises ObjectMissingError, ObjectCorruptError, NoSuchUploadError and ConditionFailedError as
        reported by the store, and StoreUnavailableError after the last attempt.
        """
        begun = time.monotonic() if since is None else since

        def attempt() -> Any:
            do = getattr(pool.client(), operation)
            if body is None:
                return do(Bucket=self._bucket, **arguments)
            with contextlib.closing(RequestBody(body)) as sent:
                return do(Bucket=self._bucket, Body=sent, **arguments)

        repeated = False
        message = reason = ""
        problem: Exception | None = None
        for pause in (*RETRY_PAUSES_S, None):
            try:
                if repeated and before_retry is not None:
                    await before_retry(begun)
                return await self.on_thread(pool, attempt, on_abandoned, since=begun)
            except _NoAnswerError as error:
                repeated = True
                problem = error
                message = "the object store does not answer"
                reason = _sanitize(str(error.__cause__))
            except ClientError as error:
                problem = error
                message = _translate_client_error(error, operation, repeated=repeated)
                reason = _store_message(error)
            if pause is None or time.monotonic() - begun > RETRY_WITHIN_S:
                break
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
        unavailable = StoreUnavailableError(message)
        unavailable.reason = reason
        raise unavailable from problem

    async def on_thread(
        self,
        pool: ClientPool,
        job: Callable[[], T],
        on_abandoned: Callable[[T], Awaitable[None]] | None = None,
        *,
        since: float,
    ) -> T:
        """Run a job that talks to the store, if a thread is free soon enough after `since`.

        Raises ClientError if the store refuses.
        """
        self._breaker.require_closed()

        def begin() -> T:
            if time.monotonic() - since > RETRY_WITHIN_S:
                raise StoreUnavailableError("too many requests are waiting for the object store")
            return job()

        try:
            done = await run_to_completion(
                asyncio.get_running_loop().run_in_executor(pool.threads, begin), on_abandoned
            )
        except ClientError:
            self._breaker.note(answered=True)
            raise
        except NoCredentialsError as error:
            raise StoreRefusedError(NO_CREDENTIALS) from error
        except _FAILURES as error:
            self._breaker.note(answered=False, reason=_sanitize(str(error)))
            raise _NoAnswerError from error
        self._breaker.note(answered=True)
        return done

    async def read_piece(self, body: Any, length: int, since: float) -> bytes | None:
        """Return at most `length` more bytes of a body, or None if it broke off.

        `since` is as in `call`.
        """

        def job() -> bytes:
            until = time.monotonic() + CHUNK_INTERVAL_S
            slices: list[bytes] = []
            left = length
            while left and (not slices or (slices[-1] and time.monotonic() < until)):
                slices.append(body.read(min(READ_CHUNK, left)))
                left -= len(slices[-1])
            return b"".join(slices)

        try:
            return await self.on_thread(self.reads, job, since=since)
        except _NoAnswerError:
            return None

    async def sign(self, key: str, life: int) -> str:
        """Return a presigned URL that lets its bearer read the object for `life` seconds."""

        def job() -> str:
            client = self._signer.client()
            place = {"Bucket": self._bucket, "Key": key}
            return str(client.generate_presigned_url("get_object", Params=place, ExpiresIn=life))

        loop = asyncio.get_running_loop()
        try:
            return await run_to_completion(loop.run_in_executor(self._signer.threads, job))
        except BotoCoreError as error:
            raise StoreUnavailableError(NO_CREDENTIALS) from error

    async def close(self) -> None:
        for pool in (self.reads, self.writes, self._signer):
            await run_to_completion(asyncio.to_thread(pool.close))


def _translate_client_error(error: ClientError, operation: str, *, repeated: bool) -> str:
    """Raise the error that the store's answer means, or return a message if a retry may help."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    # The rest of the answer is the store's own text and is not passed on.
    shown = code if _CODE.fullmatch(code) else str(status)
    message = f"the object store answered {shown} to {operation}"
    if code == "NoSuchUpload":
        raise NoSuchUploadError(repeated=repeated) from error
    known = _ERRORS_BY_CODE.get(code) or _ERRORS_BY_CODE.get(str(status) if status != 404 else "")  # noqa: PLR2004
    if known is not None:
        raise known(message) from error
    if status >= 500 or status in {408, 429} or code in _RETRYABLE:  # noqa: PLR2004
        return message
    refused = StoreUnavailableError(message) if code in _TEMPORARY else StoreRefusedError(message)
    refused.reason = _store_message(error)
    if isinstance(refused, StoreRefusedError):
        refused.code = shown
    raise refused from error


def _store_message(error: ClientError) -> str:
    """Return the store's own error message, or an empty string if there is none (as after HEAD)."""
    return _sanitize(str(error.response.get("Error", {}).get("Message") or ""))


def _sanitize(text: str) -> str:
    """Truncate another server's text and escape its control characters."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text[:_MAX_MESSAGE_LENGTH]
    )
