"""Endpoint 5: chunks."""

import asyncio
import os

import pytest

from registry.auth.policy.principals import Principal
from registry.errors import DatabaseUnavailableError, UploadUnknownError
from registry.http import body, request_log
from registry.oci.names import RepositoryName
from storage.digest import Digest
from storage.local.driver import LocalDriver
from storage.s3.driver import S3Driver
from tests.api.conftest import Api, Started
from tests.api.uploads.helpers import (
    DATA,
    DIGEST,
    LOCAL,
    NAME,
    SQLITE,
    blob,
    in_pieces,
    put,
    require_gone,
    require_nothing_kept,
    require_offset,
    span,
)
from tests.support.kit import (
    codes,
    count_sessions,
    list_bucket,
    require_session,
)

pytestmark = pytest.mark.anyio


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
        assert "at least 500 per second" in answer.text


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
        assert isinstance(api.opened.driver, LocalDriver)
        full.setattr(api.opened.driver.directory, "reserve", 1 << 60)
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
            failing.setattr(body, "LARGEST_WHOLE", 0)  # else the job calls the writer itself
            failing.setattr(one.opened.database, "write", down)
            refused = await one.http.patch(location, content=b"x" * len(DATA))
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        answer = await two.http.patch(location, content=DATA)
        require_session(answer, 202, NAME, len(DATA))
        await put(one, location)
        assert (await one.http.get(blob(DIGEST))).content == DATA
