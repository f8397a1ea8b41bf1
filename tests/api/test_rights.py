"""A token is only an upper bound: permissions are checked again for every request."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import clock
from registry.auth.keys.jose import jwk_of
from registry.auth.policy.principals import OPERATOR as OPERATOR_HIMSELF
from registry.oci.names import RepositoryName
from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.support.accounts import (
    ANONYMOUS,
    AUTH,
    OPERATOR,
    Accounts,
    Docker,
    Login,
    bearer,
    claims_of,
    get_token,
    read_challenge,
    signed,
)
from tests.support.clock import Hands
from tests.support.forging import assemble, signer
from tests.support.kit import codes, require_created, require_session

pytestmark = pytest.mark.anyio

NAME = "team/app"
PULL = f"repository:{NAME}:pull"
PUSH = f"repository:{NAME}:pull,push"
ALL = f"repository:{NAME}:pull,push,delete"
DATA = b"a blob of the team"
DIGEST = Digest.of(DATA)
PATH = f"/v2/{NAME}/blobs/{DIGEST}"
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests that do not depend on the database, or whose server tests run on both."""


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(monkeypatch)


@pytest.fixture
async def api(start_api: Started, hands: Hands) -> AsyncIterator[Api]:
    del hands  # replaces the clock before anything reads it
    async with start_api({**AUTH, "auth.token_lifetime": "60s"}) as started:
        accounts = Accounts.of(started.opened)
        root = await accounts.user("root", admin=True)
        await signed(started.http, root.basic).push_blob(NAME, DATA)
        yield started


@pytest.fixture
def accounts(api: Api) -> Accounts:
    return Accounts.of(api.opened)


async def make_user(accounts: Accounts) -> Login:
    login = await accounts.user("alice")
    await accounts.grant("alice", "team/**", "pull,push,delete")
    return login


async def make_robot(accounts: Accounts) -> Login:
    login = await accounts.robot("ci")
    await accounts.grant("robot:ci", "team/**", "pull,push,delete")
    return login


async def make_access_token(accounts: Accounts) -> Login:
    await make_user(accounts)
    return await accounts.token("alice")


async def make_member(accounts: Accounts) -> Login:
    login = await accounts.user("alice")
    await accounts.access.groups.add("devs", OPERATOR)
    await accounts.access.groups.add_member("devs", "alice", OPERATOR)
    await accounts.grant("group:devs", "team/*", "pull,push")
    return login


async def make_signed_in(accounts: Accounts) -> Login:
    await accounts.grant("authenticated", NAME, "pull")
    return await accounts.user("alice")


async def make_nobody(accounts: Accounts) -> Login:
    await accounts.grant("anonymous", "**", "pull")
    return ANONYMOUS


async def make_admin(accounts: Accounts) -> Login:
    return await accounts.user("alice", admin=True)


Change = Callable[[Accounts], Awaitable[object]]


@dataclass(frozen=True)
class Ended:
    """A way in which an account or its credential becomes invalid."""

    make: Change
    end: Change


ENDED = {
    "user disabled": Ended(
        make_user, lambda it: it.access.users.change("alice", OPERATOR, disabled=True)
    ),
    "user removed": Ended(make_user, lambda it: it.access.users.remove("alice", OPERATOR)),
    "password changed": Ended(
        make_user, lambda it: it.access.users.set_password("alice", "another password", OPERATOR)
    ),
    "robot removed": Ended(make_robot, lambda it: it.access.robots.remove("ci", OPERATOR)),
    "robot rotated": Ended(make_robot, lambda it: it.access.robots.rotate("ci", 0, OPERATOR)),
    "token revoked": Ended(
        make_access_token,
        lambda it: it.access.access_tokens.revoke("alice", "laptop", OPERATOR),
    ),
    "user of the token disabled": Ended(
        make_access_token, lambda it: it.access.users.change("alice", OPERATOR, disabled=True)
    ),
    "user of the token removed": Ended(
        make_access_token, lambda it: it.access.users.remove("alice", OPERATOR)
    ),
}

