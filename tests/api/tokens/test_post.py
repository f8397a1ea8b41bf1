"""POST of the token endpoint (3), and the content of tokens (4)."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest

from tests.api.conftest import Api
from tests.api.tokens.helpers import FORM, NAME, PULL, PUSH, SQLITE, post, require_basic_challenge
from tests.support.accounts import (
    Accounts,
    Login,
    access_of,
    bearer,
    claims_of,
    get_token,
    read_challenge,
)
from tests.support.kit import codes

pytestmark = pytest.mark.anyio


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
