"""HAProxy in front of a local port, configured as an HTTP proxy according to its manual."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.missing import missing
from tests.support.servers.postgres import free_port

START = 30.0
"""Time limit for HAProxy to listen, in seconds."""

_SETTINGS = """\
global
    log stdout format raw local0
defaults
    mode http
    option forwardfor
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend clients
    bind 127.0.0.1:{port}
    default_backend registry
backend registry
    server one 127.0.0.1:{target}
"""


@contextlib.contextmanager
def run_haproxy(folder: Path, target: int) -> Iterator[int]:
    """Run a HAProxy that forwards requests to the port `target`, and return its port.

    HAProxy reuses its connections to the target.
    """
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        missing("HAProxy (Debian: apt-get install haproxy)")
    port = free_port()
    settings = folder / "haproxy.cfg"
    settings.write_text(_SETTINGS.format(port=port, target=target))
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-db", "-f", str(settings)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_it_listens(process, port, folder / "haproxy.log")
        yield port
    finally:
        process.terminate()
        process.wait(START)


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
