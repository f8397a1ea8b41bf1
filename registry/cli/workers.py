"""Worker processes: forked, watched, replaced when they die, gone when their parent is."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from uvicorn.config import STARTUP_FAILURE

from registry.cli.output import complain
from registry.cli.reporting import report

_PR_SET_PDEATHSIG = 1
_RESTART_PAUSE = 1.0
"""Seconds a worker must have lived for its successor to start at once."""


class Supervisor:
    """The parent of `count` workers that each run `work` and end with its result."""

    def __init__(
        self, count: int, work: Callable[[], int], *, drain: float, at_stop: Callable[[], None]
    ) -> None:
        """`drain`: seconds that workers may take to end after SIGTERM, before SIGKILL. `at_stop`
        is called once in the parent when it is told to end.
        """
        self._count = count
        self._work = work
        self._drain = drain
        self._at_stop = at_stop
        self._started: dict[int, float] = {}
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        """Start the workers and stay until all have ended; the exit status."""
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
            complain(f"worker {pid} ended with {code}; starting another")
            if lived < _RESTART_PAUSE:
                time.sleep(_RESTART_PAUSE)
            self._start()
        return self._status

    def _start(self) -> None:
        if self._stopping:
            return
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._started[pid] = time.monotonic()
            return
        code = STARTUP_FAILURE
        try:
            # A worker that outlived its parent would hold the port.
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            if os.getppid() == parent:
                code = self._work()
        except Exception as error:  # noqa: BLE001 - the process ends here, and says why
            report(error)
        finally:
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
