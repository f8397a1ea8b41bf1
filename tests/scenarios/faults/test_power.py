"""Tests of a power cut: the disk as it is at one moment, without anything still in memory.

The data is on an ext4 file system in a file. A copy of that file, made while pushes run, contains
what a disk holds after a power cut: pages that were not written back are missing (reliability.md,
F3).
"""

import asyncio
import contextlib
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.faults.conftest import SOAK
from tests.support.missing import require_root_and
from tests.support.pushing import Acknowledged, Ledger, push_until, verify
from tests.support.servers.server import Server, serving
from tests.support.stored_files import list_broken

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300)]

CUTS = 4 * SOAK

ROOMY = {"MOORAGE_STORAGE__MIN_FREE_SPACE": "0B"}

NO_FSYNC = """
import os
os.fsync = lambda fd: None
"""


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """Mount the file system in `image`. It commits its journal only when told to."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop,commit=600", image, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def make_image(path: Path) -> Path:
    require_root_and("mkfs.ext4", "mount")
    with path.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    return path


async def cut_while_pushing(
    folder: Path, workers: int, patches: Path | None
) -> list[tuple[Path, list[Acknowledged]]]:
    """Return disk images of random moments, each with the pushes acknowledged by then."""
    image = make_image(folder / "disk.img")
    chance = random.Random(workers)
    cuts: list[tuple[Path, list[Acknowledged]]] = []
    ledger = Ledger()
    with mounted(image, folder / "disk") as disk:
        with serving(Server(disk / "data", settings=ROOMY)):
            pass  # creates the folders, so that only pushes are tested
        server = Server(disk / "data", workers, ROOMY, patches)
        with serving(server):
            stop = asyncio.Event()
            pushing = asyncio.create_task(
                push_until(server.url, ledger, stop, clients=4, size=100_000, run="p")
            )
            for number in range(CUTS):
                already = len(ledger.pushes)
                while len(ledger.pushes) < already + 3:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(chance.uniform(0, 0.3))
                acknowledged = list(ledger.pushes)
                server.signal_all(signal.SIGSTOP)
                cut = folder / f"cut{number}.img"
                # This blocks the loop of the clients too: no push is acknowledged during the copy.
                subprocess.run(["cp", "--sparse=always", image, cut], check=True)
                server.signal_all(signal.SIGCONT)
                cuts.append((cut, acknowledged))
            stop.set()
            await pushing
    return cuts


async def look_at(cut: Path, acknowledged: list[Acknowledged], folder: Path) -> list[str]:
    """Start a server on the disk after the cut. Return what is wrong with it."""
    with mounted(cut, folder / "after") as disk:
        data = disk / "data"
        with serving(Server(data, settings=ROOMY)) as server:
            wrong = await verify(server.url, acknowledged)
        wrong += list_broken(data)
        shutil.rmtree(data)
    return wrong


@pytest.mark.parametrize("workers", [1, 4])
async def test_acknowledged_pushes_survive_a_power_cut(tmp_path: Path, workers: int) -> None:
    cuts = await cut_while_pushing(tmp_path, workers, None)
    assert len(cuts) == CUTS
    for cut, acknowledged in cuts:
        assert acknowledged
        assert await look_at(cut, acknowledged, tmp_path) == []


async def test_without_fsync_a_power_cut_loses_pushes(tmp_path: Path, patches: Path) -> None:
    """The negative control: this test can fail."""
    (patches / "sitecustomize.py").write_text(NO_FSYNC)
    wrong: list[str] = []
    for cut, acknowledged in await cut_while_pushing(tmp_path, 1, patches):
        wrong += await look_at(cut, acknowledged, tmp_path)
    assert wrong
