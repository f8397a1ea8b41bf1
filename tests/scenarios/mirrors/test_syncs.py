"""Syncs from real registries: what is copied, what is left alone, and what a kill leaves."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.moorage import Moorage, at
from tests.scenarios.mirrors.sources import Image, Source, make_index, make_signature
from tests.support.servers.debian_registry import debian_registry
from tests.support.servers.server import Server, serving

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["docker-registry", "moorage"], scope="module")
def upstream(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Source]:
    folder = tmp_path_factory.mktemp("source")
    if request.param == "docker-registry":
        with debian_registry(folder) as registry, Source(registry.url) as source:
            yield source
    else:
        settings = {"MOORAGE_JOBS__IN_SERVE": "false"}
        started = Server(folder / "data", settings=settings)
        with serving(started), Source(started.url) as source:
            yield source


@pytest.fixture
def moorage(tmp_path: Path, upstream: Source) -> Moorage:
    """Return a registry with the mirror `hub` of the upstream."""
    (tmp_path / "data").mkdir()
    runner = at(tmp_path / "data")
    runner.run("mirror", "add", "hub", "--upstream", upstream.url, "--allow-private")
    return runner


@pytest.fixture
def name() -> str:
    """Return the name of a repository of this test."""
    return f"sync-{uuid.uuid4().hex[:8]}"


def expect(action: str, name: str, *tags: str) -> list[str]:
    return sorted(f"{action} hub/{name}:{tag}" for tag in tags)


def show(changes: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{each['action']} {each['repository']}:{each['tag']}" for each in changes)


def test_only_what_is_missing_is_copied(moorage: Moorage, upstream: Source, name: str) -> None:
    first, second = Image(f"{name} 1", 50_000), Image(f"{name} 2", 60_000)
    upstream.push(name, "1.0", first)
    upstream.push(name, "2.0", second)
    upstream.put(name, "latest", second.raw)
    sync = ("mirror", "sync", "hub", "--repo", name)

    plan = moorage.json(*sync, "--dry-run")
    expected = expect("add", name, "1.0", "2.0", "latest")
    assert (plan["state"], show(plan["changes"])) == ("succeeded", expected)
    size = sum(len(each.config) + len(each.layer) for each in (first, second))
    assert plan["progress"]["bytes"] == size
    assert "hub/" not in moorage.run("repo", "list").stdout

    done = moorage.json(*sync)
    progress = done["progress"]
    assert (done["state"], progress["done"], progress["blobs"]) == ("succeeded", 3, 4)
    assert (progress["copied_bytes"], progress["failed"]) == (size, 0)

    again = moorage.json(*sync)["progress"]
    assert (again["unchanged"], again["planned"], again["copied_bytes"]) == (3, 0, 0)

    upstream.put(name, "latest", first.raw)
    moved = moorage.json(*sync)
    assert show(moved["changes"]) == [f"move hub/{name}:latest"]
    assert moved["progress"]["copied_bytes"] == 0
    with serving(Server(moorage.folder / "data")) as server, Source(server.url) as mirror:
        assert mirror.get(f"hub/{name}", "latest") == first.raw


def test_tags_are_selected_by_ranges_of_versions(
    moorage: Moorage, upstream: Source, name: str
) -> None:
    for tag in ("1.1.0", "1.2.0", "2.0.0", "2.1.0-rc.1", "latest"):
        upstream.push(name, tag, Image(f"{name} {tag}"))
    sync = ("mirror", "sync", "hub", "--repo", name, "--dry-run", "--tags")
    assert show(moorage.json(*sync, "newest:2")["changes"]) == expect("add", name, "1.2.0", "2.0.0")
    some = moorage.json(*sync, "^1", "lat*")
    assert show(some["changes"]) == expect("add", name, "1.1.0", "1.2.0", "latest")
    assert "is not a range" in moorage.fails(*sync, ">=latest")


def test_all_repositories_of_the_catalog_are_copied(
    moorage: Moorage, upstream: Source, name: str
) -> None:
    for each in (f"{name}/a", f"{name}/b/c"):
        upstream.push(each, "1.0", Image(each))
    pattern = ("mirror", "sync", "hub", "--repo", f"{name}/**")
    moorage.run("mirror", "set", "hub", "--deny", f"{name}/b/**")
    done = moorage.json(*pattern)
    assert show(done["changes"]) == expect("add", f"{name}/a", "1.0")
    assert [f"{name}/b/c" in each for each in done["notes"]] == [True]


def test_only_chosen_platforms_are_copied(moorage: Moorage, upstream: Source, name: str) -> None:
    images = {each: Image(f"{name} {each}") for each in ("linux/amd64", "linux/arm64")}
    for image in images.values():
        upstream.push(name, image.digest, image)
    raw = make_index(images)
    upstream.put(name, "1.0", raw)
    sync = ("mirror", "sync", "hub", "--repo", name)
    assert moorage.json(*sync, "--platform", "linux/arm64")["progress"]["blobs"] == 2
    # The other one is completed by a sync of all platforms.
    again = moorage.json(*sync)
    assert show(again["changes"]) == expect("complete", name, "1.0")
    assert again["progress"]["blobs"] == 2
    assert moorage.json(*sync)["progress"]["unchanged"] == 1
    with serving(Server(moorage.folder / "data")) as server, Source(server.url) as mirror:
        assert mirror.get(f"hub/{name}", "1.0") == raw


def test_referrers_are_copied_on_request(moorage: Moorage, upstream: Source, name: str) -> None:
    image = Image(f"{name} signed")
    upstream.push(name, "1.0", image)
    signature = make_signature(image.raw)
    upstream.push(name, signature.digest, signature)
    old = image.digest.replace(":", "-")
    upstream.put(name, old, make_index({"linux/amd64": signature}))
    upstream.push(name, f"{old}.sig", Image("cosign"))
    sync = ("mirror", "sync", "hub", "--repo", name)
    assert show(moorage.json(*sync)["changes"]) == expect("add", name, "1.0")
    done = moorage.json(*sync, "--referrers")
    assert f"add hub/{name}:{old}.sig" in show(done["changes"])
    assert done["progress"]["failed"] == 0
    with serving(Server(moorage.folder / "data")) as server, Source(server.url) as mirror:
        assert mirror.get(f"hub/{name}", signature.digest) == signature.raw
        found = mirror.http.get(f"{server.url}/v2/hub/{name}/referrers/{image.digest}").json()
        assert signature.digest in [each["digest"] for each in found["manifests"]]


def test_only_tags_that_a_sync_has_set_are_pruned(
    moorage: Moorage, upstream: Source, name: str
) -> None:
    kept = Image(f"{name} kept")
    upstream.push(name, "kept", kept)
    for tag in ("gone", "immutable-1", "held"):
        upstream.push(name, tag, Image(f"{name} {tag}"))
    sync = ("mirror", "sync", "hub", "--repo", name)
    moorage.run(*sync)
    moorage.run("tag", "copy", f"hub/{name}:kept", f"hub/{name}:local")
    moorage.run("immutable", "add", f"hub/{name}", "immutable-*")
    held = Image(f"{name} held").digest
    moorage.run("hold", "add", f"hub/{name}@{held}", "--reason", "evidence")
    for tag in ("gone", "immutable-1", "held"):
        upstream.delete(name, Image(f"{name} {tag}").digest)
    assert moorage.json(*sync)["changes"] == []
    assert "confirm with --yes" in moorage.fails(*sync, "--prune")
    removals = expect("remove", name, "gone", "held", "immutable-1")
    assert show(moorage.json(*sync, "--prune", "--dry-run")["changes"]) == removals
    tags = ["gone", "held", "immutable-1", "kept", "local"]
    assert sorted(moorage.run("tag", "list", f"hub/{name}").stdout.split()) == tags
    done = json.loads(moorage.run(*sync, "--prune", "--yes", "--json", expect=1).stdout)
    assert show(done["changes"]) == removals
    assert (done["state"], done["progress"]["removed"], done["progress"]["failed"]) == (
        "failed",
        1,
        2,
    )
    problems = {each["tag"]: each["problem"] for each in done["changes"]}
    assert "evidence" in problems["held"]
    assert "immutable" in problems["immutable-1"]
    tags.remove("gone")
    assert sorted(moorage.run("tag", "list", f"hub/{name}").stdout.split()) == tags
    upstream.delete(name, kept.digest)
    # An empty list may be an accident.
    assert moorage.json(*sync, "--prune", "--yes")["changes"] == []
    assert sorted(moorage.run("tag", "list", f"hub/{name}").stdout.split()) == tags


def test_new_digests_are_held_back_during_a_cooldown(
    moorage: Moorage, upstream: Source, name: str
) -> None:
    first, second = Image(f"{name} first"), Image(f"{name} second")
    upstream.push(name, "1.0", first)
    sync = ("mirror", "sync", "hub", "--repo", name)
    moorage.run("mirror", "set", "hub", "--cooldown", "3d")
    held = moorage.json(*sync)
    assert (held["state"], held["changes"]) == ("succeeded", [])
    assert "is held back until" in held["notes"][0]
    moorage.run("mirror", "set", "hub", "--serve-new-tags")
    assert show(moorage.json(*sync)["changes"]) == expect("add", name, "1.0")
    upstream.push(name, "1.0", second)
    again = moorage.json(*sync)
    assert (again["changes"], again["progress"]["unchanged"]) == ([], 1)
    moorage.run("mirror", "set", "hub", "--cooldown", "0s", "--no-serve-new-tags")
    assert show(moorage.json(*sync)["changes"]) == expect("move", name, "1.0")


def test_an_upstream_that_fails_is_reported(moorage: Moorage, name: str) -> None:
    done = json.loads(
        moorage.run("mirror", "sync", "hub", "--repo", name, "--json", expect=1).stdout
    )
    assert (done["state"], done["progress"]["failed"]) == ("failed", 1)
    assert name in done["notes"][0]
