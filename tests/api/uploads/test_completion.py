"""Endpoint 6: complete a session, and every 416."""

import asyncio

import pytest

from registry.errors import DatabaseUnavailableError
from registry.services.content.publication import Publication
from storage.digest import Digest
from storage.staging import StagedUpload
from tests.api.conftest import Api
from tests.api.uploads.helpers import (
    ABSENT,
    DATA,
    DIGEST,
    LOCAL,
    NAME,
    SQLITE,
    blob,
    expiry,
    in_pieces,
    list_staged,
    put,
    require_gone,
    require_nothing_kept,
    require_offset,
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
