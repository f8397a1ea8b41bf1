"""Tests of the command while a server takes pushes and answers pulls, and when it is killed."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from storage.digest import Digest
from tests.services.migration.conftest import as_variables, find_way
from tests.support.kit import Kit
from tests.support.pushing import Ledger, blob_bytes, push_until, verify
from tests.support.servers import launcher
from tests.support.servers.launcher import Launched
from tests.support.servers.seaweed import Seaweed
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300)]

NAME = "team/app"
BLOBS = [blob_bytes(f"blob {n}", 300_000 + n) for n in range(20)]


class Command:
    """The command `moorage storage copy` on one data directory."""

    def __init__(self, data: Path, settings: dict[str, str]) -> None:
        self.data = data
        self.settings = as_variables(settings)

    def begin(self, *options: str) -> "subprocess.Popen[str]":
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
        return Launched(
            ["storage", "copy", "--json", "--data", str(self.data), *options],
            env={**kept, **self.settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def run(self, *options: str, expect: int = 0) -> dict[str, dict[str, int]]:
        process = self.begin(*options)
        told, complaints = await asyncio.to_thread(process.communicate, timeout=120)
        assert process.returncode == expect, complaints
        assert "Traceback" not in complaints
        found: dict[str, dict[str, int]] = json.loads(told) if told else {"": {complaints: 0}}
        return found


async def pull_until(url: str, stop: asyncio.Event) -> int:
    """Pull all blobs again and again. Return how many answers were wrong."""
    wrong = 0
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while not stop.is_set():
            for data in BLOBS:
                answer = await http.get(f"/v2/{NAME}/blobs/{Digest.of(data)}")
                wrong += (answer.status_code, answer.content == data) != (200, True)
    return wrong


@pytest.mark.parametrize("name", ["local-s3", "s3-local"])
async def test_it_moves_under_load_and_goes_on_after_kill_9(
    tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    way = find_way(name, lambda: request.getfixturevalue("seaweed"), tmp_path)
    data = tmp_path / "data"
    with serving(Server(data, 1, as_variables(way.before))) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for blob in BLOBS:
                await Kit(http).push_blob(NAME, blob)
    ledger, stop = Ledger(), asyncio.Event()
    command = Command(data, way.both)
    variables = as_variables(way.both) | {"MOORAGE_STORAGE__UPLOAD_EXPIRY": "3s"}
    with serving(Server(data, 2, variables)) as server:
        pushing = asyncio.create_task(
            push_until(server.url, ledger, stop, clients=1, size=100_000, run="c")
        )
        pulling = asyncio.create_task(pull_until(server.url, stop))
        killed = command.begin("--limit-rate", "500KiB", "--retain-old-for", "1s")
        deadline = time.monotonic() + 60
        while _count_old(data) == len(BLOBS):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        # Two copies at once do no harm.
        both = await asyncio.gather(*(command.run("--retain-old-for", "1s") for _ in range(2)))
        moved = sum(each["moved"]["blobs"] for each in both)
        assert 0 < moved < len(BLOBS)
        assert (await command.run())["left"]["blobs"] == 0
        stop.set()
        assert await pulling == 0
        await pushing
        assert len(ledger.pushes) > 0
        while any((left := await find_left(command, name)).values()):
            assert time.monotonic() < deadline + 60, left
            await asyncio.sleep(1)
    with serving(Server(data, 1, as_variables(way.after))) as server:
        assert await verify(server.url, ledger.pushes) == []
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for blob in BLOBS:
                answer = await http.get(f"/v2/{NAME}/blobs/{Digest.of(blob)}")
                assert answer.content == blob


async def find_left(command: Command, name: str) -> dict[str, int]:
    """Return the counts of what is left to do, without the deletions that a bucket awaits.

    A bucket's keys are deleted a second time some minutes later.
    """
    left: dict[str, int] = (await command.run("--dry-run"))["left"]
    return {
        what: n for what, n in left.items() if (what, name) != ("pending_deletions", "s3-local")
    }


def _count_old(data: Path) -> int:
    """Return the number of blobs in the old store."""
    with contextlib.closing(sqlite3.connect(data / "moorage.db")) as connection:
        query = "SELECT count(*) FROM blobs WHERE store = 'one'"
        return int(connection.execute(query).fetchone()[0])


def test_what_people_read(tmp_path: Path) -> None:
    way = find_way("local-local", _no_bucket, tmp_path)
    data = tmp_path / "data"
    with serving(Server(data, 1, as_variables(way.before))) as server:
        for blob in BLOBS[:3]:
            digest = Digest.of(blob)
            answer = httpx.post(
                f"{server.url}/v2/{NAME}/blobs/uploads/?digest={digest}", content=blob
            )
            assert answer.status_code == 201
    (spoiled,) = (tmp_path / "store-one").glob(f"blobs/*/*/{Digest.of(BLOBS[1]).hex}.*")
    spoiled.chmod(0o600)
    spoiled.write_bytes(bytes(len(BLOBS[1])))

    def run(*options: str, way: dict[str, str], expect: int) -> str:
        command = Command(data, way)
        words = ["storage", "copy", *options, "--data", str(data)]
        done = launcher.run(*words, env={**os.environ, **command.settings})
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "[old_storage]" in run(way=way.before, expect=1)
    assert "--parallel" in run("--parallel", "0", way=way.both, expect=1)
    assert "--retain-old-for soon" in run("--retain-old-for", "soon", way=way.both, expect=1)
    assert "3 blobs of" in run("--dry-run", way=way.both, expect=0)
    told = run("--retain-old-for", "0s", way=way.both, expect=1)
    assert "Moved 2 blobs" in told
    assert f"{Digest.of(BLOBS[1])} cannot be moved: its bytes do not match its digest" in told
    assert "1 blobs of" in told
    with serving(Server(data, 1, as_variables(way.both))) as server:
        httpx.post(
            f"{server.url}/v2/{NAME}/blobs/uploads/?digest={Digest.of(BLOBS[1])}", content=BLOBS[1]
        )
        deadline = time.monotonic() + 60
        while "remove [old_storage] from the settings" not in (told := run(way=way.both, expect=0)):
            assert time.monotonic() < deadline, told


def _no_bucket() -> Seaweed:
    raise AssertionError
