"""Endpoint 7a: push a manifest."""

import asyncio
import json

import pytest

from registry.http import request_log
from registry.oci.manifests import MAX_MANIFEST_BYTES
from registry.oci.media_types import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
)
from storage.digest import Digest
from tests.api.conftest import Api
from tests.api.manifests.helpers import (
    DIGEST,
    EMPTY,
    IMAGE,
    NO_TAGS,
    RAW,
    SQLITE,
    put,
    require_stored,
    url,
)
from tests.support.kit import (
    codes,
    descriptor,
    image_manifest,
    index_manifest,
    media_type_of,
)

pytestmark = pytest.mark.anyio


# 7a: push


async def test_7a_says_what_was_stored(ready: Api) -> None:
    for reference in ("t", DIGEST):
        answer = await ready.put_manifest("team/app", str(reference), RAW)
        assert (answer.status_code, answer.content) == (201, b"")
        assert answer.headers["Docker-Content-Digest"] == str(DIGEST)
        assert "OCI-Subject" not in answer.headers
        assert "OCI-Tag" not in answer.headers
        pulled = await ready.http.get(answer.headers["Location"])
        assert pulled.content == RAW


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_7a_names_the_subject_which_may_be_missing(ready: Api, algorithm: str) -> None:
    subject = {**descriptor(b"later", OCI_MANIFEST), "digest": str(Digest.of(b"x", algorithm))}
    for raw in (image_manifest(EMPTY, [], subject=subject), index_manifest([], subject=subject)):
        answer = await ready.put_manifest("team/app", "t", raw)
        assert answer.status_code == 201
        assert answer.headers["OCI-Subject"] == subject["digest"]


async def test_7a_other_bytes_than_the_digest_says_are_stored_nowhere(api: Api) -> None:
    await api.push_blob("other", EMPTY)
    raw = index_manifest([])
    answer = await api.put_manifest("team/app", str(DIGEST), raw)
    assert (answer.status_code, codes(answer)) == (400, ["DIGEST_INVALID"])
    for digest in (DIGEST, Digest.of(raw)):
        assert (await api.http.get(url(digest))).status_code == 404
    assert (await api.http.get("/v2/_catalog")).json() == {"repositories": ["other"]}


async def test_7a_missing_content_is_named_piece_by_piece(api: Api) -> None:
    await api.push_blob("team/app", b"here")
    await api.push_blob("other", b"elsewhere")
    absent = [b"config", b"elsewhere", b"absent"]
    raw = image_manifest(absent[0], [b"here", *absent[1:], absent[2]])
    answer = await api.put_manifest("team/app", "t", raw)
    assert (answer.status_code, codes(answer)) == (400, 3 * ["MANIFEST_BLOB_UNKNOWN"])
    named = {entry["detail"]["digest"] for entry in answer.json()["errors"]}
    assert named == {str(Digest.of(data)) for data in absent}
    assert (await api.http.get(url("t"))).status_code == 404

    answer = await api.put_manifest("team/app", "t", index_manifest([b"here", *absent]))
    assert codes(answer) == 3 * ["MANIFEST_BLOB_UNKNOWN"]
    assert (await api.http.get("/v2/team/app/tags/list")).json()["tags"] == []


