"""`moorage retention`, from setting rules to the remaining tags."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry import logs
from registry.cli.main import main
from registry.metadata.engine.database import Database
from registry.metadata.gc import state
from registry.oci.names import RepositoryName
from tests.metadata.rows import digest_of, image
from tests.services.retention.histories import list_tags, push, write

Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Return a function that runs a command and returns its output, or its errors if it fails."""
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)

    def run(*arguments: str, expect: int = 0) -> str:
        assert main([*arguments, "--data", str(tmp_path / "data")]) == expect
        printed = capsys.readouterr()
        return printed.err if expect else printed.out + printed.err

    return run


def on_data(tmp_path: Path, work: Callable[[Database], Any]) -> Any:
    """Change or read the database of the data directory."""

    async def job() -> Any:
        database = Database(f"sqlite:///{tmp_path}/data/moorage.db")
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(job())


def cells(text: str) -> list[list[str]]:
    return [line.split(maxsplit=4) for line in text.splitlines()]


def test_from_rules_to_what_is_left(say: Say, tmp_path: Path) -> None:
    async def fill(database: Database) -> None:
        for number in range(3):
            await push(database, image(str(number)), f"v1.0.{number}")
        await push(database, image("lone"), days_ago=9)
        await push(database, image("x"), "edge", name=RepositoryName("other"))

    say("user", "add", "root", "--admin", "--no-password")
    on_data(tmp_path, fill)
    assert "drop nothing" in say("retention", "set", "**", "--keep-tag", "latest", "v1.0.0")
    options = [
        "--keep-per-minor",
        "1",
        "--drop-tag",
        "v*",
        "--drop-tag",
        "x",
        "--drop-untagged",
        "7d",
    ]
    assert json.loads(say("retention", "set", "team/*", *options, "--json")) == {
        "pattern": "team/*",
        "keep": [],
        "keep_newest": None,
        "by": "push",
        "keep_per_minor": 1,
        "drop": ["v*", "x"],
        "drop_not_pulled": None,
        "drop_untagged": "7d",
        "enabled": False,
        "waits_until": None,
    }
    kept, dropped = say("retention", "list").splitlines()[1:]
    assert kept == "**\tkeeps\tkeep latest v1.0.0"
    assert dropped.startswith("team/*\tnot enabled\tkeep the last 1 of each minor version; drop v*")
    # Output for people
    lone = digest_of(image("lone"))
    assert "retention enable 'team/*'" in say("retention", "plan")
    assert "are not enabled" in say("retention", "run", expect=1)
    assert "are enabled" in say("retention", "enable", "team/*")
    table = cells(say("retention", "plan"))
    freed = [row[2] for row in table if row[1] == "drop"]
    assert table[:-1] == [
        ["WHAT", "ACTION", "FREES", "PATTERN", "WHY"],
        ["other:edge", "keep", "-", "-", "matches no drop rule"],
        ["team/app:v1.0.0", "keep", "-", "**", "keep v1.0.0"],
        ["team/app:v1.0.1", "drop", freed[0], "team/*", "drop v*"],
        ["team/app:v1.0.2", "keep", "-", "team/*", "among the last 1 of 1.0"],
        [f"team/app@{lone}", "drop", freed[1], "team/*", "untagged for 7d"],
    ]
    total = sum(int(each.removesuffix("B")) for each in freed)
    said = f"1 tags and 1 manifests would be dropped, which frees {total}B."
    assert " ".join(table[-1]) == said
    # Output for programs
    plan = json.loads(say("retention", "plan", "team/**", "--json"))
    assert [each["repository"] for each in plan["repositories"]] == ["team/app"]
    assert (plan["tags"], plan["manifests"], plan["bytes"]) == (1, 1, total)
    going = [tag for tag in plan["repositories"][0]["tags"] if tag["action"] == "drop"]
    assert [(tag["tag"], tag["rule"], tag["reason"]) for tag in going] == [
        ("v1.0.1", "team/*", "drop v*")
    ]
    # Result of a run
    assert say("retention", "run", "other") == "Dropped 0 tags and 0 manifests.\n"
    assert json.loads(say("retention", "run", "--json")) == {"dropped": {"tags": 1, "manifests": 1}}
    assert on_data(tmp_path, list_tags) == ["edge", "v1.0.0", "v1.0.2"]
    assert json.loads(say("retention", "plan", "--json"))["tags"] == 0
    assert json.loads(say("retention", "status", "--json"))["started_at"] is None
    assert "due_at" in say("retention", "status")
    on_data(
        tmp_path,
        lambda database: write(database, lambda tx: state.record_clock_jump(tx, tx.now, 9)),
    )
    assert "clock has jumped" in say("retention", "plan")
    assert "jumped, so nothing is dropped until" in say("retention", "run", expect=1)
    say("retention", "remove", "team/*")
    assert len(json.loads(say("retention", "list", "--json"))["rules"]) == 1
    events = json.loads(say("audit", "list", "--json"))["events"]
    assert [event["event"] for event in events if event["event"].startswith("retention")] == [
        *["retention.set"] * 2,
        "retention.enable",
        *["retention.run"] * 2,
        "retention.delete",
    ]


