"""Endpoint 9: delete tags and manifests."""

import asyncio
import json

import pytest

from registry.oci.referrers import fallback_tag
from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.api.deletes.helpers import (
    CONFIG,
    DIGEST,
    NAME,
    RAW,
    SQLITE,
    delete,
    list_tags,
    referrer_of,
    url,
)
from tests.support.kit import codes, index_manifest

pytestmark = pytest.mark.anyio


async def test_9_by_tag_removes_the_tag_alone_and_at_once(ready: Api) -> None:
    answer = await delete(ready, "a")
    assert (answer.status_code, answer.content) == (202, b"")
    for method in ("GET", "HEAD", "DELETE"):
        assert (await ready.http.request(method, url("a"))).status_code == 404
    assert await list_tags(ready) == ["b"]
    for reference in ("b", DIGEST):
        assert (await ready.http.get(url(reference))).content == RAW


async def test_9_by_digest_removes_the_manifest_with_all_its_tags(ready: Api) -> None:
    other = index_manifest([])
    await ready.put_manifest(NAME, "kept", other)
    assert (await delete(ready, DIGEST)).status_code == 202
    for reference in ("a", "b", DIGEST):
        answer = await ready.http.get(url(reference))
        assert (answer.status_code, codes(answer)) == (404, ["MANIFEST_UNKNOWN"])
    assert await list_tags(ready) == ["kept"]
    answer = await delete(ready, DIGEST)
    assert (answer.status_code, codes(answer)) == (404, ["MANIFEST_UNKNOWN"])
    assert (await ready.http.get(url("kept"))).content == other


async def test_9_a_tag_deleted_and_pushed_again_is_there(ready: Api) -> None:
    for _ in range(3):
        assert (await delete(ready, "a")).status_code == 202
        assert (await ready.http.get(url("a"))).status_code == 404
        assert (await ready.put_manifest(NAME, "a", RAW)).status_code == 201
        assert (await ready.http.get(url("a"))).content == RAW


async def test_9_in_one_repository_leaves_the_others_alone(ready: Api) -> None:
    await ready.push_blob("other", CONFIG)
    await ready.put_manifest("other", "a", RAW)
    assert (await delete(ready, DIGEST)).status_code == 202
    assert (await ready.http.get(url("a", "other"))).content == RAW


async def test_9_the_last_content_takes_the_repository_with_it(ready: Api) -> None:
    await delete(ready, DIGEST)
    assert await list_tags(ready) == []  # the repository still has the config
    blob = f"/v2/{NAME}/blobs/{Digest.of(CONFIG)}"
    assert (await ready.http.delete(blob)).status_code == 202
    answer = await ready.http.get(f"/v2/{NAME}/tags/list")
    assert (answer.status_code, codes(answer)) == (404, ["NAME_UNKNOWN"])
    assert (await ready.http.get("/v2/_catalog")).json() == {"repositories": []}


async def test_9_the_blobs_of_a_deleted_manifest_are_free(ready: Api) -> None:
    blob = f"/v2/{NAME}/blobs/{Digest.of(CONFIG)}"
    await delete(ready, "a")
    await delete(ready, "b")
    assert (await ready.http.delete(blob)).status_code == 405
    await delete(ready, DIGEST)
    assert (await ready.http.get(blob)).status_code == 200
    assert (await ready.http.delete(blob)).status_code == 202


async def test_9_what_is_not_there_is_404(ready: Api) -> None:
    for reference in ("absent", Digest.of(b""), ".no-tag", "a" * 129):
        for name in (NAME, "nowhere"):
            answer = await delete(ready, reference, name)
            assert (answer.status_code, codes(answer)) == (404, ["MANIFEST_UNKNOWN"])


async def test_9_by_sha512_digest(ready: Api) -> None:
    digest = Digest.of(RAW, "sha512")
    await ready.put_manifest(NAME, f"{digest}?tag=long", RAW)
    assert (await delete(ready, digest)).status_code == 202
    assert (await ready.http.get(url("long"))).status_code == 404
    assert (await ready.http.get(url("a"))).content == RAW


# Children of an index


