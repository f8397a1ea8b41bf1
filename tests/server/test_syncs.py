"""Tests of the cost of a push: calls that sync the disk."""

import asyncio
import re
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.kit import Kit, image_manifest
from tests.support.missing import require_root_and
from tests.support.pushing import push_in_chunks
from tests.support.servers.server import Server, serving

pytestmark = pytest.mark.anyio

IMAGES = 5
BLOBS = 3

AT_MOST = BLOBS * 3 + 1
"""For each blob the file, its directory and the commit that links it; the commit of the image."""

ELSEWHERE = 5
"""Syncs of jobs that may run at the same time."""


def count_syncs(log: Path) -> int:
    return len(re.findall(r"\b(?:fsync|fdatasync|sync_file_range|msync)\(", log.read_text()))


async def push(kit: Kit, number: int, *, whole: bool) -> None:
    parts = [f"{number} {part} {whole}".encode() * 100 for part in range(BLOBS)]
    for part in parts:
        await (kit.push_blob("app", part) if whole else push_in_chunks(kit, "app", part))
    answer = await kit.put_manifest("app", f"v{number}", image_manifest(parts[0], parts[1:]))
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("whole", [False, True])
async def test_push_of_a_small_image(tmp_path: Path, *, whole: bool) -> None:
    require_root_and("strace")
    log = tmp_path / "syncs"
    strace = shutil.which("strace")
    assert strace is not None
    with serving(Server(tmp_path / "data")) as server:
        assert server.process is not None
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            kit = Kit(http)
            await push(kit, 0, whole=whole)
            watch = [strace, "-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,msync"]
            with subprocess.Popen([*watch, "-o", log, "-p", str(server.process.pid)]) as tracing:
                while not is_traced(server.process.pid):
                    await asyncio.sleep(0.01)
                for number in range(IMAGES):
                    await push(kit, number + 1, whole=whole)
                tracing.send_signal(signal.SIGINT)
    assert IMAGES < count_syncs(log) <= IMAGES * AT_MOST + ELSEWHERE, log.read_text()


def is_traced(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").glob("*/status")
    return all("TracerPid:\t0\n" not in thread.read_text() for thread in threads)
