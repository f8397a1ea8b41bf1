"""Process and version metrics at `/metrics`, with one worker and with several."""

import os
import platform
import re
import signal
import time
from pathlib import Path

import httpx
import pytest

from registry.version import find_version
from tests.support.servers.server import Server, serving

SMALLEST = 20 << 20
"""Minimum bytes of memory of a Python process."""


def read(http: httpx.Client) -> dict[str, float]:
    text = http.get("/metrics").text
    labels = f'python="{platform.python_version()}",version="{find_version()}"'
    assert f"moorage_build_info{{{labels}}} 1.0" in text
    found = re.findall(r"^(process_\w+) (\S+)$", text, re.MULTILINE)
    assert len(dict(found)) == len(found)
    return {name: float(value) for name, value in found}


def list_children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_figures_are_of_all_processes_of_the_server(tmp_path: Path, workers: int) -> None:
    before = time.time()
    with (
        serving(Server(tmp_path / "data", workers, fresh=True)) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        seen = read(http)
        processes = workers if workers == 1 else workers + 1
        assert processes * SMALLEST < seen["process_resident_memory_bytes"] < 1 << 30
        assert seen["process_virtual_memory_bytes"] >= seen["process_resident_memory_bytes"]
        assert processes * 3 < seen["process_open_fds"] < seen["process_max_fds"]
        assert seen["process_cpu_seconds_total"] > 0
        assert before - 5 < seen["process_start_time_seconds"] < time.time() + 5
        if workers == 1:
            return
        assert server.process
        # The CPU time of a dead worker still counts, because a counter must not decrease.
        children = list_children(server.process.pid)
        os.kill(children[0], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while len(list_children(server.process.pid)) < workers or children == list_children(
            server.process.pid
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with httpx.Client(base_url=server.url, timeout=30) as again:
            later = read(again)
        assert later["process_cpu_seconds_total"] >= seen["process_cpu_seconds_total"]
        assert later["process_start_time_seconds"] == seen["process_start_time_seconds"]
