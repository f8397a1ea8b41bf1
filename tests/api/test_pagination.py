"""Pagination: valid values of `n` and `last`, and page sizes."""

import httpx
import pytest

from tests.api.conftest import Api, Started
from tests.support.kit import codes, index_manifest

pytestmark = pytest.mark.anyio

RAW = index_manifest([])
LISTS = {"/v2/r0/tags/list": "tags", "/v2/_catalog": "repositories"}

NO_NUMBERS = ["-1", "+5", "5.0", "1e9", "0x5", "1_000", " 5", "5 ", "5\n", "5\0", "\0", "", "a"]
NO_NUMBERS += ["\u0663", "\uff11", "\u00b2", "-" + 5000 * "9"]  # str.isdigit() accepts these


@pytest.fixture
def driver() -> str:
    return "memory"


async def fill(api: Api) -> None:
    for n in range(5):
        await api.put_manifest("r0", f"t{n}", RAW)
        await api.put_manifest(f"r{n}", "t0", RAW)


async def test_8_n_that_is_no_number_is_400(api: Api) -> None:
    await fill(api)
    for path in LISTS:
        for text in NO_NUMBERS:
            answer = await api.http.get(path, params={"n": text})
            assert (answer.status_code, codes(answer)) == (400, ["UNSUPPORTED"]), text
            assert answer.json()["errors"][0]["detail"] == {"n": text[:80]}
        answer = await api.http.get(f"{path}?n=%ED%A0%80")
        assert (answer.status_code, codes(answer)) == (400, ["UNSUPPORTED"])


async def test_8_n_of_zero_is_an_empty_list_without_a_link(api: Api) -> None:
    await fill(api)
    for path, key in LISTS.items():
        for query in ("n=0", "n=000", "n=0&last=r", "n=" + 5000 * "0"):
            answer = await api.http.get(f"{path}?{query}")
            assert (answer.status_code, answer.json()[key]) == (200, [])
            assert "Link" not in answer.headers


async def test_8_a_large_n_is_clamped(start_api: Started) -> None:
    async with start_api({"limits.page_size": "2", "limits.max_page_size": "3"}) as api:
        await fill(api)
        for path, key in LISTS.items():
            for n in (3, 4, 10**9, 10**10, 2**31, 2**63 - 1, 2**63, 2**64, "0005"):
                answer = await api.http.get(path, params={"n": n})
                assert (answer.status_code, len(answer.json()[key])) == (200, 3), n
                assert "n=3" in answer.headers["Link"]
            for digits in ("1" + 5000 * "0", 5000 * "9"):
                answer = await api.http.get(f"{path}?n={digits}")
                assert (answer.status_code, len(answer.json()[key])) == (200, 3)
            for n, length in (("2", 2), ("1", 1), (5000 * "0" + "2", 2)):
                answer = await api.http.get(path, params={"n": n})
                assert len(answer.json()[key]) == length


async def test_8_a_large_n_gets_everything_there_is(api: Api) -> None:
    await fill(api)
    for path, key in LISTS.items():
        for n in (5, 6, 9_999, 10_000, 10**9, 2**63):
            answer = await api.http.get(path, params={"n": n})
            assert len(answer.json()[key]) == 5
            assert "Link" not in answer.headers


async def test_12_n_is_not_asked_for(api: Api) -> None:
    """Referrers have no page size, and unknown parameters are ignored."""
    path = f"/v2/r0/referrers/sha256:{64 * 'a'}"
    for n in ("0", "-1", "x"):
        answer: httpx.Response = await api.http.get(path, params={"n": n})
        assert (answer.status_code, answer.json()["manifests"]) == (200, [])
