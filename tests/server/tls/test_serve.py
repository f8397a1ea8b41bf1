"""TLS: protocol, changed files and invalid settings."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from registry.config import load
from registry.errors import ConfigError
from tests.server.tls.helpers import TlsServer, serial_in, trusting, wait_until
from tests.support.servers import launcher
from tests.support.servers.certificates import Authority
from tests.support.servers.postgres import free_port
from tests.support.servers.server import serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

NEW = "new connections use the new certificate"


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
    server.wait_for_log(NEW)


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
        server.wait_for_log("the previous certificate stays in use")
        time.sleep(2.5)  # two more checks
        assert server.serial() == former
        assert server.said().count("ERROR") == 1
        assert "http.tls_key" in server.said()
        assert "Traceback" not in server.said()
        assert secret not in server.said()
        server.install(server.authority)
        wait_until(lambda: server.serial() == serial_in(server.cert))
        assert server.wait_for_log(NEW).count(NEW) == 1


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
