"""Start `moorage` commands without waiting for a new interpreter to import them.

A test of the interpreter itself, of a limit or of patched system calls starts a new one instead.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.servers.prefork import REQUEST_SIZE

ROOT = Path(__file__).resolve().parents[3]
_PR_SET_CHILD_SUBREAPER = 36


class _Prefork:
    """The process that is forked, and the socket to it. It is started when first needed."""

    def __init__(self, *, shares_metrics: bool) -> None:
        self._shares_metrics = shares_metrics
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def fork(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Fork, and return the ID of the new process, which is a child of this one."""
        raw = json.dumps(request).encode()
        assert len(raw) < REQUEST_SIZE
        with self._lock:
            channel = self._channel or self._start()
            # Only now, because others' orphans would become children that nobody waits for.
            self._prctl(_PR_SET_CHILD_SUBREAPER, 1)
            try:
                socket.send_fds(channel, [raw], descriptors)
                pid, done = channel.recv(64), channel.recv(64)
            finally:
                self._prctl(_PR_SET_CHILD_SUBREAPER, 0)
        assert done == b"done", "the process that is forked has ended"
        return int(pid)

    def _start(self) -> socket.socket:
        mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other, tempfile.TemporaryDirectory() as folder:
            shared = {"PROMETHEUS_MULTIPROC_DIR": folder} if self._shares_metrics else {}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.servers.prefork", str(other.fileno())],
                env={**os.environ, **shared, "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
            )
            other.close()
            assert mine.recv(64) == b"loaded", "the process to fork has ended"
        self._channel = mine
        return mine

    def close(self) -> None:
        with self._lock:
            if self._channel is not None and self._process is not None:
                self._channel.close()
                try:
                    self._process.wait(10)
                except subprocess.TimeoutExpired:  # another process has a copy of the socket
                    self._process.kill()
                    self._process.wait()
                self._channel = self._process = None


_PREFORK = _Prefork(shares_metrics=False)
_PREFORK_OF_WORKERS = _Prefork(shares_metrics=True)


def close() -> None:
    """End the processes that are forked."""
    _PREFORK.close()
    _PREFORK_OF_WORKERS.close()


class Launched(subprocess.Popen[Any]):
    """A `moorage` process with these arguments. The other options are those of `Popen`.

    `has_workers` is for a server with several workers.
    """

    def __init__(self, arguments: list[str], *, has_workers: bool = False, **options: Any) -> None:
        self._prefork = _PREFORK_OF_WORKERS if has_workers else _PREFORK
        super().__init__(arguments, **options)

    _close_pipe_fds: Callable[..., None]

    def _execute_child(  # what a Popen does to start, after it has made its pipes
        self, args: list[str], _executable: None, _preexec: None, *options: Any
    ) -> None:
        _, _, cwd, env, _, _, _, read, write, out, out_write, err, err_write, *rest = options
        session: bool = rest[5]
        ends = (read, out_write, err_write)
        given = [own if end == -1 else end for own, end in enumerate(ends)]
        request = {
            "arguments": [str(argument) for argument in args],
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "session": session,
        }
        try:
            self.pid = self._prefork.fork(request, given)
            self._child_created = True
        finally:
            self._close_pipe_fds(read, write, out, out_write, err, err_write)


def run(
    *arguments: str | Path,
    typed: str = "",
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with `typed` as its input, and return what it prints."""
    pipe = subprocess.PIPE
    streams: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "text": True}
    with Launched([*map(str, arguments)], env=env, cwd=cwd, **streams) as process:
        try:
            told, complaints = process.communicate(typed, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, told, complaints)
