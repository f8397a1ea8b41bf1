"""Tests of 64 writers from four processes on one SQLite file, with a control.

No write fails, no write waits longer than half a second beyond its disk time, and shares are even.
The disk time: in a fair queue a write waits for the disk once for each process, and once more for
the group that was being committed when it arrived. So the longest of the commits and checkpoints
during the wait are subtracted from it, one more than there are processes. Half a second applies to
a machine without other load: if other programs use part of the processors, the bound is that much
larger, up to twice as much. The longest time that a sleeping process was not woken is added.
"""

import heapq
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.metadata.engine import migrate
from tests.metadata.engine.writer_process import WRITERS, Span

ROOT = Path(__file__).resolve().parents[3]
PROCESSES = 4
SECONDS = 4.0
LONGEST = 0.5


@dataclass
class Outcome:
    """The results of all processes, and the load of the machine during the run."""

    counts: list[int]
    failures: list[str]
    waits: list[Span]
    disk: list[Span]
    stall: float
    processors: float  # the share that other programs left

    def disk_share(self, wait: Span) -> float:
        """Return the seconds of the wait that the disk explains."""
        overlaps = (min(end, wait[1]) - max(start, wait[0]) for start, end in self.disk)
        longest = heapq.nlargest(PROCESSES + 1, overlaps)
        return sum(seconds for seconds in longest if seconds > 0)

    @property
    def longest_wait(self) -> float:
        return max(end - start for start, end in self.waits)

    @property
    def longest_beyond_disk(self) -> float:
        return max(end - start - self.disk_share((start, end)) for start, end in self.waits)

    @property
    def longest_allowed(self) -> float:
        return LONGEST / max(0.5, self.processors) + self.stall

    @property
    def least_share(self) -> float:
        """The share of the process that wrote least, relative to the mean."""
        return min(self.counts) * len(self.counts) / sum(self.counts)

    def list_broken(self) -> list[str]:
        """Return the broken promises."""
        broken = {
            "none fails": bool(self.failures),
            "none waits long": self.longest_beyond_disk > self.longest_allowed,
            "shares are even": self.least_share < 0.5,
        }
        return [promise for promise, is_broken in broken.items() if is_broken]

    def __str__(self) -> str:
        slowest = max(end - start for start, end in self.disk)
        return (
            f"writes {self.counts}, failures {len(self.failures)} {self.failures[:1]}, "
            f"longest wait {self.longest_wait * 1000:.0f} ms, "
            f"beyond its disk {self.longest_beyond_disk * 1000:.0f} ms "
            f"of {self.longest_allowed * 1000:.0f} ms, slowest commit {slowest * 1000:.0f} ms, "
            f"stall {self.stall * 1000:.0f} ms, processors {self.processors:.2f}, "
            f"least share {self.least_share:.2f}"
        )


class Processors:
    """The processor time that other programs used since this object was made."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.before = self.others()

    def others(self) -> float:
        """Return the busy seconds of all processors, without ours but with other guests' time."""
        line = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        user, nice, system, _idle, _wait, irq, soft, steal = map(int, line)
        everything = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
        times = os.times()
        return everything - sum(times[:4])

    def left(self) -> float:
        """Return the share of processor time that we used or that was idle."""
        there = (time.monotonic() - self.started) * (os.cpu_count() or 1)
        return 1 - (self.others() - self.before) / there


class Stalls(threading.Thread):
    """A thread that sleeps a millisecond at a time and records the longest delay."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            started = time.monotonic()
            time.sleep(0.001)
            self.longest = max(self.longest, time.monotonic() - started)


def measure(way: str, folder: Path) -> Outcome:
    folder.mkdir()
    path = folder / "moorage.db"
    migrate.upgrade(f"sqlite:///{path}")
    processors, stalls = Processors(), Stalls()
    command = [sys.executable, "-m", "tests.metadata.engine.writer_process", way, str(path)]
    processes = [
        subprocess.Popen(
            [*command, f"{number}", f"{SECONDS}"],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    stalls.start()
    start = time.monotonic() + 0.3
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{start}\n")
        process.stdin.flush()
    told = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    stalls.over.set()
    stalls.join()
    return Outcome(
        counts=[one["count"] - len(one["failures"]) for one in told],
        failures=[failure for one in told for failure in one["failures"]],
        waits=[(start, end) for one in told for start, end in one["worst"]],
        disk=[(start, end) for one in told for start, end in one["disk"]],
        stall=stalls.longest,
        processors=processors.left(),
    )


@pytest.mark.timeout(180)
def test_64_writers_share_one_file(tmp_path: Path) -> None:
    assert PROCESSES * WRITERS == 64
    queue, control = measure("queue", tmp_path / "queue"), measure("busy", tmp_path / "busy")
    figures = f"with the queue: {queue}\nwithout it: {control}"
    print(figures)  # noqa: T201 - shown with -s, and when it fails
    assert queue.list_broken() == [], figures
    # The control: it shows what the queue is for, and that this test can fail.
    assert control.list_broken() != [], figures
    assert control.failures or control.longest_wait > 3 * queue.longest_wait, figures
