"""64 writers from four processes on one SQLite file (design D7), with a negative control.

None fails, none waits longer than half a second beyond its disk, and shares are even. What "beyond
its disk" means: in a fair queue a write waits for the disk once for each process and once more for
the group that was being committed when it came. So from its wait are taken the longest of the
commits and checkpoints that fell into it, one more than there are processes. Half a second is meant
on a machine of one's own: where other programs take a part of the processors it is that much more,
at most twice as much, and the longest time is added that a process which only sleeps was not woken.
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
from tests.metadata.writing import WRITERS, Span

ROOT = Path(__file__).resolve().parent.parent.parent
PROCESSES = 4
SECONDS = 4.0
LONGEST = 0.5


@dataclass
class Outcome:
    """What all processes told, and what the machine did to them meanwhile."""

    counts: list[int]
    failures: list[str]
    waits: list[Span]
    disk: list[Span]
    stall: float
    processors: float  # the part of them that other programs left

    def disk_share(self, wait: Span) -> float:
        """Seconds of the wait that it may blame on the disk."""
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
        """Of the process that wrote least, as a part of the mean."""
        return min(self.counts) * len(self.counts) / sum(self.counts)

    def list_broken(self) -> list[str]:
        """The promises that were not kept."""
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
    """How much of the processors other programs took since this was made."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.before = self.others()

    def others(self) -> float:
        """Seconds that all processors were busy, but for ours; a hypervisor's other guests too."""
        line = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        user, nice, system, _idle, _wait, irq, soft, steal = map(int, line)
        everything = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
        times = os.times()
        return everything - sum(times[:4])

    def left(self) -> float:
        """The part that was ours to use, or idle."""
        there = (time.monotonic() - self.started) * (os.cpu_count() or 1)
        return 1 - (self.others() - self.before) / there


class Stalls(threading.Thread):
    """Sleeps a millisecond at a time and notes the longest it was not woken."""

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
    command = [sys.executable, "-m", "tests.metadata.writing", way, str(path)]
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
    # The control: what the queue is for, and that this test can fail.
    assert control.list_broken() != [], figures
    assert control.failures or control.longest_wait > 3 * queue.longest_wait, figures
