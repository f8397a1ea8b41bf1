"""Nothing is inherited by what is created again under the same name."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import clock
from registry.auth.keys.jose import jwk_of
from registry.auth.policy.principals import OPERATOR as OPERATOR_HIMSELF
from registry.oci.names import RepositoryName
from tests.api.conftest import Api, Started
from tests.api.revocation.helpers import (
    DATA,
    DIGEST,
    NAME,
    PATH,
    PULL,
    PUSH,
    make_member,
    make_refresh_token,
    make_robot,
    make_user,
    refresh,
)
from tests.support.accounts import (
    AUTH,
    OPERATOR,
    Accounts,
    Login,
    bearer,
    get_token,
    read_challenge,
    signed,
)
from tests.support.forged_tokens import assemble, signer
from tests.support.kit import codes, require_session

pytestmark = pytest.mark.anyio


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
