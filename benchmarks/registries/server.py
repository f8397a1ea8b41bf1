"""A running registry in processes of its own."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from benchmarks.registries import processes
from benchmarks.registries.registry import Place, Registry
from tests.support.servers.postgres import free_port

START_S = 60.0
STOP_S = 60.0
POLL_S = 0.002
READY = {200, 401}


SYNC = re.compile(r"^(?:\d+ +)?(?:fsync|fdatasync|syncfs|sync)\(", re.MULTILINE)
"""The start of a call in the output of strace. Its end can be on another line (`resumed`)."""


class StartError(Exception):
    """A server that does not start."""


class Server:
    """A registry that serves on a loopback port from a folder of its own.

    Its output is discarded, because writing an access log of gigabytes would disturb the others. If
    it does not start, it is started once more to read what it says.
    """

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.place = Place(folder / registry.name.replace("/", "_"), free_port())
        self._process: subprocess.Popen[bytes] | None = None
        self._trace: Path | None = None

    @property
    def name(self) -> str:
        return self.registry.name

    @property
    def port(self) -> int:
        return self.place.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self, trace: Path | None = None) -> float:
        """Start the server, and return the seconds until its first response.

        With `trace`, strace writes each sync of the server to that file.
        """
        self.place.data.mkdir(parents=True, exist_ok=True)
        command = self.registry.command(self.place)
        self._trace = trace
        if trace is not None:
            # The options keep the server fast: only the listed calls stop it.
            calls = "trace=fsync,fdatasync,syncfs,sync"
            command = [
                "strace",
                "-f",
                "-qq",
                "--seccomp-bpf",
                "-e",
                calls,
                "-o",
                str(trace),
                *command,
            ]
        begun = time.monotonic()
        self._process = self._open(command, subprocess.DEVNULL)
        while not self._responds():
            if self._process.poll() is not None or time.monotonic() - begun > START_S:
                self.stop()
                raise StartError(f"{self.name} does not start: {self._read_failure(command)}")
            time.sleep(POLL_S)
        return time.monotonic() - begun

    def _open(self, command: list[str], output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=self.place.folder,
            env={**os.environ, **self.registry.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a session, so that all processes can be found
        )

    def _read_failure(self, command: list[str]) -> str:
        """Run a command that has failed once more, and return the end of its output."""
        with tempfile.TemporaryFile() as output:
            self._process = self._open(command, output)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self.stop()
            output.seek(0)
            return output.read().decode(errors="replace")[-2000:]

    def _responds(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in READY
        except OSError:
            return False
        finally:
            connection.close()

    @property
    def pids(self) -> list[int]:
        """The processes of the server, without strace."""
        assert self._process is not None
        found = processes.list_session(self._process.pid)
        return [pid for pid in found if self._trace is None or pid != self._process.pid]

    def read_cpu_s(self) -> float:
        return processes.sum_cpu_s(self.pids)

    def read_memory_mib(self) -> float:
        """Return the resident memory of all processes."""
        return processes.sum_memory_mib(self.pids, "VmRSS")

    def read_peak_mib(self) -> float:
        """Return the sum of the peaks of all processes since the last reset."""
        return processes.sum_memory_mib(self.pids, "VmHWM")

    def reset_peak(self) -> None:
        processes.reset_peak(self.pids)

    def count_syncs(self) -> int:
        """Return how many syncs the server has started so far. Requires `trace`."""
        assert self._trace is not None
        return count_syncs(self._trace.read_text())

    def stop(self) -> None:
        """End all processes: first with SIGTERM, and with SIGKILL after a minute."""
        if self._process is None:
            return
        leader = self._process.pid
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in (
                self.pids[:1] if number is signal.SIGTERM else processes.list_session(leader)
            ):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if self._wait(STOP_S):
                break
        self._process = None

    def _wait(self, limit_s: float) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None and not processes.list_session(self._process.pid):
                return True
            time.sleep(0.01)
        return False

    def remove(self) -> None:
        """Stop the server and remove its folder."""
        self.stop()
        shutil.rmtree(self.place.folder, ignore_errors=True)


def count_syncs(trace: str) -> int:
    return len(SYNC.findall(trace))


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start the server, and remove it with its data at the end of the block."""
    try:
        server.start()
        yield server
    finally:
        server.remove()
