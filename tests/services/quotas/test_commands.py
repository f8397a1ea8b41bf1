"""Tests of `moorage quota` and `moorage usage`, and of their entries in the audit log."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from registry.app import open_runtime
from registry.cli.main import main
from registry.config import Settings, load
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from tests.metadata.rows import add, image

IMAGE = image("1", ["a layer"])
USED = 15 + len(IMAGE.raw)
"""Bytes of its blobs and of its manifest."""

LIMIT = USED * 4 // 3


@pytest.fixture
def settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Settings:
    """Return the settings of a registry that holds an image."""
    assert main(["user", "add", "ann", "--admin", "--no-password", "--data", str(tmp_path)]) == 0
    capsys.readouterr()
    found = load(config=None, data=tmp_path, overrides={}, environ={})

    def work(tx: Transaction) -> None:
        add(tx, IMAGE, "v1", name=RepositoryName("ann/app"))

    async def job() -> None:
        async with open_runtime(found) as opened:
            await opened.database.write(work, actor="ann")

    asyncio.run(job())
    return found


class Commands:
    """The command line on that registry."""

    def __init__(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        self._where = ["--data", str(settings.data)]
        self._capsys = capsys

    def run(self, *arguments: str, expect: int = 0) -> str:
        """Run a command. Return its output, stdout and stderr together."""
        assert main([*arguments, *self._where]) == expect
        return "".join(self._capsys.readouterr())

    def json(self, *arguments: str) -> Any:
        assert main([*arguments, "--json", *self._where]) == 0
        return json.loads(self._capsys.readouterr().out)


@pytest.fixture
def moorage(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(settings, capsys)


def count(settings: Settings) -> None:
    async def job() -> None:
        async with open_runtime(settings) as opened:
            while await opened.registry.quotas.count():
                pass

    asyncio.run(job())


def test_quotas_are_set_listed_and_removed(moorage: Commands, settings: Settings) -> None:
    assert moorage.run("quota", "set", "ann/**", f"{LIMIT}B").startswith("ann/** may use")
    moorage.run("quota", "set", "*/**", "10GiB")
    assert "(counting)" in moorage.run("quota", "list")
    count(settings)
    assert moorage.json("quota", "list")["quotas"] == [
        {
            "pattern": pattern,
            "limit": limit,
            "used": used,
            "reserved": 0,
            "most_used_namespace": pattern,
            "usage_complete": True,
        }
        for pattern, limit, used in (("*/**", 10 << 30, 0), ("ann/**", LIMIT, USED))
    ]
    assert [line.split("\t") for line in moorage.run("quota", "list").splitlines()] == [
        ["PATTERN", "LIMIT", "USED", "RESERVED", "MOST USED"],
        ["*/**", "10.0GiB", "0B (0%)", "0B", ""],
        ["ann/**", f"{LIMIT}B", f"{USED}B (75%)", "0B", ""],
    ]
    # A change of the limit needs no new count.
    assert "counted" not in moorage.run("quota", "set", "ann/**", "1KiB")
    moorage.run("quota", "remove", "ann/**")
    [left] = moorage.json("quota", "list")["quotas"]
    assert (left["pattern"], left["most_used_namespace"], left["used"]) == ("*/**", "ann/**", USED)
    assert "no quota" in moorage.run("quota", "remove", "ann/**", expect=1)
    events = [e for e in moorage.json("audit", "list")["events"] if e["event"].startswith("quota")]
    assert [(e["event"], e["target"], e["detail"]) for e in events] == [
        ("quota.set", "ann/**", {"bytes": LIMIT}),
        ("quota.set", "*/**", {"bytes": 10 << 30}),
        ("quota.set", "ann/**", {"bytes": 1024}),
        ("quota.delete", "ann/**", {}),
    ]


def test_what_is_no_quota_is_said(moorage: Commands) -> None:
    assert "invalid size" in moorage.run("quota", "set", "ann/**", "10", expect=1)
    assert "*/**" in moorage.run("quota", "set", "ann/*/x", "1GiB", expect=1)


def test_usage_is_shown(moorage: Commands) -> None:
    said = moorage.run("usage", "--top", "3").splitlines()
    assert said[0].startswith("2 blobs with 15B, of which 0B are in no repository; 1 manifests")
    rows = [line.split() for line in said]
    for row in ("ann/app", "ann/app:v1", "ann"):
        assert [row, "15B", "15B", "0B"] in rows
    found = moorage.json("usage")
    share = {"bytes": 15, "exclusive": 15, "shared": 0}
    assert found["repositories"] == [{"name": "ann/app", **share}]
    assert found["tags"] == [{"name": "ann/app:v1", **share}]
    assert found["namespaces"] == [{"name": "ann", **share}]
    assert found["stored"]["blobs"] == 2
    freed = moorage.json("usage", "--if-deleted", "ann/app:v1")
    assert (freed["tags"], freed["blobs"], freed["bytes"]) == (["ann/app:v1"], 2, 15)
    assert "2 blobs with 15B and 1 manifests" in moorage.run("usage", "--if-deleted", "ann/app:v1")
    assert "no tag" in moorage.run("usage", "--if-deleted", "ann/app:v2", expect=1)
    for number in ("0", "x", "-1", "²"):
        assert "--top" in moorage.run("usage", f"--top={number}", expect=1)
