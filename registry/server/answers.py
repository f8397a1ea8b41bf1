"""Responses from memory: repeated to the same request while nothing changed that they depend on.

The application decides, and this module only repeats its decisions (docs/adr/0020). A response is
remembered if the endpoint allows it (`registry.http.reuse`) and nothing was committed while it was
made. It is sent again if a request consists of exactly the same bytes.
"""

import asyncio
import contextlib
import hashlib
import os
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct, field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry import clock, metrics
from registry.auth.caller import ALWAYS
from registry.errors import DatabaseUnavailableError
from registry.http.forwarded import is_trusted
from registry.http.handled import Handled
from registry.http.request_log import make_request_id
from registry.http.reuse import SCOPE, Reuse, Terms
from registry.logs import cut
from registry.oci.names import RepositoryName
from registry.server.head import RequestHead
from registry.server.response_head import status_line, write_fields
from registry.server.waiting_requests import Channel, WaitingRequest, WaitingRequests
from registry.units import Network

MAX_HEAD = 2 << 10
"""The size of a request head above which its response is not remembered, in bytes."""

MAX_BODY = 16 << 10
"""The size of a response body above which it is not remembered, in bytes.

Larger bodies count toward `limits.response_memory` while they are sent.
"""

OVERHEAD = 2048
"""The approximate memory of an entry in addition to its bytes."""

COUNT_EVERY = 0.1
"""The time after which repetitions are added to the metrics, in seconds."""

_ID = b"x-request-id"
_REPEATED = frozenset({200, 304})
_BODILESS = 304
_KEY = os.urandom(32)

Fields = list[tuple[bytes, bytes]]


class Currency(Protocol):
    """The latest revisions of the registry (`registry.metadata.revisions.watch`)."""

    @property
    def policy(self) -> int: ...
    @property
    def needs_query(self) -> bool: ...
    def is_current(self) -> bool: ...
    def read_mark(self) -> bytes | None: ...
    def find_mark(self) -> bytes | None: ...
    async def read(self) -> object: ...
    def start_read(self) -> "asyncio.Future[Any]": ...
    def subscribe(self, forget: Callable[[frozenset[RepositoryName] | None], None]) -> None: ...


class Peer(Struct, frozen=True):
    """What responses depend on besides the request: both ends of the connection, and its scheme.

    `client` is empty if the peer is a proxy whose headers name the client. The address of a proxy
    is part of `prefix`, that of a client is not.
    """

    prefix: bytes
    client: str


class _Entry(Struct, eq=False):
    """A response without `Date` and the value of `X-Request-Id`."""

    start: bytes
    fields: bytes
    rest: bytes
    terms: Terms
    handled: Handled
    policy: int
    made_at: int
    size: int
    uncounted: dict[int, tuple[int, float]] = field(default_factory=dict)
    """The repetitions that are not counted in the metrics yet: number and time, by bucket."""

    def is_valid(self, now: float) -> bool:
        """Return whether the caller is still authenticated."""
        validity = self.terms.validity
        return validity is ALWAYS or (
            now < validity.deadline and self.made_at <= clock.now_us() < validity.expires_at
        )