@SQLITE
async def test_7a_of_much_that_is_missing_some_is_listed_and_the_writer_is_free(
    ready: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: 36,000 unknown entries held the writer for a second and gave 7 MB of errors."""
    absent = [str(number).encode() for number in range(500)]
    monkeypatch.setattr(ready.opened.database, "write", None)  # fails if anything is written
    answer = await ready.put_manifest("team/app", "t", index_manifest(absent))
    assert (answer.status_code, codes(answer)) == (400, 20 * ["MANIFEST_BLOB_UNKNOWN"])
    details = [entry["detail"] for entry in answer.json()["errors"]]
    assert {detail["count"] for detail in details} == {500}
    assert {detail["digest"] for detail in details} < {str(Digest.of(each)) for each in absent}


async def test_7a_a_large_manifest_is_looked_through_before_it_is_written(ready: Api) -> None:
    layers = [str(number).encode() for number in range(150)]
    raw = image_manifest(EMPTY, layers)
    for data in layers[:-1]:
        await ready.push_blob("team/app", data)
    answer = await ready.put_manifest("team/app", "t", raw)
    assert [entry["detail"] for entry in answer.json()["errors"]] == [
        {"digest": str(Digest.of(layers[-1]))}
    ]
    await ready.push_blob("team/app", layers[-1])
    assert (await ready.put_manifest("team/app", "t", raw)).status_code == 201


async def test_7a_a_refused_push_does_not_make_a_repository(api: Api) -> None:
    assert (await api.put_manifest("new", "t", RAW)).status_code == 400
    assert (await api.http.get("/v2/_catalog")).json() == {"repositories": []}


async def test_7a_a_child_of_another_repository_is_missing(ready: Api) -> None:
    await ready.put_manifest("team/app", "t", RAW)
    answer = await ready.put_manifest("other", "t", index_manifest([RAW]))
    assert (answer.status_code, codes(answer)) == (400, ["MANIFEST_BLOB_UNKNOWN"])


@SQLITE
async def test_7a_what_is_no_tag_or_name_is_400(ready: Api) -> None:
    names = ["Team", "a_", "a..b", "a___b", "-a", "a" * 256, "team/App", "a%40b"]
    for path in [*map(url, NO_TAGS), *(url("t", name) for name in names)]:
        answer = await ready.http.put(path, content=RAW, headers={"Content-Type": OCI_MANIFEST})
        assert (answer.status_code, codes(answer)) == (400, ["NAME_INVALID"]), path


async def test_7a_a_tag_moves_and_may_change_its_type(ready: Api) -> None:
    docker = {**IMAGE, "mediaType": DOCKER_MANIFEST}
    raws = [RAW, json.dumps(docker).encode(), index_manifest([RAW]), RAW]
    for raw in raws:
        answer = await ready.put_manifest("team/app", "t", raw)
        assert answer.status_code == 201
        await require_stored(ready, raw, media_type_of(raw))
    for raw in raws:
        await require_stored(ready, raw, media_type_of(raw), Digest.of(raw))
    assert (await ready.http.get("/v2/team/app/tags/list")).json()["tags"] == ["t"]


async def test_7a_bytes_without_a_type_of_their_own_take_the_last_announced(ready: Api) -> None:
    raw = json.dumps(IMAGE).encode()
    for media_type in (OCI_MANIFEST, DOCKER_MANIFEST):
        assert (await put(ready, raw, media_type)).status_code == 201
        await require_stored(ready, raw, media_type)


async def test_7a_a_tag_pushed_by_many_ends_at_one_of_them(ready: Api) -> None:
    raws = [image_manifest(EMPTY, [], annotations={"n": str(n)}) for n in range(10)]
    answers = await asyncio.gather(*(ready.put_manifest("team/app", "t", raw) for raw in raws))
    assert {answer.status_code for answer in answers} == {201}
    assert (await ready.http.get(url("t"))).content in raws


# 7a: size limits


def sized(size: int) -> bytes:
    """Return a manifest of exactly `size` bytes."""
    padding = size - len(image_manifest(EMPTY, [], annotations={"padding": ""}))
    return image_manifest(EMPTY, [], annotations={"padding": "x" * padding})


async def test_7a_four_mebibytes_are_accepted(ready: Api) -> None:
    raw = sized(MAX_MANIFEST_BYTES)
    assert len(raw) == 4 * 1024 * 1024
    assert (await ready.put_manifest("team/app", "t", raw)).status_code == 201
    assert (await ready.http.get(url("t"))).content == raw


@SQLITE
async def test_7a_a_byte_more_is_413(ready: Api) -> None:
    raw = sized(MAX_MANIFEST_BYTES + 1)
    answer = await ready.put_manifest("team/app", "t", raw)
    assert (answer.status_code, codes(answer)) == (413, ["SIZE_INVALID"])
    assert (await ready.http.get(url("t"))).status_code == 404


@SQLITE
async def test_7a_a_length_too_large_is_413_before_a_byte_is_read(
    ready: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "LINGER", 0.01)
    headers = {"Content-Type": OCI_MANIFEST, "Content-Length": str(MAX_MANIFEST_BYTES + 1)}
    exchange = ready.speak("PUT", url("t"), headers)
    await exchange.wanted()
    # The application reads the body only after the response, to discard the rest.
    assert (exchange.status, codes_of(exchange.body)) == (413, ["SIZE_INVALID"])
    assert exchange.headers["Connection"] == "close"
    await exchange.ended()


@SQLITE
async def test_7a_a_stream_is_413_at_the_first_piece_too_many(
    ready: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "LINGER", 0.01)
    exchange = ready.speak(
        "PUT", url("t"), {"Content-Type": OCI_MANIFEST, "Transfer-Encoding": "chunked"}
    )
    for _ in range(4):
        assert not exchange.sent
        await exchange.feed(b" " * (1 << 20))
    assert not exchange.sent
    await exchange.feed(b" ")
    assert (exchange.status, codes_of(exchange.body)) == (413, ["SIZE_INVALID"])
    await exchange.ended()


def codes_of(body: bytes) -> list[str]:
    return [entry["code"] for entry in json.loads(body)["errors"]]


async def test_7a_the_missing_layers_of_the_largest_manifest_are_counted(ready: Api) -> None:
    layers = [{"mediaType": "a", "digest": f"sha256:{n:064x}", "size": 1} for n in range(38_000)]
    raw = json.dumps({**IMAGE, "layers": layers}, separators=(",", ":")).encode()
    assert MAX_MANIFEST_BYTES * 0.95 < len(raw) <= MAX_MANIFEST_BYTES
    answer = await put(ready, raw, OCI_MANIFEST)
    assert answer.status_code == 400, answer.text[:300]
    assert codes(answer) == 20 * ["MANIFEST_BLOB_UNKNOWN"]
    assert answer.json()["errors"][0]["detail"]["count"] == len(layers)


@SQLITE
async def test_7a_one_layer_may_be_named_many_times(ready: Api) -> None:
    layers = 35_000 * [{"mediaType": "a", "digest": str(Digest.of(EMPTY)), "size": 1}]
    raw = json.dumps({**IMAGE, "layers": layers}, separators=(",", ":")).encode()
    assert (await put(ready, raw, OCI_MANIFEST)).status_code == 201
