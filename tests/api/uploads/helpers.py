"""Helpers of the tests of this folder."""

from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from registry.jobs.runner import Job
from registry.metadata import tables
from storage.digest import Digest
from storage.local.driver import LocalDriver
from storage.s3.driver import S3Driver
from tests.api.conftest import Api
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
