"""Backup commands next to a busy server, and commands that are killed halfway."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from storage.digest import Digest
from tests.services.backup.conftest import Make, Place
from tests.support.kit import Kit
from tests.support.pushing import Ledger, blob_bytes, push_image, push_until, verify
from tests.support.servers.launcher import Launched
from tests.support.servers.server import ROOT, Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300)]

NAME = "team/app"


def begin(place: Place, *arguments: str, patches: Path | None = None) -> "subprocess.Popen[str]":
    """Start a backup command in its own process."""
    path = os.pathsep.join(str(p) for p in (patches, ROOT) if p is not None)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
    return Launched(
        ["backup", *arguments, "--json", "--data", str(place.data)],
        env={**kept, **place.environment, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def delete_until(url: str, stop: asyncio.Event) -> int:
    """Push and delete images until `stop` is set, and return how many."""
    count = 0
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        kit = Kit(http)
        while not stop.is_set():
            count += 1
            digest, _ = await kit.push_image("team/gone", "latest", f"gone {count}")
            assert (await http.delete(f"/v2/team/gone/manifests/{digest}")).status_code == 202
            await asyncio.sleep(0.1)
    return count


@pytest.mark.parametrize(
    ("kind", "to"), [("sqlite-local", "postgres-s3"), ("postgres-s3", "sqlite-local")]
)
async def test_all_that_was_acknowledged_is_restored_elsewhere(
    make: Make, target: Path, kind: str, to: str
) -> None:
    place, other = make("a", kind), make("b", to, bare=True)
    ledger, stop = Ledger(), asyncio.Event()
    with serving(Server(place.data, 1, place.environment)) as server:
        url = server.url
        work = [
            asyncio.create_task(
                push_until(url, ledger, stop, clients=1, size=20_000, run="before")
            ),
            asyncio.create_task(delete_until(url, stop)),
        ]
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            # The blob is larger than one part of an S3 multipart upload.
            await push_image(Kit(http), ledger, "team/large", "v1", 6 << 20)
        while len(ledger.pushes) < 6:
            await asyncio.sleep(0.05)
        acknowledged = list(ledger.pushes)
        first = await place.ask("create", target)
        between = list(ledger.pushes)
        stop.set()
        await asyncio.gather(*work)
        assert len(ledger.pushes) > len(acknowledged)
        second = await place.ask("create", target)
    new = second["snapshot"]["blobs"] - first["snapshot"]["blobs"]
    assert second["copied"]["blobs"] == new
    assert new >= 3 * (len(ledger.pushes) - len(between))
    assert (await place.ask("verify", target))["problems"] == []
    done = await other.ask("restore", target, "--snapshot", first["snapshot"]["id"])
    assert done["copied"]["blobs"] == first["snapshot"]["blobs"]
    with serving(Server(other.data, 1, other.environment)) as server:
        assert await verify(server.url, acknowledged) == []
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            await Kit(http).push_image(NAME, "v1", "afterwards")


HALT = """
import time
from pathlib import Path
from registry.services.backup.target import BackupRepository
from registry.services.content.blob_writer import BlobWriter
def halt_at(owner, name, number):
    real, left = getattr(owner, name), number
    async def call(self, *arguments, **more):
        nonlocal left
        left -= 1
        if left == 0:
            Path({mark!r}).touch()
            time.sleep(60)
        return await real(self, *arguments, **more)
    setattr(owner, name, call)
halt_at(BackupRepository, "put", 4)
halt_at(BlobWriter, "replace", 4)
"""


async def kill_in_the_middle(place: Place, verb: str, target: Path) -> None:
    mark, patches = target.parent / f"{verb}-mark", target.parent / f"{verb}-patches"
    patches.mkdir()
    (patches / "sitecustomize.py").write_text(HALT.format(mark=str(mark)))
    process = begin(place, verb, str(target), "--parallel", "1", patches=patches)
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


async def test_killed_and_run_again(make: Make, target: Path) -> None:
    place, other = make("a"), make("b")
    blobs = [blob_bytes(f"blob {n}", 5000) for n in range(8)]
    with serving(Server(place.data, 1, place.environment)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for data in blobs:
                await Kit(http).push_blob(NAME, data)
            await kill_in_the_middle(place, "create", target)
            assert await place.ask("list", target) == {"snapshots": []}
            assert "no complete snapshot" in await place.run("verify", target, expect=1)
            assert "no complete snapshot" in await other.run("restore", target, expect=1)
            made = await place.ask("create", target)
    assert made["copied"]["blobs"] == 5
    (left,) = (target / "snapshots").iterdir()
    assert left.name == made["snapshot"]["id"]
    assert sorted(path.name for path in left.iterdir()) == ["metadata.db", "snapshot.json"]
    assert list((target / "staging").iterdir()) == []
    await kill_in_the_middle(other, "restore", target)
    await other.require_closed()
    done = await other.ask("restore", target)
    assert done["copied"]["blobs"] == 5
    expiring = {**other.environment, "MOORAGE_STORAGE__UPLOAD_EXPIRY": "1s"}
    with serving(Server(other.data, 1, expiring)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for data in blobs:
                answer = await http.get(f"/v2/{NAME}/blobs/{Digest.of(data)}")
                assert answer.content == data
        deadline = time.monotonic() + 60
        while list((other.data / "storage" / "staging").iterdir()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
    stored = [path.name.partition(".")[0] for path in other.data.glob("storage/blobs/*/*/*")]
    assert sorted(stored) == sorted(Digest.of(data).hex for data in blobs)


async def test_stopped_by_hand_it_frees_what_it_held(make: Make, target: Path) -> None:
    """Ctrl-C while the rows are copied releases the lease."""
    place = make("a")
    with serving(Server(place.data, 1, place.environment)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            await Kit(http).push_image(NAME, "v1")
        patches, mark = target.parent / "patches", target.parent / "mark"
        patches.mkdir()
        (patches / "sitecustomize.py").write_text(
            "import time\nfrom pathlib import Path\n"
            "from registry.metadata.maintenance import database_copy\n"
            "real = database_copy._require_same\ndef slow(*arguments):\n"
            f"    Path({str(mark)!r}).touch()\n    time.sleep(0.3)\n    real(*arguments)\n"
            "database_copy._require_same = slow\n"
        )
        process = begin(place, "create", str(target), patches=patches)
        deadline = time.monotonic() + 60
        while not mark.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
        assert (process.returncode, "Traceback" in complaints) == (130, False), complaints
    with contextlib.closing(sqlite3.connect(place.data / "moorage.db")) as connection:
        query = "SELECT name FROM leases WHERE name LIKE 'backup/%'"
        assert connection.execute(query).fetchall() == []
    assert await place.ask("list", target) == {"snapshots": []}
