"""A server in separate processes, which tests can stop, freeze and kill."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tests.support.servers import launcher
from tests.support.servers.postgres import free_port

ROOT = launcher.ROOT
START = 120.0
"""Time limit for the first response of a server, in seconds.

On an idle machine, a server with one worker responds within one second.
"""


@dataclass
class Server:
    """A server on the data directory `data`, which runs from `start` to `stop` or `kill`.

    `settings` are environment variables. `patches` is the first folder in PYTHONPATH; a
    `sitecustomize.py` there can break system calls of the server.
    """

    data: Path
    workers: int = 1
    settings: dict[str, str] = field(default_factory=dict)
    patches: Path | None = None
    port: int = field(default_factory=free_port)
    listen: str = ""
    """Value of `--listen`; empty for the port on 127.0.0.1."""
    descriptors: int | None = None
    """Limit of open files; None for that of the test."""
    memory: int | None = None
    """Limit of private memory in bytes (RLIMIT_DATA); None for that of the test."""
    python: Path | None = None
    """Python of an installed Moorage that runs instead of this checkout."""
    fresh: bool = False
    """Whether a new interpreter runs the server, as for users. A fork starts a second earlier.

    `tests/server/test_metrics.py` covers the order of imports of a server with several workers.
    """
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.data.parent / f"{self.data.name}.log"

    def start(self) -> "Server":
        """Start the server and wait for its first response."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
        # This variable would hide a missing flush of the first lines of output.
        kept.pop("PYTHONUNBUFFERED", None)
        options = ["--listen", self.listen or f"127.0.0.1:{self.port}", "--data", str(self.data)]
        options += ["--workers", str(self.workers)]
        with self.log.open("ab") as log:
            self.process = self._open(["serve", *options], {**kept, **self.settings}, log)
        deadline = time.monotonic() + START
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return self

    def _open(
        self, arguments: list[str], environment: dict[str, str], log: BinaryIO
    ) -> subprocess.Popen[bytes]:
        options: dict[str, Any] = {
            "cwd": self.data.parent,
            "stdin": subprocess.DEVNULL,
            "stdout": log,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,  # a process group, so that all processes can be killed
        }
        checkout = ROOT if self.python is None else None
        path = [str(p) for p in (self.patches, checkout) if p is not None]
        environment = {**environment, "PYTHONPATH": os.pathsep.join(path)}
        if not (self.fresh or self.python or self.descriptors or self.memory):
            has_workers = self.workers > 1
            return launcher.Launched(arguments, has_workers=has_workers, env=environment, **options)
        limits = {"nofile": self.descriptors, "data": self.memory}
        given = [f"--{name}={value}" for name, value in limits.items() if value]
        limiter = ["prlimit", *given] if given else []
        return subprocess.Popen(
            [*limiter, self.python or sys.executable, "-m", "registry.cli.main", *arguments],
            env=environment,
            **options,
        )

    def wait_for_log(self, words: str) -> str:
        """Wait until the log contains `words`, and return it. Lines are written a moment late."""
        deadline = time.monotonic() + START
        while words not in (text := self.log.read_text()):
            assert time.monotonic() < deadline, f"no {words!r} in {text}"
            time.sleep(0.02)
        return text

    def _answers(self) -> bool:
        # Each call of httpx.get makes a client, which takes more time than the request.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in {200, 401}
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the server and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.running.pid, number)

    def kill(self) -> None:
        """Kill the server and its workers with SIGKILL."""
        self.signal_all(signal.SIGKILL)
        self.running.wait()
        self._wait_for_group()

    def wait(self) -> int:
        """Wait until the server ends by itself, and return its exit status."""
        status = self.running.wait(START)
        self._wait_for_group()
        return status

    def _wait_for_group(self) -> None:
        """Wait until the workers have ended, which die shortly after their parent."""
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            try:
                os.killpg(self.running.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.01)
        raise AssertionError("workers outlived their parent")

    def stop(self) -> int:
        """Stop the server with SIGTERM, and return its exit status."""
        self.running.send_signal(signal.SIGTERM)
        return self.wait()

    def worker_pids(self) -> list[int]:
        """Return the IDs of the worker processes."""
        pid = self.running.pid
        if self.workers == 1:
            return [pid]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children]


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run `server` while the block runs.

    The server must exit with success unless the test has killed it.
    """
    server.start()
    try:
        yield server
    finally:
        if server.running.poll() is None:
            server.signal_all(signal.SIGCONT)
            assert server.stop() == 0, server.log.read_text()


def add_admin(data: Path, name: str, password: str) -> None:
    """Add an admin, before the first start or while a server runs."""
    options = ["--admin", "--password-stdin", "--data", str(data)]
    done = launcher.run("user", "add", name, *options, typed=password + "\n", cwd=ROOT)
    assert done.returncode == 0, done.stderr
