"""Tests of requests whose small body has arrived: one job for the bytes and the row (ADR 22)."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import sqlalchemy as sa
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.http.body import LARGEST_WHOLE, WHOLE
from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.services.content.publication import Publication
from registry.services.content.upload_sessions import UploadSessions
from storage.digest import Digest
from storage.local.upload import LocalUpload
from tests.api.conftest import Api, Started
from tests.api.uploads.helpers import (
    DATA,
    DIGEST,
    LOCAL,
    NAME,
    SQLITE,
    held_by,
    list_staged,
    put,
    require_gone,
    require_offset,
    span,
)
from tests.support.kit import codes, require_session

pytestmark = [pytest.mark.anyio, LOCAL.mark, SQLITE.mark]


def with_arrived_bodies(app: ASGIApp) -> ASGIApp:
    """Return the application behind a server that has received each body before it calls it."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        await app({**scope, WHOLE: lambda: int(length)}, receive, send)

    return serve


@asynccontextmanager
async def started(start_api: Started, overrides: dict[str, str]) -> AsyncIterator[Api]:
    async with start_api(overrides) as api:
        transport = api.http._transport
        assert isinstance(transport, httpx.ASGITransport)
        wrapped = httpx.ASGITransport(with_arrived_bodies(transport.app))
        async with httpx.AsyncClient(transport=wrapped, base_url="http://localhost") as http:
            yield Api(http, api.opened, api.settings)


