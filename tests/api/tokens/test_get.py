"""GET of the token endpoint (2)."""

import re
from datetime import UTC, datetime

import httpx
import pytest

from tests.api.conftest import Api
from tests.api.tokens.helpers import DATA, DIGEST, NAME, PUSH, SQLITE, post, require_basic_challenge
from tests.support.accounts import (
    ANONYMOUS,
    Accounts,
    Login,
    access_of,
    bearer,
    claims_of,
    get_token,
    read_challenge,
    signed,
)
from tests.support.kit import codes, require_created
from tests.support.scopes import SCOPES

pytestmark = pytest.mark.anyio


# 2: GET


@SQLITE
async def test_2_what_a_token_answer_holds(api: Api, alice: Login) -> None:
    params = {"service": "moorage", "scope": PUSH, "account": "alice", "client_id": "docker"}
    answer = await api.http.get("/token", params=params, headers=alice.basic)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert set(body) == {"token", "access_token", "expires_in", "issued_at"}
    assert body["token"] == body["access_token"]
    assert type(body["expires_in"]) is int
    assert body["expires_in"] >= 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", body["issued_at"])
    issued = datetime.fromisoformat(body["issued_at"])
    assert abs((datetime.now(UTC) - issued).total_seconds()) < 60
    claims = claims_of(body["token"])
    assert {"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "access"} <= set(claims)
    assert claims["exp"] - claims["iat"] == body["expires_in"]
    assert claims["sub"] == "alice"
    assert claims["access"] == [{"type": "repository", "name": NAME, "actions": ["pull", "push"]}]


@SQLITE
async def test_2_all_parameters_are_optional(api: Api, alice: Login) -> None:
    for login, subject in ((ANONYMOUS, ""), (alice, "alice")):
        answer = await api.http.get("/token", headers=login.basic if login.name else {})
        claims = claims_of(answer.json()["token"])
        assert (claims["sub"], claims["access"]) == (subject, [])


@SQLITE
async def test_2_scopes_repeated_and_in_one(api: Api, alice: Login) -> None:
    for scopes in (
        ["repository:team/a:pull", "repository:team/b:pull,push"],
        ["repository:team/a:pull repository:team/b:pull,push"],
        ["repository:team/b:push", "repository:team/b:pull  repository:team/a:pull"],
    ):
        token = await get_token(api.http, alice, *scopes)
        assert access_of(token) == {"team/a": {"pull"}, "team/b": {"pull", "push"}}


@SQLITE
async def test_2_fewer_than_asked_is_no_error(api: Api, accounts: Accounts, alice: Login) -> None:
    await accounts.grant("anonymous", "public/*", "pull")
    bob = await accounts.user("bob")
    robot = await accounts.robot("ci")
    await accounts.grant("robot:ci", "team/app", "pull,create")
    await accounts.grant("robot:ci", "hidden", "push,delete")  # has no effect without pull
    asked = [f"repository:{n}:pull,push,delete" for n in ("team/app", "public/x", "hidden")]
    for login, granted in (
        (alice, {"team/app": {"pull", "push"}, "public/x": {"pull"}}),
        (bob, {"public/x": {"pull"}}),
        (robot, {"team/app": {"pull", "push"}, "public/x": {"pull"}}),
        (ANONYMOUS, {"public/x": {"pull"}}),
    ):
        assert access_of(await get_token(api.http, login, *asked)) == granted


@SQLITE
async def test_2_odd_scopes_grant_what_they_clearly_ask(api: Api, alice: Login) -> None:
    fields = {"grant_type": "password", "username": alice.name, "password": alice.secret}
    for what, (scope, granted) in SCOPES.items():
        assert access_of(await get_token(api.http, alice, scope)) == granted, what
        answer = await post(api, **fields, scope=scope)
        assert answer.status_code == 200, what
        assert access_of(answer.json()["access_token"]) == granted, what


def many_scopes(count: int) -> list[str]:
    return [f"repository:team/r{number:04}:pull,push" for number in range(count)]


async def require_all(api: Api, token: str, count: int) -> None:
    """Check that the token allows pull and push in exactly the requested repositories."""
    assert len(token) <= 7 * 1024
    headers = bearer(token)
    for number in (*range(0, count, 29), count - 1):
        name = f"team/r{number:04}"
        pulled = await api.http.get(f"/v2/{name}/manifests/x", headers=headers)
        assert pulled.status_code == 404, pulled.text
        begun = await api.http.post(f"/v2/{name}/blobs/uploads/", headers=headers)
        assert begun.status_code == 202, begun.text
    answer = await api.http.get(f"/v2/team/r{count:04}/manifests/x", headers=headers)
    assert read_challenge(answer)["error"] == "insufficient_scope"


@SQLITE
@pytest.mark.parametrize("count", [50, 70, 110])
async def test_2_all_that_regsync_asks_for_in_a_get_is_granted(
    api: Api, alice: Login, count: int
) -> None:
    """A recorded request: one `scope` parameter for each repository seen so far."""
    params = httpx.QueryParams(
        {"client_id": "regclient", "offline_token": "true", "service": "moorage"}
    )
    for scope in many_scopes(count):
        params = params.add("scope", scope)
    assert len(str(params)) < 8192
    answer = await api.http.get(
        "/token", params=params.add("account", alice.name), headers=alice.basic
    )
    assert answer.status_code == 200
    await require_all(api, answer.json()["token"], count)


@SQLITE
async def test_2_all_that_regsync_and_containerd_ask_for_in_a_form_is_granted(
    api: Api, alice: Login
) -> None:
    """A recorded request: one `scope` with all repositories, separated by spaces.

    The second request uses the refresh token.
    """
    scope = " ".join(many_scopes(500))
    answer = await post(
        api,
        grant_type="password",
        username=alice.name,
        password=alice.secret,
        service="moorage",
        client_id="containerd-client",
        access_type="offline",
        scope=scope,
    )
    assert answer.status_code == 200
    assert answer.json()["scope"] == scope
    await require_all(api, answer.json()["access_token"], 500)
    again = await post(
        api,
        grant_type="refresh_token",
        refresh_token=answer.json()["refresh_token"],
        service="moorage",
        client_id="regclient",
        scope=scope,
    )
    await require_all(api, again.json()["access_token"], 500)


@SQLITE
async def test_2_repeated_scopes_count_once(api: Api, alice: Login) -> None:
    halves = [
        f"repository:team/r{n:04}:{action}" for n in range(500) for action in ("pull", "push")
    ]
    fields = {"grant_type": "password", "username": alice.name, "password": alice.secret}
    answer = await post(api, **fields, scope=" ".join(halves * 3))
    assert answer.json()["scope"].split() == many_scopes(500)
    await require_all(api, answer.json()["access_token"], 500)


@SQLITE
async def test_2_the_longest_names_fit_into_a_form(api: Api, accounts: Accounts) -> None:
    root = await accounts.user("root", admin=True)
    names = [f"{number:04}/" + "n" * 250 for number in range(500)]
    scope = " ".join(f"repository:{name}:pull,push,delete" for name in names)
    fields = {"grant_type": "password", "username": root.name, "password": root.secret}
    answer = await post(api, **fields, scope=scope)
    assert answer.status_code == 200
    token = answer.json()["access_token"]
    assert len(token) <= 7 * 1024
    for name in (names[0], names[-1]):
        asked = await api.http.delete(f"/v2/{name}/manifests/x", headers=bearer(token))
        assert asked.status_code == 404


@SQLITE
async def test_2_more_than_a_token_holds_is_an_error(api: Api, alice: Login) -> None:
    fields = {"grant_type": "password", "username": alice.name, "password": alice.secret}
    for count, reason in ((900, "900 repositories"), (1001, "at most 1000 repositories")):
        answer = await post(api, **fields, scope=" ".join(many_scopes(count)))
        assert (answer.status_code, codes(answer)) == (400, ["UNSUPPORTED"])
        assert reason in answer.text
    # Actions that the caller may not use take no space in the token.
    hidden = [scope.replace("team/", "hidden/") for scope in many_scopes(900)]
    answer = await post(api, **fields, scope=" ".join([*hidden, PUSH]))
    assert access_of(answer.json()["access_token"]) == {NAME: {"pull", "push"}}


@SQLITE
async def test_2_a_token_with_digests_lists_its_repositories(
    api: Api, accounts: Accounts, alice: Login
) -> None:
    root = signed(api.http, (await accounts.user("root", admin=True)).basic)
    for name in ("hidden", "team/other", "team/r0001", "team/r0499"):
        await root.push_blob(name, DATA)
    fields = {"grant_type": "password", "username": alice.name, "password": alice.secret}
    answer = await post(api, **fields, scope=" ".join(many_scopes(500)))
    headers = bearer(answer.json()["access_token"])
    listed = await api.http.get("/v2/_catalog", headers=headers)
    assert listed.json()["repositories"] == ["team/r0001", "team/r0499"]
    first = await api.http.get("/v2/_catalog?n=1", headers=headers)
    assert first.json()["repositories"] == ["team/r0001"]
    assert "next" in first.links
    mounted = await api.http.post(f"/v2/team/r0007/blobs/uploads/?mount={DIGEST}", headers=headers)
    require_created(mounted, "team/r0007", DIGEST)


@SQLITE
async def test_2_odd_and_long_scopes(api: Api, alice: Login) -> None:
    for query in (
        f"scope=repository:{'a' * 64_000}:pull",
        f"scope={':' * 64_000}",
        f"scope={'repository:' * 6000}",
    ):
        answer = (await api.speak("GET", f"/token?{query}", alice.basic).finish()).answer()
        assert answer.status_code == 200
        headers = bearer(answer.json()["token"])
        assert (await api.http.get("/v2/", headers=headers)).status_code == 200


@SQLITE
async def test_2_bad_credentials_are_401_and_nothing_else_is(api: Api, alice: Login) -> None:
    for wrong in (Login("alice", "wrong password"), Login("nobody", "wrong password")):
        require_basic_challenge(await api.http.get("/token", headers=wrong.basic))
    require_basic_challenge(await api.http.get("/token", headers=bearer("some.token.here")))
    for query in ("scope=%FF%FE", "scope=%00", "service=%00", "account=mallory", "x=%", "&&=&"):
        answer = await api.http.get(f"/token?{query}", headers=alice.basic)
        assert answer.status_code == 200, query


OTHER_METHODS = ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


@SQLITE
async def test_2_other_methods(api: Api) -> None:
    for method in OTHER_METHODS:
        answer = await api.http.request(method, "/token")
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "GET, POST"
