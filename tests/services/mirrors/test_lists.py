"""Lists of upstreams: how they are kept, shared and merged with what is cached."""

import asyncio
import json
import time
from pathlib import Path

import httpx
import pytest

from registry.app import Runtime
from registry.auth.audit_log import Actor
from registry.errors import UpstreamUnavailableError, UpstreamUnknownError
from registry.oci.descriptors import Descriptor
from registry.oci.names import RepositoryName
from registry.oci.referrers import IndexBuilder, fallback_tag
from registry.services.mirrors.lists import upstream_lists
from registry.services.mirrors.lists.lists import _merge
from registry.services.mirrors.lists.upstream_lists import UpstreamLists
from registry.services.mirrors.mirror import Mirror, Mirrored
from registry.services.mirrors.options import MirrorOptions
from storage.digest import Digest
from tests.services.mirrors.conftest import on_disk
from tests.support.kit import Kit, image_manifest, index_manifest
from tests.support.servers.debian_registry import debian_registry

pytestmark = pytest.mark.anyio

REMOTE = RepositoryName.parse("library/alpine")


def make_mirror(url: str = "http://127.0.0.1:1", version: int = 0, ttl: str = "1h") -> Mirror:
    options = MirrorOptions(allow_private=True, tag_ttl=ttl)
    return Mirror("hub", RepositoryName("hub"), url, options, version=version)


class Source:
    """An upstream's list. `error` is raised instead."""

    def __init__(self, *items: str) -> None:
        self.items = list(items)
        self.error: Exception | None = None
        self.asked = 0

    async def __call__(self) -> list[str]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.items


async def test_callers_share_a_request_and_its_result() -> None:
    lists, source, mirror = UpstreamLists[str](), Source("1"), make_mirror()
    found = await asyncio.gather(*(lists.get(mirror, "a", source) for _ in range(50)))
    assert [each.items for each in found] == [["1"]] * 50
    await lists.get(mirror, "a", source)
    assert source.asked == 1
    await lists.get(make_mirror(version=1), "a", source)  # its options have changed
    assert source.asked == 2


async def test_a_failure_is_not_kept_but_an_unknown_repository_is() -> None:
    lists, source, mirror = UpstreamLists[str](), Source(), make_mirror()
    source.error = UpstreamUnavailableError("down")
    for asked in (1, 2):
        assert (await lists.get(mirror, "a", source)).problem is source.error
        assert source.asked == asked
    source.error = UpstreamUnknownError("unknown")
    for _ in range(2):
        found = await lists.get(mirror, "a", source)
        assert (found.items, found.problem) == (None, None)
    assert source.asked == 3


async def test_a_list_is_never_kept_for_longer_than_the_limit() -> None:
    lists, mirror = UpstreamLists[str](), make_mirror(ttl="forever")
    found = await lists.get(mirror, "a", Source("1"))
    assert found.deadline <= time.monotonic() + upstream_lists.LONGEST_S


async def test_the_memory_of_lists_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_lists, "MOST_ENTRIES", 10)
    lists, mirror = UpstreamLists[str](), make_mirror()
    for key in "abc":
        await lists.get(mirror, key, Source("1", "2", "3"))
    assert len(lists._known) == 2
    large = Source(*map(str, range(20)))
    for _ in range(2):
        await lists.get(mirror, "d", large)
    assert (large.asked, len(lists._known), lists._entries) == (2, 0, 0)


async def test_a_caller_that_leaves_does_not_end_the_request() -> None:
    lists, source, mirror = UpstreamLists[str](), Source("1"), make_mirror()
    first = asyncio.create_task(lists.get(mirror, "a", source))
    await asyncio.sleep(0)
    first.cancel()
    assert (await lists.get(mirror, "a", source)).items == ["1"]
    assert source.asked == 1


def describe(number: int, text: str = "") -> Descriptor:
    digest = Digest("sha256", f"{number:064x}")
    return Descriptor("application/json", digest, 1, None, {"text": text} if text else None)


def build(*entries: Descriptor) -> bytes:
    index = IndexBuilder(1 << 20)
    for each in entries:
        index.add(each)
    return index.build()


def read_numbers(raw: bytes) -> list[int]:
    return [int(each["digest"].partition(":")[2], 16) for each in json.loads(raw)["manifests"]]


def test_pages_of_referrers_are_merged_in_order() -> None:
    upstream = [describe(number) for number in (7, 1, 5)]
    raw, end = _merge(upstream, build(describe(2), describe(5, "cached")), "", None)
    assert (read_numbers(raw), end) == ([1, 2, 5, 7], None)
    assert "cached" in raw.decode()
    last = str(describe(5).digest)
    raw, end = _merge(upstream, build(describe(2), describe(5)), "", last)
    assert (read_numbers(raw), end) == ([1, 2, 5], last)
    raw, end = _merge(upstream, build(describe(9)), last, None)
    assert (read_numbers(raw), end) == ([7, 9], None)


def test_a_page_of_referrers_is_limited_in_size() -> None:
    many = [describe(number, "x" * 100_000) for number in range(1, 60)]
    seen: list[int] = []
    last: str | None = ""
    while last is not None:
        raw, last = _merge(many, build(), last, None)
        assert len(raw) < 4 << 20
        seen += read_numbers(raw)
    assert seen == list(range(1, 60))


@on_disk
async def test_lists_of_an_upstream_without_referrers(opened: Runtime, tmp_path: Path) -> None:
    """Distribution 2.8 has no referrers, so clients keep them in an index under a fallback tag."""
    (tmp_path / "upstream").mkdir()
    with debian_registry(tmp_path / "upstream") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            kit, config = Kit(http), b"{}"
            image, signature = image_manifest(config, []), image_manifest(config, [], note="signed")
            started = await http.post(f"/v2/{REMOTE}/blobs/uploads/")
            where = httpx.URL(started.headers["location"]).copy_add_param(
                "digest", str(Digest.of(config))
            )
            assert (await http.put(where, content=config)).status_code == 201
            subject = Digest.of(image)
            index = index_manifest([signature])
            await kit.put_manifest(str(REMOTE), "1.0", image)
            await kit.put_manifest(str(REMOTE), str(Digest.of(signature)), signature)
            await kit.put_manifest(str(REMOTE), str(fallback_tag(subject)), index)
        mirror = await opened.registry.mirrors.add(make_mirror(server.url), Actor("test"))
        at = Mirrored(mirror, mirror.find_local(REMOTE), REMOTE)
        lists = opened.registry.mirrored_lists
        tags = await lists.list_tags(at, 10, "")
        assert (tags.names, tags.problem) == (["1.0", str(fallback_tag(subject))], "")
        page = await lists.list_referrers(at, subject, None, "", time.monotonic())
        listed = json.loads(page.raw)["manifests"]
        assert [each["digest"] for each in listed] == [str(Digest.of(signature))]
        found = await opened.registry.mirrored_manifests.get(
            at, fallback_tag(subject), time.monotonic()
        )
        assert found.raw == index
