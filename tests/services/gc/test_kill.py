"""After kill -9 at any step of a deletion, the next run completes it without inconsistencies."""

import os
import shutil
import signal
import sqlite3
from pathlib import Path

import httpx
import pytest

from storage.digest import Digest
from tests.support.kit import Kit
from tests.support.servers import launcher
from tests.support.servers.server import ROOT, Server, serving
from tests.support.stored_files import list_broken, list_unowned

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300)]

KILL_AT = """
import os, signal
from pathlib import Path
left = {step}
def step(name):
    global left
    left -= 1
    if left == 0:
        Path({mark!r}).write_text(name)
        os.kill(os.getpid(), signal.SIGKILL)
from registry.metadata.engine.database import Database
write, unlink = Database.write, os.unlink
async def stepping_write(*args, **kwargs):
    step("before a commit")
    done = await write(*args, **kwargs)
    step("after a commit")
    return done
def stepping_unlink(*args, **kwargs):
    step("before a removal")
    unlink(*args, **kwargs)
    step("after a removal")
Database.write, os.unlink = stepping_write, stepping_unlink
"""


FORGETFUL = """
from registry.metadata.gc import pending_deletions
from registry.services.gc.deletions import DeletionQueue
listed = DeletionQueue._list_due
async def list_and_forget(self, store, n):
    due = await listed(self, store, n)
    if n > 1:
        await self._db.write(lambda tx: pending_deletions.delete(tx, due), actor="test")
    return due
DeletionQueue._list_due = list_and_forget
"""
"""Fault: rows are deleted before the bytes that they name. Only a kill in between shows it."""


def collect(data: Path, patches: Path | None = None) -> int:
    """Run `gc run`, and return its exit status."""
    path = [str(each) for each in (patches, ROOT) if each is not None]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    return launcher.run("gc", "run", "--data", data, env=env).returncode


def age(data: Path) -> None:
    """Age all queued rows by two days."""
    with sqlite3.connect(data / "moorage.db") as connection:
        connection.execute(
            "UPDATE gc_queue SET grace_started_at = grace_started_at - ?", [2 * 86_400 * 1_000_000]
        )
    connection.close()


def list_kept(data: Path) -> set[str]:
    with sqlite3.connect(data / "moorage.db") as connection:
        found = {digest for (digest,) in connection.execute("SELECT digest FROM blobs")}
        assert connection.execute("SELECT count(*) FROM pending_deletions").fetchone() == (0,)
    connection.close()
    return found


@pytest.fixture
async def before(tmp_path: Path) -> Path:
    """Return the data directory of a registry with an image to keep and one to collect."""
    data = tmp_path / "before"
    with serving(Server(data)) as server:
        async with httpx.AsyncClient(base_url=server.url) as http:
            kit = Kit(http)
            await kit.push_image("kept", "latest", "kept")
            gone, _ = await kit.push_image("gone", "latest", "gone")
            assert (await http.delete(f"/v2/gone/manifests/{gone}")).status_code == 202
    age(data)
    return data


def kill_at_each_step(before: Path, data: Path, fault: str = "") -> list[str]:
    """Kill a collection at each step in turn, complete it, and return the steps.

    `data` is left as the first collection makes it that no kill ends.
    """
    patches, mark = data.parent / "patches", data.parent / "killed-at"
    patches.mkdir()
    needed = {str(Digest.of(data)) for data in (b"layer one kept", b"layer two kept")}
    seen: list[str] = []
    for step in range(1, 100):
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(before, data)
        script = KILL_AT.format(step=step, mark=str(mark)) + fault
        (patches / "sitecustomize.py").write_text(script)
        mark.unlink(missing_ok=True)
        status = collect(data, patches)
        # Rows and objects must match between two runs as well.
        assert list_broken(data) == []
        assert list_unowned(data) == []
        if status == 0:
            assert not mark.exists()
            return seen
        assert status == -signal.SIGKILL
        seen.append(mark.read_text())
        assert collect(data) == 0
        assert list_broken(data) == []
        assert list_unowned(data) == []
        left = list_kept(data)
        assert needed < left
        assert len(left) == 3, "the config and two layers of what is kept, and nothing else"
    raise AssertionError("it does not end")


async def test_kill_9_at_each_step_of_a_deletion(before: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert set(kill_at_each_step(before, data)) == {
        *("before a commit", "after a commit"),
        *("before a removal", "after a removal"),
    }
    with serving(Server(data)) as server:
        kept = httpx.get(f"{server.url}/v2/kept/manifests/latest")
    assert kept.status_code == 200
    assert Digest.of(b"layer one kept").hex in kept.text


async def test_bytes_that_lose_their_row_first_are_found(before: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "sitecustomize.py").write_text(FORGETFUL)
    shutil.copytree(before, data)
    assert collect(data, tmp_path / "alone") == 0
    assert list_unowned(data) == [], "without a kill, the fault does not show"
    with pytest.raises(AssertionError, match="blobs/sha256"):
        kill_at_each_step(before, data, FORGETFUL)
