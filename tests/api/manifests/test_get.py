"""Endpoint 3: GET and HEAD of manifests."""

import json

import pytest

from registry.oci.media_types import (
    OCI_INDEX,
    OCI_MANIFEST,
)
from storage.digest import Digest
from tests.api.conftest import Api
from tests.api.manifests.helpers import DIGEST, NO_DIGESTS, NO_TAGS, RAW, SQLITE, url
from tests.support.kit import (
    codes,
)

pytestmark = pytest.mark.anyio


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
