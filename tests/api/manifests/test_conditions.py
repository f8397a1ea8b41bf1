"""Endpoints 7a and 7b: conditional pushes, and pushes of several tags."""

import asyncio

import httpx
import pytest

from registry.oci.media_types import (
    OCI_MANIFEST,
)
from storage.digest import Digest
from tests.api.conftest import Api
from tests.api.manifests.helpers import (
    DIGEST,
    EMPTY,
    NO_TAGS,
    RAW,
    require_stored,
    url,
)
from tests.support.kit import (
    codes,
    image_manifest,
    index_manifest,
)

pytestmark = pytest.mark.anyio


# 7a: conditional pushes


async def test_7a_if_match_moves_the_tag_only_from_where_it_is(ready: Api) -> None:
    other = image_manifest(EMPTY, [], annotations={"n": "1"})
    await ready.put_manifest("team/app", "t", RAW)
    for etag in (f'"{Digest.of(other)}"', f'W/"{DIGEST}"', str(DIGEST), "", '"x", "y"'):
        answer = await ready.put_manifest("team/app", "t", other, headers={"If-Match": etag})
        assert (answer.status_code, codes(answer)) == (412, ["DENIED"]), etag
        assert answer.json()["errors"][0]["detail"] == {"digest": str(DIGEST)}
    assert (await ready.http.get(url("t"))).content == RAW
    assert (await ready.http.get(url(Digest.of(other)))).status_code == 404
    for etag, raw in (
        (f'"{DIGEST}"', other),
        (f'"x", "{Digest.of(other)}"', RAW),
        ("*", other),
    ):
        answer = await ready.put_manifest("team/app", "t", raw, headers={"If-Match": etag})
        assert answer.status_code == 201, etag
        assert (await ready.http.get(url("t"))).content == raw


async def test_7a_if_match_needs_a_tag(ready: Api) -> None:
    for etag in ("*", f'"{DIGEST}"'):
        answer = await ready.put_manifest("team/app", "t", RAW, headers={"If-Match": etag})
        assert (answer.status_code, codes(answer)) == (412, ["DENIED"])
        assert (await ready.http.get(url("t"))).status_code == 404


async def test_7a_if_none_match_sets_only_a_new_tag(ready: Api) -> None:
    new = {"If-None-Match": "*"}
    assert (await ready.put_manifest("team/app", "t", RAW, headers=new)).status_code == 201
    for raw in (RAW, index_manifest([])):
        answer = await ready.put_manifest("team/app", "t", raw, headers=new)
        assert (answer.status_code, codes(answer)) == (412, ["DENIED"])
    assert (await ready.http.get(url("t"))).content == RAW
    await ready.http.delete(url("t"))
    assert (await ready.put_manifest("team/app", "t", RAW, headers=new)).status_code == 201


async def test_7a_if_none_match_refuses_the_tag_at_a_named_digest(ready: Api) -> None:
    await ready.put_manifest("team/app", "t", RAW)
    other = index_manifest([])
    for etag, status in ((f'W/"{DIGEST}"', 412), (f'"x", "{DIGEST}"', 412), ('"x"', 201)):
        answer = await ready.put_manifest("team/app", "t", other, headers={"If-None-Match": etag})
        assert answer.status_code == status, etag


async def test_7a_of_many_creators_of_a_tag_one_succeeds(ready: Api) -> None:
    raws = [image_manifest(EMPTY, [], annotations={"n": str(n)}) for n in range(16)]
    new = {"If-None-Match": "*"}
    answers = await asyncio.gather(
        *(ready.put_manifest("team/app", "t", raw, headers=new) for raw in raws)
    )
    assert sorted(answer.status_code for answer in answers) == [201] + 15 * [412]
    [won] = [n for n, answer in enumerate(answers) if answer.status_code == 201]
    assert (await ready.http.get(url("t"))).content == raws[won]