TAKEN = {
    "grant": Ended(make_user, lambda it: it.take("alice", "team/**")),
    "one right of a grant": Ended(make_user, lambda it: it.take("alice", "team/**", "pull")),
    "grant of a robot": Ended(make_robot, lambda it: it.take("robot:ci", "team/**")),
    "grant behind an access token": Ended(
        make_access_token, lambda it: it.take("alice", "team/**")
    ),
    "membership": Ended(
        make_member, lambda it: it.access.groups.remove_member("devs", "alice", OPERATOR)
    ),
    "group": Ended(make_member, lambda it: it.access.groups.remove("devs", OPERATOR)),
    "grant of a group": Ended(make_member, lambda it: it.take("group:devs", "team/*")),
    "grant of all signed in": Ended(make_signed_in, lambda it: it.take("authenticated", NAME)),
    "grant of everybody": Ended(make_nobody, lambda it: it.take("anonymous", "**")),
    "being an admin": Ended(
        make_admin, lambda it: it.access.users.change("alice", OPERATOR, admin=False)
    ),
}


async def make_login(case: Ended, accounts: Accounts) -> Login:
    login = await case.make(accounts)
    assert isinstance(login, Login)
    return login


async def refresh(api: Api, token: str) -> httpx.Response:
    fields = {"grant_type": "refresh_token", "refresh_token": token, "service": "moorage"}
    return await api.http.post("/token", data=fields)


async def make_refresh_token(api: Api, login: Login) -> str:
    params = {"service": "moorage", "offline_token": "true"}
    answer = await api.http.get("/token", params=params, headers=login.basic)
    return str(answer.json()["refresh_token"])


@SQLITE
async def test_a_token_is_good_for_its_own_repository(api: Api, accounts: Accounts) -> None:
    login = await make_user(accounts)
    await signed(api.http, login.basic).push_image("team/other", "latest")
    held = bearer(await get_token(api.http, login, PUSH))
    assert (await api.http.get(PATH, headers=held)).status_code == 200
    for method, path in (
        ("GET", "/v2/team/other/manifests/latest"),
        ("GET", "/v2/team/other/tags/list"),
        ("HEAD", f"/v2/team/app/x/blobs/{DIGEST}"),
        ("POST", "/v2/team/other/blobs/uploads/"),
        ("PUT", "/v2/team/ap/manifests/latest"),
        ("DELETE", PATH),
    ):
        answer = await api.http.request(method, path, headers=held)
        assert read_challenge(answer)["error"] == "insufficient_scope"


@SQLITE
@pytest.mark.parametrize("case", ENDED.values(), ids=ENDED)
async def test_what_a_credential_brought_ends_with_it(
    api: Api, accounts: Accounts, case: Ended
) -> None:
    login = await make_login(case, accounts)
    tokens = [await get_token(api.http, login, ALL) for _ in range(2)]
    used, unused = map(bearer, tokens)
    again = await make_refresh_token(api, login)
    assert (await api.http.get(PATH, headers=used)).status_code == 200
    assert (await api.http.get(PATH, headers=login.basic)).status_code == 200
    assert (await refresh(api, again)).status_code == 200
    await case.end(accounts)
    for held in (used, unused):
        for path in (PATH, "/v2/", "/v2/_catalog"):
            answer = await api.http.get(path, headers=held)
            assert read_challenge(answer)["error"] == "invalid_token"
    assert "error" not in read_challenge(await api.http.get(PATH, headers=login.basic))
    assert (await refresh(api, again)).status_code == 401
    assert (await api.http.get("/token", headers=login.basic)).status_code == 401


@SQLITE
@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN)
async def test_a_right_that_is_taken_away_stops_at_once(
    api: Api, accounts: Accounts, case: Ended
) -> None:
    login = await make_login(case, accounts)
    held = bearer(await get_token(api.http, login, ALL, "registry:catalog:*"))
    assert (await api.http.get(PATH, headers=held)).status_code == 200
    assert (await api.http.get("/v2/_catalog", headers=held)).json()["repositories"] == [NAME]
    await case.end(accounts)
    answer = await api.http.get(PATH, headers=held)
    assert read_challenge(answer)["error"] == "insufficient_scope"
    assert (await api.http.get("/v2/_catalog", headers=held)).json()["repositories"] == []
    assert (await api.http.get("/v2/", headers=held)).status_code == 200
    if login.name:
        answer = await api.http.get(PATH, headers=login.basic)
        assert (answer.status_code, codes(answer)) == (403, ["DENIED"])


