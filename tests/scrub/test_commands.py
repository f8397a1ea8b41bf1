"""The commands beside a server, as people and scripts see them, and killed half-way."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from storage.digest import Digest
from tests.support.kit import Kit
from tests.support.pushing import blob_bytes
from tests.support.server import ROOT, Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

NAME = "team/app"
PATIENCE = 60.0


class Commands:
    """`moorage` on one data folder."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        self.settings = settings

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
        return subprocess.Popen(
            [sys.executable, "-m", "registry.cli.main", *words, "--data", str(self.data)],
            env={**kept, **self.settings, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, expect: int) -> str:
        process = self.begin(*words)
        told, complaints = process.communicate(timeout=PATIENCE)
        assert process.returncode == expect, told + complaints
        assert "Traceback" not in complaints
        return told + complaints if "--json" not in words else told

    def read(self, *words: str, expect: int) -> Any:
        return json.loads(self.run(*words, "--json", expect=expect))

    def ask(self, query: str) -> list[Any]:
        """What the database holds, or a change of it, behind the registry's back."""
        with contextlib.closing(sqlite3.connect(self.data / "moorage.db", timeout=30)) as database:
            found = database.execute(query).fetchall()
            database.commit()
            return found

    def file_of(self, data: bytes) -> Path:
        (path,) = self.data.glob(f"storage/blobs/*/*/{Digest.of(data).hex}.*")
        path.chmod(0o600)
        return path


async def test_damage_is_found_shown_and_healed_beside_a_server(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "data")
    layer = b"layer one x"
    with serving(Server(commands.data)) as server:
        assert "No scrub has been run." in commands.run("scrub", "status", expect=0)
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            kit = Kit(http)
            _, image = await kit.push_image(NAME, "latest", "x")
            assert commands.read("scrub", "run", expect=0)["damaged"] == 0
            spoiled = commands.file_of(layer)
            spoiled.write_bytes(layer[:-1] + b"!")
            found = commands.read("scrub", "run", expect=1)
            blob = {"digest": str(Digest.of(layer)), "size": len(layer), "state": "damaged"}
            assert found["blobs"] == [{**blob, "tags": [f"{NAME}:latest"]}]
            about = found["scrub"]
            assert (about["running"], about["blobs"], about["damaged"]) == (False, 3, 1)
            assert commands.read("scrub", "status", expect=1) == found
            told = commands.run("scrub", "status", expect=1)
            assert f"{Digest.of(layer)}  11    damaged  {NAME}:latest" in told
            assert "A push of a damaged blob heals it" in told

            # What a client does that pushes the image again.
            url = f"/v2/{NAME}/blobs/{Digest.of(layer)}"
            assert (await http.head(url)).status_code == 404
            assert (await kit.put_manifest(NAME, "latest", image)).status_code == 400
            await kit.push_blob(NAME, layer)
            assert (await kit.put_manifest(NAME, "latest", image)).status_code == 201
            assert (await http.get(url)).content == layer
            assert commands.read("scrub", "status", expect=0)["blobs"] == []

            # The other way round, with `fsck`.
            deadline = time.monotonic() + PATIENCE
            while spoiled.exists():  # until the server has removed what was replaced
                assert time.monotonic() < deadline
                time.sleep(0.1)
            told = commands.run("fsck", expect=0)
            assert "Compared 3 blobs with 3 objects." in told
            stray = spoiled.with_name(f"{spoiled.name.partition('.')[0]}.00")
            commands.file_of(layer).rename(stray)
            told = commands.run("fsck", expect=1)
            assert "1 problems, 0 of them put right." in told
            assert "too young" in told
            found = commands.read("fsck", "--repair", "--grace", "0s", expect=0)
            assert [each["deed"] for each in found["findings"]][-1] == "adopted"
            assert (await http.get(url)).content == layer
            assert commands.read("fsck", "--grace", "0s", expect=0)["open"] == 0
    assert "--grace soon" in commands.run("fsck", "--grace", "soon", expect=1)
    assert "--limit" in commands.run("scrub", "status", "--limit", "0", expect=1)


async def test_killed_it_goes_on_where_it_was(tmp_path: Path) -> None:
    blobs = [blob_bytes(f"{n}", 100_000) for n in range(12)]
    commands = Commands(tmp_path / "data")
    with serving(Server(commands.data)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for data in blobs:
                await Kit(http).push_blob(NAME, data)
    killed = commands.begin("scrub", "run", "--rate", "100KiB")
    deadline = time.monotonic() + PATIENCE
    while not (row := commands.ask("SELECT blobs, started_at FROM scrub")) or row[0][0] == 0:
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    ((done, started, last),) = commands.ask("SELECT blobs, started_at, last FROM scrub")
    assert 0 < done < len(blobs)
    # What was read before is not read again: damage there is for the next pass to find.
    before, after = (
        next(data for data in blobs if (str(Digest.of(data)) <= last) is first)
        for first in (True, False)
    )
    for data in (before, after):
        commands.file_of(data).write_bytes(bytes(len(data)))
    commands.ask("DELETE FROM leases")  # else it would wait for the lease to run out
    found = commands.read("scrub", "run", "--rate", "0B", expect=1)
    assert [each["digest"] for each in found["blobs"]] == [str(Digest.of(after))]
    assert found["scrub"]["blobs"] == len(blobs)
    assert commands.ask("SELECT started_at FROM scrub") == [(started,)]
    found = commands.read("scrub", "run", "--rate", "0B", "--limit", "1", expect=1)
    assert (found["damaged"], len(found["blobs"])) == (2, 1)


async def test_a_server_does_it_by_itself(tmp_path: Path) -> None:
    """And the command only looks on where it is at it."""
    data = tmp_path / "data"
    settings = {"MOORAGE_SCRUB__INTERVAL": "1ms"}
    commands = Commands(data)
    with serving(Server(data)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            await Kit(http).push_blob(NAME, b"spoiled")
    commands.file_of(b"spoiled").write_bytes(b"spoilt!")
    with serving(Server(data, settings=settings)):
        deadline = time.monotonic() + PATIENCE
        while not commands.ask("SELECT 1 FROM scrub WHERE NOT running"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert commands.ask("SELECT state FROM blobs") == [("damaged",)]
