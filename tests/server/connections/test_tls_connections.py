"""TLS connections: their memory, their end, and handshakes that never complete."""

import asyncio
import contextlib
import hashlib
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from starlette.types import Receive, Scope, Send

from registry.http.body import TRANSFER
from registry.server import admission, listener
from registry.server.limits import ServerLimits
from tests.support.servers.certificates import Authority
from tests.support.servers.http_server import Echo, Served, answer_lifespan, serving_app, wait_until
from tests.support.servers.raw import Wire
from tests.support.servers.server import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

T = TypeVar("T")

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
HALF_HELLO = b"\x16\x03\x01\x02\x00\x01"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return Authority().issue(tmp_path_factory.mktemp("tls"), "127.0.0.1")


@pytest.fixture
def context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
async def encrypted(echo: Echo, context: ssl.SSLContext) -> AsyncIterator[Served]:
    limits = ServerLimits(per_address=0, write_window=0.6, write_minimum=1000)
    async with serving_app(echo, limits, tls=context) as served:
        yield served
        echo.gate.set()


def trust_all() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def open_wire(port: int, receive_buffer: int = 0) -> Wire:
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    return Wire(*await asyncio.open_connection(sock=raw, ssl=trust_all(), server_hostname="a"))


def shrink_buffers(served: Served) -> None:
    """Reduce the send buffer of each connection, to simulate a slow network."""
    for each in served.server.servers:
        each._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)


SERVING = """
import asyncio, ssl, sys
from registry.server.limits import ServerLimits
from tests.support.servers.http_server import Echo, serving_app

async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[1:])
    async with serving_app(Echo(), ServerLimits(per_address=0), tls=context) as served:
        print(served.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def test_a_connection_costs_little_memory(certificate: tuple[Path, Path]) -> None:
    """TLS of asyncio uses 283 KiB for an idle connection, and 450 KiB for a busy one."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVING, *map(str, certificate)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        opened = [connect(port)]
        before = resident_kib(process.pid)
        opened += [connect(port) for _ in range(200)]
        silent = resident_kib(process.pid) - before
        for each in opened:
            each.sendall(GET * 2000)  # pipelined requests
        assert opened[-1].recv(100).startswith(b"HTTP/1.1 200")
        busy = resident_kib(process.pid) - before
        for each in opened:
            each.close()
        process.communicate()
    assert silent < 200 * 64
    assert busy < 200 * 128


