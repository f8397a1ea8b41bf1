"""Tests of kill -9: acknowledged pushes survive, and nothing is left without an owner."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.scenarios.faults.conftest import SOAK
from tests.support.pushing import Ledger, push_until, verify
from tests.support.servers.server import Server, serving
from tests.support.stored_files import list_broken, list_unowned

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300)]

KILLS = 6 * SOAK


@pytest.mark.parametrize("workers", [1, 4])
async def test_acknowledged_pushes_survive_kill_9(tmp_path: Path, workers: int) -> None:
    server = Server(tmp_path / "data", workers)
    ledger = Ledger()
    chance = random.Random(workers)
    for kill in range(KILLS):
        server.start()
        stop = asyncio.Event()
        pushing = asyncio.create_task(
            push_until(server.url, ledger, stop, clients=6, size=200_000, run=f"k{kill}")
        )
        before = len(ledger.pushes)
        while len(ledger.pushes) == before and not pushing.done():
            await asyncio.sleep(0.01)
        await asyncio.sleep(chance.uniform(0, 0.5))
        server.kill()
        stop.set()
        await pushing
    # Pending keys and staged leftovers are deleted two seconds after the start.
    with serving(Server(tmp_path / "data", workers, {"MOORAGE_STORAGE__UPLOAD_EXPIRY": "1s"})) as s:
        assert len(ledger.pushes) >= KILLS
        assert await verify(s.url, ledger.pushes) == []
        await asyncio.sleep(4)
    assert list_broken(tmp_path / "data") == []
    assert list_unowned(tmp_path / "data") == []


KILL_AT = """
import os, signal
from pathlib import Path
CALLS, STEP = {calls!r}, {step}
left = STEP
def counted(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            Path({mark!r}).write_text(real.__name__)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
import storage.local.driver
for name in CALLS:
    setattr(os, name, counted(getattr(os, name)))
"""

CALLS = ["pwrite", "fsync", "rename", "unlink", "ftruncate", "fchmod"]


async def test_kill_9_before_each_step_of_a_durable_write(tmp_path: Path, patches: Path) -> None:
    """Kill the server at each call that changes the disk, in turn, until a push completes."""
    data, mark = tmp_path / "data", tmp_path / "killed-at"
    with serving(Server(data)):
        pass  # creates the folders, so that only the steps of pushes are counted
    ledger = Ledger()
    seen: list[str] = []
    for step in range(1, 200):
        script = KILL_AT.format(calls=CALLS, step=step, mark=str(mark))
        (patches / "sitecustomize.py").write_text(script)
        server = Server(data, patches=patches).start()
        before = len(ledger.pushes)
        stop = asyncio.Event()
        pushing = asyncio.create_task(
            push_until(server.url, ledger, stop, clients=1, size=5000, run=f"s{step}")
        )
        while not pushing.done() and len(ledger.pushes) == before:
            await asyncio.sleep(0.01)
        stop.set()
        await pushing
        if not mark.exists():
            assert server.stop() == 0
            break
        seen.append(mark.read_text())
        mark.unlink()
        assert server.wait() != 0
    else:
        raise AssertionError("no push got to its end")
    assert set(seen) >= {"pwrite", "fsync", "rename", "fchmod"}, seen
    with serving(Server(data, settings={"MOORAGE_STORAGE__UPLOAD_EXPIRY": "1s"})) as server:
        assert await verify(server.url, ledger.pushes) == []
        await asyncio.sleep(4)
    assert list_broken(data) == []
    assert list_unowned(data) == []
