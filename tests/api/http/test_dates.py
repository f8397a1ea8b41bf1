"""`Last-Modified` of manifests and blobs, and conditional requests with dates."""

from email.utils import formatdate
from typing import Any

import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.kit import index_manifest

pytestmark = pytest.mark.anyio

NAME = "team/app"
RAW = index_manifest([])
DIGEST = Digest.of(RAW)
SECOND = 1_000_000
PUSHED, TAGGED, LINKED = 1_700_000_000, 1_750_000_000, 1_600_000_000


@pytest.fixture
def driver() -> str:
    return "memory"


def date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


async def change(api: Api, table: sa.Table, **values: int | None) -> None:
    """Set timestamps of all rows of a table."""

    def work(tx: Transaction) -> None:
        tx.execute(sa.update(table).values(**values))

    await api.opened.database.write(work, actor="ann")


async def modified(api: Api, path: str) -> str:
    dates = set()
    for method in ("GET", "HEAD"):
        answer = await api.http.request(method, path)
        assert answer.status_code == 200
        dates.add(answer.headers["Last-Modified"])
    [found] = dates
    return str(found)


async def test_3_a_manifest_is_as_old_as_its_tag_or_its_first_push(api: Api) -> None:
    by_tag, by_digest = (f"/v2/{NAME}/manifests/{it}" for it in ("latest", DIGEST))
    await api.put_manifest(NAME, "latest", RAW)
    await change(api, tables.manifests, first_pushed_at=PUSHED * SECOND + 999_999)
    await change(api, tables.tags, updated_at=TAGGED * SECOND)
    for _ in range(2):  # from the database, and from memory
        assert await modified(api, by_tag) == date(TAGGED)
        assert await modified(api, by_digest) == date(PUSHED)
    # A repeated push keeps the date of the manifest and updates that of the tag.
    await api.put_manifest(NAME, "latest", RAW)
    assert await modified(api, by_digest) == date(PUSHED)
    assert await modified(api, by_tag) != date(TAGGED)


async def test_3_of_rows_that_older_code_made_the_last_push_counts(api: Api) -> None:
    path = f"/v2/{NAME}/manifests/{DIGEST}"
    await api.put_manifest(NAME, str(DIGEST), RAW)
    await change(api, tables.manifests, first_pushed_at=None, pushed_at=PUSHED * SECOND)
    assert await modified(api, path) == date(PUSHED)
    await api.put_manifest(NAME, str(DIGEST), RAW)
    assert await modified(api, path) == date(PUSHED)


async def test_2_a_blob_is_as_old_as_its_link(api: Api) -> None:
    digest = await api.push_blob(NAME, b"data")
    await change(api, tables.repository_blobs, linked_at=LINKED * SECOND)
    path = f"/v2/{NAME}/blobs/{digest}"
    assert await modified(api, path) == date(LINKED)
    await api.push_blob(NAME, b"data")
    assert await modified(api, path) == date(LINKED)
    part = {"Range": "bytes=1-2", "If-Range": date(LINKED)}
    assert (await api.http.get(path, headers=part)).status_code == 206
    part["If-Range"] = date(LINKED + 1)
    assert (await api.http.get(path, headers=part)).status_code == 200


async def test_3_conditions_on_the_date(api: Api) -> None:
    await api.put_manifest(NAME, "latest", RAW)
    blob = await api.push_blob(NAME, b"data")
    await change(api, tables.tags, updated_at=TAGGED * SECOND + 1)
    await change(api, tables.repository_blobs, linked_at=TAGGED * SECOND + 1)
    for path, etag in (
        (f"/v2/{NAME}/manifests/latest", f'"{DIGEST}"'),
        (f"/v2/{NAME}/blobs/{blob}", f'"{blob}"'),
    ):
        cases: list[tuple[dict[str, Any], int]] = [
            ({"If-Modified-Since": date(TAGGED)}, 304),
            ({"If-Modified-Since": date(TAGGED + 1)}, 304),
            ({"If-Modified-Since": date(TAGGED - 1)}, 200),
            ({"If-Modified-Since": "yesterday"}, 200),
            ({"If-Modified-Since": ""}, 200),
            ({"If-Modified-Since": "Thu, 99 Foo 99999 99:99:99 GMT"}, 200),
            # If-None-Match takes precedence.
            ({"If-Modified-Since": date(TAGGED), "If-None-Match": '"other"'}, 200),
            ({"If-Modified-Since": date(TAGGED - 1), "If-None-Match": etag}, 304),
        ]
        for headers, status in cases:
            for method in ("GET", "HEAD"):
                answer = await api.http.request(method, path, headers=headers)
                assert answer.status_code == status, (path, headers)
                assert answer.headers["Last-Modified"] == date(TAGGED)
