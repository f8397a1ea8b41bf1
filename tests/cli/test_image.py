"""Commands that delete images and tags, and what they print about freed space."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import logs
from registry.app import open_runtime
from registry.cli.main import main
from registry.config import load
from tests.metadata.rows import digest_of, image
from tests.services.retention.histories import push

Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Return a function that runs a command on two images and returns its output."""
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)

    def run(*arguments: str, expect: int = 0) -> str:
        assert main([*arguments, "--data", str(tmp_path / "data")]) == expect
        printed = capsys.readouterr()
        return printed.out + printed.err

    async def fill() -> None:
        settings = load(config=None, data=tmp_path / "data", overrides={}, environ={})
        async with open_runtime(settings) as opened:
            await push(opened.database, image("1"), "v1")
            await push(opened.database, image("2"), "v2", "latest")

    run("user", "add", "root", "--admin", "--no-password")
    asyncio.run(fill())
    return run


def test_an_image_is_deleted_and_its_bytes_are_announced(say: Say) -> None:
    planned = say("image", "delete", "team/app:v1", "--dry-run")
    digest = digest_of(image("1"))
    assert planned.startswith(f"Would delete team/app@{digest} (tags: v1).\n")
    assert "are freed after 20" in planned
    done = say("image", "delete", "team/app:v1")
    assert done.startswith(f"Deleted team/app@{digest} (tags: v1).\n")
    assert done.splitlines()[1].startswith(planned.splitlines()[1][:8])
    assert "moorage tag restore team/app:v1" in done
    left = say("gc", "run")
    assert "Collected 0 manifests" in left
    assert "are in their grace period (gc.grace_period); the next is due at 20" in left
    assert "the image has other tags: latest" in say("image", "delete", "team/app:v2", expect=1)
    found = json.loads(say("image", "delete", "team/app:v2", "--all-tags", "--json"))
    assert found["tags"] == ["latest", "v2"]


def test_a_tag_is_deleted_and_the_image_stays(say: Say) -> None:
    digest = digest_of(image("1"))
    assert say("tag", "delete", "team/app:v1").splitlines() == [
        "Deleted team/app:v1. Its manifest and bytes stay.",
        f"To delete the image as well: moorage image delete team/app@{digest}",
    ]
    for name in ("v1", "v9"):
        said = say("tag", "delete", f"team/app:{name}", expect=1)
        assert f"no tag {name} in team/app; moorage tag list team/app lists" in said
    assert "no repository team/none" in say("tag", "delete", "team/none:v1", expect=1)
    say("image", "delete", f"team/app@{digest}")
