"""Endpoints 4a to 4c: start a session, or push a whole blob."""

import asyncio
import os

import pytest

from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.api.uploads.helpers import (
    DATA,
    DIGEST,
    LOCAL,
    NAME,
    SQLITE,
    blob,
    list_staged,
    put,
    require_nothing_kept,
    span,
)
from tests.support.kit import (
    codes,
    count_sessions,
    list_stored,
    require_created,
    require_session,
)

pytestmark = pytest.mark.anyio


# 4a: start a session


async def test_4a_begins_a_session(api: Api) -> None:
    locations = set()
    for _ in range(2):
        answer = await api.http.post(f"/v2/{NAME}/blobs/uploads/")
        locations.add(require_session(answer, 202, NAME, 0))
        assert answer.content == b""
        assert answer.headers["Content-Length"] == "0"
        assert "OCI-Chunk-Min-Length" not in answer.headers  # neither store has a minimum
        assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
    assert len(locations) == 2
    # A repository is created with its first content, not with a session.
    assert (await api.http.get("/v2/_catalog")).json() == {"repositories": []}


@LOCAL
@SQLITE
async def test_4a_unknown_parameters_are_ignored(api: Api) -> None:
    for query in (
        {"origin": "localhost:1/team/other"},  # crane
        {"from": "team/other"},
        {"ns": "docker.io", "what": "ever"},
        {"mount": "", "digest": "", "digest-algorithm": ""},
    ):
        answer = await api.http.post(f"/v2/{NAME}/blobs/uploads/", params=query)
        require_session(answer, 202, NAME, 0)


@SQLITE
async def test_4a_a_body_that_nobody_named_is_not_kept(api: Api) -> None:
    answer = await api.http.post(f"/v2/{NAME}/blobs/uploads/", content=DATA)
    location = require_session(answer, 202, NAME, 0)
    await put(api, location, content=DATA)


@LOCAL
@SQLITE
async def test_4a_bad_names_and_other_methods(api: Api) -> None:
    for name in ("UPPER", "a//b", "a__.b", "a" * 256):
        answer = await api.http.post(f"/v2/{name}/blobs/uploads/")
        assert answer.status_code == 400, name
        assert codes(answer) == ["NAME_INVALID"]
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        answer = await api.http.request(method, f"/v2/{NAME}/blobs/uploads/")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        assert codes(answer) == ["UNSUPPORTED"]


@LOCAL
@SQLITE
async def test_4a_a_read_only_registry_begins_none(start_api: Started) -> None:
    async with start_api({"content.read_only": "true"}) as api:
        for query in ({}, {"digest": str(DIGEST)}, {"mount": str(DIGEST)}):
            answer = await api.http.post(
                f"/v2/{NAME}/blobs/uploads/", params=query, content=DATA if query else None
            )
            assert answer.status_code == 405
            assert codes(answer) == ["UNSUPPORTED"]
        await require_nothing_kept(api)


# 4b: push a whole blob in one request


async def test_4b_pushes_a_whole_blob(api: Api) -> None:
    for data in (DATA, b"", os.urandom((1 << 20) + 1)):
        for algorithm in ("sha256", "sha512"):
            digest = Digest.of(data, algorithm)
            answer = await api.http.post(
                f"/v2/{NAME}/blobs/uploads/", params={"digest": str(digest)}, content=data
            )
            require_created(answer, NAME, digest)
            assert answer.headers["Content-Length"] == "0"
            assert "Docker-Upload-UUID" not in answer.headers
            assert (await api.http.get(answer.headers["Location"])).content == data
    assert await count_sessions(api.opened.database) == 0
    assert await list_staged(api) == []


async def test_4b_a_wrong_digest_keeps_nothing(api: Api) -> None:
    for digest in (Digest.of(b"else"), Digest.of(b"else", "sha512")):
        answer = await api.http.post(
            f"/v2/{NAME}/blobs/uploads/", params={"digest": str(digest)}, content=DATA
        )
        assert answer.status_code == 400
        assert codes(answer) == ["DIGEST_INVALID"]
        assert answer.json()["errors"][0]["detail"] == {
            "expected": str(digest),
            "actual": str(Digest.of(DATA, digest.algorithm)),
        }
        for unknown in (digest, Digest.of(DATA, digest.algorithm)):
            assert (await api.http.get(blob(unknown))).status_code == 404
    await require_nothing_kept(api)


