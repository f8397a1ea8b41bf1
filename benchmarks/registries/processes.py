"""CPU time and memory of the processes of a server, as the kernel counts them."""

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path

CPU_CLOCK = 2
"""CPUCLOCK_SCHED of Linux: the CPU time of all threads of a process, including ended ones."""


def list_session(leader: int) -> list[int]:
    """Return the processes of the session that `leader` leads, in ascending order."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(folder.name))
    return sorted(found)


def read_cpu_s(pid: int) -> float:
    """Return the CPU time of a process in seconds, with a resolution of nanoseconds."""
    return time.clock_gettime((~pid << 3) | CPU_CLOCK)


def sum_cpu_s(pids: Iterable[int]) -> float:
    return sum(read_cpu_s(pid) for pid in pids)


def read_memory_mib(pid: int, field: str) -> float:
    """Return `VmRSS` (resident memory) or `VmHWM` (its peak) of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None, f"process {pid} has no {field}"
    return int(found[1]) / 1024


def sum_memory_mib(pids: Iterable[int], field: str) -> float:
    return sum(read_memory_mib(pid, field) for pid in pids)


def reset_peak(pids: Iterable[int]) -> None:
    """Set the peak of the resident memory back to the resident memory.

    `man 5 proc_pid_clear_refs` describes this.
    """
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
