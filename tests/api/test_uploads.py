"""Endpoints 4, 5, 6, 13 and 14: push blobs. `test_mounts.py` tests mounts."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import sqlalchemy as sa

from registry import clock
from registry.auth.policy.principals import Principal
from registry.errors import DatabaseUnavailableError, UploadUnknownError
from registry.http import body, request_log
from registry.jobs.runner import Job
from registry.metadata import tables
from registry.oci.names import RepositoryName
from registry.services.content.publication import Publication
from registry.services.content.upload_sessions import UploadRow, UploadSessions
from storage.digest import Digest
from storage.local.driver import LocalDriver
from storage.s3.driver import S3Driver
from storage.staging import StagedUpload
from tests.api.conftest import Api, Started
from tests.support.kit import (
    codes,
    count_sessions,
    find_job,
    list_bucket,
    list_open_files,
    list_stored,
    require_created,
    require_session,
)

pytestmark = pytest.mark.anyio

DATA = b"0123456789abcdefghij"
DIGEST = Digest.of(DATA)
ABSENT = Digest.of(b"nobody pushed this")
NAME = "team/app"
LOCAL = pytest.mark.parametrize("driver", ["local"])
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def blob(digest: Digest, name: str = NAME) -> str:
    return f"/v2/{name}/blobs/{digest}"


def span(first: int, last: int) -> dict[str, str]:
    return {"Content-Range": f"{first}-{last}"}


async def require_offset(api: Api, location: str, received: int) -> None:
    """Check that the session is open and expects the byte at offset `received` next."""
    assert require_session(await api.http.get(location), 204, NAME, received) == location
    # `0-0` can mean no bytes or one byte. The refusal of a wrong chunk has the exact offset.
    elsewhere = await api.http.patch(location, content=b"x", headers=span(10**6, 10**6))
    assert elsewhere.json()["errors"][0]["detail"] == {"offset": received}


async def require_gone(api: Api, location: str) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        query = {"digest": str(DIGEST)} if method == "PUT" else {}
        answer = await api.http.request(method, location, params=query)
        assert answer.status_code == 404, method
        assert codes(answer) == ["BLOB_UPLOAD_UNKNOWN"]


async def require_nothing_kept(api: Api) -> None:
    """Check that no session, staged byte or repository remains after the cleanup."""
    await api.opened.registry.deletions.sweep()
    assert await count_sessions(api.opened.database) == 0
    assert await list_staged(api) == []
    assert list_stored(api.opened.driver) == []
    assert (await api.http.get("/v2/_catalog")).json() == {"repositories": []}


async def put(api: Api, location: str, digest: Digest = DIGEST, content: bytes = b"") -> None:
    answer = await api.http.put(location, params={"digest": str(digest)}, content=content)
    require_created(answer, NAME, digest)


async def in_pieces(data: bytes, size: int = 3) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def expiry(api: Api, seconds: float) -> Job:
    return find_job(api.opened, "upload-expiry", upload_expiry=seconds)


def recovery(api: Api) -> Job:
    return find_job(api.opened, "staging-recovery")


async def held_by(api: Api) -> list[str]:
    """Return the claims of staged bytes: open files on disk, or rows."""
    driver = api.opened.driver
    if not driver.supports_locking:
        query = sa.select(tables.uploads.c.id).where(tables.uploads.c.claimed_until.is_not(None))
        return await api.opened.database.read(lambda tx: list(tx.execute(query).scalars()))
    assert isinstance(driver, LocalDriver)
    return list_open_files(driver.path("staging"))


async def list_staged(api: Api) -> list[str]:
    """Return the sessions that have staged bytes in the store or in the bucket."""
    driver = api.opened.driver
    if not isinstance(driver, S3Driver):
        return await driver.list_staged()
    await api.opened.registry.deletions.sweep()
    return sorted({key.split("/")[1] for key in list_bucket(driver, "staging/")})


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


# 5: chunks


async def test_5_chunks_with_their_ranges_make_a_blob(api: Api) -> None:
    location = await api.start_upload(NAME)
    for first, end in ((0, 1), (1, 2), (2, 9), (9, 20)):
        answer = await api.http.patch(
            location, content=DATA[first:end], headers=span(first, end - 1)
        )
        assert require_session(answer, 202, NAME, end) == location
        assert answer.content == b""
    await put(api, location)
    assert (await api.http.get(blob(DIGEST))).content == DATA


@SQLITE
async def test_5_the_range_may_be_written_as_in_http(api: Api) -> None:
    location = await api.start_upload(NAME)
    for first, end, text in ((0, 5, "bytes 0-4/*"), (5, 9, "bytes 5-8/20"), (9, 20, "bytes=9-19")):
        answer = await api.http.patch(
            location, content=DATA[first:end], headers={"Content-Range": text}
        )
        require_session(answer, 202, NAME, end)
    await put(api, location)


@SQLITE
async def test_5_without_a_range_the_body_is_appended(api: Api) -> None:
    location = await api.start_upload(NAME)
    first = await api.http.patch(location, content=DATA[:7])
    require_session(first, 202, NAME, 7)
    # Docker uses chunked encoding without a length.
    second = await api.http.patch(location, content=in_pieces(DATA[7:]))
    assert "Content-Length" not in second.request.headers
    require_session(second, 202, NAME, len(DATA))
    await put(api, location)
    assert (await api.http.get(blob(DIGEST))).content == DATA


@SQLITE
async def test_5_a_stream_of_many_pieces_is_one_chunk(api: Api) -> None:
    data = os.urandom((2 << 20) + 12345)
    location = await api.start_upload(NAME)
    answer = await api.http.patch(location, content=in_pieces(data, 300_007))
    require_session(answer, 202, NAME, len(data))
    digest = Digest.of(data)
    await put(api, location, digest)
    assert (await api.http.get(blob(digest))).content == data


@SQLITE
async def test_5_an_empty_chunk_changes_nothing(api: Api) -> None:
    location = await api.start_upload(NAME)
    require_session(await api.http.patch(location), 202, NAME, 0)
    require_session(await api.http.patch(location, content=DATA), 202, NAME, len(DATA))
    require_session(await api.http.patch(location), 202, NAME, len(DATA))
    await put(api, location)


@SQLITE
async def test_5_a_body_unlike_its_span_is_400_and_not_kept(api: Api) -> None:
    location = await api.start_upload(NAME)
    for received in (0, 4):
        if received:
            await api.http.patch(location, content=DATA[:4], headers=span(0, 3))
        for content in (b"", b"four", b"6bytes", os.urandom(3 << 20)):
            answer = await api.http.patch(
                location, content=content, headers=span(received, received + 4)
            )
            assert answer.status_code == 400
            assert codes(answer) == ["SIZE_INVALID"]
            assert answer.json()["errors"][0]["detail"] == {"announced": 5}
            await require_offset(api, location, received)
    # The refused bytes are not in the hash either.
    await put(api, location, content=DATA[4:])


@SQLITE
async def test_5_a_body_beyond_its_span_is_refused_before_it_has_all_come(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "LINGER", 0.01)
    location = await api.start_upload(NAME)
    exchange = api.speak("PATCH", location, {**span(0, 4), "Transfer-Encoding": "chunked"})
    await exchange.feed(b"6bytes")
    answer = (await exchange.ended()).answer()
    assert codes(answer) == ["SIZE_INVALID"]
    assert answer.headers["Connection"] == "close"
    await require_offset(api, location, 0)


@LOCAL
@SQLITE
async def test_5_a_range_that_is_none_is_400(api: Api) -> None:
    location = await api.start_upload(NAME)
    for text in ("", "x", "5-4", "bytes */20", "-5", "0-"):
        answer = await api.http.patch(location, content=DATA, headers={"Content-Range": text})
        assert answer.status_code == 400, text
        assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
    await require_offset(api, location, 0)


async def test_5_a_cut_chunk_keeps_what_arrived(api: Api) -> None:
    location = await api.start_upload(NAME)
    for received, arrived, headers in ((0, 6, {}), (6, 11, span(6, 19)), (11, 11, span(11, 19))):
        exchange = api.speak("PATCH", location, headers)
        for at in range(received, arrived):
            await exchange.feed(DATA[at : at + 1])
        await exchange.hang_up()
        assert exchange.sent == []
        await require_offset(api, location, arrived)
    answer = await api.http.patch(location, content=DATA[11:], headers=span(11, 19))
    require_session(answer, 202, NAME, len(DATA))
    await put(api, location)
    assert (await api.http.get(blob(DIGEST))).content == DATA


@SQLITE
async def test_5_a_cut_chunk_of_several_pieces_keeps_what_arrived(api: Api) -> None:
    data = os.urandom((2 << 20) + 1000)
    location = await api.start_upload(NAME)
    exchange = api.speak("PATCH", location)
    for start in range(0, len(data) - 500, 250_000):
        await exchange.feed(data[start : start + 250_000])
    await exchange.hang_up()
    await require_offset(api, location, len(data))
    await put(api, location, Digest.of(data))


@SQLITE
async def test_5_a_stalled_chunk_is_400_and_frees_the_session(
    start_api: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "LINGER", 0.01)
    async with start_api({"http.body_idle_timeout": "200ms"}) as api:
        location = await api.start_upload(NAME)
        for method, target in (("PATCH", location), ("PUT", f"{location}?digest={DIGEST}")):
            exchange = api.speak(method, target, {"Transfer-Encoding": "chunked"})
            await exchange.feed(DATA[:3])
            answer = (await exchange.ended()).answer()
            assert answer.status_code == 400
            assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
            # The rest of the body may still arrive and must not be read as the next request.
            assert answer.headers["Connection"] == "close"
        await require_offset(api, location, 6)
        data = DATA[:3] * 2 + DATA
        await put(api, location, Digest.of(data), DATA)


@SQLITE
async def test_5_a_slow_chunk_is_no_stalled_one(start_api: Started) -> None:
    """The limit is on each pause, not on the total time."""
    async with start_api({"http.body_idle_timeout": "300ms"}) as api:
        location = await api.start_upload(NAME)
        exchange = api.speak("PATCH", location)
        for _ in range(4):
            await asyncio.sleep(0.1)
            await exchange.feed(b"slow")
        require_session((await exchange.finish()).answer(), 202, NAME, 16)


@SQLITE
async def test_5_single_bytes_do_not_keep_a_chunk_alive(
    start_api: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "LINGER", 0.01)
    monkeypatch.setattr(body, "RATE_WINDOW", 0.5)
    async with start_api({"http.body_idle_timeout": "10s"}) as api:
        location = await api.start_upload(NAME)
        exchange = api.speak("PATCH", location, {"Transfer-Encoding": "chunked"})

        async def drip() -> None:
            while True:
                await asyncio.sleep(0.1)
                await exchange.feed(b"s")

        dripping = asyncio.create_task(drip())
        answer = (await exchange.ended()).answer()
        dripping.cancel()
        assert answer.status_code == 400
        assert "at least 500 a second" in answer.text


async def test_5_two_chunks_at_once_do_not_mix(api: Api) -> None:
    location = await api.start_upload(NAME)
    first = api.speak("PATCH", location)
    await first.feed(DATA[:6])
    for headers in ({}, span(0, 3), span(6, 9)):
        answer = await api.http.patch(location, content=b"evil", headers=headers)
        assert answer.status_code == 409
        assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
    require_session(await api.http.get(location), 204, NAME, 0)
    done = await first.finish(DATA[6:])
    require_session(done.answer(), 202, NAME, len(DATA))
    await put(api, location)


async def test_5_of_equal_chunks_at_once_one_is_taken(api: Api) -> None:
    location = await api.start_upload(NAME)
    answers = await asyncio.gather(
        *(api.http.patch(location, content=DATA, headers=span(0, 19)) for _ in range(6))
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 202
    assert set(statuses[1:]) <= {409, 416}
    await require_offset(api, location, len(DATA))
    await put(api, location)


@LOCAL
@SQLITE
async def test_5_a_full_disk_is_507_and_keeps_what_was_acknowledged(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA[:6])
    with monkeypatch.context() as full:
        full.setattr(api.opened.driver, "reserve", 1 << 60)
        refused = await api.http.patch(location, content=DATA[6:])
        assert refused.status_code == 507
        assert codes(refused) == ["UNAVAILABLE"]
        assert int(refused.headers["Retry-After"]) > 0
        await require_offset(api, location, 6)
        whole = await api.http.post(
            f"/v2/{NAME}/blobs/uploads/", params={"digest": str(DIGEST)}, content=DATA
        )
        assert whole.status_code == 507
        assert await count_sessions(api.opened.database) == 1
    await put(api, location, content=DATA[6:])


async def test_5_a_session_of_somebody_else_is_unknown(api: Api) -> None:
    """The test calls the service, because all requests have one principal without sign-in."""
    upload = (await api.start_upload(NAME)).rpartition("/")[2]
    uploads = api.opened.registry.uploads
    name = RepositoryName.parse(NAME)
    assert (await uploads.get(name, Principal("anonymous"), upload)).id == upload
    for principal in (Principal("mallory"), Principal("")):
        with pytest.raises(UploadUnknownError):
            await uploads.get(name, principal, upload)
        with pytest.raises(UploadUnknownError):
            await uploads.cancel(name, principal, upload)


@LOCAL
async def test_5_what_a_killed_request_left_is_dropped(api: Api) -> None:
    """Bytes beyond the acknowledged offset were never confirmed to a client."""
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA[:6])
    staged = await api.opened.driver.claim(location.rpartition("/")[2])
    await staged.append(b"never acknowledged", None)
    await staged.release()
    await require_offset(api, location, 6)
    await put(api, location, content=DATA[6:])
    assert (await api.http.get(blob(DIGEST))).content == DATA


async def test_5_a_session_that_lost_bytes_ends(api: Api) -> None:
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA[:6])
    driver = api.opened.driver
    if isinstance(driver, S3Driver):
        (key,) = list_bucket(driver, "staging/")
        await driver.delete(key)
    else:
        staged = await driver.claim(location.rpartition("/")[2])
        await staged.truncate(3)
        await staged.release()
    answer = await api.http.patch(location, content=DATA[6:])
    assert answer.status_code == 404
    assert codes(answer) == ["BLOB_UPLOAD_UNKNOWN"]
    await require_gone(api, location)
    await require_nothing_kept(api)


@LOCAL
async def test_5_a_session_goes_on_at_another_worker(start_api: Started) -> None:
    async with start_api() as one, start_api() as two:
        location = await one.start_upload(NAME)
        for number, api in enumerate((one, two, one, two)):
            chunk = span(number * 5, number * 5 + 4)
            content = DATA[number * 5 : number * 5 + 5]
            answer = await api.http.patch(location, content=content, headers=chunk)
            require_session(answer, 202, NAME, number * 5 + 5)
        await put(one, location)
        assert (await two.http.get(blob(DIGEST))).content == DATA


@LOCAL
async def test_5_another_worker_waits_for_the_one_at_work(start_api: Started) -> None:
    async with start_api() as one, start_api() as two:
        location = await one.start_upload(NAME)
        exchange = one.speak("PATCH", location)
        await exchange.feed(DATA[:6])
        for method in ("PATCH", "PUT", "DELETE"):
            query = {"digest": str(DIGEST)} if method == "PUT" else {}
            answer = await two.http.request(method, location, params=query)
            assert answer.status_code == 409, method
        require_session((await exchange.finish(DATA[6:])).answer(), 202, NAME, 20)
        await put(two, location)


@LOCAL
async def test_5_bytes_that_were_never_acknowledged_do_not_count_in_the_digest(
    start_api: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker hashes bytes it cannot acknowledge; the second gets as many other bytes."""
    async with start_api() as one, start_api() as two:
        location = await one.start_upload(NAME)

        async def down(*_: object, **__: object) -> None:
            raise DatabaseUnavailableError("down")

        with monkeypatch.context() as failing:
            failing.setattr(one.opened.database, "write", down)
            refused = await one.http.patch(location, content=b"x" * len(DATA))
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        answer = await two.http.patch(location, content=DATA)
        require_session(answer, 202, NAME, len(DATA))
        await put(one, location)
        assert (await one.http.get(blob(DIGEST))).content == DATA