@SQLITE
async def test_a_push_loses_the_right_in_the_middle(api: Api, accounts: Accounts) -> None:
    login = await make_user(accounts)
    kit = signed(api.http, bearer(await get_token(api.http, login, ALL)))
    location = await kit.start_upload(NAME)
    await accounts.take("alice", "team/**", "push")
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = await kit.http.request(method, location, content=DATA)
        assert read_challenge(answer)["error"] == "insufficient_scope"
    assert (await kit.http.get(PATH)).status_code == 200


async def test_one_half_of_push_taken_away(api: Api, accounts: Accounts) -> None:
    login = await make_user(accounts)
    kit = signed(api.http, bearer(await get_token(api.http, login, PUSH)))
    await kit.push_image(NAME, "stable", "one")
    await accounts.take("alice", "team/**", "overwrite")
    _, other = await kit.push_image(NAME, "new", "two")
    answer = await kit.put_manifest(NAME, "stable", other)
    assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
    await accounts.grant("alice", "team/**", "overwrite")
    await accounts.take("alice", "team/**", "create")
    assert (await kit.put_manifest(NAME, "stable", other)).status_code == 201
    answer = await kit.put_manifest(NAME, "newer", other)
    assert (answer.status_code, codes(answer)) == (403, ["DENIED"])


@SQLITE
async def test_an_expired_robot(api: Api, accounts: Accounts, hands: Hands) -> None:
    login = await accounts.robot("ci", lifetime=30)
    await accounts.grant("robot:ci", NAME, "pull")
    held = bearer(await get_token(api.http, login, PULL))
    for headers in (held, login.basic):
        assert (await api.http.get(PATH, headers=headers)).status_code == 200
    hands.forward(31)
    assert read_challenge(await api.http.get(PATH, headers=held))["error"] == "invalid_token"
    assert (await api.http.get(PATH, headers=login.basic)).status_code == 401


@SQLITE
async def test_an_expired_access_token(api: Api, accounts: Accounts, hands: Hands) -> None:
    await make_user(accounts)
    login = await accounts.token("alice", lifetime=30)
    held = bearer(await get_token(api.http, login, PULL))
    assert (await api.http.get(PATH, headers=held)).status_code == 200
    hands.forward(31)
    assert read_challenge(await api.http.get(PATH, headers=held))["error"] == "invalid_token"
    assert (await api.http.get(PATH, headers=login.basic)).status_code == 401


async def test_a_rotated_robot_has_its_overlap(api: Api, accounts: Accounts, hands: Hands) -> None:
    old = await make_robot(accounts)
    held = bearer(await get_token(api.http, old, PULL))
    new = await accounts.access.robots.rotate("ci", 40, OPERATOR)
    for headers in (old.basic, held, Login(old.name, new.secret).basic):
        assert (await api.http.get(PATH, headers=headers)).status_code == 200
    hands.forward(41)
    assert (await api.http.get(PATH, headers=old.basic)).status_code == 401
    assert read_challenge(await api.http.get(PATH, headers=held))["error"] == "invalid_token"
    answer = await api.http.get(PATH, headers=Login(old.name, new.secret).basic)
    assert answer.status_code == 200


@SQLITE
async def test_tokens_expire(api: Api, accounts: Accounts, hands: Hands) -> None:
    """The leeway is 60 s, also for tokens that were verified a moment ago."""
    login = await make_user(accounts)
    cached, fresh = [bearer(await get_token(api.http, login, PULL)) for _ in range(2)]
    hands.forward(115)
    assert (await api.http.get(PATH, headers=cached)).status_code == 200
    hands.forward(10)
    for held in (cached, fresh):
        assert read_challenge(await api.http.get(PATH, headers=held))["error"] == "invalid_token"


# keys


