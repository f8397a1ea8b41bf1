"""Modules that an idle server does not load, because each takes memory and delays the start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers.server import ROOT

NOT_LOADED = [
    "alembic",
    "boto3",
    "botocore",
    "cryptography",
    "httpx",
    "jwt",
    "mako",
    "psycopg",
    "pygments",
    "rich",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.orm",
]

SERVE = """
import os, signal, socket, sys, threading, time
from registry.cli.main import main

data, name = sys.argv[1:3]
loaded = []

def stop_when_ready():
    answer = b""
    while b" 200 " not in answer:
        time.sleep(0.02)
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(name)
                client.sendall(b"GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
                answer = client.recv(4096)
            except OSError:
                pass
    loaded.extend(sys.modules)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop_when_ready, daemon=True).start()
status = main(["serve", "--data", data, "--listen", "unix:" + name])
print("LOADED", *loaded)
sys.exit(status)
"""


@pytest.fixture
def start(tmp_path: Path) -> list[str]:
    return [sys.executable, "-c", SERVE, str(tmp_path / "data"), str(tmp_path / "socket")]


def _serve(start: list[str], **settings: str) -> set[str]:
    """Start a server, stop it when it is ready, and return the modules that it had loaded."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    done = subprocess.run(
        start, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_an_idle_server_loads_only_what_it_needs(start: list[str]) -> None:
    loaded = _serve(start)
    assert "registry.app.asgi" in loaded
    assert not loaded.intersection(NOT_LOADED)


def test_a_server_with_sign_in_loads_the_cryptography_before_the_first_request(
    start: list[str],
) -> None:
    assert "registry.auth.tokens.issuer" in _serve(start, MOORAGE_AUTH__MODE="token")
