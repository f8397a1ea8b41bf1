"""The HTTP/1.1 connection: a uvicorn protocol class with strict framing and bounded memory.

uvicorn's own class leaves framing to a parser that stops after a head with `Upgrade`, treats
trailers as headers and buffers any number of pipelined requests. This class reads one request at a
time: the next request waits in the kernel until the response is complete.
"""

import asyncio
import contextvars
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from registry.server.admission import Admission
from registry.server.answers import Answers, Peer
from registry.server.body_bursts import BodyBursts
from registry.server.body_framing import MAX_REST, READ_CHUNKS, READ_FRAMED, ChunkedBody, FixedBody
from registry.server.body_receiver import BodyReceiver, Burst
from registry.server.buffer_sizes import MAX_DISCARDED, READ_AHEAD, READ_BODY, WRITE_BUFFER
from registry.server.connection_state import State
from registry.server.endpoints import describe_connection, end_output
from registry.server.exchange import Exchange, build_scope
from registry.server.file_sender import FileSender
from registry.server.framing_error import FramingError
from registry.server.head import parse_head
from registry.server.head_buffer import HeadBuffer
from registry.server.places import Refusal, Slot
from registry.server.refusals import REFUSALS, note_refusal
from registry.server.response_head import write_refusal
from registry.server.waiting_requests import WaitingRequest
from registry.server.write_progress import WriteProgress
from storage.driver import Sink

_HEALTH = frozenset({b"/healthz", b"/readyz", b"/metrics"})

# Shared by all connections: the loop fills it and hands it over in the same call.
_incoming = memoryview(bytearray(READ_BODY))


