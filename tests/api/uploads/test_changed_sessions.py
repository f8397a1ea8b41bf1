"""Tests of sessions that another request changes between the read of the row and the claim."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from registry.http import body
from registry.services.content.upload_claims import UploadClaim, UploadClaims
from registry.services.content.upload_sessions import UploadRow
from storage.digest import Digest
from tests.api.conftest import Api
from tests.api.uploads.helpers import DATA, DIGEST, NAME, list_staged, put, require_gone
from tests.support.kit import require_created, require_session

pytestmark = pytest.mark.anyio

Act = Callable[[], Awaitable[object]]


@pytest.fixture
def before_claim(monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], None]:
    """Return a function that runs `act` between the next read of a session and its claim."""
    # A request whose body has arrived needs no claim (test_arrived_bodies.py).
    monkeypatch.setattr(body, "LARGEST_WHOLE", 0)
    acquire = UploadClaims.acquire

    def arrange(act: Act) -> None:
        def after_act(
            claims: UploadClaims, row: UploadRow
        ) -> AbstractAsyncContextManager[UploadClaim]:
            @asynccontextmanager
            async def context() -> AsyncIterator[UploadClaim]:
                monkeypatch.setattr(UploadClaims, "acquire", acquire)
                await act()
                async with acquire(claims, row) as claim:
                    yield claim

            return context()

        monkeypatch.setattr(UploadClaims, "acquire", after_act)

    return arrange


async def test_chunk_follows_that_of_another_request(
    api: Api, before_claim: Callable[[Act], None]
) -> None:
    location = await api.start_upload(NAME)
    before_claim(lambda: api.http.patch(location, content=DATA[:6]))
    answer = await api.http.patch(location, content=DATA[6:])
    require_session(answer, 202, NAME, len(DATA))
    await put(api, location)


@pytest.mark.parametrize("sent", [b"", DATA[:6]])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_cancelled_by_another_request(
    api: Api, before_claim: Callable[[Act], None], sent: bytes, method: str
) -> None:
    location = await api.start_upload(NAME)
    if sent:
        await api.http.patch(location, content=sent)
    before_claim(lambda: api.http.delete(location))
    query = {"digest": str(DIGEST)} if method == "PUT" else {}
    answer = await api.http.request(method, location, params=query, content=DATA[len(sent) :])
    assert answer.status_code == 404
    assert await list_staged(api) == []
    await require_gone(api, location)


@pytest.mark.parametrize("sent", [b"", DATA])
async def test_completed_by_another_request(
    api: Api, before_claim: Callable[[Act], None], sent: bytes
) -> None:
    location = await api.start_upload(NAME)
    if sent:
        await api.http.patch(location, content=sent)
    before_claim(lambda: put(api, location, content=DATA[len(sent) :]))
    answer = await api.http.patch(location, content=b"more")
    assert answer.status_code == 404
    assert await list_staged(api) == []
    url = f"/v2/{NAME}/blobs/{DIGEST}"
    assert (await api.http.get(url)).content == DATA


async def test_completed_twice(api: Api, before_claim: Callable[[Act], None]) -> None:
    """Both requests have the bytes of the blob, and only the first one stores them."""
    location = await api.start_upload(NAME)
    before_claim(lambda: put(api, location, content=DATA))
    query = {"digest": str(DIGEST)}
    answer: httpx.Response = await api.http.put(location, params=query, content=DATA)
    assert answer.status_code == 404
    assert await list_staged(api) == []
    assert (await api.http.get(f"/v2/{NAME}/blobs/{DIGEST}")).content == DATA


async def test_empty_blob_completed_by_another_request(
    api: Api, before_claim: Callable[[Act], None]
) -> None:
    location = await api.start_upload(NAME)
    empty = Digest.of(b"")
    before_claim(lambda: put(api, location, empty))
    answer = await api.http.patch(location, content=DATA)
    assert answer.status_code == 404
    assert await list_staged(api) == []
    require_created(await api.http.post(f"/v2/{NAME}/blobs/uploads/?digest={empty}"), NAME, empty)