# 6: complete a session


async def test_6_a_session_may_end_in_every_shape(api: Api) -> None:
    """All combinations: with or without PATCH, a body in the PUT, and a Content-Range."""
    last = len(DATA) - 1
    for patched in (0, 5, len(DATA)):
        for rest in ({}, span(patched, last)) if patched <= last else ({},):
            for algorithm in ("sha256", "sha512"):
                name = f"app-{patched}-{len(rest)}-{algorithm}"
                digest = Digest.of(DATA, algorithm)
                location = await api.start_upload(name)
                if patched:
                    await api.http.patch(location, content=DATA[:patched])
                answer = await api.http.put(
                    location, params={"digest": str(digest)}, content=DATA[patched:], headers=rest
                )
                require_created(answer, name, digest)
                assert (await api.http.get(blob(digest, name))).content == DATA
    assert await count_sessions(api.opened.database) == 0
    assert await list_staged(api) == []


@SQLITE
async def test_6_the_rest_may_come_without_a_length(api: Api) -> None:
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA[:6])
    answer = await api.http.put(
        location, params={"digest": str(DIGEST)}, content=in_pieces(DATA[6:])
    )
    require_created(answer, NAME, DIGEST)


async def test_6_an_empty_blob(api: Api) -> None:
    for algorithm in ("sha256", "sha512"):
        digest = Digest.of(b"", algorithm)
        location = await api.start_upload(NAME)
        await put(api, location, digest)
        answer = await api.http.get(blob(digest))
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["Content-Length"] == "0"
        assert (await api.http.head(blob(digest))).headers["Content-Length"] == "0"