async def test_7a_of_many_movers_of_a_tag_one_succeeds(ready: Api) -> None:
    await ready.put_manifest("team/app", "t", RAW)
    raws = [image_manifest(EMPTY, [], annotations={"n": str(n)}) for n in range(16)]
    same = {"If-Match": f'"{DIGEST}"'}
    answers = await asyncio.gather(
        *(ready.put_manifest("team/app", "t", raw, headers=same) for raw in raws)
    )
    assert sorted(answer.status_code for answer in answers) == [201] + 15 * [412]


async def test_7a_creators_of_a_repository_do_not_meet(api: Api) -> None:
    raws = [index_manifest([], annotations={"n": str(n)}) for n in range(16)]
    new = {"If-None-Match": "*"}
    answers = await asyncio.gather(
        *(api.put_manifest("new", "t", raw, headers=new) for raw in raws)
    )
    assert sorted(answer.status_code for answer in answers) == [201] + 15 * [412]


# 7b: several tags


async def test_7b_sets_all_tags_and_lists_them(ready: Api) -> None:
    answer = await ready.put_manifest("team/app", f"{DIGEST}?tag=b&tag=a&tag=1.2.3&tag=b", RAW)
    assert answer.status_code == 201
    assert answer.headers["Docker-Content-Digest"] == str(DIGEST)
    assert answer.headers.get_list("OCI-Tag") == ["b, a, 1.2.3"]
    assert (await ready.http.get("/v2/team/app/tags/list")).json()["tags"] == ["1.2.3", "a", "b"]
    for tag in ("a", "b", "1.2.3"):
        await require_stored(ready, RAW, OCI_MANIFEST, tag)


async def test_7b_sets_all_or_none(ready: Api) -> None:
    await ready.put_manifest("team/app", "old", index_manifest([]))
    for wrong in (*NO_TAGS, "", "a\0b", "\ud800", "ä"):
        bad = httpx.QueryParams({"tag": wrong.encode("utf-8", "surrogatepass")})
        answer = await ready.put_manifest("team/app", f"{DIGEST}?tag=a&tag=old&{bad}&tag=c", RAW)
        assert (answer.status_code, codes(answer)) == (400, ["NAME_INVALID"]), wrong
    assert (await ready.http.get(url(DIGEST))).status_code == 404
    assert (await ready.http.get("/v2/team/app/tags/list")).json()["tags"] == ["old"]
    assert (await ready.http.get(url("old"))).content == index_manifest([])


async def test_7b_takes_100_tags_and_no_more(ready: Api) -> None:
    tags = [f"t{n:03}" for n in range(101)]
    answer = await ready.put_manifest("team/app", str(DIGEST), RAW, params={"tag": tags})
    assert (answer.status_code, codes(answer)) == (414, ["UNSUPPORTED"])
    assert (await ready.http.get(url(DIGEST))).status_code == 404
    answer = await ready.put_manifest("team/app", str(DIGEST), RAW, params={"tag": tags[:100]})
    assert answer.status_code == 201
    assert answer.headers["OCI-Tag"].split(", ") == tags[:100]
    assert len(answer.headers.get_list("OCI-Tag")) == 8  # clients accept 100 header fields in all
    assert (await ready.http.get("/v2/team/app/tags/list")).json()["tags"] == tags[:100]


async def test_7b_goes_with_a_digest_in_the_path(ready: Api) -> None:
    for query in ("tag=a", "tag=", "tag=t"):
        answer = await ready.put_manifest("team/app", f"t?{query}", RAW)
        assert (answer.status_code, codes(answer)) == (400, ["UNSUPPORTED"])
    assert (await ready.http.get(url("t"))).status_code == 404


async def test_7b_a_condition_holds_for_each_tag(ready: Api) -> None:
    await ready.put_manifest("team/app", "old", index_manifest([]))
    new = {"If-None-Match": "*"}
    answer = await ready.put_manifest("team/app", f"{DIGEST}?tag=a&tag=old", RAW, headers=new)
    assert answer.status_code == 412
    assert (await ready.http.get(url("a"))).status_code == 404
    assert (await ready.http.get(url(DIGEST))).status_code == 404
