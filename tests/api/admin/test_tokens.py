"""Personal access tokens in the admin API: their management and their permissions there."""

from typing import Any

import pytest

from tests.api.conftest import Api
from tests.support.accounts import OPERATOR, Accounts, Login, bearer
from tests.support.admin import Admin

pytestmark = pytest.mark.anyio

TOKENS = "/users/alice/tokens"


@pytest.fixture
async def alice(api: Api) -> Admin:
    return Admin(api.http, await Accounts.of(api.opened).user("alice"))


async def test_a_token_from_first_to_last(alice: Admin) -> None:
    scopes = [{"pattern": "team/**", "actions": ["pull", "push"]}]
    made = await alice.send(
        "POST", TOKENS, {"name": "laptop", "scopes": scopes, "expires": "30d"}, expect=201
    )
    assert list(made) == ["user", "name", "secret", "expires_at"]
    token = alice.by(Login("alice", made["secret"]))
    assert (await token.send("GET", "/me"))["has_scopes"]
    [shown] = (await alice.send("GET", TOKENS))["items"]
    assert shown.pop("created_at").endswith("Z")
    assert shown.pop("last_used_at").endswith("Z")
    assert shown == {"name": "laptop", "scopes": scopes, "expires_at": made["expires_at"]}
    said = await alice.refused("POST", TOKENS, {"name": "laptop"})
    assert said.startswith("409 CONFLICT: alice already has a token 'laptop'; choose another")
    await alice.send("DELETE", f"{TOKENS}/laptop", expect=204)
    assert (await token.answer("GET", "/me")).status_code == 401
    assert "no token" in await alice.refused("DELETE", f"{TOKENS}/laptop")


async def test_what_a_token_cannot_be(alice: Admin) -> None:
    bad: list[dict[str, Any]] = [
        {"name": ""},
        {"name": "a b"},
        {"name": "a/b"},
        {"name": ".."},
        {"name": "é"},
        {"name": "a\0"},
        {"name": "x" * 65},
        {"scopes": []},
        {"scopes": [{}]},
        {"scopes": [{"pattern": "Team", "actions": ["pull"]}]},
        {"scopes": [{"pattern": "team", "actions": ["pul"]}]},
        {"scopes": [{"pattern": "team", "actions": []}]},
        {"scopes": [{"pattern": "team", "actions": ["pull"], "x": 1}]},
        {"scopes": [{"pattern": "team", "actions": ["pull"]}] * 101},
    ]
    for more in bad:
        said = await alice.refused("POST", TOKENS, {"name": "x", **more})
        assert said.startswith("400 INVALID: "), more
    assert (await alice.send("GET", TOKENS))["items"] == []


async def test_a_bounded_token_of_an_admin_administers_nothing(api: Api, alice: Admin) -> None:
    await api.opened.access.users.change("alice", OPERATOR, admin=True)
    token = alice.by(await Accounts.of(api.opened).token("alice", bounds=[("**", "admin")]))
    assert await token.send("GET", "/me") == {
        "name": "alice",
        "admin": False,
        "has_scopes": True,
        "groups": [],
    }
    grant = {"subject": "alice", "pattern": "x", "actions": ["pull"]}
    for method, path, body in (
        ("POST", TOKENS, {"name": "wider"}),
        ("GET", TOKENS, None),
        ("PUT", "/users/alice/password", {"password": "x" * 9, "current": alice.login.secret}),
        ("POST", "/grants", grant),
        ("GET", "/users", None),
    ):
        said = await token.refused(method, path, body)
        assert said.startswith("403 DENIED: permission denied: requires ")
        assert said.endswith("; use the password or a token without scopes")


async def test_a_token_makes_none_that_outlasts_it(api: Api, alice: Admin) -> None:
    token = alice.by(await Accounts.of(api.opened).token("alice", lifetime=3600))
    denied = (
        "403 DENIED: a token cannot create a token that expires later than itself; use an earlier "
        "`expires`"
    )
    for expires in ({}, {"expires": "2h"}, {"expires": "3601s"}):
        assert await token.refused("POST", TOKENS, {"name": "longer", **expires}) == denied
    await token.send("POST", TOKENS, {"name": "shorter", "expires": "30m"}, expect=201)


async def test_a_token_alone_signs_in(api: Api, alice: Admin) -> None:
    accounts = Accounts.of(api.opened)
    for login in (await accounts.token("alice"), await accounts.robot("ci")):
        answer = await api.http.get("/api/v1/me", headers=bearer(login.secret))
        assert answer.json()["name"] == login.name
        wrong = login.secret[:-1] + ("0" if login.secret[-1] != "0" else "1")
        assert (await api.http.get("/api/v1/me", headers=bearer(wrong))).status_code == 401
        elsewhere = login.secret.replace(login.secret.split("_")[1], "0" * 16)
        assert (await api.http.get("/api/v1/me", headers=bearer(elsewhere))).status_code == 401
    assert (await alice.by(Login("root", login.secret)).answer("GET", "/me")).status_code == 401
