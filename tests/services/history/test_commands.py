"""`moorage hold`, `moorage immutable`, `moorage tag history` and `restore`, and `--override`."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry import clock, logs
from registry.app import compose
from registry.app.asgi import create_app
from registry.cli.main import main
from registry.config import load
from tests.api.conftest import in_process
from tests.support.kit import Kit

Run = Callable[..., Any]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the data directory of a registry with the images `app:v1` and `app:v2`."""
    folder = tmp_path / "data"
    # Commands run in this process, where pytest configures logging.
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)
    assert main(["db", "upgrade", "--data", str(folder)]) == 0
    settings = load(config=None, data=folder, overrides={"jobs.in_serve": "false"}, environ={})

    async def push() -> None:
        async with in_process(create_app(settings, compose(settings))) as http:
            for tag in ("v1", "v2"):
                await Kit(http).push_image("app", tag, tag)

    asyncio.run(push())
    return folder


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and returns its output.

    The function decodes the output of `--json`. With `expect=1` it returns the error message.
    """

    def run(*words: str, expect: int = 0) -> Any:
        capsys.readouterr()
        assert main([*words, "--data", str(data)]) == expect
        said = capsys.readouterr()
        if "--json" in words:
            return json.loads(said.out)
        return said.err if expect else said.out

    return run


def read_digest(run: Run, tag: str) -> str:
    return str(run("tag", "history", f"app:{tag}", "--json")["history"][0]["digest"])


def test_a_tag_through_time(run: Run) -> None:
    one, two = read_digest(run, "v1"), read_digest(run, "v2")
    between = clock.rfc3339(clock.now_us())
    run("tag", "copy", "app:v2", "app:v1")
    assert run("tag", "restore", "app:v1") == f"app:v1 points at {one}\n"
    assert run("tag", "restore", "app:v1", "--digest", two, "--json") == {
        "repository": "app",
        "tag": "v1",
        "digest": two,
        "manifests": 0,
    }
    run("repo", "delete", "app")
    said = run("tag", "restore", "app:v1", "--at", between)
    assert said == f"app:v1 points at {one}, with 1 manifests restored\n"
    shown = run("tag", "history", "app:v1", "--json")["history"]
    changes = [(line["change"], line["digest"], line["state"]) for line in shown]
    assert changes == [
        ("tag.set", one, "present"),
        ("repository.delete", None, None),
        ("tag.set", two, "restorable"),
        ("tag.set", one, "present"),
        ("tag.set", two, "restorable"),
        ("tag.set", one, "present"),
    ]
    assert "restorable" in run("tag", "history", "app:v1")
    assert "did not exist at that time" in run("tag", "restore", "app:v1", "--at", "24h", expect=1)
    assert "invalid time" in run("tag", "restore", "app:v1", "--at", "yesterday", expect=1)
    for moment in ("2026-11-23", "0001-01-01T00:00:00+23:59"):
        assert "invalid time" in run("tag", "restore", "app:v1", "--at", moment, expect=1)


def test_immutable_tags(run: Run) -> None:
    said = run("immutable", "add", "app", "v*")
    assert said == "Tags v* in app are now immutable.\n"
    assert "already" in run("immutable", "add", "app", "v*", expect=1)
    assert "pattern" in run("immutable", "add", "app", "v:*", expect=1)
    [rule] = run("immutable", "list", "--json")["rules"]
    assert (rule["pattern"], rule["tags"], rule["created_by"]) == ("app", "v*", "operator")
    assert "app" in run("immutable", "list")
    for command in (
        ("tag", "delete", "app:v1"),
        ("tag", "copy", "app:v2", "app:v1"),
        ("repo", "delete", "app"),
    ):
        assert "immutable" in run(*command, expect=1)
    run("tag", "copy", "app:v2", "app:v1", "--override")
    assert "immutable" in run("tag", "restore", "app:v1", expect=1)
    run("tag", "restore", "app:v1", "--override")
    run("tag", "delete", "app:v1", "--override")
    run("immutable", "remove", "app", "v*")
    assert "no rule" in run("immutable", "remove", "app", "v*", expect=1)
    events = run("audit", "list", "--json")["events"]
    kinds = [event["event"] for event in events if event["source"] == "audit"]
    assert kinds == [
        "immutable.create",
        "immutable.override",
        "immutable.override",
        "tag.restore",
        "immutable.override",
        "immutable.delete",
    ]
    assert run("repo", "delete", "app") == "Deleted app: 1 tags, 2 manifests.\n"


def test_holds(run: Run) -> None:
    digest = read_digest(run, "v1")
    made = run("hold", "add", f"app@{digest}", "--reason", "case 7", "--expires", "90d", "--json")
    assert (made["reason"], made["repository"], made["digest"]) == ("case 7", "app", digest)
    assert made["expires_at"] > made["created_at"]
    assert run("hold", "add", f"app@{digest}", "--reason", "b") == f"Hold 2 keeps app@{digest}.\n"
    assert [hold["id"] for hold in run("hold", "list", "--json")["holds"]] == [1, 2]
    assert "case 7" in run("hold", "list")
    assert "case 7" in run("repo", "delete", "app", "--override", expect=1)
    assert "hold in app: case 7" in run("gc", "why", digest)
    for wrong in ("app:v1", "app@sha256:12", f"other@{digest}"):
        run("hold", "add", wrong, "--reason", "x", expect=1)
    assert "reason" in run("hold", "add", f"app@{digest}", "--reason", " ", expect=1)
    for number in ("1", "2"):
        assert run("hold", "remove", number) == f"Removed hold {number}.\n"
    assert "no hold 1" in run("hold", "remove", "1", expect=1)
    run("repo", "delete", "app")
