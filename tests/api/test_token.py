"""The token endpoint and the challenges that lead to it: protocol.md, "Token authentication"."""

import base64
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import bcrypt
import httpx
import jwt
import pytest

from registry.metadata.engine.transaction import Transaction
from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.support.accounts import (
    ANONYMOUS,
    AUTH,
    OPERATOR,
    Accounts,
    Docker,
    Login,
    access_of,
    answer_challenge,
    bearer,
    claims_of,
    get_token,
    read_challenge,
    signed,
)
from tests.support.kit import codes, require_created, require_session
from tests.support.scopes import SCOPES

pytestmark = pytest.mark.anyio

NAME = "team/app"
PULL = f"repository:{NAME}:pull"
PUSH = f"repository:{NAME}:pull,push"
FORM = "application/x-www-form-urlencoded"
DATA = b"a blob of the team"
DIGEST = Digest.of(DATA)
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
async def api(start_api: Started) -> AsyncIterator[Api]:
    async with start_api(AUTH) as started:
        yield started


@pytest.fixture
def accounts(api: Api) -> Accounts:
    return Accounts.of(api.opened)


@pytest.fixture
async def alice(accounts: Accounts) -> Login:
    """Return a user who may pull and push in `team/**`."""
    login = await accounts.user("alice")
    await accounts.grant("alice", "team/**", "pull,push")
    return login


async def post(api: Api, **fields: str) -> httpx.Response:
    return await api.http.post("/token", data=fields)


def require_basic_challenge(answer: httpx.Response) -> None:
    assert answer.status_code == 401, answer.text
    assert codes(answer) == ["UNAUTHORIZED"]
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="moorage"'


# 1: challenges


CHALLENGES = [
    ("GET", "/v2/", ""),
    ("HEAD", "/v2/", ""),
    ("GET", "/v2", ""),
    ("GET", "/v2/_catalog", "registry:catalog:*"),
    ("GET", f"/v2/{NAME}/manifests/latest", PULL),
    ("HEAD", f"/v2/{NAME}/blobs/{DIGEST}", PULL),
    ("GET", f"/v2/{NAME}/tags/list", PULL),
    ("GET", f"/v2/{NAME}/referrers/{DIGEST}", PULL),
    ("POST", f"/v2/{NAME}/blobs/uploads/", PUSH),
    ("PUT", f"/v2/{NAME}/manifests/latest", PUSH),
    ("GET", f"/v2/{NAME}/blobs/uploads/some-session", PUSH),
    ("PATCH", f"/v2/{NAME}/blobs/uploads/some-session", PUSH),
    ("PUT", f"/v2/{NAME}/blobs/uploads/some-session", PUSH),
    ("DELETE", f"/v2/{NAME}/blobs/uploads/some-session", PUSH),
    ("DELETE", f"/v2/{NAME}/manifests/latest", f"repository:{NAME}:delete"),
    ("DELETE", f"/v2/{NAME}/blobs/{DIGEST}", f"repository:{NAME}:delete"),
]


@SQLITE
async def test_1_nothing_given_is_a_challenge(api: Api) -> None:
    for method, path, scope in CHALLENGES:
        answer = await api.http.request(method, path)
        fields = read_challenge(answer)
        base = str(api.http.base_url).rstrip("/")
        assert fields == {
            "realm": f"{base}/token",
            "service": "moorage",
            **({"scope": scope} if scope else {}),
        }
        assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
        if method != "HEAD":
            assert codes(answer) == ["UNAUTHORIZED"]


@SQLITE
async def test_1_the_base_lets_in_whoever_has_a_valid_token(api: Api, alice: Login) -> None:
    for login in (alice, ANONYMOUS):
        headers = bearer(await get_token(api.http, login))
        for method in ("GET", "HEAD"):
            answer = await api.http.request(method, "/v2/", headers=headers)
            assert answer.status_code == 200
    assert (await api.http.get("/v2/", headers=alice.basic)).json() == {}


def basic(text: bytes) -> str:
    return f"Basic {base64.b64encode(text).decode()}"


