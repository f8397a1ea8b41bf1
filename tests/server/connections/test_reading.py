"""Limits on how much of a body, and of bytes after it, is read at once and kept."""

import asyncio
import sys

import pytest
from starlette.types import Receive, Scope, Send

from registry.server.body_framing import ChunkedBody, FixedBody
from registry.server.connection import Connection
from tests.support.servers.http_server import Echo, Served, answer_lifespan, serving_app
from tests.support.servers.raw import Wire

pytestmark = pytest.mark.anyio

HEAD = b"PUT /z HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of the numbers of bytes that the event loop and threads parse at once."""
    sizes: list[int] = []
    chunked, fixed, split = ChunkedBody.feed, FixedBody.feed, ChunkedBody.split

    def feed_chunked(body: ChunkedBody, data: bytes) -> object:
        sizes.append(len(data))
        return chunked(body, data)

    def feed_fixed(body: FixedBody, data: bytes) -> object:
        sizes.append(len(data))
        return fixed(body, data)

    def split_chunked(body: ChunkedBody, data: bytes | bytearray, at: int, end: int) -> object:
        if isinstance(data, bytearray):  # the buffer of a thread
            sizes.append(end - at)
        return split(body, data, at, end)

    monkeypatch.setattr(ChunkedBody, "split", split_chunked)
    monkeypatch.setattr(ChunkedBody, "feed", feed_chunked)
    monkeypatch.setattr(FixedBody, "feed", feed_fixed)
    return sizes


def find_connection(served: Served) -> Connection:
    [connection] = served.server.server_state.connections
    assert isinstance(connection, Connection)
    return connection


async def send_ahead(served: Served, data: bytes) -> Wire:
    """Send bytes without waiting until the server reads them."""
    wire = await Wire.open(served.port)
    wire.writer.write(data)
    await asyncio.sleep(0.2)
    return wire


async def test_one_byte_chunks_are_read_in_small_steps(served: Served, fed: list[int]) -> None:
    """Regression: 256 KiB of such chunks at once blocked the event loop for 0.3 seconds each."""
    wire = await send_ahead(served, CHUNKED + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n")
    assert (await wire.read()).body == b"30000"
    wire.abort()
    assert max(fed[1:]) <= (4 << 10) + 1  # the first bytes arrived with the head


async def test_small_chunks_are_read_in_small_steps(served: Served, fed: list[int]) -> None:
    wire = await send_ahead(served, CHUNKED + (b"18\r\n" + b"x" * 24 + b"\r\n") * 30_000)
    await wire.send(b"0\r\n\r\n")
    assert (await wire.read()).body == b"720000"
    wire.abort()
    assert max(fed) <= (16 << 10) + 24


@pytest.mark.parametrize(("chunk", "least"), [(32 << 10, 64 << 10), (1 << 20, 200 << 10)])
async def test_large_chunks_are_read_in_large_steps(
    served: Served, fed: list[int], chunk: int, least: int
) -> None:
    coded = b"%x\r\n%b\r\n" % (chunk, bytes(chunk))
    wire = await send_ahead(served, CHUNKED + coded * ((4 << 20) // chunk) + b"0\r\n\r\n")
    assert (await wire.read()).body == b"%d" % (4 << 20)
    wire.abort()
    assert max(fed) >= least


@pytest.mark.parametrize("length", [1, 100_000])
async def test_little_is_kept_of_what_follows_a_body(
    served: Served, echo: Echo, length: int
) -> None:
    echo.gate.clear()
    following = b"GET /v HTTP/1.1\r\nHost: a\r\n\r\n" * 40_000
    wire = await send_ahead(
        served, HEAD + b"Content-Length: %d\r\n\r\n" % length + bytes(length) + following
    )
    assert [len(body) for _, _, body in echo.seen] == [length]
    assert len(find_connection(served)._buffer) <= 16 << 10
    echo.gate.set()
    for _ in range(20):
        assert (await wire.read()).status == 200
    wire.abort()


@pytest.mark.parametrize("coding", [b"Content-Length: 3000", b"Transfer-Encoding: chunked"])
async def test_a_body_in_tiny_pieces_takes_no_more_memory(coding: bytes) -> None:
    """Regression: each two-byte chunk was kept as an object of 15 times its size."""
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        await gate.wait()
        await Echo()(scope, receive, send)

    async with serving_app(app) as served:
        wire = await Wire.open(served.port)
        await wire.send(HEAD + coding + b"\r\n\r\n")
        chunk = b"2\r\nxx\r\n" if b"chunked" in coding else b"xx"
        for _ in range(1500):
            await wire.send(chunk)
            await asyncio.sleep(0)
        exchange = find_connection(served)._exchange
        assert exchange is not None
        assert sum(map(sys.getsizeof, exchange._pieces)) < 40 << 10
        gate.set()
        if b"chunked" in coding:
            await wire.send(b"0\r\n\r\n")
        assert (await wire.read()).body == b"3000"
        wire.abort()