@SQLITE
async def test_tokens_outlive_the_rotation_of_keys(api: Api, accounts: Accounts) -> None:
    login = await make_user(accounts)
    old = await get_token(api.http, login, PULL)
    again = await make_refresh_token(api, login)
    first = (await api.http.get("/.well-known/jwks.json")).json()["keys"]
    await accounts.access.keys.rotate(OPERATOR)
    new = await get_token(api.http, login, PULL)
    assert old.split(".")[0] != new.split(".")[0]
    for token in (old, new):
        assert (await api.http.get(PATH, headers=bearer(token))).status_code == 200
    assert (await refresh(api, again)).status_code == 200
    published = (await api.http.get("/.well-known/jwks.json")).json()["keys"]
    assert len(published) == 2
    assert first[0] in published


async def test_a_revoked_key_ends_its_tokens(api: Api, accounts: Accounts) -> None:
    login = await make_user(accounts)
    used, unused = [bearer(await get_token(api.http, login, PULL)) for _ in range(2)]
    again = await make_refresh_token(api, login)
    assert (await api.http.get(PATH, headers=used)).status_code == 200
    [key] = await accounts.access.keys.list_all()
    await accounts.access.keys.revoke(key.kid, OPERATOR)
    for held in (used, unused):
        assert read_challenge(await api.http.get(PATH, headers=held))["error"] == "invalid_token"
    assert (await refresh(api, again)).status_code == 200
    held = bearer(await get_token(api.http, login, PULL))
    assert (await api.http.get(PATH, headers=held)).status_code == 200
    published = (await api.http.get("/.well-known/jwks.json")).json()["keys"]
    assert key.kid not in {entry["kid"] for entry in published}


# created again under the same name


async def test_another_user_of_the_same_name(api: Api, accounts: Accounts) -> None:
    """A new user with the same name, and even the same password, has no rights of the old one."""
    old = await make_user(accounts)
    await accounts.access.groups.add("devs", OPERATOR)
    await accounts.access.groups.add_member("devs", "alice", OPERATOR)
    await accounts.grant("group:devs", "team/**", "pull,push")
    personal = await accounts.token("alice")
    kit = signed(api.http, bearer(await get_token(api.http, old, PUSH)))
    location = await kit.start_upload(NAME)
    again = [await make_refresh_token(api, login) for login in (old, personal)]
    assert (await api.http.get(PATH, headers=old.basic)).status_code == 200
    await accounts.access.users.remove("alice", OPERATOR)
    new = await accounts.user("alice", old.secret)
    assert read_challenge(await kit.http.get(PATH))["error"] == "invalid_token"
    for token in again:
        assert (await refresh(api, token)).status_code == 401
    assert (await api.http.get(PATH, headers=personal.basic)).status_code == 401
    answer = await api.http.get(PATH, headers=new.basic)
    assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
    await accounts.grant("alice", "team/**", "pull,push")
    answer = await api.http.get(location, headers=new.basic)
    assert (answer.status_code, codes(answer)) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    answer = await api.http.put(location, params={"digest": str(DIGEST)}, headers=new.basic)
    assert (answer.status_code, codes(answer)) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    assert await accounts.access.access_tokens.list_of("alice") == []


async def test_another_robot_of_the_same_name(api: Api, accounts: Accounts) -> None:
    old = await make_robot(accounts)
    kit = signed(api.http, bearer(await get_token(api.http, old, PUSH)))
    location = await kit.start_upload(NAME)
    again = await make_refresh_token(api, old)
    await accounts.access.robots.remove("ci", OPERATOR)
    new = await accounts.robot("ci")
    assert read_challenge(await kit.http.get(PATH))["error"] == "invalid_token"
    assert (await refresh(api, again)).status_code == 401
    assert (await api.http.get(PATH, headers=old.basic)).status_code == 401
    assert (await api.http.get(PATH, headers=new.basic)).status_code == 403
    await accounts.grant("robot:ci", "team/**", "pull,push")
    assert (await api.http.get(location, headers=new.basic)).status_code == 404


