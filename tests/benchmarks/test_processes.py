"""CPU time, memory and syncs as the kernel counts them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from benchmarks.registries import processes
from benchmarks.registries.server import count_syncs

WORK = """
import os, sys
if sys.argv[1] == "fork" and os.fork() == 0:
    sys.stdin.read()
    sys.exit()
data = bytearray(64 << 20)
del data
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def forked() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with a child, in a session of its own, which has freed 64 MiB of memory."""
    with subprocess.Popen(
        [sys.executable, "-c", WORK, "fork"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process


def test_all_processes_of_a_session_are_found(forked: subprocess.Popen[bytes]) -> None:
    found = processes.list_session(forked.pid)
    assert len(found) == 2
    assert found[0] == forked.pid
    assert os.getpid() not in found


def test_the_cpu_time_is_that_of_the_process() -> None:
    before, own = processes.read_cpu_s(os.getpid()), time.process_time()
    while time.process_time() < own + 0.05:
        pass
    used = processes.read_cpu_s(os.getpid()) - before
    assert used >= 0.05
    assert processes.sum_cpu_s([os.getpid()] * 2) >= 2 * used


def test_the_peak_is_kept_until_it_is_reset(forked: subprocess.Popen[bytes]) -> None:
    pids = [forked.pid]
    resident = processes.sum_memory_mib(pids, "VmRSS")
    assert processes.sum_memory_mib(pids, "VmHWM") > resident + 60
    processes.reset_peak(pids)
    assert processes.sum_memory_mib(pids, "VmHWM") < resident + 10


TRACE = """\
101   fsync(7)                          = 0
102   fdatasync(9 <unfinished ...>
101   fsync(7 <unfinished ...>
102   <... fdatasync resumed>)          = 0
101   <... fsync resumed>)              = 0
101   --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=1, si_uid=0} ---
"""


def test_a_sync_that_is_interrupted_in_the_trace_counts_once() -> None:
    assert count_syncs(TRACE) == 3