async def test_9_a_child_of_an_index_stays(ready: Api) -> None:
    indexes = [index_manifest([RAW], annotations={"n": str(n)}) for n in range(2)]
    for raw in indexes:
        assert (await ready.put_manifest(NAME, "index", raw)).status_code == 201
    answer = await delete(ready, DIGEST)
    assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"])
    assert answer.headers["Allow"] == "GET, HEAD"
    named = answer.json()["errors"][0]["detail"]["indexes"]
    assert named == sorted(str(Digest.of(raw)) for raw in indexes)  # untagged ones count too
    assert await list_tags(ready) == ["a", "b", "index"]
    assert (await delete(ready, "a")).status_code == 202  # a tag can be deleted
    for raw in indexes:
        assert (await delete(ready, DIGEST)).status_code == 405
        assert (await delete(ready, Digest.of(raw))).status_code == 202
    assert (await delete(ready, DIGEST)).status_code == 202


async def test_9_an_index_may_hold_an_index(ready: Api) -> None:
    inner = index_manifest([RAW])
    outer = index_manifest([inner])
    for raw in (inner, outer):
        await ready.put_manifest(NAME, str(Digest.of(raw)), raw)
    for raw in (RAW, inner):
        assert (await delete(ready, Digest.of(raw))).status_code == 405
    for raw in (outer, inner, RAW):
        assert (await delete(ready, Digest.of(raw))).status_code == 202


async def test_9_an_index_of_another_repository_does_not_hold_a_child(ready: Api) -> None:
    await ready.push_blob("other", CONFIG)
    for raw in (RAW, index_manifest([RAW])):
        await ready.put_manifest("other", "t", raw)
    assert (await delete(ready, DIGEST)).status_code == 202
    assert (await delete(ready, DIGEST, "other")).status_code == 405


async def test_9_a_subject_can_go_and_its_referrers_stay(ready: Api) -> None:
    referrer = index_manifest([], subject=json.loads(index_manifest([RAW]))["manifests"][0])
    await ready.put_manifest(NAME, "referrer", referrer)
    assert (await delete(ready, DIGEST)).status_code == 202
    assert (await ready.http.get(url("referrer"))).content == referrer
    entries = (await ready.http.get(f"/v2/{NAME}/referrers/{DIGEST}")).json()["manifests"]
    assert [entry["digest"] for entry in entries] == [str(Digest.of(referrer))]
    assert (await delete(ready, Digest.of(referrer))).status_code == 202
    assert (await ready.http.get(f"/v2/{NAME}/referrers/{DIGEST}")).json()["manifests"] == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_9_a_fallback_tag_index_does_not_hold_its_entries(ready: Api, algorithm: str) -> None:
    subject = Digest.of(b"subject", algorithm)
    referrer, tag = referrer_of(subject), str(fallback_tag(subject))
    digest, index = Digest.of(referrer), index_manifest([referrer])
    await ready.put_manifest(NAME, str(digest), referrer)
    await ready.put_manifest(NAME, tag, index)
    assert (await delete(ready, digest)).status_code == 202
    assert (await ready.http.get(url(tag))).content == index
    # With another tag too, it is an ordinary index.
    await ready.put_manifest(NAME, str(digest), referrer)
    assert (await ready.put_manifest(NAME, "release", index)).status_code == 201
    assert (await delete(ready, digest)).status_code == 405
    await delete(ready, "release")
    assert (await delete(ready, digest)).status_code == 202


@SQLITE
async def test_9_the_form_of_a_tag_does_not_free_the_children_of_an_index(ready: Api) -> None:
    """`cosign copy` and oc-mirror set a tag `sha256-<hex>` for every digest that they copy."""
    subject = Digest.of(b"subject")
    referrer = referrer_of(subject)
    await ready.put_manifest(NAME, "r", referrer)
    index = index_manifest([RAW, referrer])
    for tag in (
        fallback_tag(Digest.of(index)),  # its own digest
        fallback_tag(DIGEST),  # that of a child
        fallback_tag(Digest.of(b"anything")),
    ):
        await ready.put_manifest(NAME, str(tag), index)
        for digest in (DIGEST, Digest.of(referrer)):
            answer = await delete(ready, digest)
            assert answer.status_code == 405, tag
            assert answer.json()["errors"][0]["detail"] == {"indexes": [str(Digest.of(index))]}
        assert (await delete(ready, str(tag))).status_code == 202
    # An index under a fallback tag still protects manifests that are not referrers of the subject.
    await ready.put_manifest(NAME, str(fallback_tag(subject)), index)
    assert (await delete(ready, DIGEST)).status_code == 405
    assert (await delete(ready, Digest.of(referrer))).status_code == 202


