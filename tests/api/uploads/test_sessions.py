"""Endpoints 13 and 14: status, cancellation and expiry of sessions."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from registry import clock
from registry.services.content.upload_claims import UploadClaims
from registry.services.content.upload_sessions import UploadRow
from tests.api.conftest import Api, Started
from tests.api.uploads.helpers import (
    DATA,
    DIGEST,
    LOCAL,
    NAME,
    SQLITE,
    expiry,
    held_by,
    list_staged,
    put,
    recovery,
    require_gone,
    require_nothing_kept,
    require_offset,
)
from tests.support.kit import (
    codes,
    count_sessions,
    require_session,
)

pytestmark = pytest.mark.anyio


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
    claim = UploadClaims.acquire

    def after_a_chunk(
        uploads: UploadClaims, session: UploadRow
    ) -> AbstractAsyncContextManager[object]:
        """Send the chunk after the idle sessions are listed and before the claim."""

        @asynccontextmanager
        async def context() -> AsyncIterator[object]:
            monkeypatch.setattr(UploadClaims, "acquire", claim)
            require_session(await api.http.patch(location, content=DATA[:6]), 202, NAME, 6)
            async with claim(uploads, session) as claimed:
                yield claimed

        return context()

    monkeypatch.setattr(UploadClaims, "acquire", after_a_chunk)
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
