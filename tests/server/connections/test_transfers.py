"""Bodies that threads pass to a sink, compared with the same bodies received by the event loop."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from starlette.types import Receive, Scope, Send

from registry.http.body import TRANSFER
from registry.server import server
from registry.server.body_framing import MAX_REST
from registry.server.body_receiver import THREADS, BodyReceiver
from storage.driver import Transfer
from tests.server.connections.conftest import LIMITS
from tests.server.connections.test_bodies import DATA, GET, STREAMS, chunked, exchange, fixed
from tests.support.servers.http_server import Echo, answer_lifespan, serving_app, wait_until
from tests.support.servers.raw import Wire

pytestmark = pytest.mark.anyio


@dataclass
class Sinking(Echo):
    """Echo application that receives with transfers what arrives fast."""

    most: int = 1 << 40
    """The maximum number of bytes of a transfer."""
    fails_at: int | None = None
    """The size of a body at which the sink fails."""
    transferred: int = 0
    threads: set[str] = field(default_factory=set)
    waits: threading.Event = field(default_factory=threading.Event)
    """The sink waits for this event."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.waits.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        transfer: Transfer | None = scope.get(TRANSFER)
        body = bytearray()

        def sink(pieces: Sequence[memoryview]) -> None:
            self.threads.add(threading.current_thread().name)
            self.waits.wait(20)
            if self.fails_at is not None and len(body) >= self.fails_at:
                raise ValueError("full")
            for piece in pieces:
                body.extend(piece)

        async def receive_all() -> dict[str, object]:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return dict(message)
                body.extend(message["body"])
                if not message["more_body"]:
                    return {"type": "http.request", "body": bytes(body), "more_body": False}
                while transfer is not None and (count := await transfer(sink, self.most)):
                    assert count <= self.most
                    self.transferred += count

        await super().__call__(scope, receive_all, send)


@pytest.mark.parametrize("most", [1 << 40, 100_000])
@pytest.mark.parametrize("name", STREAMS)
async def test_a_sink_gets_what_the_loop_receives(
    name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Sinking(most=most)
    by_transfer = await exchange(STREAMS[name], lambda: None, app)
    by_loop = await exchange(
        STREAMS[name], lambda: monkeypatch.setattr(BodyReceiver, "start", lambda *_: None)
    )
    assert by_transfer == by_loop
    assert app.transferred > 0
    assert all(name.startswith("receive") for name in app.threads)


async def test_bodies_wait_for_a_thread() -> None:
    app = Sinking()
    app.waits.clear()
    number = 3 * THREADS
    async with serving_app(app) as served:
        wires = [await Wire.open(served.port) for _ in range(number)]
        sending = [asyncio.create_task(wire.send(fixed(DATA))) for wire in wires]
        receiver = served.server.bodies
        await wait_until(lambda: not receiver._free and len(receiver._waiting) > THREADS)
        assert len(app.threads) <= THREADS
        app.waits.set()
        assert [(await wire.read()).body for wire in wires] == [b"%d" % len(DATA)] * number
        await asyncio.gather(*sending)
        assert receiver._free == THREADS
        for wire in wires:
            wire.abort()


async def test_a_body_that_waits_for_a_thread_is_cancelled_or_cut() -> None:
    app = Sinking()
    app.waits.clear()
    async with serving_app(app, drain=0.1) as served:
        receiver = served.server.bodies
        wires = [await Wire.open(served.port) for _ in range(3 * THREADS)]
        sending = [asyncio.create_task(wire.send(fixed(DATA))) for wire in wires]
        await wait_until(lambda: not receiver._free and len(receiver._waiting) > THREADS)
        for task in list(served.server.server_state.tasks)[: 2 * THREADS]:
            task.cancel()
        for wire in wires:
            wire.abort()
        app.waits.set()
        await asyncio.gather(*sending, return_exceptions=True)
        await wait_until(lambda: not served.server.server_state.connections)
        await wait_until(lambda: not served.server.server_state.tasks)
        assert receiver._free == THREADS
    assert app.seen == []


async def test_the_framing_continues_after_a_sink_has_failed() -> None:
    """Without this, the client would get 400 for what follows in place of the response."""

    class Failing(Sinking):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await super().__call__(scope, receive, send)
            except ValueError:
                while (await receive()).get("more_body"):
                    pass
                length = (b"content-length", b"0")
                await send({"type": "http.response.start", "status": 507, "headers": [length]})
                await send({"type": "http.response.body", "body": b""})

    app = Failing(fails_at=1 << 20)
    for body in (chunked(DATA, 32 << 10), fixed(DATA)):
        async with serving_app(app) as served:
            wire = await Wire.open(served.port)
            await wire.send(body + GET)
            assert (await wire.read()).status == 507
            assert (await wire.read()).status == 200
            assert served.server.bodies._free == THREADS
            wire.abort()


async def test_little_is_kept_of_what_follows_a_chunked_body() -> None:
    app = Sinking()
    app.gate.clear()
    async with serving_app(app) as served:
        wire = await Wire.open(served.port)
        sending = asyncio.create_task(wire.send(chunked(DATA, 1 << 20) + GET * 40_000))
        await wait_until(lambda: bool(app.seen))
        [connection] = served.server.server_state.connections
        assert len(connection._buffer) <= MAX_REST  # type: ignore[union-attr]
        app.gate.set()
        assert (await wire.read()).body == b"%d" % len(DATA)
        wire.abort()
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_a_client_that_waits_for_100_continue(coding: str) -> None:
    """The second body is announced on a connection whose first one arrived fast."""
    whole = fixed(DATA) if coding == "length" else chunked(DATA, 32 << 10)
    head, body = whole.split(b"\r\n\r\n", 1)
    app = Sinking()
    async with serving_app(app) as served:
        wire = await Wire.open(served.port)
        for number in range(1, 4):
            await wire.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
            interim = await wire.reader.readuntil(b"\r\n\r\n")
            assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
            await wire.send(body)
            assert (await wire.read()).body == b"%d" % len(DATA)
            assert len(app.seen) == number
        wire.abort()
    assert app.transferred > len(DATA)


async def test_a_stop_lets_a_transfer_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINGER", 0.1)
    app = Sinking()
    async with serving_app(app, drain=20) as served:
        wire = await Wire.open(served.port)
        body = fixed(DATA)
        await wire.send(body[: 6 << 20])
        await wait_until(lambda: app.transferred > 0)
        stopping = asyncio.create_task(served.server.shutdown())
        await asyncio.sleep(0.2)
        await wire.send(body[6 << 20 :])
        answer = await wire.read()
        assert (answer.status, answer.body) == (200, b"%d" % len(DATA))
        await stopping
        wire.abort()


async def test_a_stop_cuts_a_transfer_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINGER", 0.1)
    app = Sinking()
    async with serving_app(app, LIMITS, drain=0.1) as served:
        wire = await Wire.open(served.port)
        await wire.send_head("PUT", "/", Content_Length=1 << 40)

        async def flood() -> None:
            while True:
                await wire.send(DATA)

        flooding = asyncio.create_task(flood())
        await wait_until(lambda: app.transferred > 0)
        await served.server.shutdown()
        assert not served.server.server_state.tasks
        assert served.server.bodies._free == THREADS
        with pytest.raises(ConnectionError):
            await flooding
        wire.abort()
    assert app.seen == []
