"""Moorage of this checkout, and an account on it."""

import base64
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from benchmarks.registries.registry import Layout, Place, Registry
from benchmarks.registries.server import Server

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "registry.cli.main"]
NAME = "Moorage"
USER, PASSWORD = "bench", "benchmark password"


def make_moorage(
    name: str = NAME, *, workers: int = 1, settings: dict[str, str] | None = None
) -> Registry:
    """Return Moorage with settings such as `storage.driver`."""

    def command(place: Place) -> list[str]:
        options = ["--data", str(place.data), "--listen", f"127.0.0.1:{place.port}"]
        return [*COMMAND, "serve", *options, "--workers", str(workers)]

    variables = {
        f"MOORAGE_{key.upper().replace('.', '__')}": value
        for key, value in (settings or {}).items()
    }
    return Registry(
        name,
        command,
        Layout.MOORAGE,
        {"PYTHONPATH": str(ROOT), **variables},
        (*COMMAND, "--version"),
    )


def run_command(server: Server, *arguments: str, typed: str = "") -> None:
    """Run a command on the data of a server that has not started yet."""
    server.place.data.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [*COMMAND, *arguments, "--data", str(server.place.data)],
        input=typed,
        text=True,
        capture_output=True,
        check=True,
        env={**os.environ, **server.registry.environment},
    )


def add_user(server: Server) -> None:
    """Add an admin before the server starts. From then on, clients must sign in."""
    run_command(server, "user", "add", USER, "--admin", "--password-stdin", typed=f"{PASSWORD}\n")


def make_basic() -> dict[str, str]:
    """Return the header of Basic credentials."""
    return {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


def fetch_token(server: Server, scope: str) -> dict[str, str]:
    """Return the header of a Bearer token for the scope."""
    url = f"{server.url}/token?service=moorage&scope={scope}"
    request = urllib.request.Request(url, headers=make_basic())  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return {"Authorization": f"Bearer {json.load(response)['token']}"}
