"""After kill -9 at any step of a deletion, the next run completes it without inconsistencies."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from storage.digest import Digest
from tests.support.audit_log import list_broken, list_unowned
from tests.support.kit import Kit
from tests.support.server import ROOT, Server, serving

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


def collect(data: Path, patches: Path | None = None) -> int:
    """Run `gc run`, and return its exit status."""
    path = [str(each) for each in (patches, ROOT) if each is not None]
    return subprocess.run(
        [sys.executable, "-m", "registry.cli.main", "gc", "run", "--data", str(data)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        check=False,
        timeout=60,
    ).returncode


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


async def test_kill_9_at_each_step_of_a_deletion(tmp_path: Path) -> None:
    patches = tmp_path / "patches"
    patches.mkdir()
    before, data, mark = tmp_path / "before", tmp_path / "data", tmp_path / "killed-at"
    with serving(Server(before)) as server:
        async with httpx.AsyncClient(base_url=server.url) as http:
            kit = Kit(http)
            _, kept = await kit.push_image("kept", "latest", "kept")
            gone, _ = await kit.push_image("gone", "latest", "gone")
            assert (await http.delete(f"/v2/gone/manifests/{gone}")).status_code == 202
    age(before)
    needed = {str(Digest.of(data)) for data in (b"layer one kept", b"layer two kept")}
    seen: list[str] = []
    for step in range(1, 100):
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(before, data)
        (patches / "sitecustomize.py").write_text(KILL_AT.format(step=step, mark=str(mark)))
        mark.unlink(missing_ok=True)
        status = collect(data, patches)
        # Rows and objects must match between two runs as well.
        assert list_broken(data) == []
        assert list_unowned(data) == []
        if status == 0:
            assert not mark.exists()
            break
        assert status == -signal.SIGKILL
        seen.append(mark.read_text())
        assert collect(data) == 0
        assert list_broken(data) == []
        assert list_unowned(data) == []
        left = list_kept(data)
        assert needed < left
        assert len(left) == 3, "the config and two layers of what is kept, and nothing else"
    else:
        raise AssertionError("it does not end")
    assert set(seen) == {
        *("before a commit", "after a commit"),
        *("before a removal", "after a removal"),
    }
    with serving(Server(data)) as server:
        assert httpx.get(f"{server.url}/v2/kept/manifests/latest").content == kept
