"""Uploads that arrive fast, at a server that stops or is asked for 100 Continue."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from storage.digest import Digest
from tests.support.servers.raw import Wire
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

DATA = os.urandom(12 << 20)
START = ("POST", "/v2/team/app/blobs/uploads/")


async def start_upload(port: int) -> tuple[Wire, str]:
    wire = await Wire.open(port)
    await wire.send_head(*START, Content_Length=0)
    answer = await wire.read()
    assert answer.status == 202
    return wire, answer.headers["location"]


async def request(port: int, method: str, path: str) -> tuple[int, dict[str, str]]:
    wire = await Wire.open(port)
    await wire.send_head(method, path, Content_Length=0)
    answer = await wire.read()
    await wire.close()
    return answer.status, answer.headers


def coded(data: bytes) -> bytes:
    size = 32 << 10
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def staged_size(server: Server) -> int:
    return sum(path.stat().st_size for path in server.data.rglob("staging/*"))


async def wait_until_staged(server: Server, size: int) -> None:
    async with asyncio.timeout(30):
        while staged_size(server) < size:
            await asyncio.sleep(0.01)


async def test_an_upload_in_progress_is_finished_by_a_server_that_stops(tmp_path: Path) -> None:
    half = len(DATA) // 2
    with serving(Server(tmp_path / "data")) as server:
        wire, location = await start_upload(server.port)
        await wire.send_head("PATCH", location, Transfer_Encoding="chunked")
        await wire.send(coded(DATA[:half]))
        await wait_until_staged(server, 1 << 20)
        server.signal_all(signal.SIGTERM)
        await asyncio.sleep(0.3)
        await wire.send(coded(DATA[half:]) + b"0\r\n\r\n")
        answer = await wire.read()
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        await wire.close()
        assert server.wait() == 0
        server.start()
        status, _ = await request(server.port, "PUT", f"{location}?digest={Digest.of(DATA)}")
        assert status == 201


async def test_an_upload_that_a_stop_cuts_can_be_resumed(tmp_path: Path) -> None:
    settings = {"MOORAGE_HTTP__DRAIN_TIMEOUT": "1s"}
    with serving(Server(tmp_path / "data", settings=settings)) as server:
        wire, location = await start_upload(server.port)
        await wire.send_head("PATCH", location, Content_Length=len(DATA))
        await wire.send(DATA[:-1])
        await wait_until_staged(server, 1 << 20)
        server.signal_all(signal.SIGTERM)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            assert (await wire.read()).status == 503
        wire.abort()
        assert server.wait() == 0
        server.start()
        status, headers = await request(server.port, "GET", location)
        assert status == 204
        at = int(headers["range"].split("-")[1]) + 1
        at = 0 if at == 1 else at
        wire = await Wire.open(server.port)
        target = f"{location}?digest={Digest.of(DATA)}"
        await wire.send_head("PUT", target, Content_Length=len(DATA) - at)
        await wire.send(DATA[at:])
        assert (await wire.read()).status == 201
        await wire.close()


@pytest.mark.parametrize("chunked", [True, False])
async def test_expect_100_continue(tmp_path: Path, chunked: bool) -> None:
    """One connection sends two uploads, each after an interim response."""
    framing = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": len(DATA)}
    body = coded(DATA) + b"0\r\n\r\n" if chunked else DATA
    with serving(Server(tmp_path / "data")) as server:
        wire, location = await start_upload(server.port)
        for number in range(2):
            if number:
                await wire.send_head(*START, Content_Length=0)
                location = (await wire.read()).headers["location"]
            target = f"{location}?digest={Digest.of(DATA)}"
            await wire.send_head("PUT", target, Expect="100-continue", **framing)
            interim = await wire.reader.readuntil(b"\r\n\r\n")
            assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
            await wire.send(body)
            assert (await wire.read()).status == 201
        await wire.close()


async def test_a_refused_upload_gets_its_answer_without_100_continue(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data")) as server:
        wire, location = await start_upload(server.port)
        target = f"{location}?digest=sha256:wrong"
        await wire.send_head("PUT", target, Expect="100-continue", Content_Length=len(DATA))
        answer = await wire.read()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        await wire.close()


async def test_the_access_log_and_the_metrics_count_all_bytes(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data")) as server:
        wire, location = await start_upload(server.port)
        await wire.send_head("PATCH", location, Content_Length=len(DATA))
        await wire.send(DATA)
        assert (await wire.read()).status == 202
        await wire.send_head("GET", "/metrics")
        metrics = (await wire.read()).body.decode()
        await wire.close()
        [line] = [
            each
            for each in metrics.splitlines()
            if each.startswith("moorage_received_bytes_total ")
        ]
        assert float(line.split()[1]) == len(DATA)
        server.wait_for_log(f"bytes_in={len(DATA)}")