class Answers:
    """The remembered responses of a process, at most `room` bytes."""

    def __init__(
        self, currency: Currency, room: int, trusted_proxies: tuple[Network, ...] = ()
    ) -> None:
        self._currency = currency
        self._needs_query = currency.needs_query
        self._room = room
        self._trusted = trusted_proxies
        self._size = 0
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._keys: dict[RepositoryName | None, set[bytes]] = {}
        self._uncounted: list[_Entry] = []
        self._dates: Fields = []
        self._date = b""
        self._closed = False
        self._waiting = WaitingRequests(currency.start_read, self._repeat_waiting)
        currency.subscribe(self.forget)
        metrics.LATE.add(self)

    def close(self) -> None:
        """Repeat nothing any more: the responses of a stopping server close their connections."""
        self._closed = True
        self.forget(None)

    def find_peer(self, scope: Scope) -> Peer:
        """Return what the responses on a connection depend on, from the scope of its requests."""
        scheme, server, client = scope["scheme"], scope["server"], scope["client"]
        proxied = client is None or is_trusted(client[0], self._trusted)
        who = client[0] if proxied and client is not None else ""
        return Peer(
            f"{scheme} {server} {who}\n".encode(), "" if proxied or client is None else client[0]
        )

    # Repeating

    def find(self, channel: Channel, data: bytes, peer: Peer) -> bytes | WaitingRequest | None:
        """Return the response to a request, or None if the application has to answer it.

        `data` is the head with the empty line that ends it. If only a query shows whether the
        response is current, the request waits, and `channel.end_wait` gets the response or None. A
        request with a response is counted and logged.
        """
        key = _find_key(data, peer)
        entry = self._entries.get(key)
        if entry is None:
            return None
        currency, began = self._currency, time.monotonic()
        if not self._needs_query:
            if not currency.is_current():
                return None
            return self._repeat(key, entry, peer.client, channel.date, began)
        if entry.policy != currency.policy or not entry.is_valid(began):
            return None
        request = WaitingRequest(channel, data, key, peer.client, began)
        self._waiting.add(request)
        return request

    def _repeat_waiting(self, request: WaitingRequest) -> bytes | None:
        entry = self._entries.get(request.key)  # not the earlier one, which may be out of date
        if entry is None:
            return None
        dates = request.channel.date
        return self._repeat(request.key, entry, request.client, dates, request.began)

    def _repeat(
        self, key: bytes, entry: _Entry, client: str, dates: Fields, began: float
    ) -> bytes | None:
        """Return the response if the caller still gets it, after the revisions were read."""
        if entry.policy != self._currency.policy or not (
            entry.terms.validity is ALWAYS or entry.is_valid(time.monotonic())
        ):
            return None
        caller = entry.handled.caller
        if client and client != caller.client:
            caller = caller._replace(client=cut(client))
        terms = entry.terms
        if terms.admit is not None and not terms.admit(client or terms.address):
            return None
        if terms.note is not None:
            terms.note()
        self._entries.move_to_end(key)
        if dates is not self._dates:
            self._dates, self._date = dates, write_fields(dates)
        request_id = make_request_id()
        answer = b"".join((entry.start, self._date, entry.fields, request_id.encode(), entry.rest))
        seconds = time.monotonic() - began
        self._count(entry, seconds)
        entry.handled.log(seconds, request_id, caller)
        return answer

    def _count(self, entry: _Entry, seconds: float) -> None:
        uncounted = entry.uncounted
        if not uncounted:
            if not self._uncounted:
                asyncio.get_running_loop().call_later(COUNT_EVERY, self.count)
            self._uncounted.append(entry)
        bucket = bisect_left(metrics.DURATIONS, seconds)
        times, total = uncounted.get(bucket, (0, 0.0))
        uncounted[bucket] = times + 1, total + seconds

    def count(self) -> None:
        """Add the repetitions since the last call to the metrics."""
        for entry in self._uncounted:
            for times, seconds in entry.uncounted.values():
                entry.handled.count(seconds, times)
                metrics.ANSWERS_FROM_MEMORY.inc(times)
            entry.uncounted.clear()
        self._uncounted.clear()
        self._waiting.count()

    def forget(self, changed: frozenset[RepositoryName] | None) -> None:
        """Forget the responses about these repositories, or all if `changed` is None."""
        if changed is None:
            self._entries.clear()
            self._keys.clear()
            self._size = 0
            return
        for name in changed & self._keys.keys():
            for key in list(self._keys[name]):
                self._drop(key)

    # Remembering

    def remembering(self, app: ASGIApp, head: RequestHead, data: bytes, peer: Peer) -> ASGIApp:
        """Return `app` for one request, whose response is remembered if it may be repeated.

        `data` is as in `find`.
        """
        names = {name for name, _ in head.headers}
        if (
            self._closed
            or len(data) > MAX_HEAD
            or head.method not in {"GET", "HEAD"}
            or head.length != 0
            or not head.keep_alive
            or head.expects_continue
            or _ID in names
            or (b"authorization" in names and not _has_secret(data))
        ):
            return app
        return _Remembering(self, app, _find_key(data, peer))

    def read_mark(self) -> bytes | None:
        """Return the mark of the last commit, which may not be in the caches yet."""
        return self._currency.read_mark()

    async def learn(
        self, key: bytes, before: bytes | None, reuse: Reuse, answer: tuple[bytes, bytes, bytes]
    ) -> None:
        """Remember a response if nothing was committed since `before`."""
        terms, handled = reuse.terms, reuse.handled
        if before is None or terms is None or handled is None:
            return
        made_at = clock.now_us()
        if self._currency.find_mark() is None:
            with contextlib.suppress(DatabaseUnavailableError):
                await self._currency.read()
        if self._closed or self._currency.find_mark() != before:
            return
        size = OVERHEAD + len(key) + sum(map(len, answer))
        self._drop(key)
        self._entries[key] = _Entry(*answer, terms, handled, self._currency.policy, made_at, size)
        self._keys.setdefault(terms.repository, set()).add(key)
        self._size += size
        while self._size > self._room:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._size -= entry.size
        repository = entry.terms.repository
        self._keys[repository].discard(key)
        if not self._keys[repository]:
            del self._keys[repository]


