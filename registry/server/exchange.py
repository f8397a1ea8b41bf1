"""One request and its response in the ASGI protocol (ASGI specification, HTTP 2.3)."""

import asyncio
import logging
import os
from typing import Any, Protocol
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

from registry.http.body import TRANSFER, WHOLE
from registry.http.sendfile import SENDFILE
from registry.server.framing_error import FramingError
from registry.server.head import RequestHead
from registry.server.response_head import status_line, write_fields
from storage.driver import Sink

logger = logging.getLogger(__name__)

SLICE = 256 << 10
"""The number of bytes of a response body to pass to the transport at once."""

JOINED = 64 << 10
"""The maximum size of a first piece of a body to send in one write with the head, in bytes."""

PIECE_COST = 64
"""The memory overhead of each piece of a request body, in bytes."""

_NO_BODY = frozenset({204, 304})


class Channel(Protocol):
    """The interface of the connection that an exchange uses."""

    @property
    def date(self) -> list[tuple[bytes, bytes]]: ...
    def write(self, data: bytes | memoryview) -> None: ...
    async def drain(self) -> None: ...
    async def send_file(self, file: int, offset: int, count: int) -> int: ...
    def resume_body(self) -> None: ...
    async def transfer_body(self, sink: Sink, most: int) -> int: ...
    def refuse(self, error: FramingError) -> None: ...
    def abort(self) -> None: ...
    def on_response_complete(self) -> None: ...