def test_a_rule_is_seen_before_it_drops_anything(say: Say, tmp_path: Path) -> None:
    async def fill(database: Database) -> None:
        await push(database, image("1"), "v1", "keep")

    say("user", "add", "root", "--admin", "--no-password")
    on_data(tmp_path, fill)
    said = say("retention", "set", "team/*", "--keep-tag", "keep", "--drop-tag", "*")
    assert "team/app:v1\tdrop" in said
    assert "team/app:keep" not in said
    assert "1 tags and 0 manifests would be dropped" in said
    assert "Nothing is dropped yet" in said
    assert "moorage retention enable 'team/*'" in said
    assert json.loads(say("retention", "status", "--json"))["due_at"] is None
    say("retention", "enable", "team/*")
    changed = say("retention", "set", "team/*", "--drop-tag", "*")
    assert "so nothing is dropped in team/* until" in changed
    assert "drops after" in say("retention", "list")
    assert "have changed" in say("retention", "run", expect=1)
    assert "no longer drop anything" in say("retention", "disable", "team/*")
    assert "are enabled" in say("retention", "set", "team/*", "--drop-tag", "v*", "--now")
    assert say("retention", "run") == "Dropped 1 tags and 0 manifests.\n"
    [run] = json.loads(say("retention", "runs", "--json"))["runs"]
    listed = say("retention", "runs").splitlines()
    assert listed[0].split() == ["RUN", "BEGAN", "ENDED", "TAGS", "MANIFESTS"]
    assert "team/app:v1" in say("retention", "runs", str(run["id"]))
    refused = say("retention", "restore", str(run["id"]), expect=1)
    assert "first run moorage retention disable 'team/*'" in refused
    say("retention", "disable", "team/*")
    assert say("retention", "restore", str(run["id"])) == "Restored 1 tags and 0 manifests.\n"
    assert on_data(tmp_path, list_tags) == ["keep", "v1"]


def test_what_cannot_be_set(say: Say) -> None:
    say("user", "add", "root", "--admin", "--no-password")
    for options, complaint in {
        (): "no rules given",
        ("--by", "pull", "--drop-tag", "x"): "`by` requires `keep_newest`",
        ("--drop-tag", "a b"): "invalid tag pattern",
        ("--keep-newest", "0"): ">= 1",
        ("--drop-untagged", "7"): "is not a duration",
    }.items():
        assert complaint in say("retention", "set", "team/*", *options, expect=1)
    assert "invalid pattern" in say("retention", "set", "Team", "--drop-tag", "x", expect=1)
    assert "no retention rules" in say("retention", "remove", "team/*", expect=1)
    with pytest.raises(SystemExit):
        main(["retention", "set", "team/*", "--keep-newest", "many"])