UNREADABLE = [
    "",
    "Basic",
    "Basic !!!!",
    "Basic YWxpY2U6c2VjcmV",
    basic(b"alice"),
    basic(b"alice:\xff\xfe"),
    basic(b"ali\x00ce:password"),
    basic(b"alice:pass\x00word"),
    "Digest username=alice",
    "Negotiate YII=",
    "eyJhbGciOiJFZERTQSJ9.e30.AAAA",
    "Basic YWxpY2U6__-_",
    "Basic YWxp Y2U6 cGFzcw==",
    basic(b"alice:"),
    basic(b":secret"),
    basic(b"nobody:password"),
    basic(b"alice:not her password"),
    basic(b"a" * 6000 + b":password"),
    basic("alicé\u0301\u202e:password".encode()),
    basic(b"alice' OR '1'='1:x' OR '1'='1"),
]


@SQLITE
async def test_1_a_wrong_credential_is_never_anonymous(start_api: Started) -> None:
    async with start_api({**AUTH, "limits.failed_sign_ins": "0"}) as api:
        accounts = Accounts.of(api.opened)
        await accounts.user("alice")
        await accounts.grant("anonymous", "team/**", "pull")
        for given in UNREADABLE:
            headers = {"Authorization": given}
            for path in ("/v2/", "/v2/_catalog", f"/v2/{NAME}/tags/list"):
                fields = read_challenge(await api.http.get(path, headers=headers))
                assert "error" not in fields, given
            require_basic_challenge(await api.http.get("/token", headers=headers))


@SQLITE
async def test_1_several_headers_are_refused_also_where_one_is_good(api: Api, alice: Login) -> None:
    token = await get_token(api.http, alice)
    good = [alice.basic["Authorization"], f"Bearer {token}"]
    for first in good:
        for second in (*good, "", "Basic", basic(b"mallory:x")):
            headers = [("Authorization", first), ("Authorization", second)]
            read_challenge(await api.http.get("/v2/", headers=headers))
            require_basic_challenge(await api.http.get("/token", headers=headers))
    # One header with two values is not a credential either.
    joined = {"Authorization": f"{good[1]}, {good[0]}"}
    assert (await api.http.get("/v2/", headers=joined)).status_code == 401


@SQLITE
async def test_1_an_empty_name_and_password_are_none(api: Api, accounts: Accounts) -> None:
    """Docker sends them without a login, and some proxies add them."""
    await accounts.user("alice")
    headers = {"Authorization": basic(b":")}
    assert "error" not in read_challenge(await api.http.get("/v2/", headers=headers))
    answer = await api.http.get("/token", headers=headers)
    assert claims_of(answer.json()["token"])["sub"] == ""


BAD = ["", "x", "a.b.c", "é", "\u00ff\u00fe", "x" * 9000]


@SQLITE
async def test_1_a_bad_token_is_said_to_be_bad(api: Api) -> None:
    for token in BAD:
        headers = [(b"Authorization", f"Bearer {token}".strip().encode("latin-1"))]
        for path in ("/v2/", f"/v2/{NAME}/tags/list"):
            answer = await api.http.request("GET", path, headers=headers)
            assert read_challenge(answer)["error"] == "invalid_token"


@SQLITE
async def test_1_a_token_that_lacks_the_scope_is_told_which(api: Api, alice: Login) -> None:
    held = await get_token(api.http, alice, PULL)
    for scope, method, path in (
        (PUSH, "POST", f"/v2/{NAME}/blobs/uploads/"),
        ("repository:team/other:pull", "GET", "/v2/team/other/tags/list"),
        (f"repository:{NAME}:delete", "DELETE", f"/v2/{NAME}/manifests/x"),
    ):
        answer = await api.http.request(method, path, headers=bearer(held))
        fields = read_challenge(answer)
        assert (fields["error"], fields["scope"]) == ("insufficient_scope", scope)


@SQLITE
async def test_1_whoever_has_no_credentials_is_told_so_with_a_token_too(
    api: Api, alice: Login
) -> None:
    """Docker, podman and skopeo get an anonymous token first, and print `error_description`."""
    nobody = bearer((await api.http.get("/token", params={"scope": PULL})).json()["token"])
    path = f"/v2/{NAME}/tags/list"
    answer = await api.http.get(path)
    assert answer.json()["errors"][0]["message"] == "authentication required"
    assert "error" not in read_challenge(answer)
    answer = await api.http.get(path, headers=nobody)
    assert answer.json()["errors"][0]["message"] == "authentication required"
    fields = read_challenge(answer)
    assert fields["error"] == "insufficient_scope"
    assert fields["error_description"] == "authentication required"
    held = bearer(await get_token(api.http, alice, PULL))
    answer = await api.http.post(f"/v2/{NAME}/blobs/uploads/", headers=held)
    lacking = f"the token lacks the scope {PUSH}"
    assert read_challenge(answer)["error_description"] == (
        f"requested access to the resource is denied: {lacking}"
    )
    assert answer.json()["errors"][0]["message"] == f"authentication required: {lacking}"
    answer = await api.http.get(path, headers={"Authorization": "Bearer x"})
    described = read_challenge(answer)["error_description"]
    assert described == answer.json()["errors"][0]["message"]
    assert described.startswith("authentication required: ")


