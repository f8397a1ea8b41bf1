"""Commands for repositories, tags and usage, on a data directory and with `--url`."""

from pathlib import Path

import httpx
import pytest

from tests.cli.moorage import LONG, PASSWORD, Moorage, at
from tests.support.kit import Kit
from tests.support.servers.server import Server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
async def images(server: Server) -> None:
    """Push three images to the server of the data directory."""
    async with httpx.AsyncClient(base_url=server.url, auth=("root", PASSWORD), timeout=30) as http:
        kit = Kit(http)
        await kit.push_image("team/app", "v1", "one")
        await kit.push_image("team/app", "v2", "two")
        await kit.push_image("other", "latest", "three")


@pytest.fixture
def there(data: Path, server: Server, images: None) -> Moorage:
    """Return a runner of commands through the API of the server."""
    del images
    where = ["--url", server.url, "--user", "root"]
    return Moorage(data.parent, where, {"MOORAGE_PASSWORD": PASSWORD})


async def test_commands_print_the_same_here_and_there(data: Path, there: Moorage) -> None:
    here = at(data)
    for command in (
        ("repo", "list"),
        ("repo", "show", "team/app"),
        ("tag", "list", "team/app"),
        ("tag", "copy", "team/app:v1", "team/app:v1"),
        ("usage", "--top", "2"),
        ("usage", "--if-deleted", "team/app:v1", "other:latest"),
    ):
        assert here.json(*command) == there.json(*command)
        assert here.run(*command).stdout == there.run(*command).stdout


async def test_content_is_changed_from_afar(there: Moorage) -> None:
    copied = there.json("tag", "copy", "team/app:v1", "prod/app:v1")
    assert copied.keys() == {"repository", "tag", "digest"}
    assert (copied["repository"], copied["tag"]) == ("prod/app", "v1")
    there.run("tag", "copy", f"team/app@{copied['digest']}", "prod/app:stable")
    listed = there.json("tag", "list", "prod/app")
    assert listed == {"repository": "prod/app", "tags": ["stable", "v1"]}
    assert there.json("tag", "history", "prod/app:v1")["history"][0]["actor"] == "root"
    deleted = there.json("tag", "delete", "prod/app:stable")
    assert deleted == {**copied, "tag": "stable"}
    said = there.run("tag", "delete", "prod/app:v1")
    assert said.stdout == "Deleted prod/app:v1. Its manifest and bytes stay.\n"
    assert f"moorage image delete prod/app@{copied['digest']}" in said.stderr
    gone = there.json("repo", "delete", "prod/app")
    assert gone.pop("bytes") > 0
    assert gone == {"repository": "prod/app", "tags": 0, "manifests": 1, "blobs": 3}
    assert there.run("repo", "list").stdout == "other\nteam/app\n"
    assert "no repository prod/app" in there.fails("repo", "delete", "prod/app")
    assert "no tag v9 in team/app" in there.fails("tag", "delete", "team/app:v9")
    assert "--top" in there.fails("usage", "--top", "0")


async def test_immutable_tags_from_afar(there: Moorage) -> None:
    there.run("immutable", "add", "team/app", "v*")
    for command in (
        ("tag", "copy", "team/app:v2", "team/app:v1"),
        ("tag", "delete", "team/app:v1"),
        ("repo", "delete", "team/app"),
    ):
        assert "protected" in there.fails(*command)
        there.run(*command, "--override")


async def test_a_caller_sees_what_the_caller_may_see(data: Path, there: Moorage) -> None:
    at(data).run("user", "add", "alice", "--password-stdin", typed=LONG + "\n")
    where = [*there.where[:-1], "alice"]
    alice = Moorage(data.parent, where, {"MOORAGE_PASSWORD": LONG})
    nothing = alice.run("repo", "list")
    assert nothing.stdout == ""
    assert "an admin of the registry may see more" in nothing.stderr
    at(data).run("grant", "add", "alice", "team/**", "pull")
    assert alice.run("repo", "list").stdout == "team/app\n"
    assert alice.json("tag", "list", "team/app")["tags"] == ["v1", "v2"]
    assert "requires pull on other" in alice.fails("tag", "list", "other")
    assert "requires delete on team/app" in alice.fails("tag", "delete", "team/app:v1")
    assert "requires admin on team/app" in alice.fails("repo", "delete", "team/app")
    assert "requires pull on team/app and push on new" in alice.fails(
        "tag", "copy", "team/app:v1", "new:v1"
    )
    assert "requires an admin account" in alice.fails("usage")