class _Remembering:
    """The application for one request. It keeps a copy of a response that may be repeated."""

    def __init__(self, answers: Answers, app: ASGIApp, key: bytes) -> None:
        self._answers = answers
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        before = self._answers.read_mark()
        reuse = Reuse()
        scope[SCOPE] = reuse
        copy: _Copy | None = None

        async def keep(message: Message) -> None:
            nonlocal copy
            if reuse.terms is not None:
                if message["type"] == "http.response.start":
                    copy = _Copy(message, is_head=scope["method"] == "HEAD")
                elif message["type"] != "http.response.body":
                    copy = None  # the bytes of a file
                elif copy is not None:
                    copy.add(message)
            await send(message)

        await self._app(scope, receive, keep)
        if copy is not None and (answer := copy.find_answer()):
            await self._answers.learn(self._key, before, reuse, answer)


class _Copy:
    """A copy of a response, as `registry.server.exchange` writes it."""

    def __init__(self, message: Message, *, is_head: bool) -> None:
        self._status: int = message["status"]
        self._fields: Fields = list(message.get("headers", ()))
        self._has_body = not is_head and self._status != _BODILESS
        self._body = b""
        self._complete = False

    def add(self, message: Message) -> None:
        """Add a piece of the body."""
        if len(self._body) <= MAX_BODY:
            self._body += message.get("body", b"")
        self._complete = not message.get("more_body", False)

    def find_answer(self) -> tuple[bytes, bytes, bytes] | None:
        """Return the parts around `Date` and the request ID, or None if it cannot be repeated."""
        names = [name.lower() for name, _ in self._fields]
        framed = not self._has_body or b"content-length" in names
        if (
            self._status not in _REPEATED
            or not (self._complete and framed)
            or len(self._body) > MAX_BODY
            or b"connection" in names
            or b"set-cookie" in names
            or names.count(_ID) != 1
        ):
            return None
        at = names.index(_ID)
        before, after = self._fields[:at], self._fields[at + 1 :]
        return (
            status_line(self._status),
            write_fields([*before, (_ID, b"")]).removesuffix(b"\r\n"),
            b"\r\n" + write_fields(after) + b"\r\n" + (self._body if self._has_body else b""),
        )


def _find_key(data: bytes, peer: Peer) -> bytes:
    """Return the key of a request. Credentials are hashed, so no memory dump shows them."""
    if _has_secret(data):
        return hashlib.blake2b(peer.prefix + data, key=_KEY).digest()
    return peer.prefix + data


def _has_secret(data: bytes) -> bool:
    return b"uthorization:" in data