@SQLITE
async def test_1_schemes_are_of_any_case(api: Api, alice: Login) -> None:
    token = await get_token(api.http, alice)
    for scheme in ("bearer", "BEARER", "Bearer "):
        headers = {"Authorization": f"{scheme} {token}"}
        assert (await api.http.get("/v2/", headers=headers)).status_code == 200
    text = alice.basic["Authorization"].replace("Basic", "bAsIc")
    assert (await api.http.get("/v2/", headers={"Authorization": text})).status_code == 200


async def test_1_the_catalogue_with_the_scope_and_without(
    api: Api, accounts: Accounts, alice: Login
) -> None:
    await accounts.grant("anonymous", "public/*", "pull")
    root = signed(api.http, (await accounts.user("root", admin=True)).basic)
    for name in ("a/hidden", "public/base", "team/app", "team/other", "z"):
        await root.push_blob(name, DATA)

    async def listed(login: Login, *scopes: str) -> list[str]:
        token = await get_token(api.http, login, *scopes)
        answer = await api.http.get("/v2/_catalog", headers=bearer(token))
        assert answer.status_code == 200
        return list(answer.json()["repositories"])

    assert await listed(alice, "registry:catalog:*") == ["public/base", "team/app", "team/other"]
    assert await listed(alice) == []
    assert await listed(alice, PULL) == ["team/app"]
    assert await listed(alice, PUSH, "repository:z:pull") == ["team/app"]
    assert await listed(ANONYMOUS, "registry:catalog:*") == ["public/base"]
    assert await listed(ANONYMOUS, PULL) == []
    answer = await api.http.get("/v2/_catalog", headers=alice.basic)
    assert answer.json()["repositories"] == ["public/base", "team/app", "team/other"]


# 1: mounts


async def test_1_a_mount_asks_for_both_scopes_where_that_helps(
    api: Api, accounts: Accounts, alice: Login
) -> None:
    root = signed(api.http, (await accounts.user("root", admin=True)).basic)
    for name in ("team/source", "hidden/source"):
        await root.push_blob(name, DATA)
    held = bearer(await get_token(api.http, alice, PUSH))

    async def mount(source: str, headers: dict[str, str]) -> httpx.Response:
        path = f"/v2/{NAME}/blobs/uploads/?mount={DIGEST}&from={source}"
        return await api.http.post(path, headers=headers)

    challenged = await mount("team/source", held)
    fields = read_challenge(challenged)
    assert fields["error"] == "insufficient_scope"
    assert fields["scope"] == f"{PUSH} repository:team/source:pull"
    # Without pull permission, the blob counts as missing, whether it exists or not.
    for source in ("hidden/source", "hidden/none"):
        require_session(await mount(source, held), 202, NAME, 0)
        require_session(await mount(source, alice.basic), 202, NAME, 0)
    again = bearer(await answer_challenge(api.http, alice, challenged))
    require_created(await mount("team/source", again), NAME, DIGEST)


@SQLITE
async def test_1_docker_mounts_with_what_it_is_challenged_for(
    api: Api, accounts: Accounts, alice: Login
) -> None:
    root = signed(api.http, (await accounts.user("root", admin=True)).basic)
    await root.push_blob("team/source", DATA)
    docker = Docker(api.http, alice, token=await get_token(api.http, alice, PUSH))
    path = f"/v2/{NAME}/blobs/uploads/?mount={DIGEST}&from=team/source"
    require_created(await docker.request("POST", path), NAME, DIGEST)
    assert docker.asked == 1


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
    for count, reason in ((900, "900 repositories"), (1001, "1000 repositories at most")):
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


# 3: POST


