"""Endpoint 8: list tags."""

import asyncio
import re

import httpx
import pytest
import sqlalchemy as sa

from registry.metadata.engine import migrate
from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.support.kit import codes, index_manifest
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

RAW = index_manifest([])
LIST = "/v2/team/app/tags/list"
# In byte order. Most collations would put `a-1` next to `a1` and `_` before the digits.
TAGS = ["0", "1.10", "1.9", "10", "9", "A", "B", "Z", "_", "a", "a-1", "a.1", "a1", "aA", "a_", "b"]


@pytest.fixture
def driver() -> str:
    return "memory"


async def push(api: Api, *tags: str, name: str = "team/app") -> None:
    for tag in tags:
        assert (await api.put_manifest(name, tag, RAW)).status_code == 201


async def get_tags(api: Api, query: str = "") -> list[str]:
    answer = await api.http.get(LIST + query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"name", "tags"}
    assert answer.json()["name"] == "team/app"
    return list(answer.json()["tags"])


def next_of(answer: httpx.Response) -> str | None:
    link = answer.headers.get("Link")
    if link is None:
        return None
    match = re.fullmatch(r'<(/v2/[!-~]+)>; rel="next"', link)
    assert match, link
    return match[1]


async def test_8_lists_tags_in_byte_order(api: Api) -> None:
    await push(api, *reversed(TAGS))
    await push(api, "other", name="team/app2")
    assert await get_tags(api) == sorted(TAGS) == TAGS


async def test_8_a_list_without_tags_is_empty_not_null(api: Api) -> None:
    await push(api, "t")
    await api.http.delete("/v2/team/app/manifests/t")
    answer = await api.http.get(LIST)
    assert answer.json() == {"name": "team/app", "tags": []}
    assert "Link" not in answer.headers


async def test_8_a_repository_of_blobs_alone_has_no_tags(api: Api) -> None:
    await api.push_blob("team/app", b"blob")
    assert await get_tags(api) == []


async def test_8_an_unknown_repository_is_404(api: Api) -> None:
    await push(api, "t")
    for name in ("nowhere", "team", "team/app/t", "team/app/tags/list"):
        answer = await api.http.get(f"/v2/{name}/tags/list")
        assert (answer.status_code, codes(answer)) == (404, ["NAME_UNKNOWN"]), name
    for name in ("Team", "team_", "a" * 256):
        answer = await api.http.get(f"/v2/{name}/tags/list")
        assert (answer.status_code, codes(answer)) == (400, ["NAME_INVALID"]), name


async def test_8_a_link_follows_exactly_when_more_follows(api: Api) -> None:
    await push(api, *TAGS)
    for n in range(1, len(TAGS) + 3):
        answer = await api.http.get(LIST, params={"n": n})
        assert answer.json()["tags"] == TAGS[:n]
        assert (next_of(answer) is not None) == (n < len(TAGS)), n


async def test_8_pages_hold_every_tag_once(api: Api) -> None:
    await push(api, *TAGS)
    for n in (1, 3, 5, len(TAGS)):
        seen: list[str] = []
        target: str | None = f"{LIST}?n={n}"
        while target is not None:
            answer = await api.http.get(target)
            page = answer.json()["tags"]
            target = next_of(answer)
            assert len(page) == n or target is None
            seen += page
        assert seen == TAGS


async def test_8_last_need_not_be_a_tag(api: Api) -> None:
    await push(api, *TAGS)
    for last in ("", "0", "1", "1.1", "A", "a", "a!", "a~", "zzz", "~", "'", '"', "%", "a" * 5000):
        after = [tag for tag in TAGS if tag > last]
        quoted = httpx.QueryParams({"last": last})
        assert await get_tags(api, f"?{quoted}") == after, last
        assert await get_tags(api, f"?n=2&{quoted}") == after[:2], last


async def test_8_last_may_hold_what_a_database_cannot(api: Api) -> None:
    await push(api, *TAGS)
    for last, after in (("a%00zz", "a"), ("%00", ""), ("a%00", "a")):
        assert await get_tags(api, f"?last={last}") == [tag for tag in TAGS if tag > after]
    for last in ("%ED%A0%80", "%FF", "\u00ff", "%F0%9F%90%8B"):
        assert await get_tags(api, f"?last={last}") == []


async def test_8_without_n_there_are_all(api: Api) -> None:
    """Many tools send one request and do not follow `Link`."""
    tags = [f"t{n:04}" for n in range(1100)]
    for start in range(0, len(tags), 100):
        query = {"tag": tags[start : start + 100]}
        answer = await api.put_manifest("team/app", str(Digest.of(RAW)), RAW, params=query)
        assert answer.status_code == 201
    answer = await api.http.get(LIST)
    assert answer.json()["tags"] == tags
    assert next_of(answer) is None


async def test_8_pages_are_as_long_as_the_settings_say(start_api: Started) -> None:
    async with start_api({"limits.page_size": "3", "limits.max_page_size": "5"}) as api:
        await push(api, *TAGS)
        for query, length in (("", 3), ("?n=4", 4), ("?n=5", 5), ("?n=6", 5), ("?n=1", 1)):
            answer = await api.http.get(LIST + query)
            assert answer.json()["tags"] == TAGS[:length], query
            assert next_of(answer) is not None
        assert await get_tags(api, f"?last={TAGS[-3]}") == TAGS[-2:]


async def test_8_a_tag_pushed_or_deleted_shows_at_once(api: Api) -> None:
    await push(api, "a", "b")
    for _ in range(3):
        await api.http.delete("/v2/team/app/manifests/a")
        assert await get_tags(api) == ["b"]
        await push(api, "a")
        assert await get_tags(api) == ["a", "b"]


async def test_8_a_tag_shows_in_the_list_as_soon_as_its_push_is_acknowledged(api: Api) -> None:
    async def push_and_list(tag: str) -> None:
        await push(api, tag)
        assert tag in await get_tags(api)

    await asyncio.gather(*(push_and_list(f"t{n}") for n in range(20)))


@SQLITE
async def test_8_order_is_that_of_bytes_whatever_the_database_prefers(
    start_api: Started, postgres: Cluster
) -> None:
    """A PostgreSQL cluster may sort by the rules of a language."""
    with postgres.database(empty=True) as url:
        name = sa.make_url(url).database
        with postgres._admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name}"))
            connection.execute(
                sa.text(
                    f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'"
                )
            )
        migrate.upgrade(url)
        async with start_api({"database.url": url}) as api:
            await push(api, *TAGS)
            assert await get_tags(api) == TAGS
            assert await get_tags(api, "?n=4&last=Z") == ["_", "a", "a-1", "a.1"]
            for repository in ("b", "a-b", "a/b", "a.b", "a_b", "ab"):
                await push(api, "t", name=repository)
            names = (await api.http.get("/v2/_catalog?last=a")).json()["repositories"]
            assert names == ["a-b", "a.b", "a/b", "a_b", "ab", "b", "team/app"]
