"""The catalog of repositories."""

import httpx
import pytest

from registry.auth.caller import Caller
from registry.auth.policy.patterns import RepositoryPattern
from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.support.kit import index_manifest

pytestmark = pytest.mark.anyio

RAW = index_manifest([])
# In byte order.
NAMES = ["a", "a-b", "a.b", "a/b", "a/b/c", "a0", "a_b", "aa", "b", "team/app"]


@pytest.fixture
def driver() -> str:
    return "memory"


async def push(api: Api, *names: str) -> None:
    for name in names:
        assert (await api.put_manifest(name, "t", RAW)).status_code == 201


async def get_names(api: Api, query: str = "") -> list[str]:
    answer = await api.http.get(f"/v2/_catalog{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"repositories"}
    return list(answer.json()["repositories"])


async def walk(api: Api, n: int) -> list[list[str]]:
    """Follow the links and return all pages."""
    pages = []
    target = f"/v2/_catalog?n={n}"
    while True:
        answer = await api.http.get(target)
        pages.append(answer.json()["repositories"])
        link = answer.headers.get("Link")
        if link is None:
            return pages
        assert link.startswith("</v2/_catalog?")
        assert link.endswith('>; rel="next"')
        target = link[1:].partition(">")[0]


async def test_catalog_lists_repositories_in_byte_order(api: Api) -> None:
    assert await get_names(api) == []
    await push(api, *reversed(NAMES))
    assert await get_names(api) == NAMES


async def test_catalog_pages_hold_every_repository_once(api: Api) -> None:
    await push(api, *NAMES)
    for n in (1, 3, len(NAMES) - 1, len(NAMES), len(NAMES) + 1):
        pages = await walk(api, n)
        assert pages == [NAMES[start : start + n] for start in range(0, len(NAMES), n)]


async def test_catalog_goes_on_after_last_whatever_it_is(api: Api) -> None:
    await push(api, *NAMES)
    for last in ("", "a", "a/", "a/a", "A", "~", "zz", "'", "a" * 5000):
        query = httpx.QueryParams({"last": last})
        assert await get_names(api, f"?{query}") == [name for name in NAMES if name > last], last
    assert await get_names(api, "?last=a%00x&n=2") == ["a-b", "a.b"]
    assert await get_names(api, "?last=%ED%A0%80") == []


async def test_catalog_pages_are_as_long_as_the_settings_say(start_api: Started) -> None:
    async with start_api({"limits.page_size": "3", "limits.max_page_size": "5"}) as api:
        await push(api, *NAMES)
        for query, length in (("", 3), ("?n=4", 4), ("?n=9", 5)):
            assert await get_names(api, query) == NAMES[:length]


async def test_catalog_a_repository_lives_from_its_first_content_to_its_last(api: Api) -> None:
    await api.start_upload("session")
    assert await get_names(api) == []
    digest = await api.push_blob("blob", b"blob")
    await api.http.post(f"/v2/mount/blobs/uploads/?mount={digest}&from=blob")
    await push(api, "manifest")
    assert await get_names(api) == ["blob", "manifest", "mount"]
    await api.http.delete("/v2/manifest/manifests/t")
    assert await get_names(api) == ["blob", "manifest", "mount"]  # without a tag, not empty
    for path in (
        f"blob/blobs/{digest}",
        f"mount/blobs/{digest}",
        f"manifest/manifests/{Digest.of(RAW)}",
    ):
        assert (await api.http.delete(f"/v2/{path}")).status_code == 202
    assert await get_names(api) == []


async def test_catalog_shows_only_what_the_caller_may_pull(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"r{n:02}" for n in range(12)]
    await push(api, *names)
    for shown in (names[::2], names[1::2], names[:1], names[-1:], names[5:7], []):
        with monkeypatch.context() as patch:
            patch.setattr(Caller, "visible", list(map(RepositoryPattern.parse, shown)))
            assert await get_names(api) == shown
            for n in (1, 2, 3):
                # A short page or a link to an empty page would reveal hidden repositories.
                pages = [shown[start : start + n] for start in range(0, len(shown), n)]
                assert await walk(api, n) == (pages or [[]])
