"""A server in a process of its own, for tests that speak to it over a real port."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START, STOP = 30.0, 30.0  # seconds


@dataclass(frozen=True)
class Running:
    """A server that answers, until the block that started it ends."""

    port: int
    data: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def host(self) -> str:
        """As a client writes it before a repository's name."""
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def command(port: int, data: Path) -> list[str]:
    listen = f"127.0.0.1:{port}"
    return [sys.executable, "-m", "registry.cli.main", "serve", "--listen", listen, "--data", str(data)]


def environment() -> dict[str, str]:
    """Return ours without proxies and without settings that a person has for a registry of her own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("MOORAGE_")
    }
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}


@contextmanager
def running(folder: Path, *options: str, settings: dict[str, str] | None = None) -> Iterator[Running]:
    """Start a server with its data in `folder`; at the end it has to leave a SIGTERM with exit status 0."""
    server = _start(folder, options, environment() | (settings or {}))
    try:
        yield server
    finally:
        server.process.terminate()
        try:
            status = server.process.wait(STOP)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
            status = None
    assert status == 0, f"after SIGTERM the server ended with {status}\n{server.log.read_text()}"


def _start(folder: Path, options: Sequence[str], env: dict[str, str]) -> Running:
    port, data, log = free_port(), folder / "data", folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command(port, data), *options],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + START
    while not _answers(port):
        if process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            continue
        process.kill()
        status = process.wait()
        raise AssertionError(f"the server did not start (status {status})\n{log.read_text()}")
    return Running(port, data, log, process)


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status in {HTTPStatus.OK, HTTPStatus.UNAUTHORIZED}
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
