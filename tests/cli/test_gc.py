"""`moorage gc`, on a local and on a remote registry."""

import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from storage.digest import Digest
from tests.support.kit import Kit
from tests.support.servers import launcher
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

GC = {
    "MOORAGE_GC__GRACE_PERIOD": "1s",
    "MOORAGE_GC__UNTAGGED": "delete",
    "MOORAGE_JOBS__IN_SERVE": "false",
}
PASSWORD = "the password of root"  # noqa: S105 - of a test


def moorage(data: Path, *arguments: str, expect: int = 0) -> str:
    done = launcher.run(
        *arguments,
        "--data",
        data,
        typed=f"{PASSWORD}\n",
        env={**os.environ, **GC, "MOORAGE_PASSWORD": PASSWORD},
        cwd=data.parent,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout if not expect else done.stderr


def read(data: Path, *arguments: str) -> Any:
    return json.loads(moorage(data, "gc", *arguments, "--json"))


async def test_the_commands(tmp_path: Path) -> None:
    data, layer = tmp_path / "data", Digest.of(b"layer one lone")
    with serving(Server(data, settings=GC)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            kit = Kit(http)
            await kit.push_image("team/app", "latest")
            lone = await kit.push_blob("team/app", b"lone")
            await kit.push_image("other", "", "lone")
    time.sleep(1.1)
    assert moorage(data, "gc", "why", str(lone)) == (
        f"team/app@{lone} (nothing keeps it, it will be deleted)\n"
    )
    assert moorage(data, "gc", "why", str(Digest.of(b"layer one "))).startswith(
        "team/app:latest > manifest team/app@sha256:"
    )
    assert "no blob or manifest" in moorage(data, "gc", "why", "sha256:" + "0" * 64, expect=1)
    planned = read(data, "run", "--dry-run")
    assert planned["repositories"] == [
        {"repository": "other", "manifests": 1, "blobs": 0, "bytes": 0},
        {"repository": "team/app", "manifests": 0, "blobs": 1, "bytes": 4},
    ]
    assert "Would collect 1 manifests and 1 blobs of 4B." in moorage(data, "gc", "run", "--dry-run")
    *collected, left = moorage(data, "gc", "run").splitlines()
    assert collected == [
        "REPOSITORY\tMANIFESTS\tBLOBS\tSIZE",
        "other\t1\t0\t0B",
        "team/app\t0\t1\t4B",
        "Collected 1 manifests and 1 blobs of 4B.",
    ]
    assert left.startswith(
        "3 candidates are in their grace period (gc.grace_period); the next is due at 20"
    )
    status = read(data, "status")
    assert (status["paused_until"], status["in_window"]) == (None, True)
    assert status["queued"] == {"manifest": 0, "link": 3, "blob": 0}
    moorage(data, "user", "add", "root", "--admin", "--password-stdin")
    with serving(Server(data, settings=GC)) as server:
        elsewhere = "--url", server.url, "--user", "root"
        assert read(data, "why", str(layer), *elsewhere)["paths"][0][0]["kind"] in {
            "grace_period",
            "none",
        }
        time.sleep(1.1)
        assert read(data, "run", *elsewhere)["blobs"] == 3
        assert read(data, "status", *elsewhere)["queued"]["link"] == 0
        assert "due now" in moorage(data, "gc", "status", *elsewhere)
    kept = {path.name.partition(".")[0] for path in (data / "storage").glob("blobs/*/*/*")}
    assert layer.hex not in kept
    assert len(kept) == 3