@SQLITE
async def test_9_a_tag_that_is_almost_a_fallback_tag_holds(ready: Api) -> None:
    subject = Digest.of(b"subject")
    referrer = referrer_of(subject)
    index, full = index_manifest([referrer]), str(fallback_tag(subject))
    await ready.put_manifest(NAME, "r", referrer)
    for tag in (full + ".sig", full[:-1], full.upper(), full + "a", f"sha512-{subject.hex}"):
        await ready.put_manifest(NAME, tag, index)
        assert (await delete(ready, Digest.of(referrer))).status_code == 405, tag
        assert (await delete(ready, tag)).status_code == 202


@SQLITE
async def test_9_no_number_of_loosened_indexes_holds_a_manifest(ready: Api) -> None:
    """A fallback tag has one index at a time, so only one of a hundred indexes is exempt."""
    subject = Digest.of(b"subject")
    referrer = referrer_of(subject)
    digest = Digest.of(referrer)
    await ready.put_manifest(NAME, str(digest), referrer)
    listing = index_manifest([referrer])
    await ready.put_manifest(NAME, str(fallback_tag(subject)), listing)
    releases = [index_manifest([referrer], annotations={"n": str(n)}) for n in range(101)]
    for raw in releases:
        assert (await ready.put_manifest(NAME, str(Digest.of(raw)), raw)).status_code == 201
    for raw in releases:
        answer = await delete(ready, digest)
        assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"])
        assert str(Digest.of(listing)) not in answer.json()["errors"][0]["detail"]["indexes"]
        assert (await delete(ready, Digest.of(raw))).status_code == 202
    assert (await delete(ready, digest)).status_code == 202


# Replicas


async def test_9_gone_at_once_on_every_replica(start_api: Started) -> None:
    index = index_manifest([])
    subject = json.loads(index_manifest([index]))["manifests"][0]
    referrer = index_manifest([], subject=subject)
    referrers = f"/v2/{NAME}/referrers/{Digest.of(index)}"
    async with start_api() as one, start_api() as other:
        for _ in range(3):
            for raw, tag in ((index, "a"), (referrer, "r")):
                await one.put_manifest(NAME, tag, raw)
                assert (await other.http.get(url(tag))).content == raw
            assert len((await other.http.get(referrers)).json()["manifests"]) == 1
            assert (await delete(one, "a")).status_code == 202
            assert (await other.http.get(url("a"))).status_code == 404
            assert await list_tags(other) == ["r"]
            assert (await delete(other, Digest.of(referrer))).status_code == 202
            assert (await one.http.get(url("r"))).status_code == 404
            assert (await one.http.get(referrers)).json()["manifests"] == []
            assert (await delete(other, Digest.of(index))).status_code == 202
            assert (await one.http.get(f"/v2/{NAME}/tags/list")).status_code == 404


# Conditional deletes


async def test_9_if_match_deletes_the_tag_only_where_it_is(ready: Api) -> None:
    for etag in ('"x"', f'W/"{DIGEST}"', str(DIGEST), ""):
        answer = await ready.http.delete(url("a"), headers={"If-Match": etag})
        assert (answer.status_code, codes(answer)) == (412, ["DENIED"]), etag
        assert answer.json()["errors"][0]["detail"] == {"digest": str(DIGEST)}
    assert await list_tags(ready) == ["a", "b"]
    for tag, etag in (("a", f'"{DIGEST}"'), ("b", '"x", *'), ("b", "*")):
        answer = await ready.http.delete(url(tag), headers={"If-Match": etag})
        assert answer.status_code == (412 if etag == '"x", *' else 202), etag
    # RFC 9110 section 13.2.1: a missing tag is 404 with or without a condition.
    for name in (NAME, "nowhere"):
        answer = await ready.http.delete(url("a", name), headers={"If-Match": f'"{DIGEST}"'})
        assert answer.status_code == 404


async def test_9_of_deletes_and_pushes_at_once_none_is_half_done(ready: Api) -> None:
    """The last request wins. There is never a tag without a manifest, nor a 5xx response."""
    index = index_manifest([RAW])
    calls = []
    for n in range(12):
        calls += [
            ready.put_manifest(NAME, f"t{n % 3}", RAW),
            ready.put_manifest(NAME, "index", index),
            delete(ready, DIGEST),
            delete(ready, f"t{n % 3}"),
            delete(ready, Digest.of(index)),
        ]
    answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} <= {201, 202, 400, 404, 405}
    for answer in answers:
        if answer.status_code == 400:
            assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
    for tag in await list_tags(ready):
        pulled = await ready.http.get(url(tag))
        assert pulled.status_code == 200
        for entry in pulled.json().get("manifests", []):
            assert (await ready.http.get(url(entry["digest"]))).status_code == 200