async def test_another_group_of_the_same_name(api: Api, accounts: Accounts) -> None:
    login = await make_member(accounts)
    held = bearer(await get_token(api.http, login, PULL))
    await accounts.access.groups.remove("devs", OPERATOR)
    await accounts.access.groups.add("devs", OPERATOR)
    await accounts.access.groups.add_member("devs", "alice", OPERATOR)
    assert (await api.http.get(PATH, headers=held)).status_code == 401
    assert (await api.http.get(PATH, headers=login.basic)).status_code == 403


async def test_a_user_who_may_in_again_signs_in_again(api: Api, accounts: Accounts) -> None:
    login = await make_user(accounts)
    held = bearer(await get_token(api.http, login, PULL))
    again = await make_refresh_token(api, login)
    await accounts.access.users.change("alice", OPERATOR, disabled=True)
    await accounts.access.users.change("alice", OPERATOR, disabled=False)
    assert read_challenge(await api.http.get(PATH, headers=held))["error"] == "invalid_token"
    assert (await refresh(api, again)).status_code == 401
    assert (await api.http.get(PATH, headers=login.basic)).status_code == 200


async def delete_repository(api: Api, name: str) -> None:
    await api.opened.registry.repositories.delete(RepositoryName.parse(name), OPERATOR_HIMSELF)


async def empty_repository(api: Api, name: str) -> None:
    root = signed(api.http, Login("root", "the password of root").basic)
    answer = await root.http.delete(f"/v2/{name}/blobs/{DIGEST}")
    assert answer.status_code == 202


@pytest.mark.parametrize("remove", [delete_repository, empty_repository])
async def test_another_repository_of_the_same_name(
    api: Api, accounts: Accounts, remove: Callable[[Api, str], Awaitable[None]]
) -> None:
    login = await make_user(accounts)
    root = signed(api.http, Login("root", "the password of root").basic)
    both = f"{PUSH} repository:team/target:pull,push"
    used, unused = [bearer(await get_token(api.http, login, both)) for _ in range(2)]
    assert (await api.http.get(PATH, headers=used)).status_code == 200
    await remove(api, NAME)
    await root.push_blob(NAME, DATA)
    for held in (used, unused):
        for method, path in (
            ("GET", PATH),
            ("POST", f"/v2/{NAME}/blobs/uploads/"),
            ("POST", f"/v2/team/target/blobs/uploads/?mount={DIGEST}&from={NAME}"),
        ):
            answer = await api.http.request(method, path, headers=held)
            assert read_challenge(answer)["error"] == "insufficient_scope"
        # A mount may use any repository that the token can pull, which excludes this one.
        path = f"/v2/team/target/blobs/uploads/?mount={DIGEST}"
        require_session(await api.http.post(path, headers=held), 202, "team/target", 0)
    held = bearer(await get_token(api.http, login, PUSH))
    assert (await api.http.get(PATH, headers=held)).status_code == 200
    assert (await api.http.get(PATH, headers=login.basic)).status_code == 200


async def test_a_session_of_the_repository_before(api: Api, accounts: Accounts) -> None:
    login = await make_user(accounts)
    root = signed(api.http, Login("root", "the password of root").basic)
    location = await signed(api.http, login.basic).start_upload(NAME)
    await delete_repository(api, NAME)
    await root.push_blob(NAME, DATA)
    answer = await api.http.get(location, headers=login.basic)
    assert (answer.status_code, codes(answer)) == (404, ["BLOB_UPLOAD_UNKNOWN"])


