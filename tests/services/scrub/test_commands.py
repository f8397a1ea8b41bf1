"""Tests of the commands with a server running, as people and scripts use them, also when killed."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from storage.digest import Digest
from tests.support.kit import Kit
from tests.support.pushing import blob_bytes
from tests.support.servers.launcher import Launched
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

NAME = "team/app"
PATIENCE = 60.0


class Commands:
    """The command `moorage` on one data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
        return Launched(
            [*words, "--data", str(self.data)],
            env=kept,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, expect: int) -> "subprocess.CompletedProcess[str]":
        process = self.begin(*words)
        told, complaints = process.communicate(timeout=PATIENCE)
        assert process.returncode == expect, told + complaints
        assert "Traceback" not in complaints
        return subprocess.CompletedProcess(words, expect, told, complaints)

    def ask(self, query: str) -> list[Any]:
        """Query or change the database behind the registry's back."""
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
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            kit = Kit(http)
            _, image = await kit.push_image(NAME, "latest", "x")
            spoiled = commands.file_of(layer)
            spoiled.write_bytes(layer[:-1] + b"!")
            found = json.loads(commands.run("scrub", "run", "--json", expect=1).stdout)
            blob = {"digest": str(Digest.of(layer)), "size": len(layer), "state": "damaged"}
            assert found["blobs"] == [{**blob, "tags": [f"{NAME}:latest"]}]
            about = found["scrub"]
            assert (about["running"], about["blobs"], about["damaged"]) == (False, 3, 1)
            told = commands.run("scrub", "status", expect=1)
            assert f"{Digest.of(layer)}\t11\tdamaged\t{NAME}:latest" in told.stdout
            assert "To repair a damaged blob, push it again" in told.stderr

            # A client that pushes the image again does the same.
            url = f"/v2/{NAME}/blobs/{Digest.of(layer)}"
            assert (await http.head(url)).status_code == 404
            assert (await kit.put_manifest(NAME, "latest", image)).status_code == 400
            await kit.push_blob(NAME, layer)
            assert (await kit.put_manifest(NAME, "latest", image)).status_code == 201
            assert (await http.get(url)).content == layer
            deadline = time.monotonic() + PATIENCE
            while spoiled.exists():  # until the server has deleted the replaced object
                assert time.monotonic() < deadline
                time.sleep(0.1)

            # An object under another name is adopted.
            commands.file_of(layer).rename(spoiled)
            told = commands.run("fsck", expect=1)
            assert "Compared 3 blobs with 3 objects." in told.stdout
            assert "1 problems, 0 of them repaired." in told.stdout
            assert "1 objects that no row names are too young" in told.stderr
            repaired = commands.run("fsck", "--repair", "--grace", "0s", "--json", expect=0)
            found = json.loads(repaired.stdout)
            assert {each["action"] for each in found["findings"]} == {"adopted"}
            assert found["unrepaired"] == 0
            assert (await http.get(url)).content == layer
            told = commands.run("scrub", "run", expect=0)
            assert "3 blobs of" in told.stdout
            assert ", 0 of them damaged." in told.stdout


async def test_a_manifest_that_cannot_be_read_is_shown_and_healed(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "data")
    with serving(Server(commands.data)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            kit = Kit(http)
            digest, image = await kit.push_image(NAME, "latest")
            commands.ask("UPDATE manifest_bytes SET bytes = x'7b'")
            told = commands.run("scrub", "run", expect=1)
            assert f"{digest}\t{NAME}\t{NAME}:latest" in told.stdout
            found = json.loads(commands.run("scrub", "status", "--json", expect=1).stdout)
            manifest = {"digest": str(digest), "repository": NAME, "tags": [f"{NAME}:latest"]}
            assert (found["unreadable"], found["manifests"]) == (1, [manifest])
            told = commands.run("gc", "status", expect=0)
            assert f"cannot be read\t{NAME}@{digest}" in told.stdout
            assert "nothing of its repository is collected" in told.stderr
            assert (await kit.put_manifest(NAME, "latest", image)).status_code == 201
            commands.run("scrub", "status", expect=0)
            commands.run("backup", "create", str(tmp_path / "backup"), expect=0)


async def test_a_server_goes_on_where_a_killed_command_was(tmp_path: Path) -> None:
    blobs = [blob_bytes(f"{n}", 100_000) for n in range(12)]
    commands = Commands(tmp_path / "data")
    with serving(Server(commands.data)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for data in blobs:
                await Kit(http).push_blob(NAME, data)
    killed = commands.begin("scrub", "run", "--limit-rate", "100KiB")
    deadline = time.monotonic() + PATIENCE
    while not (row := commands.ask("SELECT blobs FROM scrub_state")) or row[0][0] == 0:
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    ((done, started, last),) = commands.ask("SELECT blobs, started_at, last_blob FROM scrub_state")
    assert 0 < done < len(blobs)
    # The resumed pass does not read these blobs again. The next pass finds damage there.
    ordered = sorted(blobs, key=lambda data: str(Digest.of(data)))
    assert str(Digest.of(ordered[0])) <= last < str(Digest.of(ordered[-1]))
    for data in (ordered[0], ordered[-1]):
        commands.file_of(data).write_bytes(bytes(len(data)))
    commands.ask("DELETE FROM leases")  # otherwise the command waits until the lease expires
    with serving(Server(commands.data)):
        deadline = time.monotonic() + PATIENCE
        while not commands.ask("SELECT 1 FROM scrub_state WHERE NOT is_running"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert commands.ask("SELECT blobs, started_at FROM scrub_state") == [(len(blobs), started)]
    found = json.loads(commands.run("scrub", "status", "--json", expect=1).stdout)
    assert [each["digest"] for each in found["blobs"]] == [str(Digest.of(ordered[-1]))]
