"""Helpers of the tests of this folder."""

from collections.abc import AsyncIterator

import httpx
import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.services.quotas.quotas import Standing
from storage.digest import Digest
from storage.memory import MemoryDriver
from storage.s3.driver import S3Driver
from tests.api.conftest import Api
from tests.support.accounts import OPERATOR
from tests.support.kit import codes, find_job, list_bucket, list_stored

TEAM = "team/**"


async def set_quota(api: Api, limit: int, pattern: str = TEAM) -> None:
    """Set a quota and count the existing content."""
    await api.opened.access.quotas.set(pattern, limit, OPERATOR)
    while await api.opened.registry.quotas.count():
        pass


async def used(api: Api, pattern: str = TEAM) -> int:
    return next(s.used for s in await list_standings(api) if s.quota.pattern == pattern)


async def list_standings(api: Api) -> list[Standing]:
    return [report.standing for report in await api.opened.registry.quotas.list_page(1000)]


async def left_behind(api: Api) -> dict[str, int]:
    """Return the counts of rows and objects, after the job has deleted pending keys."""
    job = find_job(api.opened, "pending-deletions")
    while await job.run():
        pass
    names = (
        *("repositories", "blobs", "repository_blobs", "manifests"),
        *("tags", "uploads", "change_feed"),
    )
    counts = {
        name: sa.select(sa.func.count()).select_from(tables.metadata.tables[name]) for name in names
    }
    found = await api.opened.database.read(
        lambda tx: {n: int(tx.execute(counts[n]).scalar_one()) for n in names}
    )
    driver = api.opened.driver
    if isinstance(driver, S3Driver):
        return {**found, "stored": len(list_bucket(driver, ""))}
    assert isinstance(driver, MemoryDriver)
    return {**found, "stored": len(list_stored(driver)), "staged": len(driver.staged)}


def blob(size: int, seed: int = 0) -> bytes:
    return bytes([seed]) * size


async def in_pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield a body whose length is not announced."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def require_refused(answer: httpx.Response, *, limit: int, used: int) -> None:
    assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
    [error] = answer.json()["errors"]
    assert "quota exceeded: team/**" in error["message"]
    assert error["detail"]["quota"] == TEAM
    assert (error["detail"]["limit"], error["detail"]["used"]) == (limit, used)


async def push_whole(api: Api, data: bytes) -> httpx.Response:
    params = {"digest": str(Digest.of(data))}
    return await api.http.post("/v2/team/app/blobs/uploads/", params=params, content=data)


async def push_streamed(api: Api, data: bytes) -> httpx.Response:
    """Push as Docker does: a PATCH of unknown length, and a PUT without a body."""
    place = await api.start_upload("team/app")
    answer = await api.http.patch(place, content=in_pieces_of(data, 100))
    if answer.status_code != 202:
        assert (await api.http.get(place)).status_code == 404  # the session has ended
        return answer
    return await api.http.put(place, params={"digest": str(Digest.of(data))})


async def push_by_put(api: Api, data: bytes) -> httpx.Response:
    place = await api.start_upload("team/app")
    answer = await api.http.put(place, params={"digest": str(Digest.of(data))}, content=data)
    assert (await api.http.get(place)).status_code == 404
    return answer


WAYS = pytest.mark.parametrize("push", [push_whole, push_streamed, push_by_put])
