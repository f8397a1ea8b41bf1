"""Challenges that lead to the token endpoint (1, 7), and Basic (5)."""

import base64
import re

import bcrypt
import httpx
import pytest

from registry.metadata.engine.transaction import Transaction
from tests.api.conftest import Api, Started
from tests.api.tokens.helpers import (
    DATA,
    DIGEST,
    NAME,
    PULL,
    PUSH,
    SQLITE,
    post,
    require_basic_challenge,
)
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

pytestmark = pytest.mark.anyio


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
