"""Debian's docker-registry, which is Distribution 2.8."""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx

from tests.support.missing import missing
from tests.support.servers.postgres import free_port

PROGRAM = "docker-registry"
START = 30.0


@dataclass(frozen=True)
class DebianRegistry:
    """Running registry. `log` is its access log."""

    url: str
    log: Path

    def count(self, words: str) -> int:
        """Return in how many lines of the log the words are."""
        return sum(words in line for line in self.log.read_text().splitlines())


@contextlib.contextmanager
def debian_registry(
    folder: Path, *, user: str = "", password: str = ""
) -> Iterator[DebianRegistry]:
    """Run a registry, which requires Basic authentication if a user is given."""
    if shutil.which(PROGRAM) is None:
        missing(PROGRAM)
    port = free_port()
    settings: dict[str, object] = {
        "version": 0.1,
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "blobs")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if user:
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
        (folder / "htpasswd").write_text(f"{user}:{hashed}\n")
        settings["auth"] = {"htpasswd": {"realm": "x", "path": str(folder / "htpasswd")}}
    config = folder / "config.yml"
    config.write_text(json.dumps(settings))  # YAML is a superset of JSON
    log = folder / "registry.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen([PROGRAM, "serve", config], stdout=output, stderr=output)
    try:
        _wait(process, url, log)
        yield DebianRegistry(url, log)
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/v2/", timeout=5).status_code in {200, 401}:
                return
        time.sleep(0.02)