async def test_6_a_wrong_digest_ends_the_session_and_keeps_nothing(api: Api) -> None:
    wrong = Digest.of(b"else")
    for patched in (0, 6, len(DATA)):
        location = await api.start_upload(NAME)
        if patched:
            await api.http.patch(location, content=DATA[:patched])
        answer = await api.http.put(location, params={"digest": str(wrong)}, content=DATA[patched:])
        assert answer.status_code == 400
        assert codes(answer) == ["DIGEST_INVALID"]
        assert answer.json()["errors"][0]["detail"] == {
            "expected": str(wrong),
            "actual": str(DIGEST),
        }
        await require_gone(api, location)
        for digest in (wrong, DIGEST):
            assert (await api.http.get(blob(digest))).status_code == 404
    await require_nothing_kept(api)


@SQLITE
async def test_6_a_wrong_digest_does_not_touch_the_blob_that_has_it(api: Api) -> None:
    await api.push_blob(NAME, DATA)
    location = await api.start_upload(NAME)
    answer = await api.http.put(location, params={"digest": str(DIGEST)}, content=b"else")
    assert answer.status_code == 400
    await api.opened.registry.deletions.sweep()
    assert (await api.http.get(blob(DIGEST))).content == DATA


@LOCAL
@SQLITE
async def test_6_a_malformed_or_missing_digest_is_400_and_ends_nothing(api: Api) -> None:
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA[:6])
    for query in (
        {},
        {"digest": ""},
        {"digest": "sha256:beef"},
        {"digest": "sha384:" + "0" * 96},
        {"digest": f"{DIGEST}\0"},
        {"digest": DIGEST.hex},
    ):
        answer = await api.http.put(location, params=query, content=DATA[6:])
        assert answer.status_code == 400, query
        assert codes(answer) == ["DIGEST_INVALID"]
    await require_offset(api, location, 6)
    await put(api, location, content=DATA[6:])


