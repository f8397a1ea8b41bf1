"""A permission that is taken away ends at once what it allowed."""

import json

import pytest

from storage.digest import Digest
from tests.api.conftest import Api
from tests.api.revocation.helpers import (
    ALL,
    DATA,
    DIGEST,
    ENDED,
    NAME,
    PATH,
    PULL,
    PUSH,
    SQLITE,
    TAKEN,
    Ended,
    make_login,
    make_refresh_token,
    make_robot,
    make_user,
    refresh,
)
from tests.support.accounts import (
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
from tests.support.audit_log import read_audit
from tests.support.clock import MovableClock
from tests.support.kit import codes, require_created, require_session

pytestmark = pytest.mark.anyio


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
async def test_an_expired_robot(api: Api, accounts: Accounts, movable_clock: MovableClock) -> None:
    login = await accounts.robot("ci", lifetime=30)
    await accounts.grant("robot:ci", NAME, "pull")
    held = bearer(await get_token(api.http, login, PULL))
    for headers in (held, login.basic):
        assert (await api.http.get(PATH, headers=headers)).status_code == 200
    movable_clock.forward(31)
    assert read_challenge(await api.http.get(PATH, headers=held))["error"] == "invalid_token"
    assert (await api.http.get(PATH, headers=login.basic)).status_code == 401


@SQLITE
async def test_an_expired_access_token(
    api: Api, accounts: Accounts, movable_clock: MovableClock
) -> None:
    await make_user(accounts)
    login = await accounts.token("alice", lifetime=30)
    held = bearer(await get_token(api.http, login, PULL))
    assert (await api.http.get(PATH, headers=held)).status_code == 200
    movable_clock.forward(31)
    assert read_challenge(await api.http.get(PATH, headers=held))["error"] == "invalid_token"
    assert (await api.http.get(PATH, headers=login.basic)).status_code == 401


async def test_a_rotated_robot_has_its_overlap(
    api: Api, accounts: Accounts, movable_clock: MovableClock
) -> None:
    old = await make_robot(accounts)
    held = bearer(await get_token(api.http, old, PULL))
    new = await accounts.access.robots.rotate("ci", 40, OPERATOR)
    for headers in (old.basic, held, Login(old.name, new.secret).basic):
        assert (await api.http.get(PATH, headers=headers)).status_code == 200
    movable_clock.forward(41)
    assert (await api.http.get(PATH, headers=old.basic)).status_code == 401
    assert read_challenge(await api.http.get(PATH, headers=held))["error"] == "invalid_token"
    answer = await api.http.get(PATH, headers=Login(old.name, new.secret).basic)
    assert answer.status_code == 200


@SQLITE
async def test_tokens_expire(api: Api, accounts: Accounts, movable_clock: MovableClock) -> None:
    """The leeway is 60 s, also for tokens that were verified a moment ago."""
    login = await make_user(accounts)
    cached, fresh = [bearer(await get_token(api.http, login, PULL)) for _ in range(2)]
    movable_clock.forward(115)
    assert (await api.http.get(PATH, headers=cached)).status_code == 200
    movable_clock.forward(10)
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


# long pushes


async def test_a_push_longer_than_its_token(
    api: Api, accounts: Accounts, movable_clock: MovableClock
) -> None:
    docker = Docker(api.http, await make_user(accounts))
    answer = await docker.request("POST", f"/v2/{NAME}/blobs/uploads/")
    location = require_session(answer, 202, NAME, 0)
    pieces = [b"one " * 100, b"two " * 100, b"three " * 100]
    received = 0
    for piece in pieces:
        movable_clock.forward(200)
        stale = await api.http.patch(location, content=piece, headers=bearer(docker.token))
        assert read_challenge(stale)["error"] == "invalid_token"
        answer = await docker.request("PATCH", location, content=piece)
        received += len(piece)
        assert require_session(answer, 202, NAME, received) == location
    movable_clock.forward(200)
    digest = Digest.of(b"".join(pieces))
    answer = await docker.request("PUT", location, params={"digest": str(digest)})
    require_created(answer, NAME, digest)
    assert docker.asked == 5


@SQLITE
async def test_a_request_longer_than_its_token(
    api: Api, accounts: Accounts, movable_clock: MovableClock
) -> None:
    """The token is checked at the start of the request."""
    login = await make_user(accounts)
    kit = signed(api.http, bearer(await get_token(api.http, login, PUSH)))
    location = await kit.start_upload(NAME)
    sending = kit.speak("PATCH", location, dict(kit.http.headers))
    await sending.feed(b"before ")
    movable_clock.forward(500)
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
    [row] = await read_audit(accounts.access.audit, actor="alice")
    assert (row.kind, row.target) == ("token.issue", PULL)
    assert json.loads(row.detail)["id"] == claims_of(token)["jti"]