@SQLITE
async def test_3_a_password_brings_a_token(api: Api, alice: Login) -> None:
    fields = {"username": "alice", "password": alice.secret, "service": "moorage"}
    answer = await post(api, grant_type="password", client_id="skopeo", scope=PUSH, **fields)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert body["scope"] == PUSH
    assert body["token"] == body["access_token"]
    assert "refresh_token" not in body
    head = await api.http.get("/v2/", headers=bearer(body["access_token"]))
    assert head.status_code == 200


FORMS = [
    FORM,
    f"{FORM};charset=UTF-8",
    f"{FORM}; charset=iso-8859-1",
    FORM.upper(),
    f"{FORM} ; x=y",
]


@SQLITE
async def test_3_the_type_may_have_parameters(api: Api, alice: Login) -> None:
    for kind in FORMS:
        body = f"grant_type=password&username=alice&password={alice.secret.replace(' ', '+')}"
        answer = await api.http.post("/token", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 200


OTHER_TYPES = ["", "application/json", "multipart/form-data; boundary=x"]


@SQLITE
async def test_3_other_types_are_refused(api: Api) -> None:
    for kind in OTHER_TYPES:
        body = "grant_type=password&username=alice&password=x"
        answer = await api.http.post("/token", content=body, headers={"Content-Type": kind})
        assert (answer.status_code, codes(answer)) == (400, ["UNSUPPORTED"])


GRANT_TYPES = ["", "authorization_code", "PASSWORD", "client_credentials", "\0", "x" * 9000]


@SQLITE
async def test_3_unknown_grant_types(api: Api, alice: Login) -> None:
    for kind in GRANT_TYPES:
        answer = await post(api, grant_type=kind, username="alice", password=alice.secret)
        assert (answer.status_code, codes(answer)) == (400, ["UNSUPPORTED"])
        assert len(answer.content) < 2000


@SQLITE
async def test_3_wrong_passwords(api: Api, alice: Login) -> None:
    for name, password in (
        ("alice", "wrong password"),
        ("alice", ""),
        ("", alice.secret),
        ("", ""),
        ("nobody", alice.secret),
        ("alice", f"{alice.secret}\0"),
        ("alice\0", alice.secret),
        ("\ud7ff\uffff", alice.secret),
    ):
        answer = await post(api, grant_type="password", username=name, password=password)
        require_basic_challenge(answer)
    require_basic_challenge(await post(api, grant_type="password"))


async def make_refresh_token(api: Api, login: Login, service: str = "moorage") -> str:
    params = {"offline_token": "true", "service": service, "client_id": "docker"}
    answer = await api.http.get("/token", params=params, headers=login.basic)
    return str(answer.json()["refresh_token"])


async def test_3_refresh_tokens_are_good_again_and_again(api: Api, alice: Login) -> None:
    """Docker keeps the first refresh token and ignores all later ones."""
    refresh = await make_refresh_token(api, alice)
    for _ in range(3):
        answer = await post(
            api, grant_type="refresh_token", refresh_token=refresh, service="moorage", scope=PUSH
        )
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["refresh_token"] == refresh
        assert body["scope"] == PUSH
        assert access_of(body["access_token"]) == {NAME: {"pull", "push"}}
        assert claims_of(body["access_token"])["sub"] == "alice"


async def test_3_a_post_with_a_password_brings_one_too(api: Api, alice: Login) -> None:
    fields = {"grant_type": "password", "username": "alice", "password": alice.secret}
    refresh = (await post(api, **fields, access_type="offline")).json()["refresh_token"]
    answer = await post(api, grant_type="refresh_token", refresh_token=refresh)
    assert answer.status_code == 200


async def test_3_a_refresh_token_is_good_for_one_service(api: Api, alice: Login) -> None:
    other = await make_refresh_token(api, alice, "another.example")
    here = await make_refresh_token(api, alice)
    for refresh, service, status in (
        (other, "moorage", 401),
        (other, "", 401),
        (other, "another.example", 200),
        (here, "another.example", 401),
        (here, "moorage", 200),
    ):
        answer = await post(api, grant_type="refresh_token", refresh_token=refresh, service=service)
        assert answer.status_code == status, (service, answer.text)


@SQLITE
async def test_3_wrong_refresh_tokens(api: Api, accounts: Accounts, alice: Login) -> None:
    refresh = await make_refresh_token(api, alice)
    access = await get_token(api.http, alice)
    personal = (await accounts.token("alice")).secret
    last = "0" if refresh[-1] != "0" else "1"
    for wrong in ("", "x", refresh[:-1] + last, refresh + " ", refresh.upper(), access, personal):
        answer = await post(api, grant_type="refresh_token", refresh_token=wrong)
        require_basic_challenge(answer)


@SQLITE
async def test_3_a_refresh_token_is_no_bearer_token(api: Api, alice: Login) -> None:
    refresh = await make_refresh_token(api, alice)
    answer = await api.http.get("/v2/", headers=bearer(refresh))
    assert read_challenge(answer)["error"] == "invalid_token"


@SQLITE
async def test_3_nobody_gets_a_refresh_token(api: Api) -> None:
    answer = await api.http.get("/token", params={"offline_token": "true"})
    assert "refresh_token" not in answer.json()


@SQLITE
async def test_3_large_forms_are_refused_quickly(api: Api) -> None:
    headers = {"Content-Type": FORM}
    few = "grant_type=password&" + "a&" * 20_000
    assert (await api.http.post("/token", content=few, headers=headers)).status_code == 400
    for body in ("a=b&" * 1_000_000, "grant_type=" + "x" * (4 << 20), "%00" * 100_000):
        answer = await api.http.post("/token", content=body, headers=headers)
        assert (answer.status_code, codes(answer)) == (413, ["SIZE_INVALID"])


@SQLITE
async def test_3_a_body_without_end_is_not_read(api: Api) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"a" * 65_536

    try:
        answer = await api.http.post("/token", content=endless(), headers={"Content-Type": FORM})
    except httpx.TransportError:
        pass  # over the network, the connection may be closed first
    else:
        assert answer.status_code == 413


NO_UTF8 = [b"grant_type=%FF", b"\xff\xfe=1", b"grant_type=password&username=%ED%A0%80", b"%"]


@SQLITE
async def test_3_forms_that_are_no_utf8(api: Api) -> None:
    for body in NO_UTF8:
        answer = await api.http.post("/token", content=body, headers={"Content-Type": FORM})
        assert answer.status_code == 400
        assert codes(answer) == ["UNSUPPORTED"]


# 4: content of tokens


@SQLITE
async def test_4_a_token_can_be_verified_with_the_published_keys(api: Api, alice: Login) -> None:
    """PyJWT alone verifies it, as another server would."""
    token = await get_token(api.http, alice, PULL)
    header = jwt.get_unverified_header(token)
    assert set(header) == {"alg", "kid", "typ"}
    assert (header["alg"], header["typ"]) == ("EdDSA", "JWT")
    document = (await api.http.get("/.well-known/jwks.json")).json()
    keys = jwt.PyJWKSet.from_dict(document)
    [entry] = document["keys"]
    assert "d" not in entry
    claims: dict[str, Any] = jwt.decode(
        token,
        keys[header["kid"]],
        ["EdDSA"],
        audience="moorage",
        issuer="moorage",
        options={"require": ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"]},
    )
    assert claims["sub"] == "alice"


@SQLITE
async def test_4_no_two_tokens_are_the_same(api: Api, alice: Login) -> None:
    tokens = {claims_of(await get_token(api.http, alice))["jti"] for _ in range(3)}
    assert len(tokens) == 3


# 5: Basic


async def test_5_without_the_right_basic_is_denied(
    api: Api, accounts: Accounts, alice: Login
) -> None:
    root = signed(api.http, (await accounts.user("root", admin=True)).basic)
    await root.push_blob("hidden/app", DATA)
    answers = []
    for name in ("hidden/app", "hidden/none"):
        answer = await api.http.get(f"/v2/{name}/blobs/{DIGEST}", headers=alice.basic)
        assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
        assert "www-authenticate" not in answer.headers
        answers.append(answer.text.replace(name, "NAME"))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("kind", ["password", "access token", "robot"])
async def test_5_every_kind_of_account_signs_in(
    api: Api, accounts: Accounts, alice: Login, kind: str
) -> None:
    login = alice
    if kind == "access token":
        login = await accounts.token("alice", "laptop")
    elif kind == "robot":
        login = await accounts.robot("ci")
        await accounts.grant("robot:ci", "team/**", "pull,push")
    assert re.fullmatch(r"moorage_[0-9a-f]{16}_[0-9a-f]{64}", login.secret) or login is alice
    await signed(api.http, login.basic).push_image(NAME, "basic")
    docker = Docker(api.http, login)
    answer = await docker.request("GET", f"/v2/{NAME}/manifests/basic")
    assert answer.status_code == 200
    answer = await post(
        api, grant_type="password", username=login.name, password=login.secret, scope=PUSH
    )
    assert access_of(answer.json()["token"]) == {NAME: {"pull", "push"}}


@SQLITE
@pytest.mark.usefixtures("alice")
async def test_5_a_secret_is_its_owners_alone(api: Api, accounts: Accounts) -> None:
    await accounts.user("bob")
    personal, robot = await accounts.token("alice"), await accounts.robot("alice")
    for name, secret in (
        ("bob", personal.secret),
        ("", personal.secret),
        ("robot+alice", personal.secret),
        ("alice", robot.secret),
        ("robot+bob", robot.secret),
        ("alice", personal.secret.upper()),
        ("alice", personal.secret + "\n"),
        ("alice", personal.secret[:-1]),
        ("ALICE", personal.secret),
    ):
        require_basic_challenge(await api.http.get("/token", headers=Login(name, secret).basic))


@SQLITE
@pytest.mark.usefixtures("alice")
async def test_5_an_access_token_is_bounded(api: Api, accounts: Accounts) -> None:
    login = await accounts.token("alice", "ci", bounds=[("team/app", "pull"), ("x/**", "push")])
    asked = [f"repository:{name}:pull,push,delete" for name in ("team/app", "team/b", "x/y")]
    assert access_of(await get_token(api.http, login, *asked)) == {"team/app": {"pull"}}
    answer = await api.http.get("/v2/team/b/tags/list", headers=login.basic)
    assert answer.status_code == 403
    assert (await api.http.get("/v2/team/app/tags/list", headers=login.basic)).status_code == 404


@SQLITE
@pytest.mark.usefixtures("alice")
async def test_5_pulls_go_on_where_nothing_can_be_written(api: Api, accounts: Accounts) -> None:
    """A sign-in does not fail because the last use or a better hash cannot be stored."""
    stored = bcrypt.hashpw(b"her password", bcrypt.gensalt(5)).decode()
    await accounts.access.users.import_htpasswd([f"old:{stored}"], OPERATOR)
    await accounts.grant("authenticated", NAME, "pull")
    logins = [await accounts.robot("ci"), await accounts.token("alice")]
    logins.append(Login("old", "her password"))

    def refuse(tx: Transaction) -> None:
        for table in ("secrets", "users"):
            trigger = f"CREATE TRIGGER no_{table} BEFORE UPDATE ON {table} BEGIN"
            tx.connection.exec_driver_sql(f"{trigger} SELECT RAISE(ABORT, 'full'); END")

    await api.opened.database.write(refuse, actor="")
    for login in logins:
        answer = await api.http.get(f"/v2/{NAME}/tags/list", headers=login.basic)
        assert (answer.status_code, codes(answer)) == (404, ["NAME_UNKNOWN"])


# 7: address of the token endpoint


@SQLITE
async def test_7_the_realm_is_where_the_client_asked(api: Api) -> None:
    for host in ("registry.example:5000", "10.0.0.1", "[::1]:5000"):
        fields = read_challenge(await api.http.get("/v2/", headers={"Host": host}))
        assert fields["realm"] == f"http://{host}/token"
    # These headers come from a client and not from a trusted proxy.
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    fields = read_challenge(await api.http.get("/v2/", headers=headers))
    assert fields["realm"] == f"{str(api.http.base_url).rstrip('/')}/token"


@SQLITE
async def test_7_or_where_the_settings_say(start_api: Started) -> None:
    url = "https://registry.example.org"
    async with start_api({**AUTH, "http.external_url": url, "auth.service": "ours"}) as api:
        fields = read_challenge(await api.http.get("/v2/"))
        assert fields == {"realm": f"{url}/token", "service": "ours"}


@SQLITE
async def test_where_nobody_signs_in_there_are_no_tokens(start_api: Started) -> None:
    async with start_api() as api:
        answer = await api.http.get("/token")
        assert (answer.status_code, codes(answer)) == (400, ["UNSUPPORTED"])
