"""Requests and uploads above the configured limits get 429 with Retry-After."""

import httpx
import pytest

from tests.api.conftest import Started
from tests.support.accounts import AUTH, Accounts, bearer, get_token
from tests.support.kit import codes

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["memory"]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

PROXY = {"http.trusted_proxies": "127.0.0.1"}


def coming_from(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


def require_too_many(answer: httpx.Response) -> None:
    assert answer.status_code == 429
    assert codes(answer) == ["TOOMANYREQUESTS"]
    assert int(answer.headers["Retry-After"]) >= 1


async def test_requests_of_an_address(start_api: Started) -> None:
    async with start_api({"limits.requests_per_second": "3", **PROXY}) as api:
        for path in ("/v2/", "/v2/a/tags/list", "/v2/"):
            first = await api.http.get(path, headers=coming_from("192.0.2.1"))
            assert first.status_code in {200, 404}
        require_too_many(await api.http.get("/v2/", headers=coming_from("192.0.2.1")))
        other = await api.http.get("/v2/", headers=coming_from("192.0.2.2"))
        assert other.status_code == 200


async def test_requests_of_an_account_from_everywhere(start_api: Started) -> None:
    async with start_api({**AUTH, "limits.requests_per_second": "5", **PROXY}) as api:
        ann = await Accounts.of(api.opened).user("ann")
        token = await get_token(api.http, ann)  # this request counts too
        for number in range(4):
            headers = bearer(token) | coming_from(f"192.0.2.{number}")
            assert (await api.http.get("/v2/", headers=headers)).status_code == 200
        headers = bearer(token) | coming_from("192.0.2.9")
        require_too_many(await api.http.get("/v2/", headers=headers))
        # Anonymous is not an account.
        nobody = await api.http.get("/token", headers=coming_from("192.0.2.10"))
        assert nobody.status_code == 200


async def test_uploads_begun_by_an_address(start_api: Started) -> None:
    async with start_api({"limits.uploads_per_minute": "2", **PROXY}) as api:
        path = "/v2/team/app/blobs/uploads/"
        begun = [await api.http.post(path, headers=coming_from("192.0.2.1")) for _ in range(2)]
        assert [answer.status_code for answer in begun] == [202, 202]
        require_too_many(await api.http.post(path, headers=coming_from("192.0.2.1")))
        # Sessions that were started can continue.
        location = begun[0].headers["Location"]
        patched = await api.http.patch(location, content=b"data", headers=coming_from("192.0.2.1"))
        assert patched.status_code == 202
        assert (await api.http.post(path, headers=coming_from("192.0.2.2"))).status_code == 202


async def test_open_sessions_of_an_account(start_api: Started) -> None:
    async with start_api({**AUTH, "limits.open_uploads": "3"}) as api:
        accounts = Accounts.of(api.opened)
        ann, bob = await accounts.user("ann"), await accounts.user("bob")
        for login in (ann, bob):
            await accounts.grant(login.name, "**", "pull,push")
        path = "/v2/team/app/blobs/uploads/"
        begun = [await api.http.post(path, headers=ann.basic) for _ in range(3)]
        assert [answer.status_code for answer in begun] == [202, 202, 202]
        answer = await api.http.post("/v2/team/other/blobs/uploads/", headers=ann.basic)
        require_too_many(answer)
        assert "cancel them" in answer.json()["errors"][0]["message"]
        assert (await api.http.post(path, headers=bob.basic)).status_code == 202
        location = begun[0].headers["Location"]
        assert (await api.http.delete(location, headers=ann.basic)).status_code == 204
        assert (await api.http.post(path, headers=ann.basic)).status_code == 202
