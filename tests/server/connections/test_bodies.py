"""Bodies that threads receive, compared with the same bodies received by the event loop."""

import asyncio
import os
from collections.abc import Callable

import pytest

from registry.server.body_receiver import THREADS, BodyReceiver
from tests.server.connections.conftest import LIMITS
from tests.support.servers.http_server import Echo, serving_app, wait_until
from tests.support.servers.raw import Wire

pytestmark = pytest.mark.anyio

DATA = os.urandom(9 << 20)


def fixed(data: bytes) -> bytes:
    return b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)


def chunked(data: bytes, *sizes: int, end: bytes = b"0\r\n\r\n") -> bytes:
    pieces, at, number = [], 0, 0
    while at < len(data):
        piece = data[at : at + sizes[number % len(sizes)]]
        pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        at += len(piece)
        number += 1
    head = b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(pieces) + end


GET = b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
STREAMS: dict[str, bytes] = {
    "length": fixed(DATA),
    "length, pipelined": fixed(DATA) + GET + fixed(DATA[:200_000]) + GET,
    "chunked as Docker": chunked(DATA, 32 << 10),
    "large chunks, pipelined": chunked(DATA, 3 << 20) + GET * 3,
    "chunks of all sizes": chunked(DATA, 32 << 10, 1, 70_000, 100, 300_000),
    "trailer": chunked(DATA, 32 << 10, end=b"0\r\nX: y\r\n\r\n") + GET,
    "chunk too long": chunked(DATA, 32 << 10, end=b"8000\r\n" + bytes(40_000)) + GET,
    "no hexadecimal number": chunked(DATA, 32 << 10, end=b"xyz\r\n\r\n") + GET,
    "bare LF": chunked(DATA, 32 << 10, end=b"5\nabcde\r\n0\r\n\r\n") + GET,
    "ends early": fixed(DATA)[:-1],
    "ends in a chunk": chunked(DATA, 32 << 10, end=b"")[:-100],
}


async def exchange(
    stream: bytes, patch: Callable[[], None], app: Echo | None = None
) -> tuple[list[object], list[bytes]]:
    """Return the requests that the application saw, and the status lines of the answers."""
    patch()
    echo = app or Echo()
    async with serving_app(echo, LIMITS) as served:
        wire = await Wire.open(served.port)
        sending = asyncio.create_task(wire.send(stream))
        answers = b""
        try:
            await sending
            wire.writer.write_eof()
            async with asyncio.timeout(20):
                while piece := await wire.reader.read(1 << 16):
                    answers += piece
        except ConnectionError:
            pass
        finally:
            wire.abort()
        await wait_until(lambda: not served.server.server_state.connections)
        await wait_until(lambda: not served.server.server_state.tasks)
    lines = [line for line in answers.split(b"\r\n") if line.startswith(b"HTTP/1.1")]
    return list(echo.seen), lines


@pytest.mark.parametrize("name", STREAMS)
async def test_threads_receive_what_the_loop_receives(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bursts = 0
    start = BodyReceiver.start

    def count(self: BodyReceiver, *arguments: object) -> object:
        nonlocal bursts
        burst = start(self, *arguments)  # type: ignore[arg-type] # passed on
        bursts += burst is not None
        return burst

    on_threads = await exchange(
        STREAMS[name], lambda: monkeypatch.setattr(BodyReceiver, "start", count)
    )
    by_loop = await exchange(
        STREAMS[name], lambda: monkeypatch.setattr(BodyReceiver, "start", lambda *_: None)
    )
    assert on_threads == by_loop
    assert bursts > 0


async def test_a_client_that_vanishes_ends_its_request() -> None:
    echo = Echo()
    async with serving_app(echo, LIMITS) as served:
        for _ in range(5):
            wire = await Wire.open(served.port)
            await wire.send(fixed(DATA)[: 4 << 20])
            wire.abort()
        await wait_until(lambda: not served.server.server_state.connections)
        await wait_until(lambda: not served.server.server_state.tasks)
        assert served.server.bodies._free == THREADS
    assert echo.seen == []


async def test_a_client_that_drips_keeps_no_thread() -> None:
    echo = Echo()
    async with serving_app(echo, LIMITS) as served:
        wire = await Wire.open(served.port)
        await wire.send(fixed(DATA)[: 2 << 20])
        for number in range(200):
            await wire.send(DATA[number : number + 1])
            await asyncio.sleep(0.002)
        await wait_until(lambda: served.server.bodies._free == THREADS)
        wire.abort()
