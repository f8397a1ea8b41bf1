"""Request IDs, error responses, access log lines and metrics of all requests."""

import asyncio
import contextlib
import logging
import random
import re
import time
import traceback
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry import access_log, logs, metrics
from registry.errors import (
    BusyError,
    ClientDisconnectedError,
    DatabaseUnavailableError,
    NotReadyError,
    UpstreamError,
)
from registry.http.body import TRANSFER
from registry.http.errors import error_response, find_entry
from registry.http.handled import Handled
from registry.http.probes import PROBES
from registry.http.reuse import SCOPE
from storage.driver import Sink, Transfer
from storage.errors import StoreError, StoreFullError

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

LINGER = 1.0
"""The time for which the rest of a refused body is read and dropped, in seconds.

Closing the connection at once would reset it, and the client would lose the error response.
"""

_NOSNIFF = (b"x-content-type-options", b"nosniff")
_API_VERSION = (b"docker-distribution-api-version", b"registry/2.0")
_NO_STORE = (b"cache-control", b"no-store")

_OK = 200
_SERVER_ERROR = 500
_CLIENT_GONE = 499


class RequestLogMiddleware:
    """The outermost ASGI middleware, which logs, counts and answers errors."""

    def __init__(self, app: ASGIApp, *, log_probes: bool = True) -> None:
        """Log successful probes if `log_probes` is true."""
        self._app = app
        self._log_probes = log_probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        token = logs.request_id.set(exchange.request_id)
        metrics.IN_FLIGHT.inc()
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - every error becomes a response here
            await exchange.fail(error)
        finally:
            metrics.IN_FLIGHT.dec()
            exchange.note(log_probes=self._log_probes)
            logs.request_id.reset(token)
            exchange.scope.pop(TRANSFER, None)  # refers to the exchange, which refers to the scope


class _Exchange:
    """One request and its response, with byte counts."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._started = time.monotonic()
        self.scope = {
            **scope,
            "moorage.began": self._started,
            "moorage.route": "other",
            "moorage.principal": "-",
        }
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else make_request_id()
        if TRANSFER in scope:
            self.scope[TRANSFER] = self._transfer
            self._inner_transfer: Transfer = scope[TRANSFER]
        self._receive = receive
        self._send = send
        self._status = 0
        self._in = 0
        self._out = 0
        length = self.headers.get("content-length", "0")
        self._unread = length != "0" or "transfer-encoding" in self.headers
        self._gone = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = True
            self._unread = False
        else:
            self._in += len(message.get("body", b""))
            self._unread = message.get("more_body", False)
        return message

    async def _transfer(self, sink: Sink, most: int) -> int:
        count = await self._inner_transfer(sink, most)
        self._in += count
        return count

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = self._add_fields(message.get("headers", ()))
            await self._send(message)
            return
        # A file that the server sends itself has a `count` in place of a `body`.
        self._out += message.get("count", 0) or len(message.get("body", b""))
        if self._unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drop_body()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    def _add_fields(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the header fields of a response, with those that all responses have."""
        fields = list(given)
        own = [(b"x-request-id", self.request_id.encode()), _NOSNIFF]
        path = str(self.scope["path"])
        if path.startswith("/v2"):
            own.append(_API_VERSION)
            if all(name != _NO_STORE[0] for name, _ in fields):
                own.append(_NO_STORE)
        elif path.startswith("/api/"):
            own.append(_NO_STORE)
        if self._unread:
            own.append((b"connection", b"close"))
        names = {name for name, _ in own}
        return [field for field in fields if field[0] not in names] + own

    async def _drop_body(self) -> None:
        if "expect" in self.headers:
            return  # the client waits for 100 Continue before it sends the body
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while self._unread:
                    await self.receive()

    async def fail(self, error: Exception) -> None:
        """Answer the error, or abort the connection if the response has started."""
        entry = find_entry(error)
        if isinstance(error, StoreError):
            kind = "full" if isinstance(error, StoreFullError) else "unavailable"
            metrics.STORAGE_ERRORS.labels(kind).inc()
        elif isinstance(error, DatabaseUnavailableError):
            metrics.DATABASE_ERRORS.inc()
        # The reason why a starting process waits is logged once, not for each request.
        if entry.status >= _SERVER_ERROR and not isinstance(error, NotReadyError):
            # A traceback says nothing if the database is down, and there may be a hundred per
            # second.
            away = isinstance(error, DatabaseUnavailableError | BusyError | UpstreamError)
            logger.error("request failed: %s", error, exc_info=None if away else error)
        _release_frames(error)
        if isinstance(error, ClientDisconnectedError):
            self._status = _CLIENT_GONE
        elif not self._status:
            admin = str(self.scope["path"]).startswith("/api/")
            response = error_response(error, standard=not admin)
            if self.scope["method"] == "HEAD":
                response.body = b""
            await response(self.scope, self.receive, self.send)

    def note(self, *, log_probes: bool) -> None:
        seconds = time.monotonic() - self._started
        client = self.scope.get("client") or ("-", 0)
        handled = Handled(
            route=str(self.scope["moorage.route"]),
            request=access_log.limit_request(
                self.scope["method"], self.scope["raw_path"].decode("latin-1")
            ),
            caller=access_log.limit_caller(
                client[0], self.headers.get("user-agent", "-"), self.scope["moorage.principal"]
            ),
            status=self._status,
            received=self._in,
            sent=self._out,
            mirror_use=self.scope.get("moorage.mirror"),
        )
        handled.count(seconds)
        if log_probes or handled.route not in PROBES or self._status != _OK:
            handled.log(seconds, self.request_id)
        if SCOPE in self.scope:
            self.scope[SCOPE].handled = handled.repeated()


def make_request_id() -> str:
    """Return a new request ID of 128 random bits. It identifies, and protects nothing."""
    return f"{random.getrandbits(128):032x}"


def _release_frames(error: BaseException | None) -> None:
    """Clear the local variables in the frames of an error and of its causes.

    Futures, errors and frames refer to each other. Without this, the data of a request, such as a
    manifest of 4 MiB, would stay until the garbage collector finds it, outside of all memory
    budgets.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
