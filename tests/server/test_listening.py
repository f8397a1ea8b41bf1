"""Listeners of a server: address families, Unix sockets, the second listener, and SIGHUP."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from registry.cli.server import listening
from registry.errors import ConfigError
from storage.digest import Digest
from tests.support.pushing import blob_bytes
from tests.support.servers.certificates import Authority
from tests.support.servers.postgres import free_port
from tests.support.servers.raw import Wire
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

WITHOUT_IPV6 = """
import errno, os, socket
real = socket.socket

class Socket(real):
    def __init__(self, family=-1, *rest, **more):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        super().__init__(family, *rest, **more)

socket.socket = Socket
"""
"""Simulates a kernel without IPv6 whose resolver still returns `::`."""

OPEN = {"MOORAGE_AUTH__MODE": "none"}


# Address families


def test_without_ipv6_the_other_family_is_listened_on(tmp_path: Path) -> None:
    patches = tmp_path / "patches"
    patches.mkdir()
    (patches / "sitecustomize.py").write_text(WITHOUT_IPV6)
    port = free_port()
    server = Server(tmp_path / "data", 1, OPEN, patches, port=port, listen=f":{port}")
    with serving(server):
        said = server.log.read_text()
        assert f"listens on http://0.0.0.0:{server.port}" in said
        assert "[::]" not in said


def test_no_host_means_both_families() -> None:
    sockets = listening.bind(":0", "--listen")
    families = {bound.family for bound in sockets}
    ports = {bound.getsockname()[1] for bound in sockets}
    for bound in sockets:
        bound.close()
    assert socket.AF_INET in families
    assert len(ports) == 1


def test_an_address_that_is_not_there_is_refused_and_nothing_stays_open() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        listening.bind("192.0.2.1:0", "--listen")
    with pytest.raises(ConfigError, match=r"http\.ops_listen HOST:PORT"):
        listening.bind("[2001:db8::1]:0", "http.ops_listen")


# Unix sockets


def test_a_unix_socket_serves_a_proxy_whose_word_counts(tmp_path: Path) -> None:
    path = tmp_path / "moorage.sock"
    settings = {"MOORAGE_LOG__FORMAT": "json"}
    with serving(UnixServer(tmp_path / "data", 2, settings, listen=f"unix:{path}")) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with unix_client(path) as http:
            told = http.get("/v2/a/tags/list", headers={"X-Forwarded-For": "192.0.2.7"})
            assert told.status_code == 404
            assert http.get("/v2/").status_code == 200  # works without forwarded headers too
    # A line may be written after its response. All are written when the server has ended.
    clients = {line.get("client") for line in read_json(server.log) if "client" in line}
    assert "192.0.2.7" in clients
    assert not path.exists()


@dataclass
class UnixServer(Server):
    """A server that listens on a Unix socket."""

    def _answers(self) -> bool:
        path = Path(self.listen.removeprefix("unix:"))
        with socket.socket(socket.AF_UNIX) as asking, contextlib.suppress(OSError):
            asking.connect(str(path))
            with unix_client(path) as http:
                return http.get("/v2/").status_code == 200
        return False


def unix_client(path: Path) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=30)


def test_a_socket_that_was_left_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "moorage.sock"
    [left] = listening.bind(f"unix:{path}", "--listen")
    with pytest.raises(ConfigError, match="a server listens there already"):
        listening.bind(f"unix:{path}", "--listen")
    left.close()  # the file stays, as after kill -9
    [again] = listening.bind(f"unix:{path}", "--listen")
    again.close()
    listening.remove(f"unix:{path}")
    path.write_text("a file of somebody")
    with pytest.raises(ConfigError, match="is not a socket"):
        listening.bind(f"unix:{path}", "--listen")
    assert path.read_text() == "a file of somebody"
    with pytest.raises(ConfigError, match="its directory must exist"):
        listening.bind(f"unix:{tmp_path}/missing/moorage.sock", "--listen")


# Second listener for health checks and metrics


def test_probes_have_a_listener_without_certificates(tmp_path: Path) -> None:
    authority, clients = Authority(), Authority("clients")
    data = tmp_path / "data"
    data.mkdir()
    certificate, key = authority.issue(tmp_path, "127.0.0.1")
    (data / "clients.pem").write_bytes(clients.bundle)
    ops = free_port()
    settings = {
        "MOORAGE_HTTP__TLS_CERT": str(certificate),
        "MOORAGE_HTTP__TLS_KEY": str(key),
        "MOORAGE_HTTP__TLS_CLIENT_CA": "clients.pem",
        "MOORAGE_HTTP__OPS_LISTEN": f"127.0.0.1:{ops}",
        "MOORAGE_LOG__PROBES": "false",
        "MOORAGE_LOG__LEVEL": "debug",
    }
    with serving(ProbedServer(data, 2, settings, ops=ops)) as server:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert httpx.get(f"http://127.0.0.1:{ops}{path}").status_code == 200
        for path in ("/v2/", "/", "/token", "/api/v1/users"):
            assert httpx.get(f"http://127.0.0.1:{ops}{path}").status_code == 404
        context = ssl.create_default_context(cadata=authority.bundle.decode())
        context.load_cert_chain(*clients.issue(tmp_path, "ann"))
        with httpx.Client(base_url=f"https://127.0.0.1:{server.port}", verify=context) as http:
            assert http.get("/readyz").status_code == 200
            assert http.get("/metrics").status_code == 404
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{server.port}/v2/", timeout=5)
    said = server.log.read_text()
    assert "path=/readyz" not in said
    assert "path=/v2/" in said
    assert "DEBUG registry.server.listener TLS handshake with 127.0.0.1 failed" in said
    assert "Traceback" not in said


@dataclass
class ProbedServer(Server):
    """A server whose start is checked on the second listener."""

    ops: int = 0

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.ops}/healthz").status_code == 200
        return False


# Signals


@pytest.mark.parametrize("workers", [1, 2])
async def test_sighup_ends_nothing(tmp_path: Path, workers: int) -> None:
    data = blob_bytes("hup", 100_000)
    with serving(Server(tmp_path / "data", workers)) as server:
        wire = await Wire.open(server.port)
        await wire.send_head("POST", "/v2/hup/blobs/uploads/", Content_Length=0)
        location = (await wire.read()).headers["location"]
        await wire.send_head(
            "PUT", f"{location}?digest={Digest.of(data)}", Content_Length=len(data)
        )
        await wire.send(data[:50_000])
        before = server.worker_pids()
        server.signal_all(signal.SIGHUP)
        await asyncio.sleep(0.3)
        await wire.send(data[50_000:])
        assert (await wire.read()).status == 201
        await wire.close()
        assert server.worker_pids() == before


# Log lines


def read_json(path: Path) -> list[dict[str, object]]:
    """Return all lines of a file, each of which must be JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()]


