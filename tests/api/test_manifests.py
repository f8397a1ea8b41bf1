"""Endpoints 3 and 7: pull and push manifests."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from registry.http import request_log
from registry.oci.manifests import MAX_MANIFEST_BYTES
from registry.oci.media_types import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
)
from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.kit import (
    CONFIG,
    codes,
    descriptor,
    image_manifest,
    index_manifest,
    media_type_of,
)

pytestmark = pytest.mark.anyio
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

EMPTY = b"{}"
IMAGE: dict[str, Any] = {"schemaVersion": 2, "config": descriptor(EMPTY, CONFIG), "layers": []}
INDEX: dict[str, Any] = {"schemaVersion": 2, "manifests": []}
RAW = image_manifest(EMPTY, [])
DIGEST = Digest.of(RAW)

NO_DIGESTS = [
    "sha256:",
    "sha256:" + 63 * "a",
    "sha256:" + 64 * "A",
    "sha256:" + 64 * "g",
    "sha512:" + 64 * "a",
    "sha384:" + 96 * "a",
    "md5:" + 32 * "a",
    "SHA256:" + 64 * "a",
    "latest:",
    ":",
]
NO_TAGS = [".hidden", "-x", "a" * 129, "a+b", "a@b", "a~"]


def url(reference: object, name: str = "team/app") -> str:
    return f"/v2/{name}/manifests/{reference}"


@pytest.fixture
def driver() -> str:
    return "memory"  # manifests are in the database, so the store makes no difference


@pytest.fixture
async def ready(api: Api) -> Api:
    """Return a registry whose team/app has the empty config, so that RAW can be pushed."""
    await api.push_blob("team/app", EMPTY)
    return api


async def put(api: Api, raw: bytes, content_type: str | None = None) -> httpx.Response:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return await api.http.put(url("t"), content=raw, headers=headers)


async def require_stored(api: Api, raw: bytes, media_type: str, reference: object = "t") -> None:
    answer = await api.http.get(url(reference))
    assert (answer.status_code, answer.content) == (200, raw)
    assert answer.headers["Content-Type"] == media_type


# 3: pull


async def test_3_serves_bytes_and_type_exactly_as_pushed(ready: Api) -> None:
    raw = json.dumps(json.loads(RAW), indent=3).encode() + b"\r\n \n"
    headers = {"Content-Type": f"{OCI_MANIFEST.upper()} ; charset=utf-8"}
    answer = await ready.http.put(url("t"), content=raw, headers=headers)
    assert answer.status_code == 201
    digest = Digest.of(raw)
    for reference in ("t", digest, str(digest).replace(":", "%3A")):
        for method, body in (("GET", raw), ("HEAD", b"")):
            exchange = await ready.speak(method, url(reference)).finish()
            assert (exchange.status, exchange.body) == (200, body)
            assert exchange.headers["Content-Type"] == OCI_MANIFEST
            assert exchange.headers["Docker-Content-Digest"] == str(digest)
            assert exchange.headers["Content-Length"] == str(len(raw))
            assert exchange.headers["ETag"] == f'"{digest}"'
            assert "Content-Encoding" not in exchange.headers


async def test_3_serves_what_is_stored_whatever_is_accepted(ready: Api) -> None:
    await ready.put_manifest("team/app", "t", RAW)
    for accept in (None, "", "*/*", "application/json", OCI_INDEX, "text/html;q=0", ",,;"):
        headers = {} if accept is None else {"Accept": accept}
        exchange = await ready.speak("GET", url("t"), headers).finish()
        assert (exchange.status, exchange.body) == (200, RAW), accept
        assert exchange.headers["Content-Type"] == OCI_MANIFEST


@SQLITE
async def test_3_namespace_without_an_upstream_is_ignored(ready: Api) -> None:
    await ready.put_manifest("team/app", "t", RAW)
    answer = await ready.http.get(url("t"), params={"ns": "docker.io"})
    assert answer.content == RAW
    assert "OCI-Namespace" not in answer.headers


async def test_3_if_none_match_is_304_without_a_body(ready: Api) -> None:
    await ready.put_manifest("team/app", "t", RAW)
    for method in ("GET", "HEAD"):
        for etag in (f'"{DIGEST}"', f'W/"{DIGEST}"', f'"x", "{DIGEST}"', "*"):
            answer = await ready.http.request(method, url("t"), headers={"If-None-Match": etag})
            assert (answer.status_code, answer.content) == (304, b""), etag
            assert answer.headers["ETag"] == f'"{DIGEST}"'
            assert answer.headers["Docker-Content-Digest"] == str(DIGEST)
        for etag in ('"x"', str(DIGEST), ""):
            answer = await ready.http.request(method, url("t"), headers={"If-None-Match": etag})
            assert answer.status_code == 200, etag
    answer = await ready.http.get(url("absent"), headers={"If-None-Match": "*"})
    assert answer.status_code == 404


async def test_3_what_is_not_there_is_404(ready: Api) -> None:
    await ready.put_manifest("team/app", "t", RAW)
    absent = [url("absent"), url(Digest.of(b"")), url("t", "app"), url(DIGEST, "team/app/t")]
    for path in [*absent, *map(url, NO_TAGS)]:
        answer = await ready.http.get(path)
        assert (answer.status_code, codes(answer)) == (404, ["MANIFEST_UNKNOWN"]), path
        answer = (await ready.speak("HEAD", path).finish()).answer()
        assert (answer.status_code, answer.content) == (404, b""), path


@SQLITE
async def test_3_what_is_no_digest_is_400(ready: Api) -> None:
    for text in NO_DIGESTS:
        for method in ("GET", "PUT", "DELETE"):
            headers = {"Content-Type": OCI_MANIFEST}
            answer = await ready.http.request(method, url(text), content=RAW, headers=headers)
            assert (answer.status_code, codes(answer)) == (400, ["DIGEST_INVALID"]), text


async def test_3_has_the_digest_it_was_pushed_with(ready: Api) -> None:
    digest = Digest.of(RAW, "sha512")
    answer = await ready.put_manifest("team/app", f"{digest}?tag=t", RAW)
    assert answer.status_code == 201
    assert answer.headers["Docker-Content-Digest"] == str(digest)
    assert answer.headers["Location"] == url(digest)
    for reference in (digest, "t"):
        for method in ("GET", "HEAD"):
            answer = await ready.http.request(method, url(reference))
            assert answer.headers["Docker-Content-Digest"] == str(digest)
            assert answer.headers["ETag"] == f'"{digest}"'
    assert (await ready.http.get(url(DIGEST))).status_code == 404


async def test_3_the_same_manifest_under_two_digests_is_two_manifests(ready: Api) -> None:
    long = Digest.of(RAW, "sha512")
    await ready.put_manifest("team/app", f"{long}?tag=long", RAW)
    await ready.put_manifest("team/app", f"{DIGEST}?tag=short", RAW)
    for digest, tag in ((long, "long"), (DIGEST, "short")):
        for reference in (digest, tag):
            answer = await ready.http.get(url(reference))
            assert answer.headers["Docker-Content-Digest"] == str(digest)
            assert answer.content == RAW
    assert (await ready.http.delete(url(long))).status_code == 202
    assert (await ready.http.get(url("long"))).status_code == 404
    assert (await ready.http.get(url("short"))).content == RAW


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
