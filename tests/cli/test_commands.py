"""Commands run on a data directory, with and without a running server."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.metadata.engine.migrate import VERSION
from tests.support.kit import Kit
from tests.support.servers import launcher
from tests.support.servers.server import ROOT, Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


class Moorage:
    """Runner of commands on one data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def run(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = launcher.run(*arguments, "--data", self.data, cwd=self.data.parent)
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)


@pytest.fixture
async def moorage(tmp_path: Path) -> AsyncIterator[Moorage]:
    """Return a runner of commands on a registry with a running server and two images."""
    with serving(Server(tmp_path / "data")) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            kit = Kit(http)
            await kit.push_image("team/app", "v1", "one")
            await kit.push_image("team/app", "v2", "two")
            await kit.push_image("other", "latest", "three")
        yield Moorage(server.data)


async def test_repo_list_show_delete(moorage: Moorage) -> None:
    assert moorage.run("repo", "list").stdout == "other\nteam/app\n"
    assert moorage.json("repo", "list") == {"repositories": ["other", "team/app"]}
    shown = moorage.json("repo", "show", "team/app")
    assert (shown["tags"], shown["manifests"], shown["blobs"]) == (2, 2, 6)
    assert shown["bytes"] > 0
    assert shown["created_at"].endswith("Z")
    assert "manifests" in moorage.run("repo", "show", "team/app").stdout
    assert "Deleted other" in moorage.run("repo", "delete", "other").stdout
    assert moorage.json("repo", "list") == {"repositories": ["team/app"]}
    assert "no repository other" in moorage.run("repo", "delete", "other", expect=1).stderr


async def test_tag_list_copy_history_delete(moorage: Moorage) -> None:
    assert moorage.run("tag", "list", "team/app").stdout == "v1\nv2\n"
    copied = moorage.json("tag", "copy", "team/app:v1", "team/app:stable")
    moved = moorage.json("tag", "copy", "team/app:v2", "team/app:stable")
    history = moorage.json("tag", "history", "team/app:stable")["history"]
    assert [line["digest"] for line in history] == [moved["digest"], copied["digest"]]
    assert history[0]["old_digest"] == copied["digest"]
    assert history[0]["actor"] == "operator"
    assert "stay." in moorage.run("tag", "delete", "team/app:stable").stdout
    assert moorage.json("tag", "list", "team/app")["tags"] == ["v1", "v2"]
    assert "deleted" in moorage.run("tag", "history", "team/app:stable").stdout
    assert moorage.json("tag", "history", "team/app:v1")["history"][0]["actor"] == "anonymous"


async def test_tag_copy_into_another_repository(moorage: Moorage, tmp_path: Path) -> None:
    digest = moorage.json("tag", "copy", "team/app:v1", "prod/app:v1")["digest"]
    by_digest = moorage.json("tag", "copy", f"team/app@{digest}", "prod/app:again")
    assert by_digest["digest"] == digest
    moorage.run("repo", "delete", "team/app")
    with serving(Server(tmp_path / "data")) as server:
        manifest = httpx.get(f"{server.url}/v2/prod/app/manifests/v1")
        assert manifest.status_code == 200
        for part in [manifest.json()["config"], *manifest.json()["layers"]]:
            blob = httpx.get(f"{server.url}/v2/prod/app/blobs/{part['digest']}")
            assert blob.status_code == 200


@pytest.mark.parametrize(
    "arguments",
    [
        ("repo", "show", "UPPER"),
        ("tag", "list", "nowhere"),
        ("tag", "copy", "team/app", "x:y"),
        ("tag", "copy", "team/app:v9", "x:y"),
        ("tag", "copy", "team/app@sha256:12", "x:y"),
        ("tag", "delete", "team/app:v9"),
        ("tag", "history", "team/app:v9"),
    ],
)
async def test_what_cannot_be_is_status_1_and_a_sentence(
    moorage: Moorage, arguments: tuple[str, ...]
) -> None:
    said = moorage.run(*arguments, expect=1).stderr
    assert said.startswith("moorage: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("tag",), ("tag", "copy", "x:y"), ("nonsense",)])
def test_wrong_usage_is_status_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = launcher.run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: moorage" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["at the end", "at the first line"])
@pytest.mark.parametrize("arguments", [("config", "show"), ("--help",)])
def test_a_reader_that_has_gone_ends_it_silently(
    arguments: tuple[str, ...], unbuffered: str, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "registry.cli.main", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
            cwd=tmp_path,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.stderr == ""
    # For --help, status 0 is also valid, because argparse ignores a broken pipe.
    assert done.returncode in ({0, 141} if arguments == ("--help",) else {141})


@pytest.mark.parametrize("arguments", [("repo", "list"), ("db", "status"), ("tag", "list", "x")])
def test_no_registry_here(arguments: tuple[str, ...], tmp_path: Path) -> None:
    said = Moorage(tmp_path / "nothing").run(*arguments, expect=1).stderr
    assert "no registry in" in said
    assert "--data" in said
    assert list(tmp_path.iterdir()) == []


def test_db_upgrade_and_status(tmp_path: Path) -> None:
    moorage = Moorage(tmp_path / "data")
    assert moorage.json("db", "upgrade") == {"changed": True, "version": VERSION}
    assert moorage.json("db", "upgrade") == {"changed": False, "version": VERSION}
    assert moorage.json("db", "status")["usable"] is True
    assert "already at" in moorage.run("db", "upgrade").stdout


def test_config_show_says_where_each_value_comes_from(tmp_path: Path) -> None:
    moorage = Moorage(tmp_path / "data")
    moorage.data.mkdir()
    (moorage.data / "moorage.toml").write_text(
        '[database]\nurl = "postgresql+psycopg://me:hunter2@db/x"\n'
    )
    shown = moorage.run("config", "show").stdout
    assert "hunter2" not in shown
    assert "***" in shown
    assert shown.splitlines()[0].split() == ["SETTING", "VALUE", "FROM"]
    origins = moorage.json("config", "show")["origins"]
    assert (origins["database.url"], origins["http.listen"]) == ("file", "default")


def test_config_check_names_the_nearest_key(tmp_path: Path) -> None:
    moorage = Moorage(tmp_path / "data")
    assert moorage.json("config", "check") == {"ok": True}
    moorage.data.mkdir()
    (moorage.data / "moorage.toml").write_text("[http]\nlistn = 5000\n")
    assert "http.listen" in moorage.run("config", "check", expect=1).stderr