CRASHING = """
import asyncio, threading, warnings
from registry import app

real = app.compose


def compose(*rest, **more):
    warnings.warn("beware", stacklevel=1)
    threading.Thread(target=lambda: 1 / 0).start()
    opened = real(*rest, **more)
    stop = opened.registry.pulls.start

    def start():
        stop()
        asyncio.get_running_loop().call_soon(lambda: {}["missing"])

    opened.registry.pulls.start = start
    return opened


app.compose = compose
"""
"""Makes Python print messages itself: a warning, a failing thread and a failing callback."""


def test_every_line_is_json(tmp_path: Path) -> None:
    patches = tmp_path / "patches"
    patches.mkdir()
    (patches / "sitecustomize.py").write_text(CRASHING)
    settings = {"MOORAGE_LOG__FORMAT": "json", "PYTHONWARNINGS": "default"}
    with serving(Server(tmp_path / "data", 2, settings, patches)) as server:
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        server.wait_for_log("starting another")
        assert server.stop() == 0
        lines = read_json(server.log)
        server.start()
    said = server.log.read_text()
    for words in ("listening", "beware", "ZeroDivisionError", "KeyError", "Started server process"):
        assert words in said
    assert all(isinstance(line["message"], str) for line in lines)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (
            '[log]\nformat = "json"\n[http]\nlisten = "nowhere"\nworkers = 0\n',
            "2 settings are wrong",
        ),
        ('[log]\nformat = "json"\n[storage]\nroot = "/dev/null"\n', "must be a directory"),
    ],
)
def test_start_errors_are_json_too(tmp_path: Path, toml: str, words: str) -> None:
    (tmp_path / "moorage.toml").write_text(toml)
    command = [sys.executable, "-m", "registry.cli.main", "serve", "--data", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    [line] = [json.loads(line) for line in ended.stderr.splitlines()]
    assert line["level"] == "error"
    assert words in line["message"]
