"""Limits of connections, file descriptors and memory, over sockets."""

import asyncio
import json
import logging
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from registry.server.descriptors import KEPT, fit_connections
from registry.server.limits import ServerLimits
from tests.support.servers.certificates import Authority
from tests.support.servers.http_server import Echo, Served, serving_app, wait_until
from tests.support.servers.raw import Answer, Wire
from tests.support.servers.server import ROOT, Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


async def get(wire: Wire, path: str) -> int:
    await wire.send_head("GET", path)
    return (await wire.read()).status


async def test_half_sent_heads_have_a_budget_together(served: Served, echo: Echo) -> None:
    wires = [await Wire.open(served.port) for _ in range(8)]
    for wire in wires:
        await wire.send(HEAD + b"X: " + b"a" * (60 << 10))
    answers = await asyncio.gather(*(wire.read() for wire in wires), return_exceptions=True)
    statuses = [answer.status for answer in answers if isinstance(answer, Answer)]
    assert statuses  # other clients were too slow to read a response
    assert set(statuses) == {503}
    assert served.server.admission.heads.size <= 256 << 10
    for wire in wires:
        wire.abort()
    await wait_until(lambda: not served.server.admission.heads.size)
    assert echo.seen == []


async def test_heads_of_those_who_keep_most_are_refused_first(served: Served, echo: Echo) -> None:
    """Regression: the next sender was refused, even with a small head."""
    wires = [await Wire.open(served.port) for _ in range(4)]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", served.port, local_addr=("127.0.0.2", 0)
    )
    honest = Wire(reader, writer)
    for wire in wires:
        await wire.send(HEAD + b"X: " + b"a" * (63 << 10))
    while served.server.admission.heads.size < 4 * (63 << 10):
        await asyncio.sleep(0)
    await honest.send(HEAD + b"X: " + b"a" * (20 << 10))
    await asyncio.sleep(0.1)
    await honest.send(b"\r\n\r\n")
    assert (await honest.read()).status == 200
    refused = await asyncio.gather(*(wire.read() for wire in wires), return_exceptions=True)
    assert 503 in [answer.status for answer in refused if isinstance(answer, Answer)]
    assert len(echo.seen) == 1
    for wire in (*wires, honest):
        wire.abort()


async def test_when_all_connections_are_in_use_health_is_still_answered(echo: Echo) -> None:
    limits = ServerLimits(connections=3, per_address=0)
    async with serving_app(echo, limits) as served:
        echo.gate.clear()
        busy = [await Wire.open(served.port) for _ in range(3)]
        for wire in busy:
            await wire.send_head("GET", "/busy")
        await wait_until(lambda: len(echo.seen) >= 3)
        refused = await Wire.open(served.port)
        await refused.send_head("GET", "/v2/")
        answer = await refused.read()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert json.loads(answer.body)["errors"][0]["code"] == "UNAVAILABLE"
        health = await Wire.open(served.port)
        await health.send_head("GET", "/healthz")
        echo.gate.set()
        answer = await health.read()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        for wire in (*busy, refused, health):
            wire.abort()


async def test_idle_connections_never_keep_a_client_out(echo: Echo) -> None:
    async with serving_app(echo, ServerLimits(connections=20, per_address=10)) as served:
        idle = [await Wire.open(served.port) for _ in range(50)]
        wire = await Wire.open(served.port)
        assert await get(wire, "/v2/") == 200
        assert len(served.server.admission) <= 10
        for each in (*idle, wire):
            each.abort()


async def test_an_address_at_its_limit_is_told_so(echo: Echo) -> None:
    async with serving_app(echo, ServerLimits(per_address=1)) as served:
        echo.gate.clear()
        busy = await Wire.open(served.port)
        await busy.send_head("GET", "/busy")
        await wait_until(lambda: bool(echo.seen))
        refused = await Wire.open(served.port)
        assert await get(refused, "/v2/") == 429
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", served.port, local_addr=("127.0.0.2", 0)
        )
        echo.gate.set()
        other = Wire(reader, writer)
        assert await get(other, "/v2/") == 200
        for wire in (busy, refused, other):
            wire.abort()


def test_connections_fit_into_the_descriptors() -> None:
    assert fit_connections(65_536) == (65_536 - KEPT) // 2
    assert fit_connections(1024) == 416
    assert fit_connections(64) == 16


def connect_silently(port: int, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


def test_silent_clients_do_not_use_up_the_descriptors(tmp_path: Path) -> None:
    """Regression: 1,010 idle connections stopped the server."""
    with serving(Server(tmp_path / "data", descriptors=400)) as server:
        silent = connect_silently(server.port, 500)
        assert httpx.get(f"{server.url}/readyz", timeout=60).status_code == 200
        for each in silent:
            each.close()
        log = server.log.read_text()
    assert "only 104 of 8192 connections are accepted: the limit of open files is 400" in log
    assert "Too many open files" not in log
    assert "Traceback" not in log


STARVED = """
import asyncio, logging, sys
from registry.server.limits import ServerLimits
from tests.support.servers.http_server import Echo, serving_app

async def main():
    async with serving_app(Echo(), ServerLimits()) as served:
        print(served.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)

logging.basicConfig()
asyncio.run(main())
"""


def test_a_lack_of_descriptors_is_survived_and_logged_once_a_second() -> None:
    """Regression: the error of the kernel caused 98 MB of log in 12 seconds."""
    with subprocess.Popen(
        ["prlimit", "--nofile=40", sys.executable, "-c", STARVED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        began = time.monotonic()
        silent = connect_silently(port, 150)
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=60).text == "0"
        for each in silent:
            each.close()
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=60).text == "0"
        took = time.monotonic() - began
        _, log = process.communicate()
    assert 1 <= log.count("cannot accept connections: Too many open files") <= took + 2
    assert "LimitNOFILE" in log
    assert "Traceback" not in log


async def test_a_failed_handshake_is_logged_at_debug_with_the_address(
    echo: Echo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving_app(echo, tls=make_context(tmp_path)) as served:
        wire = await Wire.open(served.port)
        await wire.send(HEAD + b"\r\n")
        assert await wire.reader.read() == b""
        wire.abort()
        await wait_until(lambda: len(served.server.admission) == 0)
    lines = [record for record in caplog.records if "handshake" in record.getMessage()]
    assert [line.levelno for line in lines] == [logging.DEBUG]
    assert "TLS handshake with 127.0.0.1 failed: " in lines[0].getMessage()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_silence_after_the_handshake_ends(echo: Echo, tmp_path: Path) -> None:
    limits = ServerLimits(head_timeout=0.3)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with serving_app(echo, limits, tls=make_context(tmp_path)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
        wire = Wire(reader, writer)
        await wire.send(b"PUT / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n")
        await wire.send(b"Content-Length: 5\r\n\r\nhello")
        assert (await wire.read()).body == b"5"
        wire.abort()


def make_context(folder: Path) -> ssl.SSLContext:
    certificate, key = Authority().issue(folder, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