class Exchange:
    """A request body on its way to the application, and the response on its way back."""

    def __init__(
        self,
        channel: Channel,
        scope: Scope,
        loop: asyncio.AbstractEventLoop,
        *,
        has_body: bool,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self.keep_alive = keep_alive
        self.response_started = False
        self.response_complete = False
        self.body_complete = not has_body
        self.buffered = 0
        """The memory of the pieces of the body that the application has not received, in bytes."""
        self._receiving = False
        self._channel = channel
        self._scope = scope
        self._loop = loop
        self._event = asyncio.Event()
        self._pieces: list[bytes] = []
        self._delivered = False
        self._received = False
        self._disconnected = False
        self._owes_continue = expects_continue
        self._head = b""
        self._bodiless = False
        self._chunked = False
        self._left: int | None = None

    # Called by the connection

    @property
    def waiting(self) -> bool:
        """Whether the application is waiting for more of the body."""
        return self._receiving and not self._event.is_set()

    def feed(self, piece: bytes, *, complete: bool) -> None:
        """Add a piece of the body, which may be empty. `complete` is true for the last one."""
        if piece:
            self._pieces.append(piece)
            self.buffered += len(piece) + PIECE_COST
        self.body_complete = complete
        if piece or complete:
            self._event.set()

    def disconnect(self) -> None:
        """Report that the connection has ended: nothing can be received or sent any more."""
        self._disconnected = True
        self._event.set()

    # Called by the application

    async def run(self, app: ASGIApp) -> None:
        """Run the application, and send an error response if it fails."""
        # Not kept in the scope of this object, which would then refer to itself. With TLS, the
        # application would wait for each write before it receives more.
        is_offered = not self.body_complete and self._scope["scheme"] == "http"
        own: dict[str, Any] = {WHOLE: self.find_whole}
        if is_offered:
            own[TRANSFER] = self.transfer
        try:
            await app({**self._scope, **own}, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail(
                FramingError("the server is shutting down; try again later", 503, "UNAVAILABLE")
            )
        except Exception:
            logger.exception("the application failed outside of its own error handling")
            self._fail(FramingError("internal error", 500, "UNKNOWN"))
        else:
            if not self.response_complete and not self._disconnected:
                # If the response has started, the client sees that the body is shorter than
                # announced.
                self._fail(FramingError("internal error", 500, "UNKNOWN"))

    def _fail(self, error: FramingError) -> None:
        if self._disconnected:
            return
        if self.response_started and not self._head:
            self._channel.abort()
        else:
            self._head = b""
            self._channel.refuse(error)

    async def receive(self) -> Message:
        """Return the next pieces of the body, then `http.disconnect` once the client has left."""
        if self._owes_continue and not (self.response_started or self._disconnected):
            self._owes_continue = False
            self._channel.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self.response_complete:
            # Deliver what arrived before the connection ended.
            if self._pieces or (self.body_complete and not self._delivered):
                return self._take_body()
            if self._disconnected:
                break
            self._event.clear()
            self._receiving = True
            if not self.body_complete:
                self._channel.resume_body()
            try:
                await self._event.wait()
            finally:
                self._receiving = False
        return {"type": "http.disconnect"}

    async def transfer(self, sink: Sink, most: int) -> int:
        """Pass up to `most` of the next bytes of the body to `sink`, on a thread.

        Returns their number; 0 if the next bytes have to be received with `receive`. `sink` is
        called several times. After an error of it, the body cannot be received any more.
        """
        if self._pieces or self.body_complete or self._disconnected or self._owes_continue:
            return 0
        return await self._channel.transfer_body(sink, most)

    def find_whole(self) -> int | None:
        """Return the size of the body if all of it waits to be received, else None."""
        if not self.body_complete or self._delivered or self._received:
            return None
        return sum(map(len, self._pieces))

    def _take_body(self) -> Message:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self.buffered = 0
        self._delivered = self.body_complete
        self._received = True
        return {"type": "http.request", "body": body, "more_body": not self.body_complete}

    async def send(self, message: Message) -> None:
        """Send the head or a piece of the body; wait while the client does not read.

        Raises EOFError if a file of the response cannot be read or is too short.
        """
        if self._disconnected:
            await asyncio.sleep(0)  # let an application that receives meanwhile notice it
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self._start(message)
            # The first piece of the body usually follows at once, and then both are sent in one
            # write.
            self._loop.call_soon(self._flush_head)
        elif kind == "http.response.body" and self.response_started and not self.response_complete:
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == SENDFILE and self.response_started and not self.response_complete:
            await self._send_file(message)
        else:
            raise RuntimeError(f"unexpected ASGI message {kind}")

    def _start(self, message: Message) -> None:
        status: int = message["status"]
        fields: list[tuple[bytes, bytes]] = [*self._channel.date, *message.get("headers", ())]
        named = {name.lower(): value for name, value in fields}
        if b"close" in named.get(b"connection", b"").lower():
            self.keep_alive = False
        self._bodiless = self._scope["method"] == "HEAD" or status in _NO_BODY
        if self._bodiless:
            self._left = 0
        elif b"content-length" in named:
            self._left = int(named[b"content-length"])
        elif self._scope["http_version"] == "1.1":
            self._chunked = True
            fields.append((b"transfer-encoding", b"chunked"))
        else:
            self.keep_alive = False  # the end of the connection marks the end of the body
        if not self.keep_alive and b"connection" not in named:
            fields.append((b"connection", b"close"))
        self._head = status_line(status) + write_fields(fields) + b"\r\n"
        self.response_started = True
        self._owes_continue = False

    def _flush_head(self) -> None:
        if self._head and not self._disconnected:
            head, self._head = self._head, b""
            self._channel.write(head)

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if self._bodiless:
            body = b""
        self._count(len(body))
        await self._write_body(body, last=not more)
        self._end_body(more=more)

    def _count(self, size: int) -> None:
        """Count bytes of the body; raise RuntimeError if it is too long."""
        if self._left is not None:
            if size > self._left:
                raise RuntimeError("the response body is longer than its Content-Length")
            self._left -= size

    def _end_body(self, *, more: bool) -> None:
        if not more and not self._disconnected:
            if self._left:
                raise RuntimeError("the response body is shorter than its Content-Length")
            self.response_complete = True
            self._event.set()
            self._channel.on_response_complete()

    async def _send_file(self, message: Message) -> None:
        """Send bytes of a file as a part of the body."""
        file: int = message["file"].fileno()
        offset: int | None = message.get("offset")
        if offset is None:
            offset = os.lseek(file, 0, os.SEEK_CUR)
        count: int | None = message.get("count")
        if count is None:
            count = os.fstat(file).st_size - offset
        if self._bodiless:
            count = 0
        self._count(count)
        self._flush_head()
        if self._chunked and count:
            self._channel.write(b"%x\r\n" % count)
        end = offset + count
        while offset < end and not self._disconnected:
            try:
                sent = await self._channel.send_file(file, offset, end - offset)
            except ConnectionError:
                self.disconnect()
                return
            except OSError as error:
                raise EOFError("the file of the response cannot be read") from error
            if not sent:
                raise EOFError("the file of the response is shorter than announced")
            offset += sent
        if self._chunked and count:
            self._channel.write(b"\r\n")
        more = message.get("more_body", False)
        await self._write_body(b"", last=not more)
        self._end_body(more=more)

    async def _write_body(self, body: bytes, *, last: bool) -> None:
        if self._chunked and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        if self._chunked and last:
            body += b"0\r\n\r\n"
        if self._head and len(body) <= JOINED:
            body, self._head = self._head + body, b""
        self._flush_head()
        view = memoryview(body)
        for start in range(0, len(view), SLICE):
            self._channel.write(view[start : start + SLICE])
            await self._channel.drain()
            if self._disconnected:
                return


def build_scope(head: RequestHead, **connection: Any) -> Scope:
    """Return the ASGI scope of a request; `connection` has the values of its connection."""
    path = unquote(head.path.decode("latin-1"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": head.version,
        "method": head.method,
        "path": path,
        "raw_path": head.path,
        "query_string": head.query,
        "root_path": "",
        "headers": head.headers,
        **connection,
    }
