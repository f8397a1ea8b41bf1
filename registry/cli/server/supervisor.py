"""Worker processes, which are restarted when they die and end when their parent ends."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType

from uvicorn.config import STARTUP_FAILURE

from registry.cli.kit.error_report import report
from registry.cli.kit.output import write_error
from registry.log_writer import WRITER

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
_PR_SET_PDEATHSIG = 1
_RESTART_PAUSE = 1.0
"""Delay in seconds before a worker that lived for a shorter time is replaced."""


class Supervisor:
    """Parent of `count` workers. Each worker runs `work` and exits with its result."""

    def __init__(
        self, count: int, work: Callable[[], int], *, drain: float, at_stop: Callable[[], None]
    ) -> None:
        """Create a supervisor without workers.

        `drain` is the time in seconds that workers have to finish their requests. Workers get
        SIGKILL 5 seconds after that. `at_stop` is called once in the parent when it stops.
        """
        self._count = count
        self._work = work
        self._drain = drain
        self._at_stop = at_stop
        self._started: dict[int, float] = {}
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        """Start the workers, wait until all have ended, and return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGALRM, lambda *_: self._signal(signal.SIGKILL))
        for _ in range(self._count):
            self._start()
        while self._started:
            pid, status = os.wait()
            lived = time.monotonic() - self._started.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if self._stopping:
                continue
            if code == STARTUP_FAILURE:
                self._status = 1
                self._stop()
                continue
            write_error(f"worker {pid} ended with status {code}; starting another")
            if lived < _RESTART_PAUSE:
                time.sleep(_RESTART_PAUSE)
            self._start()
        return self._status

    def _start(self) -> None:
        # A signal in between would miss the worker: its parent does not know it yet, or it still
        # has its parent's handlers.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            if not self._stopping:
                self._fork(blocked)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _fork(self, unblocked: Iterable[int]) -> None:
        """Start a worker with the signal mask `unblocked`."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._started[pid] = time.monotonic()
            return
        code = STARTUP_FAILURE
        try:
            # A worker that outlives its parent would keep the port open.
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            for number in _HANDLED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            if os.getppid() == parent:
                code = self._work()
        except Exception as error:  # noqa: BLE001 - the process reports the error and ends
            report(error)
        finally:
            WRITER.flush()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stop()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._at_stop()
        self._signal(signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, self._drain + 5)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._started:
            os.kill(pid, number)