def connect(port: int, receive_buffer: int = 0) -> ssl.SSLSocket:
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.connect(("127.0.0.1", port))
    return trust_all().wrap_socket(raw)


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.parametrize("tells", [True, False])
async def test_a_client_that_ends_its_side_gets_its_answer(
    encrypted: Served, echo: Echo, *, tells: bool
) -> None:
    """The client ends TLS, or only its side of the socket, before the response is sent."""
    echo.gate.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", encrypted.port)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trust_all().wrap_bio(incoming, outgoing, server_hostname="a")

    async def repeat(step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                if data := outgoing.read():
                    writer.write(data)
                incoming.write(await reader.read(1 << 16))

    await repeat(tls.do_handshake)
    tls.write(GET)
    if tells:
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()
    writer.write(outgoing.read())
    writer.write_eof()
    await wait_until(lambda: len(echo.seen) == 1)
    await asyncio.sleep(0.1)
    echo.gate.set()
    assert (await repeat(lambda: tls.read(1 << 16))).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_bodies_arrive_whole_in_both_directions(encrypted: Served, echo: Echo) -> None:
    data = b"".join(hashlib.sha256(bytes([n])).digest() * 2000 for n in range(100))
    echo.body = data[::-1]
    wires = [await open_wire(encrypted.port) for _ in range(3)]
    for wire in wires:
        await wire.send_head("PUT", "/", Content_Length=len(data))

    async def exchange(wire: Wire) -> bytes:
        await wire.send(data)
        return (await wire.read()).body

    assert await asyncio.gather(*map(exchange, wires)) == [echo.body] * 3
    assert [body for _, _, body in echo.seen] == [data] * 3
    for wire in wires:
        wire.abort()


@dataclass
class Pieces:
    """Application that responds with chunks, and sets `done` after it has sent all of them."""

    pieces: list[bytes]
    done: asyncio.Event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        length = (b"content-length", str(sum(map(len, self.pieces))).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
        self.done.set()


@pytest.mark.parametrize("request_head", [GET, CLOSING])
async def test_what_a_slow_client_has_not_read_is_not_dropped(
    context: ssl.SSLContext, request_head: bytes
) -> None:
    """At a fixed time after the close, asyncio discards bytes that it has not sent yet."""
    app = Pieces([b"x" * (1 << 20)] * 2, asyncio.Event())
    async with serving_app(app, tls=context) as served:
        shrink_buffers(served)
        wire = await open_wire(served.port, 16 << 10)
        await wire.send(request_head)
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head
        read = 0
        while not app.done.is_set():
            read += len(await wire.reader.readexactly(64 << 10))
            await asyncio.sleep(0.001)
        await asyncio.sleep(1.5)
        await wire.reader.readexactly((2 << 20) - read)
        if request_head is CLOSING:
            assert await wire.reader.read() == b""  # a TLS close, not a reset
        wire.abort()


async def test_small_records_are_progress_of_their_own_size(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: each byte is a record of 23 bytes, so that progress seemed to go backwards."""
    monkeypatch.setattr(admission, "SWEEP", 0.05)
    app = Pieces([b"x"] * 40_000, asyncio.Event())
    limits = ServerLimits(write_window=0.3, write_minimum=5000)
    async with serving_app(app, limits, tls=context) as served:
        shrink_buffers(served)

        def read_slowly() -> int:
            with connect(served.port, 16 << 10) as client:
                client.sendall(GET)
                read = 0
                for _ in range(60):
                    read += sum(len(client.recv(1)) for _ in range(100))
                    time.sleep(0.02)
            return read

        # The window lets 34 KB of records pass, which contain 1500 bytes.
        assert await asyncio.to_thread(read_slowly) == 6000


async def test_a_client_that_leaves_while_requests_wait_leaves_no_connection(
    encrypted: Served, echo: Echo
) -> None:
    """A paused reader of asyncio never reads bytes that arrived before the end."""
    echo.gate.clear()
    wire = await open_wire(encrypted.port)
    await wire.send(CLOSING + GET)
    await wait_until(lambda: bool(echo.seen))
    wire.writer.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.1)
    echo.gate.set()
    await wait_until(lambda: len(encrypted.server.admission) == 0)
    wire.abort()


async def test_a_reset_in_the_middle_of_anything_leaves_nothing(
    encrypted: Served, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    echo.body = b"x" * (4 << 20)
    for sent in (
        b"",
        HALF_HELLO,
        GET,
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
    ):
        for _ in range(5):
            if sent in {b"", HALF_HELLO}:
                wire = await Wire.open(encrypted.port)
            else:
                wire = await open_wire(encrypted.port)
            if sent:
                await wire.send(sent)
            await asyncio.sleep(0.01)
            raw = wire.writer.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.abort()
    await wait_until(lambda: len(encrypted.server.admission) == 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_garbage_after_the_handshake_ends_the_connection(
    encrypted: Served, caplog: pytest.LogCaptureFixture
) -> None:
    wire = await open_wire(encrypted.port)
    await wire.send(GET)
    assert (await wire.read()).status == 200
    wire.writer.transport.get_extra_info("socket")._sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    await wait_until(lambda: len(encrypted.server.admission) == 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    wire.abort()


# Handshakes


async def test_silent_handshakes_never_keep_a_client_out(
    echo: Echo, context: ssl.SSLContext
) -> None:
    limits = ServerLimits(connections=20, per_address=0)
    async with serving_app(echo, limits, tls=context) as served:
        silent = [await Wire.open(served.port) for _ in range(80)]
        for each in silent[::2]:
            await each.send(HALF_HELLO)
        wire = await open_wire(served.port)
        await wire.send(GET)
        assert (await wire.read()).status == 200
        assert len(served.server.admission) <= 20
        assert await silent[0].reader.read() == b""
        for each in (*silent, wire):
            each.abort()


async def test_a_handshake_that_takes_too_long_is_ended(
    echo: Echo, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT", 0.3)
    async with serving_app(echo, tls=context) as served:
        wire = await Wire.open(served.port)
        await wire.send(HALF_HELLO)
        async with asyncio.timeout(10):
            assert await wire.reader.read() == b""
        await wait_until(lambda: len(served.server.admission) == 0)
        wire.abort()


async def test_handshakes_do_not_hold_up_a_stop(echo: Echo, context: ssl.SSLContext) -> None:
    async with serving_app(echo, tls=context) as served:
        silent = [await Wire.open(served.port) for _ in range(20)]
        await wait_until(lambda: len(served.server.admission) == 20)
        async with asyncio.timeout(listener.HANDSHAKE_TIMEOUT / 2):
            await served.server.shutdown()
        assert len(served.server.admission) == 0
        for each in silent:
            each.abort()


async def test_neither_sendfile_nor_transfers_are_offered(context: ssl.SSLContext) -> None:
    offered: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        offered.append((scope["extensions"], TRANSFER in scope))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with serving_app(app, tls=context) as served:
        wire = await open_wire(served.port)
        await wire.send(b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab")
        assert (await wire.read()).status == 204
        wire.abort()
    assert offered == [({}, False)]