@SQLITE
async def test_6_a_body_unlike_its_span_is_400_and_ends_nothing(api: Api) -> None:
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA[:6])
    for content in (DATA[6:-1], DATA[6:] + b"x", b""):
        answer = await api.http.put(
            location, params={"digest": str(DIGEST)}, content=content, headers=span(6, 19)
        )
        assert answer.status_code == 400
        assert codes(answer) == ["SIZE_INVALID"]
    await require_offset(api, location, 6)
    await put(api, location, content=DATA[6:])


async def test_6_a_second_put_finds_no_session(api: Api) -> None:
    location = await api.start_upload(NAME)
    await put(api, location, content=DATA)
    again = await api.http.put(location, params={"digest": str(DIGEST)}, content=DATA)
    assert again.status_code == 404
    assert codes(again) == ["BLOB_UPLOAD_UNKNOWN"]
    await require_gone(api, location)
    assert (await api.http.get(blob(DIGEST))).content == DATA


async def test_6_puts_at_once_make_one_blob(api: Api) -> None:
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA)
    answers = await asyncio.gather(
        *(api.http.put(location, params={"digest": str(DIGEST)}) for _ in range(6))
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 201
    assert set(statuses) <= {201, 404, 409}
    await api.opened.registry.deletions.sweep()
    assert len(list_stored(api.opened.driver)) == 1
    assert (await api.http.get(blob(DIGEST))).content == DATA


async def test_6_between_the_bytes_and_the_row_no_request_ends_the_session(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA[:6])
    publish = StagedUpload.publish
    statuses = []

    async def then_others(staged: StagedUpload, key: str) -> None:
        await publish(staged, key)
        monkeypatch.setattr(StagedUpload, "publish", publish)
        for method, query in (("PATCH", {}), ("DELETE", {}), ("PUT", {"digest": str(ABSENT)})):
            answer = await api.http.request(method, location, params=query, content=b"x")
            assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
            statuses.append(answer.status_code)

    monkeypatch.setattr(StagedUpload, "publish", then_others)
    await put(api, location, content=DATA[6:])
    assert statuses == [409, 409, 409]
    await require_gone(api, location)
    await api.opened.registry.deletions.sweep()
    assert (await api.http.get(blob(DIGEST))).content == DATA
    assert await list_staged(api) == []


@LOCAL
async def test_6_a_put_that_was_sent_again_before_it_was_answered_succeeds_twice(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = await api.start_upload(NAME)
    publish = StagedUpload.publish

    async def then_again(staged: StagedUpload, key: str) -> None:
        await publish(staged, key)
        monkeypatch.setattr(StagedUpload, "publish", publish)
        await put(api, location, content=DATA)

    monkeypatch.setattr(StagedUpload, "publish", then_again)
    await put(api, location, content=DATA)
    await require_gone(api, location)
    await api.opened.registry.deletions.sweep()
    assert len(list_stored(api.opened.driver)) == 1
    assert (await api.http.get(blob(DIGEST))).content == DATA


async def test_6_a_put_that_failed_between_the_bytes_and_the_row_can_be_sent_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA[:6])
    link = Publication.link

    async def down(*_: object, **__: object) -> None:
        raise DatabaseUnavailableError("down")

    monkeypatch.setattr(Publication, "link", down)
    first = await api.http.put(location, params={"digest": str(DIGEST)}, content=DATA[6:])
    assert first.status_code == 503
    monkeypatch.setattr(Publication, "link", link)
    await api.opened.registry.deletions.sweep()
    require_session(await api.http.get(location), 204, NAME, len(DATA))
    await put(api, location)
    assert (await api.http.get(blob(DIGEST))).content == DATA
    assert await count_sessions(api.opened.database) == 0


async def test_6_what_nobody_comes_back_for_after_that_expires(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = [await api.start_upload(NAME) for _ in range(2)]

    async def down(*_: object, **__: object) -> None:
        raise DatabaseUnavailableError("down")

    with monkeypatch.context() as failing:
        failing.setattr(Publication, "link", down)
        for location in locations:
            answer = await api.http.put(location, params={"digest": str(DIGEST)}, content=DATA)
            assert answer.status_code == 503
        whole = await api.http.post(
            f"/v2/{NAME}/blobs/uploads/", params={"digest": str(DIGEST)}, content=DATA
        )
        assert whole.status_code == 503
    assert len(list_stored(api.opened.driver)) == 3
    assert await expiry(api, 0).run() == 3
    await require_nothing_kept(api)


async def test_6_a_put_while_a_chunk_arrives_is_409(api: Api) -> None:
    location = await api.start_upload(NAME)
    exchange = api.speak("PATCH", location)
    await exchange.feed(DATA)
    early = await api.http.put(location, params={"digest": str(DIGEST)})
    assert early.status_code == 409
    assert codes(early) == ["BLOB_UPLOAD_INVALID"]
    require_session((await exchange.finish()).answer(), 202, NAME, len(DATA))
    await put(api, location)


async def test_6_a_cut_put_leaves_the_session_open_where_it_broke_off(api: Api) -> None:
    location = await api.start_upload(NAME)
    for received, arrived, headers in ((0, 6, {}), (6, 11, span(6, 19))):
        exchange = api.speak("PUT", f"{location}?digest={DIGEST}", headers)
        await exchange.feed(DATA[received:arrived])
        await exchange.hang_up()
        assert exchange.sent == []
        await require_offset(api, location, arrived)
        assert (await api.http.get(blob(DIGEST))).status_code == 404
    answer = await api.http.put(
        location, params={"digest": str(DIGEST)}, content=DATA[11:], headers=span(11, 19)
    )
    require_created(answer, NAME, DIGEST)
    assert (await api.http.get(blob(DIGEST))).content == DATA


async def test_6_a_second_session_of_the_same_blob_is_taken(api: Api) -> None:
    """Two clients push the same layer, and both sessions are open before one completes."""
    locations = [await api.start_upload(NAME) for _ in range(2)]
    for location in locations:
        await api.http.patch(location, content=DATA)
    for location in locations:
        await put(api, location)
    await api.opened.registry.deletions.sweep()
    assert len(list_stored(api.opened.driver)) == 1
    assert (await api.http.get(blob(DIGEST))).content == DATA


# Every 416


async def test_5_6_every_416_says_where_to_go_on_and_changes_nothing(api: Api) -> None:
    location = await api.start_upload(NAME)
    for received in (0, 1, 6):
        if received:
            first = 0 if received == 1 else 1
            answer = await api.http.patch(
                location, content=DATA[first:received], headers=span(first, received - 1)
            )
            require_session(answer, 202, NAME, received)
        for start in {0, 1, 5, 7, 10**30} - {received}:
            for method, query in (("PATCH", {}), ("PUT", {"digest": str(DIGEST)})):
                answer = await api.http.request(
                    method,
                    location,
                    params=query,
                    content=DATA[received:],
                    headers=span(start, start + len(DATA) - received - 1),
                )
                assert require_session(answer, 416, NAME, received) == location
                assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
                assert answer.json()["errors"][0]["detail"] == {"offset": received}
                assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
                status = await api.http.get(location)
                require_session(status, 204, NAME, received)
    await put(api, location, content=DATA[6:])
    assert (await api.http.get(blob(DIGEST))).content == DATA


@SQLITE
async def test_5_a_chunk_sent_again_is_416(api: Api) -> None:
    location = await api.start_upload(NAME)
    for status in (202, 416, 416):
        answer = await api.http.patch(location, content=DATA[:6], headers=span(0, 5))
        require_session(answer, status, NAME, 6)
    await put(api, location, content=DATA[6:])


# 13 and 14: get the status of a session and cancel it


@SQLITE
async def test_13_says_what_was_received(api: Api) -> None:
    location = await api.start_upload(NAME)
    for received in (0, 1, 2, 20):
        if received:
            await api.http.patch(location, content=DATA[received // 2 : received])
        answer = await api.http.get(location)
        # 1, then 1 more, then 10 more
        total = {0: 0, 1: 1, 2: 2, 20: 12}[received]
        assert require_session(answer, 204, NAME, total) == location
        assert answer.content == b""
        assert "Content-Length" not in answer.headers  # RFC 9110 section 8.6


@LOCAL
@SQLITE
async def test_5_6_13_14_a_session_that_is_none_is_404(api: Api) -> None:
    known = (await api.start_upload(NAME)).rpartition("/")[2]
    for upload in (
        str(uuid.uuid4()),
        known.upper(),
        known.replace("-", ""),
        known + "0",
        known[:-1],
        "x",
        "0",
        "_" * 300,
    ):
        await require_gone(api, f"/v2/{NAME}/blobs/uploads/{upload}")
    for method in ("HEAD", "POST"):
        answer = await api.http.request(method, f"/v2/{NAME}/blobs/uploads/{known}")
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "DELETE, GET, PATCH, PUT"


async def test_14_cancels_and_frees_the_bytes(api: Api) -> None:
    for patched in (0, 6):
        location = await api.start_upload(NAME)
        if patched:
            await api.http.patch(location, content=DATA[:patched])
            assert len(await list_staged(api)) == 1
        answer = await api.http.delete(location)
        assert answer.status_code == 204
        assert answer.content == b""
        assert await list_staged(api) == []
        await require_gone(api, location)
    await require_nothing_kept(api)


async def test_14_cancelling_while_a_chunk_arrives_is_409(api: Api) -> None:
    location = await api.start_upload(NAME)
    exchange = api.speak("PATCH", location)
    await exchange.feed(DATA[:6])
    answer = await api.http.delete(location)
    assert answer.status_code == 409
    assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
    require_session((await exchange.finish()).answer(), 202, NAME, 6)
    assert (await api.http.delete(location)).status_code == 204
    await require_nothing_kept(api)


@SQLITE
async def test_14_cancelling_is_no_deletion_of_content(start_api: Started) -> None:
    async with start_api({"content.allow_delete": "false"}) as api:
        location = await api.start_upload(NAME)
        assert (await api.http.delete(location)).status_code == 204


# Jobs


async def test_14_idle_sessions_expire_and_active_ones_live_on(api: Api) -> None:
    idle = [await api.start_upload(NAME) for _ in range(3)]
    await api.http.patch(idle[0], content=DATA)
    before = clock.now_us()
    active = await api.start_upload(NAME)
    await api.http.patch(idle[1], content=DATA[:6])  # a chunk is activity
    assert await api.opened.registry.uploads.expire(before) == 2
    for location in (idle[0], idle[2]):
        await require_gone(api, location)
    await require_offset(api, active, 0)
    await require_offset(api, idle[1], 6)
    assert await list_staged(api) != []
    job = expiry(api, 3600)
    assert not await job.is_due()
    job = expiry(api, 0)
    assert await job.is_due()
    assert await job.run() == 2
    assert not await job.is_due()
    await require_nothing_kept(api)


async def test_14_a_session_in_use_does_not_expire(api: Api) -> None:
    location = await api.start_upload(NAME)
    exchange = api.speak("PATCH", location)
    await exchange.feed(DATA[:6])
    assert await expiry(api, 0).run() == 0
    require_session((await exchange.finish(DATA[6:])).answer(), 202, NAME, len(DATA))
    await put(api, location)


async def test_14_a_session_that_moved_while_it_was_looked_at_does_not_expire(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = await api.start_upload(NAME)
    claim = UploadSessions._claim

    def after_a_chunk(
        uploads: UploadSessions, session: UploadRow
    ) -> AbstractAsyncContextManager[object]:
        """Send the chunk after the idle sessions are listed and before the claim."""

        @asynccontextmanager
        async def context() -> AsyncIterator[object]:
            monkeypatch.setattr(UploadSessions, "_claim", claim)
            require_session(await api.http.patch(location, content=DATA[:6]), 202, NAME, 6)
            async with claim(uploads, session) as claimed:
                yield claimed

        return context()

    monkeypatch.setattr(UploadSessions, "_claim", after_a_chunk)
    assert await expiry(api, 0).run() == 0
    await put(api, location, content=DATA[6:])


@LOCAL
async def test_14_staged_bytes_without_a_session_are_recovered(api: Api) -> None:
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA[:6])
    orphans = [await api.opened.driver.claim(str(uuid.uuid4())) for _ in range(3)]
    for orphan in orphans:
        await orphan.append(DATA, None)
    for orphan in orphans[:2]:
        await orphan.release()
    assert await recovery(api).run() == 2  # the third is held
    await orphans[2].release()
    assert await recovery(api).run() == 1
    assert await recovery(api).run() == 0
    assert await list_staged(api) == [location.rpartition("/")[2]]
    await put(api, location, content=DATA[6:])


async def test_14_abandoned_uploads_leave_nothing(api: Api) -> None:
    async def abandon(number: int) -> None:
        if number % 5 == 0:
            await api.start_upload(NAME)
            return
        if number % 5 == 1:
            exchange = api.speak("POST", f"/v2/{NAME}/blobs/uploads/?digest={DIGEST}")
        else:
            location = await api.start_upload(NAME)
            if number % 5 == 2:
                assert (await api.http.delete(location)).status_code == 204
                return
            method, query = ("PATCH", "") if number % 5 == 3 else ("PUT", f"?digest={DIGEST}")
            exchange = api.speak(method, location + query)
        await exchange.feed(DATA[:6])
        await exchange.hang_up()

    await asyncio.gather(*(abandon(number) for number in range(50)))
    assert await count_sessions(api.opened.database) == 30
    assert await held_by(api) == []
    job = expiry(api, 0)
    assert await job.run() == 30
    assert await job.run() == 0
    assert await held_by(api) == []
    await require_nothing_kept(api)
