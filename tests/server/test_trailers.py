"""Trailers of a chunked body that HAProxy forwards do not become headers of any request."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import Login
from tests.support.servers.haproxy import run_haproxy
from tests.support.servers.raw import Wire
from tests.support.servers.server import Server, add_admin, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ANN = Login("ann", "the password of ann")
TRAILERS = {
    **ANN.basic,
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "Forwarded": "for=203.0.113.9;host=evil.example",
    "X-Request-Id": "made-up",
    "User-Agent": "made-up",
    "Host": "evil.example",
}


def write_fields(fields: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items())


def write_put(head: dict[str, str], trailers: dict[str, str]) -> bytes:
    fields = {"Host": "registry.example", **head, "Transfer-Encoding": "chunked"}
    start = f"PUT /v2/a/b/manifests/z HTTP/1.1\r\n{write_fields(fields)}\r\n"
    return f"{start}2\r\n{{}}\r\n0\r\n{write_fields(trailers)}\r\n".encode()


async def test_haproxy_hands_trailers_on(tmp_path: Path) -> None:
    """Control: HAProxy does forward trailers."""
    trailers: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n0\r\n")
        trailers.set_result(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(record, "127.0.0.1", 0) as recorder:
        with run_haproxy(tmp_path, recorder.sockets[0].getsockname()[1]) as port:
            wire = await Wire.open(port)
            await wire.send(write_put({}, TRAILERS))
            said = (await trailers).decode().lower()
            wire.abort()
    for name in ("authorization", "x-forwarded-for", "x-request-id"):
        assert f"{name}: {TRAILERS[name.title()].lower()}" in said


async def test_trailers_sign_nobody_in_and_name_nobody(tmp_path: Path) -> None:
    settings = {"MOORAGE_HTTP__TRUSTED_PROXIES": "127.0.0.1", "MOORAGE_LOG__FORMAT": "json"}
    add_admin(tmp_path / "data", ANN.name, ANN.secret)
    with (
        serving(Server(tmp_path / "data", settings=settings)) as server,
        run_haproxy(tmp_path, server.port) as port,
    ):
        wire = await Wire.open(port)
        await wire.send(write_put({"User-Agent": "first"}, TRAILERS))
        first = await wire.read()
        # The next request uses the same connection of HAProxy to the server.
        await wire.send(b"GET /v2/ HTTP/1.1\r\nHost: registry.example\r\nUser-Agent: next\r\n\r\n")
        following = await wire.read()
        await wire.send(write_put({"User-Agent": "signed", **ANN.basic}, {}))
        signed = await wire.read()
        wire.abort()
        lines = {name: wait_for_line(server, name) for name in ("first", "next", "signed")}
    for answer in (first, following):
        assert answer.status == 401, answer.body
        assert 'realm="http://registry.example/token"' in answer.headers["www-authenticate"]
        assert answer.headers["x-request-id"] != "made-up"
    assert signed.status == 400, signed.body  # accepted as a header; {} is not a manifest
    assert {line["client"] for line in lines.values()} == {"127.0.0.1"}
    assert "made-up" not in server.log.read_text()
    assert "203.0.113.9" not in server.log.read_text()


def wait_for_line(server: Server, user_agent: str) -> dict[str, Any]:
    """Wait for the line of the access log, which is written after the response."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for text in server.log.read_text().splitlines():
            if text.startswith("{"):
                line: dict[str, Any] = json.loads(text)
                if line.get("user_agent") == user_agent:
                    return line
        time.sleep(0.05)
    raise AssertionError(server.log.read_text())