@LOCAL
@SQLITE
async def test_4b_a_malformed_digest_is_refused(api: Api) -> None:
    for text in ("sha256:beef", "md5:" + "0" * 32, DIGEST.hex, f"{DIGEST}\0", f"{DIGEST} ", "-"):
        answer = await api.http.post(
            f"/v2/{NAME}/blobs/uploads/", params={"digest": text}, content=DATA
        )
        assert answer.status_code == 400, text
        assert codes(answer) == ["DIGEST_INVALID"]
    await require_nothing_kept(api)


@SQLITE
async def test_4b_a_content_range_means_nothing_for_a_whole_blob(api: Api) -> None:
    """There is no session for a 416 response, and the digest shows whether the blob is complete."""
    for headers in (span(0, len(DATA) - 1), span(5, 9)):
        answer = await api.http.post(
            f"/v2/{NAME}/blobs/uploads/",
            params={"digest": str(DIGEST)},
            content=DATA,
            headers=headers,
        )
        require_created(answer, NAME, DIGEST)


async def test_4b_a_cut_body_leaves_no_session(api: Api) -> None:
    exchange = api.speak("POST", f"/v2/{NAME}/blobs/uploads/?digest={DIGEST}")
    await exchange.feed(DATA[:10])
    assert await count_sessions(api.opened.database) == 1
    await exchange.hang_up()
    assert exchange.sent == []
    assert (await api.http.get(blob(DIGEST))).status_code == 404
    await require_nothing_kept(api)


@SQLITE
async def test_4b_a_stalled_body_leaves_no_session(start_api: Started) -> None:
    async with start_api({"http.body_idle_timeout": "200ms"}) as api:
        exchange = api.speak("POST", f"/v2/{NAME}/blobs/uploads/?digest={DIGEST}")
        await exchange.feed(DATA[:10])
        answer = (await exchange.ended()).answer()
        assert answer.status_code == 400
        assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
        await require_nothing_kept(api)


async def test_4b_a_blob_pushed_twice_is_stored_once(api: Api) -> None:
    await api.push_blob(NAME, DATA)
    [key] = list_stored(api.opened.driver)
    await api.push_blob(NAME, DATA)
    await api.push_blob("another/app", DATA)
    location = await api.start_upload(NAME)
    await put(api, location, content=DATA)
    await api.opened.registry.deletions.sweep()
    assert list_stored(api.opened.driver) == [key]
    for name in (NAME, "another/app"):
        assert (await api.http.get(blob(DIGEST, name))).content == DATA


async def test_4b_a_blob_pushed_by_many_at_once_is_stored_once(api: Api) -> None:
    names = [NAME, NAME, "b", "c", "d", "b"]
    digests = await asyncio.gather(*(api.push_blob(name, DATA) for name in names))
    assert set(digests) == {DIGEST}
    await api.opened.registry.deletions.sweep()
    assert len(list_stored(api.opened.driver)) == 1
    for name in names:
        assert (await api.http.get(blob(DIGEST, name))).content == DATA


# 4c: a session for an algorithm


async def test_4c_a_put_may_name_any_algorithm_whatever_the_post_said(api: Api) -> None:
    for said in ("", "?digest-algorithm=sha256", "?digest-algorithm=sha512"):
        for named in ("sha256", "sha512"):
            data = f"{said} then {named}".encode()
            digest = Digest.of(data, named)
            answer = await api.http.post(f"/v2/{NAME}/blobs/uploads/{said}")
            location = require_session(answer, 202, NAME, 0)
            patched = await api.http.patch(location, content=data[:9])
            require_session(patched, 202, NAME, 9)
            await put(api, location, digest, data[9:])
            got = await api.http.get(blob(digest))
            assert got.content == data
            assert got.headers["Docker-Content-Digest"] == str(digest)
            other = Digest.of(data, "sha512" if named == "sha256" else "sha256")
            assert (await api.http.get(blob(other))).status_code == 404


@LOCAL
@SQLITE
async def test_4c_an_unsupported_algorithm_is_400(api: Api) -> None:
    for algorithm in ("sha1", "md5", "SHA256", "sha384", "blake3", "sha256:", "sha256\0"):
        for query in ({}, {"digest": str(DIGEST)}):
            answer = await api.http.post(
                f"/v2/{NAME}/blobs/uploads/", params={"digest-algorithm": algorithm, **query}
            )
            assert answer.status_code == 400, algorithm
            assert codes(answer) == ["DIGEST_INVALID"]
    await require_nothing_kept(api)