class Connection(asyncio.BufferedProtocol):
    """One client connection. uvicorn passes the first four arguments."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop,
        *,
        admission: Admission,
        slot: Slot,
        files: FileSender,
        bodies: BodyReceiver,
        answers: Answers | None = None,
    ) -> None:
        self._app: ASGIApp = config.loaded_app
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop
        self._admission = admission
        self._limits = admission.limits
        self._slot = slot
        self._files = files
        self._bursts = BodyBursts(bodies, self._on_burst)
        self._answers = answers if slot.refusal is None else None
        self._peer = Peer(b"", "")
        self.waiting: WaitingRequest | None = None
        self._transport: asyncio.Transport
        self._fixed_scope: dict[str, Any] = {}
        self._state = State.HEAD
        self._deadline = _loop.time() + self._limits.head_timeout
        self._buffer = HeadBuffer()
        self._kept_alive = False
        self._stopping = False
        self._body: FixedBody | ChunkedBody = FixedBody(0)
        self._exchange: Exchange | None = None
        self._reading = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._progress: WriteProgress
        self._discarded = 0

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio's own types
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._transport = transport
        self._progress = WriteProgress(transport, self._limits)
        self._fixed_scope = describe_connection(transport)
        if self._fixed_scope["scheme"] == "http":
            self._bursts.enable(transport.get_extra_info("socket").fileno())
        if self._answers is not None:
            self._peer = self._answers.find_peer(self._fixed_scope)
        self._slot.member = self
        self._admission.set_idle(self._slot)
        self._server_state.connections.add(self)  # type: ignore[arg-type] # uvicorn's own classes

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.waiting = None
        self._state = State.CLOSED
        self._clear_buffer()
        self._admission.release(self._slot)
        self._server_state.connections.discard(self)
        if self._exchange is not None:
            self._exchange.disconnect()
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        if self._state is not State.BODY:
            return _incoming[:READ_FRAMED]
        is_wanted = self._exchange is not None and self._exchange.waiting
        return _incoming[: min(READ_BODY if is_wanted else READ_AHEAD, self._body.read_size)]

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(_incoming[:nbytes])
        try:
            if self._state is State.BODY:
                self._bursts.arrives_fast = nbytes >= READ_CHUNKS
                self._add_body(*self._body.feed(data))
            elif self._state is State.DISCARD:
                self._discarded += nbytes
                if self._discarded > MAX_DISCARDED:
                    self.abort()
            elif not self._answer_from_memory(data):
                self.end_wait(None)
                self._take(data)
        except FramingError as error:
            self._refuse_request(error)

    def eof_received(self) -> bool:
        """Return whether to keep the other direction open after the client has ended its own."""
        self.end_wait(None)
        if self._state is not State.RESPONSE or self._exchange is None:
            return False  # asyncio then closes the transport
        self._exchange.keep_alive = False
        return True  # a client may still read after its last byte (RFC 9112 section 9.6)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Requests

    def _answer_from_memory(self, data: bytes) -> bool:
        """Answer a request of the same bytes as an earlier one, if nothing has changed since."""
        if self._answers is None or self._state is not State.HEAD or self._buffer:
            return False
        if self._stopping or not self._writable.is_set():
            return False
        found = self._answers.find(self, data, self._peer)
        if isinstance(found, WaitingRequest):
            self.waiting, self._state = found, State.WAITING
            self._admission.set_busy(self._slot)
        elif found is not None:
            self._repeat(found)
            self._admission.renew_idle(self._slot)
        return found is not None

    def _repeat(self, answer: bytes) -> None:
        self.write(answer)
        self._server_state.total_requests += 1
        self._kept_alive = True
        self._deadline = self._loop.time() + self._limits.keep_alive

    def end_wait(self, answer: bytes | None) -> None:
        """Send the response to the waiting request; None lets the application answer it."""
        waiting, self.waiting = self.waiting, None
        if waiting is None:
            return
        self._state = State.HEAD
        if answer is None:
            self._take(waiting.data)
        else:
            self._repeat(answer)
            self._admission.set_idle(self._slot)

    def _take(self, data: bytes) -> None:
        """Buffer bytes of a head or after the request in progress; raise FramingError."""
        self._buffer += data
        if self._state is State.RESPONSE:
            self._pause_reading()
        elif self._state is State.HEAD:
            if self._kept_alive:
                self._kept_alive = False
                self._deadline = self._loop.time() + self._limits.head_timeout
            self._read_head()

    def _read_head(self) -> None:
        """Start the next request if its head is complete; raise FramingError."""
        found = self._buffer.take_head(self._limits.long_query_paths)
        self._admission.heads.set_size(self, len(self._buffer))
        if found is None:
            self._admission.heads.make_room()
        else:
            self._start_request(*found)

    def _start_request(self, data: bytes, rest: bytes) -> None:
        head = parse_head(data, self._limits.long_query_paths)
        if self._slot.refusal is not None and head.path not in _HEALTH:
            raise REFUSALS[self._slot.refusal]
        scope = build_scope(head, **self._fixed_scope, state=self._app_state.copy())
        self._body = ChunkedBody() if head.length is None else FixedBody(head.length)
        self._exchange = Exchange(
            self,
            scope,
            self._loop,
            has_body=not self._body.complete,
            keep_alive=head.keep_alive and self._slot.refusal is None and not self._stopping,
            expects_continue=head.expects_continue,
        )
        self._admission.set_busy(self._slot)
        app = self._app
        if self._answers is not None and not rest and self._exchange.keep_alive:
            app = self._answers.remembering(app, head, data + b"\r\n\r\n", self._peer)
        # A separate task lets other connections run between pipelined requests.
        task = self._loop.create_task(self._exchange.run(app), context=contextvars.Context())
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)
        self._state = State.BODY
        self._add_body(*self._body.feed(rest))

    def _add_body(self, piece: bytes, rest: bytes) -> None:
        """Pass on bytes of the body, and keep those after its end."""
        assert self._exchange is not None  # noqa: S101 - there is one in this state
        self._exchange.feed(piece, complete=self._body.complete)
        if self._body.complete:
            self._state = State.RESPONSE
            if len(rest) > MAX_REST:
                self._exchange.keep_alive = False  # the client repeats what gets no response
            elif rest:
                self._buffer += rest
                self._pause_reading()
        elif self._exchange.buffered >= READ_AHEAD:
            self._pause_reading()

    # Called by the exchange

    @property
    def date(self) -> list[tuple[bytes, bytes]]:
        """The header fields of every response: uvicorn's Date, and Connection while it stops."""
        return self._server_state.default_headers

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes, or buffer them until the client reads; `drain` waits for that."""
        self._progress.written += len(data)
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read nearly all of the buffered bytes, or has disconnected."""
        await self._writable.wait()

    async def send_file(self, file: int, offset: int, count: int) -> int:
        """Send bytes of a file after everything that was written.

        Returns the number of bytes sent, at most `count`; 0 at the end of the file. Raises
        ConnectionError if the client has disconnected, and other OSErrors if the file cannot be
        read.
        """
        sent, piece = await self._files.send_after(self._transport, self.drain, file, offset, count)
        self._progress.written += sent
        self.write(piece)
        return sent + len(piece)

    def resume_body(self) -> None:
        """Read more of the body: on a thread if it arrives fast, else by the event loop."""
        if self._state is State.BODY and not self._bursts.is_running:
            if self._bursts.start(self._body):
                self._pause_reading()
            else:
                self._resume_reading()

    async def transfer_body(self, sink: Sink, most: int) -> int:
        """Do as `Exchange.transfer`, if the body arrives fast."""
        if self._state is not State.BODY or not self._bursts.is_possible(self._body):
            return 0
        self._pause_reading()
        return await self._bursts.transfer(
            self._body, sink, most, lambda: self._state is State.BODY
        )

    def _on_burst(self, received: Burst) -> None:
        if self._state is not State.BODY:
            return  # the connection has ended meanwhile
        if received.error is not None:
            self._refuse_request(received.error)
        elif received.size or self._body.complete:
            self._add_body(received.data, received.rest)
        if not self._buffer and (self._body.complete or not received.size):
            self._resume_reading()

    def on_response_complete(self) -> None:
        """Continue with the next request, or close the connection if none may follow."""
        self._server_state.total_requests += 1
        exchange, self._exchange = self._exchange, None
        if self._state is not State.RESPONSE or exchange is None or not exchange.keep_alive:
            # After a body that was not read to its end, the start of the next request is unknown.
            self.close()
            return
        self._state = State.HEAD
        self._kept_alive = True
        self._deadline = self._loop.time() + self._limits.keep_alive
        self._admission.set_idle(self._slot)
        self._resume_reading()
        if self._buffer:
            self.buffer_updated(0)

    def refuse(self, error: FramingError) -> None:
        """Send an error response in place of the application and end the connection."""
        if self._state in {State.DISCARD, State.CLOSED}:
            return
        self._state = State.DISCARD
        self._deadline = self._loop.time() + self._limits.linger
        self._clear_buffer()
        self._admission.set_idle(self._slot)
        self.write(write_refusal(error, self.date, body=not self._buffer.asks_head))
        end_output(self._transport)
        # Read on: if the connection were reset, a client that is still sending would lose the
        # response.
        self._resume_reading()
        if self._exchange is not None:
            self._exchange.disconnect()

    def close(self) -> None:
        """Close the connection after everything that was written has been sent."""
        self.waiting = None
        self._state = State.CLOSED
        self._clear_buffer()
        self._admission.set_busy(self._slot)
        self._transport.close()

    def abort(self) -> None:
        """Abort the connection: unsent data is lost, and the client notices."""
        self.waiting = None
        self._state = State.CLOSED
        self._transport.abort()

    # Called by the table of connections and by uvicorn

    def give_way(self) -> None:
        """Close a connection that has no request in progress."""
        self.close()
        if self._transport.get_write_buffer_size():
            self.abort()

    @property
    def network(self) -> str:
        """The key that is limited as one client."""
        return self._slot.network

    def refuse_head(self) -> None:
        """Refuse the request whose head is arriving."""
        self._refuse_request(REFUSALS[Refusal.SERVER])

    def shutdown(self) -> None:
        """Close once the request in progress is complete (uvicorn calls this as it stops)."""
        self._stopping = True
        self.end_wait(None)
        if self._exchange is not None:
            self._exchange.keep_alive = False
        elif self._state in {State.HEAD, State.DISCARD}:
            self.close()

    def check_deadlines(self, now: float) -> None:
        """Close the connection if it is silent too long; abort it if the client does not read."""
        if self._progress.is_too_slow(now):
            self.abort()
        if self._state in {State.HEAD, State.DISCARD} and now >= self._deadline:
            self.close()

    # Helpers

    def _refuse_request(self, error: FramingError) -> None:
        if self._exchange is not None and self._exchange.response_started:
            self.abort()
            return
        note_refusal(error, self._fixed_scope["client"])
        self.refuse(error)

    def _clear_buffer(self) -> None:
        self._admission.heads.set_size(self, 0)
        self._buffer.clear()

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