@pytest.fixture
async def api(start_api: Started) -> AsyncIterator[Api]:
    async with started(start_api, {}) as api:
        yield api


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which path requests take: one job, or the ordinary path with a claim."""
    taken: list[str] = []
    receive, publish, claim = (
        LocalUpload.receive_whole,
        LocalUpload.publish_whole,
        LocalUpload.claim,
    )

    def noted(name: str, call: Callable[..., Awaitable[object]]) -> object:
        async def note(*given: object, **named: object) -> object:
            taken.append(name)
            return await call(*given, **named)

        return note

    monkeypatch.setattr(LocalUpload, "receive_whole", noted("receive", receive))
    monkeypatch.setattr(LocalUpload, "publish_whole", noted("publish", publish))
    monkeypatch.setattr(LocalUpload, "claim", noted("claim", claim))
    return taken


async def is_linked(api: Api) -> bool:
    answer = await api.http.get(f"/v2/{NAME}/blobs/{DIGEST}")
    return answer.status_code == 200 and answer.content == DATA


async def count_rows(database: Database) -> int:
    query = sa.select(sa.func.count()).select_from(tables.uploads)
    return await database.read(lambda tx: tx.execute(query).scalar_one())


async def test_a_small_push_takes_one_job_a_request(api: Api, paths: list[str]) -> None:
    location = await api.start_upload(NAME)
    require_session(await api.http.patch(location, content=DATA), 202, NAME, len(DATA))
    await require_offset(api, location, len(DATA))
    paths.clear()
    await put(api, location)
    assert paths == ["publish"]
    assert await is_linked(api)
    await require_gone(api, location)
    assert (await held_by(api), await list_staged(api)) == ([], [])
    assert await count_rows(api.opened.database) == 0


async def test_the_first_chunk_takes_one_job_and_the_others_continue(
    api: Api, paths: list[str]
) -> None:
    location = await api.start_upload(NAME)
    answer = await api.http.patch(location, content=DATA[:6], headers=span(0, 5))
    require_session(answer, 202, NAME, 6)
    assert paths == ["receive"]
    answer = await api.http.patch(location, content=DATA[6:], headers=span(6, len(DATA) - 1))
    require_session(answer, 202, NAME, len(DATA))
    await put(api, location)
    assert paths == ["receive", "claim", "publish"]
    assert await is_linked(api)


@pytest.mark.parametrize("size", [0, LARGEST_WHOLE + 1])
async def test_other_bodies_take_the_ordinary_path(api: Api, paths: list[str], size: int) -> None:
    location = await api.start_upload(NAME)
    data = b"x" * size
    require_session(await api.http.patch(location, content=data), 202, NAME, size)
    assert paths == ["claim"]
    await put(api, location, Digest.of(data))


async def test_a_wrong_digest_ends_the_session(api: Api) -> None:
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA)
    answer = await api.http.put(location, params={"digest": str(Digest.of(b"other"))})
    assert (answer.status_code, codes(answer)) == (400, ["DIGEST_INVALID"])
    await require_gone(api, location)
    assert await list_staged(api) == []


async def test_another_range_than_the_body_is_refused(api: Api) -> None:
    location = await api.start_upload(NAME)
    answer = await api.http.patch(location, content=DATA, headers=span(0, 5))
    assert codes(answer) == ["SIZE_INVALID"]
    await require_offset(api, location, 0)


async def test_bytes_of_a_killed_request_are_replaced(api: Api, paths: list[str]) -> None:
    """The file is longer than the row says, so the body takes the ordinary path."""
    location = await api.start_upload(NAME)
    session = location.rpartition("/")[2]
    (api.opened.driver.path("staging") / session).write_bytes(b"never acknowledged")  # type: ignore[attr-defined]
    require_session(await api.http.patch(location, content=DATA), 202, NAME, len(DATA))
    assert paths == ["receive", "claim"]
    await put(api, location)
    assert await is_linked(api)


async def test_a_claimed_session_is_busy(api: Api) -> None:
    location = await api.start_upload(NAME)
    session = location.rpartition("/")[2]
    claimed = await api.opened.driver.claim(session)
    answer = await api.http.patch(location, content=DATA)
    assert (answer.status_code, codes(answer)) == (409, ["BLOB_UPLOAD_INVALID"])
    await claimed.release()
    require_session(await api.http.patch(location, content=DATA), 202, NAME, len(DATA))
    claimed = await api.opened.driver.claim(session)
    answer = await api.http.put(location, params={"digest": str(DIGEST)})
    assert (answer.status_code, codes(answer)) == (409, ["BLOB_UPLOAD_INVALID"])
    await claimed.release()
    await put(api, location)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_session_that_ended_meanwhile(
    api: Api, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The row is read, then another request cancels the session."""
    location = await api.start_upload(NAME)
    if method == "PUT":
        await api.http.patch(location, content=DATA)
    get = UploadSessions.get

    async def get_and_cancel(*given: object, **named: object) -> object:
        row = await get(*given, **named)  # type: ignore[arg-type]
        monkeypatch.setattr(UploadSessions, "get", get)
        assert (await api.http.delete(location)).status_code == 204
        return row

    monkeypatch.setattr(UploadSessions, "get", get_and_cancel)
    query = {"digest": str(DIGEST)} if method == "PUT" else {}
    content = DATA if method == "PATCH" else b""
    answer = await api.http.request(method, location, params=query, content=content)
    assert codes(answer) == ["BLOB_UPLOAD_UNKNOWN"]
    assert (await held_by(api), await list_staged(api)) == ([], [])
    assert not await is_linked(api)


async def test_two_pushes_of_a_blob_keep_one_copy(api: Api) -> None:
    for _ in range(2):
        location = await api.start_upload(NAME)
        await api.http.patch(location, content=DATA)
        await put(api, location)
    await api.opened.registry.deletions.sweep()
    assert await is_linked(api)


async def test_a_put_that_was_interrupted_before_its_link_can_be_repeated(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are published, and the transaction fails."""
    location = await api.start_upload(NAME)
    await api.http.patch(location, content=DATA)
    link = Publication._link

    def fail(*_given: object, **_named: object) -> None:
        raise sa.exc.OperationalError("", {}, Exception("disk I/O error"))

    monkeypatch.setattr(Publication, "_link", fail)
    answer = await api.http.put(location, params={"digest": str(DIGEST)})
    assert answer.status_code == 503
    monkeypatch.setattr(Publication, "_link", link)
    await put(api, location)
    assert await is_linked(api)
