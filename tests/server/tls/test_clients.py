"""TLS: client certificates."""

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.tls.helpers import TlsServer, trusting, wait_until
from tests.support.servers.certificates import Authority
from tests.support.servers.server import serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


# Client certificates


@pytest.fixture
def clients() -> Authority:
    return Authority("clients")


@pytest.fixture
def strict(tmp_path: Path, clients: Authority) -> Iterator[TlsServer]:
    """Run a server that requires client certificates of `clients`."""
    with serving(TlsServer(tmp_path / "data", client_authority=clients)) as server:
        assert isinstance(server, TlsServer)
        yield server


def issue_client(folder: Path, authority: Authority, **more: int) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    return authority.issue(folder, "ann", **more)


def ask(server: TlsServer, shown: tuple[Path, Path] | None) -> int:
    verify = trusting(server.authority, shown=shown)
    return httpx.get(f"{server.url}/v2/", verify=verify, timeout=5).status_code


def test_only_clients_of_the_authority_are_let_in(
    tmp_path: Path, strict: TlsServer, clients: Authority
) -> None:
    assert ask(strict, issue_client(tmp_path / "right", clients)) == 200
    for shown in (
        None,
        issue_client(tmp_path / "other", Authority("clients")),
        issue_client(tmp_path / "expired", clients, days=-1),
        issue_client(tmp_path / "server", strict.authority),
    ):
        with pytest.raises(httpx.TransportError):
            ask(strict, shown)
    assert ask(strict, issue_client(tmp_path / "right", clients)) == 200
    assert "Traceback" not in strict.said()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_authority_that_was_replaced_lets_nobody_in(
    tmp_path: Path, strict: TlsServer, clients: Authority, version: ssl.TLSVersion
) -> None:
    former = trusting(strict.authority, shown=issue_client(tmp_path / "former", clients))
    former.maximum_version = version
    successor = Authority("successor")
    (strict.data / "clients.pem").write_bytes(successor.bundle)
    # Start a session with the former authority, to resume it after the change.
    session = visit(strict, former, None)
    wait_until(lambda: "new connections use" in strict.said())
    assert ask(strict, issue_client(tmp_path / "new", successor)) == 200
    with pytest.raises(OSError, match=r"."):
        visit(strict, former, session)


def visit(
    server: TlsServer, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> ssl.SSLSession | None:
    """Send a request over TLS that resumes `session`, and return the session of the server."""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as bare,
        context.wrap_socket(bare, server_hostname="127.0.0.1", session=session) as connection,
    ):
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not re.match(rb"HTTP/1.1 200 ", connection.recv(1000)):
            raise ConnectionError("no answer")
        assert connection.session is not None
        return connection.session


async def test_many_at_once(server: TlsServer) -> None:
    trusted = trusting(server.authority)
    async with httpx.AsyncClient(verify=trusted, timeout=30) as http:
        answers = await asyncio.gather(*(http.get(f"{server.url}/v2/") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