async def test_tokens_of_outside_and_another_repository_of_the_same_name(
    start_api: Started, tmp_path: Path
) -> None:
    """Tokens of an external issuer have no policy revision, so their issue time is compared."""
    key = Ed25519PrivateKey.generate()
    jwk = jwk_of(key.public_key())
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk]}))
    settings = {
        **AUTH,
        "auth.jwks_file": "keys.json",
        "auth.issuer": "outside",
        "auth.audience": "here",
    }

    def sign(moved: int) -> dict[str, str]:
        now = clock.now_us() // 1_000_000 + moved
        claims = {"iss": "outside", "aud": "here", "sub": "ci", "iat": now, "exp": now + 300}
        access = [{"type": "repository", "name": NAME, "actions": ["pull", "push"]}]
        header = {"alg": "EdDSA", "kid": jwk["kid"]}
        return bearer(assemble(header, {**claims, "access": access}, signer(key)))

    async with start_api(settings) as api:
        root = signed(api.http, (await Accounts.of(api.opened).user("root", admin=True)).basic)
        await root.push_blob(NAME, DATA)
        old = sign(-5)
        answer = await api.http.get(PATH, headers=old)
        while answer.status_code == 401:  # the keys are fetched in the background
            answer = await api.http.get(PATH, headers=old)
        assert answer.status_code == 200
        await delete_repository(api, NAME)
        await root.push_blob(NAME, DATA)
        for method in ("GET", "HEAD"):
            answer = await api.http.request(method, PATH, headers=old)
            assert read_challenge(answer)["error"] == "insufficient_scope"
        assert (await api.http.get(PATH, headers=sign(2))).status_code == 200
        answer = await api.http.get("/v2/team/other/tags/list", headers=sign(2))
        assert read_challenge(answer)["error"] == "insufficient_scope"


# long pushes


async def test_a_push_longer_than_its_token(api: Api, accounts: Accounts, hands: Hands) -> None:
    docker = Docker(api.http, await make_user(accounts))
    answer = await docker.request("POST", f"/v2/{NAME}/blobs/uploads/")
    location = require_session(answer, 202, NAME, 0)
    pieces = [b"one " * 100, b"two " * 100, b"three " * 100]
    received = 0
    for piece in pieces:
        hands.forward(200)
        stale = await api.http.patch(location, content=piece, headers=bearer(docker.token))
        assert read_challenge(stale)["error"] == "invalid_token"
        answer = await docker.request("PATCH", location, content=piece)
        received += len(piece)
        assert require_session(answer, 202, NAME, received) == location
    hands.forward(200)
    digest = Digest.of(b"".join(pieces))
    answer = await docker.request("PUT", location, params={"digest": str(digest)})
    require_created(answer, NAME, digest)
    assert docker.asked == 5


@SQLITE
async def test_a_request_longer_than_its_token(api: Api, accounts: Accounts, hands: Hands) -> None:
    """The token is checked at the start of the request."""
    login = await make_user(accounts)
    kit = signed(api.http, bearer(await get_token(api.http, login, PUSH)))
    location = await kit.start_upload(NAME)
    sending = kit.speak("PATCH", location, dict(kit.http.headers))
    await sending.feed(b"before ")
    hands.forward(500)
    assert read_challenge(await kit.http.get(PATH))["error"] == "invalid_token"
    answer = (await sending.finish(b"after")).answer()
    require_session(answer, 202, NAME, len(b"before after"))


async def test_a_session_is_its_principals_alone(api: Api, accounts: Accounts) -> None:
    """For other users, even with push permission, the session does not exist."""
    owner = await make_user(accounts)
    personal = await accounts.token("alice")
    location = await signed(api.http, owner.basic).start_upload(NAME)
    others = [await accounts.user("bob"), await make_robot(accounts)]
    await accounts.grant("bob", "team/**", "pull,push,delete")
    none = location[:-4] + ("0000" if not location.endswith("0000") else "1111")
    for other in [*others, Login("root", "the password of root")]:
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            query = f"?digest={DIGEST}"
            answers = [
                await api.http.request(
                    method, where + query, headers=other.basic, content=b"x" * 20
                )
                for where in (location, none)
            ]
            assert [codes(answer) for answer in answers] == [["BLOB_UPLOAD_UNKNOWN"]] * 2
            texts = [
                answer.text.replace(where.rpartition("/")[2], "ID")
                for answer, where in zip(answers, (location, none), strict=True)
            ]
            assert texts[0] == texts[1]
    answer = await api.http.get(location, headers=personal.basic)
    require_session(answer, 204, NAME, 0)


@SQLITE
async def test_the_books_name_who_a_token_is_of(api: Api, accounts: Accounts) -> None:
    login = await make_user(accounts)
    token = await get_token(api.http, login, PULL)
    [row] = await accounts.access.audit.list_page(10, actor="alice")
    assert (row.kind, row.target) == ("token.issue", PULL)
    assert json.loads(row.detail)["id"] == claims_of(token)["jti"]
