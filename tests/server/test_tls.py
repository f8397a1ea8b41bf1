"""TLS with certificates: protocol versions, client certificates, and reloads of changed files."""

import asyncio
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from registry.config import load
from registry.errors import ConfigError
from tests.support import launcher
from tests.support.certificates import Authority
from tests.support.postgres import free_port
from tests.support.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SOON = 10.0
"""Time limit for the reload of changed files, in seconds. The server checks every second."""


def trusting(*authorities: Authority, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """Return a TLS context of a client; `shown` is its certificate and key."""
    context = ssl.create_default_context(cadata=b"".join(a.bundle for a in authorities).decode())
    if shown:
        context.load_cert_chain(*shown)
    return context


@dataclass
class TlsServer(Server):
    """A server with a certificate of `authority` in its data directory."""

    authority: Authority = field(default_factory=Authority)
    client_authority: Authority | None = None

    def __post_init__(self) -> None:
        self.data.mkdir()
        self.install(self.authority)
        self.settings = {
            "MOORAGE_HTTP__TLS_CERT": "server.crt",
            "MOORAGE_HTTP__TLS_KEY": "server.key",
            **self.settings,
        }
        if self.client_authority:
            (self.data / "clients.pem").write_bytes(self.client_authority.bundle)
            self.settings["MOORAGE_HTTP__TLS_CLIENT_CA"] = "clients.pem"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def cert(self) -> Path:
        return self.data / "server.crt"

    @property
    def key(self) -> Path:
        return self.data / "server.key"

    def install(self, authority: Authority) -> None:
        """Replace the certificate of the server by a new one of `authority`."""
        for issued, path in zip(self.issue(authority), (self.cert, self.key), strict=True):
            issued.replace(path)

    def issue(self, authority: Authority) -> tuple[Path, Path]:
        folder = self.data.parent / "issued"
        folder.mkdir(exist_ok=True)
        return authority.issue(folder, "127.0.0.1", "localhost")

    def _answers(self) -> bool:
        try:
            return bool(self.serial())
        except OSError:
            return False

    def said(self) -> str:
        return self.log.read_text()

    def serial(self) -> int:
        """Return the serial number of the certificate that a new connection gets."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.port), timeout=5)
        return x509.load_pem_x509_certificate(pem.encode()).serial_number


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def serial_in(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


@pytest.fixture(params=[1, 2])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TlsServer]:
    with serving(TlsServer(tmp_path / "data", request.param)) as server:
        assert isinstance(server, TlsServer)
        yield server


# Protocol


def test_a_client_that_trusts_the_authority_is_served(server: TlsServer) -> None:
    trusted = trusting(server.authority)
    for host in ("127.0.0.1", "localhost"):  # without and with SNI
        answer = httpx.get(f"https://{host}:{server.port}/v2/", verify=trusted)
        assert answer.status_code == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(server.url, verify=trusting(Authority()))
    said = server.said()
    assert f"Moorage listens on https://127.0.0.1:{server.port}" in said
    assert f"docker push localhost:{server.port}/IMAGE" in said


def test_plain_http_gets_no_answer(server: TlsServer) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.port}/v2/", timeout=5)
    assert httpx.get(server.url, verify=trusting(server.authority)).status_code == 200
    assert "Traceback" not in server.said()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("version", "served"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_tls_before_1_2_is_refused(tmp_path: Path, version: ssl.TLSVersion, served: bool) -> None:
    with serving(TlsServer(tmp_path / "data")) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that the server refuses, not the client
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", server.port)) as bare:
            if served:
                with context.wrap_socket(bare) as connection:
                    assert connection.version() == version.name.replace("_", ".")
            else:
                with pytest.raises(ssl.SSLError, match=r"ALERT_PROTOCOL_VERSION|EOF"):
                    context.wrap_socket(bare)


def test_a_handshake_that_never_ends_is_ended(tmp_path: Path) -> None:
    with serving(TlsServer(tmp_path / "data")) as server:
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent:
            silent.sendall(b"\x16\x03\x01\x02\x00\x01")  # the first bytes of a ClientHello
            assert silent.recv(100) == b""
        assert 5 < time.monotonic() - started < 60


def test_a_client_that_sleeps_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with serving(TlsServer(tmp_path / "data")) as server:
        assert isinstance(server, TlsServer)
        with httpx.Client(verify=trusting(server.authority)) as http:
            http.get(server.url)
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 20
        server.start()


# Changed files


def test_a_new_certificate_is_used_and_open_connections_stay(server: TlsServer) -> None:
    both = trusting(server.authority, successor := Authority("successor"))
    with httpx.Client(verify=both) as http:
        opened = http.get(server.url).extensions["network_stream"]
        former = server.serial()
        server.install(successor)
        new = serial_in(server.cert)
        assert new != former
        wait_until(lambda: server.serial() == new)
        for _ in range(10):  # any worker may accept the connection
            wait_until(lambda: server.serial() == new)
        answer = http.get(f"{server.url}/v2/")
        assert answer.status_code == 200
        assert answer.extensions["network_stream"] is opened
    assert "new connections use the new certificate" in server.said()


def test_files_reached_through_a_link_that_moves(tmp_path: Path) -> None:
    """Orchestrators replace secrets this way: moving one link changes both files."""
    server = TlsServer(tmp_path / "data")
    for name in (".first", ".second"):
        (server.data / name).mkdir()
        for issued in server.issue(server.authority):
            issued.replace(server.data / name / f"server{issued.suffix}")
    for path in (server.cert, server.key):
        path.unlink()
        path.symlink_to(Path(".now") / path.name)
    (server.data / ".now").symlink_to(".first")
    with serving(server):
        assert server.serial() == serial_in(server.data / ".first" / "server.crt")
        (server.data / "next").symlink_to(".second")
        (server.data / "next").replace(server.data / ".now")
        wait_until(lambda: server.serial() == serial_in(server.data / ".second" / "server.crt"))


def garbage(server: TlsServer) -> None:
    server.cert.write_text("not a certificate")


def gone(server: TlsServer) -> None:
    server.key.unlink()


def half_written(server: TlsServer) -> None:
    server.key.write_bytes(server.key.read_bytes()[:60])


def mismatched(server: TlsServer) -> None:
    server.issue(server.authority)[0].replace(server.cert)


def encrypted(server: TlsServer) -> None:
    encrypt(server.key)


def encrypt(path: Path) -> None:
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )


@pytest.mark.parametrize("broken", [garbage, gone, half_written, mismatched, encrypted])
def test_files_that_cannot_be_used_leave_the_former_in_use(
    tmp_path: Path, broken: Callable[[TlsServer], None]
) -> None:
    with serving(TlsServer(tmp_path / "data")) as server:
        assert isinstance(server, TlsServer)
        former, secret = server.serial(), server.key.read_text().splitlines()[1]
        broken(server)
        wait_until(lambda: "the previous certificate stays in use" in server.said())
        time.sleep(2.5)  # two more checks
        assert server.serial() == former
        assert server.said().count("ERROR") == 1
        assert "http.tls_key" in server.said()
        assert "Traceback" not in server.said()
        assert secret not in server.said()
        server.install(server.authority)
        wait_until(lambda: server.serial() == serial_in(server.cert))
        assert server.said().count("new connections use the new certificate") == 1


def test_a_worker_that_comes_later_has_the_newest_certificate(tmp_path: Path) -> None:
    with serving(TlsServer(tmp_path / "data", 2)) as server:
        assert isinstance(server, TlsServer)
        server.install(server.authority)
        for pid in server.worker_pids():
            os.kill(pid, 9)
        new = serial_in(server.cert)
        wait_until(lambda: len(server.worker_pids()) == 2)
        wait_until(lambda: all(server.serial() == new for _ in range(8)))


# Invalid settings and files at the start


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"http.tls_cert": "a"}, "http.tls_cert requires http.tls_key"),
        ({"http.tls_key": "a"}, "http.tls_key requires http.tls_cert"),
        ({"http.tls_client_ca": "a"}, "http.tls_client_ca requires"),
    ],
)
def test_settings_of_which_one_is_missing_are_refused(
    tmp_path: Path, given: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        load(config=None, data=tmp_path, overrides=given, environ={})


@pytest.mark.parametrize(
    ("broken", "remedy"),
    [
        (garbage, "a certificate in PEM"),
        (gone, "cannot be read (No such file or directory); check http.tls_cert"),
        (half_written, "its key in PEM"),
        (mismatched, "a key that belong together"),
        (encrypted, "without a password"),
    ],
)
def test_a_start_with_files_that_cannot_be_used_is_refused(
    tmp_path: Path, broken: Callable[[TlsServer], None], remedy: str
) -> None:
    server = TlsServer(tmp_path / "data")
    broken(server)
    refused = start_in_vain(server)
    assert refused.returncode == 1
    assert remedy in refused.stderr
    assert str(server.key) in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_start_with_authorities_that_are_none_is_refused(tmp_path: Path) -> None:
    server = TlsServer(tmp_path / "data", client_authority=Authority())
    shutil.copy(server.key, server.data / "clients.pem")
    refused = start_in_vain(server)
    assert refused.returncode == 1
    assert "http.tls_client_ca" in refused.stderr
    assert "certificates in PEM" in refused.stderr


def start_in_vain(server: TlsServer) -> subprocess.CompletedProcess[str]:
    listen = f"127.0.0.1:{free_port()}"
    words = ["serve", "--listen", listen, "--data", str(server.data)]
    return launcher.run(*words, env={**os.environ, **server.settings})


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
