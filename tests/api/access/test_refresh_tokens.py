"""Identity tokens with tools that do not support them (B8).

oras-py and Kubernetes read `config.json` as if it contained a password.
"""

from collections.abc import AsyncIterator

import httpx
import pytest

from registry.auth.credentials.passwords import Passwords
from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, OPERATOR, Accounts, Login, access_of
from tests.support.audit_log import read_audit
from tests.support.kit import index_manifest

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["memory"]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

PUSH = "repository:team/app:pull,push"


@pytest.fixture
async def api(start_api: Started) -> AsyncIterator[Api]:
    async with start_api({**AUTH, "limits.failed_sign_ins": "3"}) as started:
        yield started


@pytest.fixture
async def alice(api: Api) -> Login:
    accounts = Accounts.of(api.opened)
    login = await accounts.user("alice", admin=True)
    await accounts.grant("alice", "team/**", "pull,push")
    return login


async def log_in(api: Api, login: Login, service: str = "moorage") -> httpx.Response:
    """Send the request of `docker login`."""
    params = {"account": login.name, "client_id": "docker", "offline_token": "true"}
    return await api.http.get("/token", params={**params, "service": service}, headers=login.basic)


async def make_refresh_token(api: Api, login: Login, service: str = "moorage") -> str:
    return str((await log_in(api, login, service)).json()["refresh_token"])


async def test_it_is_taken_as_a_password_where_its_user_is_named(api: Api, alice: Login) -> None:
    refresh = await make_refresh_token(api, alice)
    stored = Login("alice", refresh)
    assert (await api.http.get("/v2/", headers=stored.basic)).status_code == 200
    path = "/v2/team/app/blobs/uploads/"
    assert (await api.http.post(path, headers=stored.basic)).status_code == 202
    got = await api.http.get("/token", params={"scope": PUSH}, headers=stored.basic)
    assert access_of(got.json()["token"]) == {"team/app": {"pull", "push"}}
    fields = {"grant_type": "password", "username": "alice", "password": refresh, "scope": PUSH}
    posted = await api.http.post("/token", data=fields)
    assert access_of(posted.json()["access_token"]) == {"team/app": {"pull", "push"}}


async def test_it_is_taken_for_nobody_else(api: Api, alice: Login) -> None:
    await Accounts.of(api.opened).user("bob")
    refresh = await make_refresh_token(api, alice)
    other = await make_refresh_token(api, alice, "another.example")
    last = "0" if refresh[-1] != "0" else "1"
    for login in (
        *(Login("bob", refresh), Login("ALICE", refresh), Login("", refresh)),
        *(Login("alice", refresh[:-1] + last), Login("alice", other)),
    ):
        assert (await api.http.get("/v2/", headers=login.basic)).status_code == 401, login


async def test_it_brings_no_other_one(api: Api, alice: Login) -> None:
    """Otherwise each sign-in of a cluster would replace a refresh token of a laptop."""
    refresh = await make_refresh_token(api, alice)
    assert await make_refresh_token(api, Login("alice", refresh)) == refresh
    fields = {"grant_type": "password", "username": "alice", "password": refresh}
    posted = await api.http.post("/token", data={**fields, "access_type": "offline"})
    assert posted.json()["refresh_token"] == refresh
    fields = {"grant_type": "refresh_token", "refresh_token": refresh}
    assert (await api.http.post("/token", data=fields)).status_code == 200


async def test_it_administers_nothing(api: Api, alice: Login) -> None:
    personal = await Accounts.of(api.opened).token("alice")
    for login in (alice, personal):
        stored = Login("alice", await make_refresh_token(api, login))
        denied = await api.http.get("/api/v1/users", headers=stored.basic)
        assert denied.status_code == 403
        assert "refresh token" in denied.text
        body = {"password": "another password", "current": stored.secret}
        path = "/api/v1/users/alice/password"
        assert (await api.http.put(path, json=body, headers=login.basic)).status_code == 403


async def test_it_overrides_no_protection(api: Api, alice: Login) -> None:
    raw = index_manifest([])
    stored = Login("alice", await make_refresh_token(api, alice))
    override = {"Moorage-Override": "immutable"}
    for login, status in ((alice, 201), (stored, 403)):
        headers = {**login.basic, **override}
        answer = await api.put_manifest("team/app", "v1", raw, headers=headers)
        assert answer.status_code == status
    assert (await api.put_manifest("team/app", "v1", raw, headers=stored.basic)).status_code == 201


async def test_it_ends_with_the_password(api: Api, alice: Login) -> None:
    stored = Login("alice", await make_refresh_token(api, alice))
    assert (await api.http.get("/v2/", headers=stored.basic)).status_code == 200
    await api.opened.access.users.set_password("alice", "another password", OPERATOR)
    assert (await api.http.get("/v2/", headers=stored.basic)).status_code == 401


async def test_switched_off_clients_keep_the_password(start_api: Started) -> None:
    async with start_api(AUTH) as api:
        alice = await Accounts.of(api.opened).user("alice")
        before = Login("alice", await make_refresh_token(api, alice))
    async with start_api({**AUTH, "auth.refresh_tokens": "false"}) as api:
        answer = await log_in(api, alice)
        assert answer.status_code == 200
        assert "refresh_token" not in answer.json()
        fields = {"grant_type": "password", "username": "alice", "password": alice.secret}
        posted = await api.http.post("/token", data={**fields, "access_type": "offline"})
        assert "refresh_token" not in posted.json()
        # Earlier logins stay valid.
        assert (await api.http.get("/v2/", headers=before.basic)).status_code == 200


async def test_an_empty_password_is_wrong_and_counts_for_nobody(
    api: Api, alice: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that finds no password next to an identity token repeats this request."""
    checked: list[str] = []
    verify = Passwords.verify

    async def watched(self: Passwords, password: str, stored: str | None) -> bool:
        checked.append(password)
        return await verify(self, password, stored)

    monkeypatch.setattr(Passwords, "verify", watched)
    fields = {"grant_type": "password", "username": "alice", "password": ""}
    for _ in range(20):
        assert (await api.http.get("/v2/", headers=Login("alice", "").basic)).status_code == 401
        assert (await api.http.get("/token", headers=Login("bob", "").basic)).status_code == 401
        assert (await api.http.post("/token", data=fields)).status_code == 401
    assert checked == []
    assert (await api.http.get("/v2/", headers=alice.basic)).status_code == 200
    booked = await read_audit(api.opened.access.audit)
    assert "sign-in.fail" not in [row.kind for row in booked]


@pytest.mark.parametrize("secret", ["a guess", "moorage_" + "0" * 16 + "_" + "0" * 64])
async def test_failures_of_one_account_keep_no_other_out(
    api: Api, alice: Login, secret: str
) -> None:
    bob = await Accounts.of(api.opened).user("bob")
    statuses = [
        (await api.http.get("/v2/", headers=Login("alice", secret).basic)).status_code
        for _ in range(30)
    ]
    assert statuses == [401] * 3 + [429] * 27
    assert (await api.http.get("/v2/", headers=bob.basic)).status_code == 200
    assert (await api.http.get("/token", headers=bob.basic)).status_code == 200
    # The account must wait, but only with a password, which can be guessed.
    assert (await api.http.get("/token", headers=alice.basic)).status_code == 429
    personal = await Accounts.of(api.opened).token("alice")
    assert (await api.http.get("/token", headers=personal.basic)).status_code == 200
