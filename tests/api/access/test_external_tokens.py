"""Tokens of external issuers, accepted directly or exchanged for tokens of a robot."""

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from registry.auth.keys.jose import jwk_of
from registry.auth.policy import principals
from registry.oci.names import RepositoryName
from tests.api.conftest import Api, Started
from tests.support.accounts import (
    AUTH,
    OPERATOR,
    Accounts,
    Login,
    access_of,
    bearer,
    claims_of,
    get_token,
    read_challenge,
)
from tests.support.audit_log import read_audit
from tests.support.forged_tokens import assemble, good_claims, signer
from tests.support.servers.upstream import Upstream, upstream

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["memory"]),
]

KEY = Ed25519PrivateKey.generate()
JWKS = {"keys": [jwk_of(KEY.public_key())]}
ISSUER = "gitlab-issuer"
AUDIENCE = "container_registry"
ACTIONS = "https://actions.example.org"


def sign(claims: dict[str, Any], key: Ed25519PrivateKey = KEY) -> str:
    jwk = jwk_of(key.public_key())
    header = {"typ": "JWT", "alg": jwk["alg"], "kid": jwk["kid"]}
    return assemble(header, claims, signer(key))


def access(name: str, *actions: str) -> list[dict[str, Any]]:
    return [{"type": "repository", "name": name, "actions": list(actions)}]


def token_for(name: str, *actions: str, **changed: Any) -> str:
    return sign({**good_claims(ISSUER, AUDIENCE), "access": access(name, *actions), **changed})


@pytest.fixture
def issuer() -> Iterator[Upstream]:
    with upstream() as server:
        server.put("/keys", JWKS)
        yield server


@asynccontextmanager
async def trusting(start_api: Started, issuer: Upstream, **more: str) -> AsyncIterator[Api]:
    settings = {
        **AUTH,
        "auth.issuer": ISSUER,
        "auth.audience": AUDIENCE,
        "auth.jwks_url": issuer.url("/keys"),
        "auth.allow_private_addresses": "true",
        **{f"auth.{name}": value for name, value in more.items()},
    }
    async with start_api(settings) as api:
        await api.opened.access.authenticator._external_issuers[-1]._fetch()
        yield api


async def test_an_outside_token_is_worth_what_it_says_and_no_more(
    start_api: Started, issuer: Upstream
) -> None:
    async with trusting(start_api, issuer) as api:
        may = bearer(token_for("team/app", "pull", "push"))
        looks = bearer(token_for("team/app", "pull"))
        begun = await api.http.post("/v2/team/app/blobs/uploads/", headers=may)
        assert begun.status_code == 202
        location = begun.headers["Location"]
        assert (await api.http.get(location, headers=may)).status_code == 204
        other = bearer(token_for("team/app", "pull", "push", sub="another"))
        assert (await api.http.get(location, headers=other)).status_code == 404
        refused = await api.http.post("/v2/team/app/blobs/uploads/", headers=looks)
        assert read_challenge(refused)["error"] == "insufficient_scope"
        assert (await api.http.get("/v2/team/app/manifests/x", headers=looks)).status_code == 404
        elsewhere = await api.http.get("/v2/team/other/manifests/x", headers=may)
        assert read_challenge(elsewhere)["scope"] == "repository:team/other:pull"
        everything = bearer(token_for("team/app", "*"))
        gone = await api.http.delete("/v2/team/app/manifests/x", headers=everything)
        assert gone.status_code == 404
        for wrong in (
            sign(good_claims(ISSUER, AUDIENCE), Ed25519PrivateKey.generate()),
            token_for("team/app", "pull", aud="another"),
            token_for("team/app", "pull", exp=1),
        ):
            answer = await api.http.get("/v2/team/app/manifests/x", headers=bearer(wrong))
            assert read_challenge(answer)["error"] == "invalid_token"
        assert [path for path, _ in issuer.requests] == ["/keys"] * len(issuer.requests)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_token_is_taken_by_the_name_that_docker_auth_gives_its_key_and_without(
    start_api: Started, issuer: Upstream
) -> None:
    """The key has another name in the JWKS document, as `moorage` and others write it."""
    issuer.put("/keys", {"keys": [{**JWKS["keys"][0], "kid": "the key of the document"}]})
    der = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
    libtrust = ":".join(text[at : at + 4] for at in range(0, 48, 4))
    claims = {**good_claims(ISSUER, AUDIENCE), "access": access("team/app", "pull")}
    async with trusting(start_api, issuer) as api:
        for kid in (libtrust, JWKS["keys"][0]["kid"], "the key of the document", None):
            header = {"typ": "JWT", "alg": "EdDSA", **({"kid": kid} if kid else {})}
            token = bearer(assemble(header, claims, signer(KEY)))
            answer = await api.http.get("/v2/team/app/manifests/x", headers=token)
            assert answer.status_code == 404, kid
        header = {"typ": "JWT", "alg": "EdDSA", "kid": "another"}
        token = bearer(assemble(header, claims, signer(KEY)))
        answer = await api.http.get("/v2/team/app/manifests/x", headers=token)
        assert "unknown key" in answer.text


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_token_above_the_limit_is_told_so(start_api: Started, issuer: Upstream) -> None:
    long = token_for("team/app", "pull", padding="x" * 7000)
    assert len(long) > 8192
    realm = "https://gitlab.example.org/jwt/auth"
    for more in ({}, {"local_users": "false", "realm": realm}):
        async with trusting(start_api, issuer, **more) as api:
            answer = await api.http.get("/v2/team/app/manifests/x", headers=bearer(long))
            assert read_challenge(answer)["error"] == "invalid_token"
            assert f"{len(long)} bytes, but at most 8192 are allowed" in answer.text


async def test_own_users_sign_in_beside_an_outside_issuer(
    start_api: Started, issuer: Upstream
) -> None:
    async with trusting(start_api, issuer) as api:
        accounts = Accounts.of(api.opened)
        ann = await accounts.user("ann")
        await accounts.grant("ann", "**", "pull")
        token = await get_token(api.http, ann, "repository:team/app:pull")
        for header in (bearer(token), bearer(token_for("team/app", "pull"))):
            answer = await api.http.get("/v2/team/app/manifests/x", headers=header)
            assert answer.status_code == 404


async def test_instead_of_own_users_only_the_outside_issuer_counts(
    start_api: Started, issuer: Upstream
) -> None:
    realm = "https://gitlab.example.org/jwt/auth"
    async with trusting(start_api, issuer, local_users="false", realm=realm) as api:
        fields = read_challenge(await api.http.get("/v2/team/app/manifests/x"))
        assert (fields["realm"], fields["service"]) == (realm, AUDIENCE)
        ann = await Accounts.of(api.opened).user("ann", admin=True)
        answer = await api.http.get("/v2/", headers=ann.basic)
        assert read_challenge(answer)["realm"] == realm
        assert (await api.http.get("/token", headers=ann.basic)).status_code == 400
        header = bearer(token_for("team/app", "pull"))
        assert (await api.http.get("/v2/", headers=header)).status_code == 200


async def test_a_repository_made_again_does_not_take_an_outside_token_from_before(
    start_api: Started, issuer: Upstream
) -> None:
    async with trusting(start_api, issuer) as api:
        claims = good_claims(ISSUER, AUDIENCE)
        old = bearer(token_for("team/app", "*", iat=claims["iat"] - 10, nbf=claims["nbf"] - 10))

        async def push() -> int:
            digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            path = f"/v2/team/app/blobs/uploads/?digest={digest}"
            return (await api.http.post(path, headers=old)).status_code

        assert await push() == 201
        name = RepositoryName("team/app")
        await api.opened.registry.repositories.delete(name, principals.OPERATOR)
        assert await push() == 401
        # Issued in the next second: a token of this second counts as older than the removal.
        new = bearer(token_for("team/app", "pull", iat=int(time.time()) + 1))
        assert (await api.http.get("/v2/team/app/manifests/x", headers=new)).status_code == 404


# CI without stored secrets


def id_token(**claims: Any) -> str:
    return sign({**good_claims(ACTIONS, "moorage"), "repository": "org/app", **claims})


@asynccontextmanager
async def with_rules(start_api: Started, issuer: Upstream) -> AsyncIterator[Api]:
    rules = [
        {"robot": "deploy", "claims": {"repository": "org/app", "ref": "refs/heads/main"}},
        {"robot": "build", "claims": {"repository": "org/*"}},
    ]
    entry = {"issuer": ACTIONS, "jwks_url": issuer.url("/keys"), "rules": rules}
    settings = {**AUTH, "auth.allow_private_addresses": "true", "auth.oidc": json.dumps([entry])}
    async with start_api(settings) as api:
        await api.opened.access.authenticator._external_issuers[0]._fetch()
        accounts = Accounts.of(api.opened)
        await accounts.robot("deploy")
        await accounts.robot("build")
        await accounts.grant("robot:deploy", "org/app", "pull,push")
        await accounts.grant("robot:build", "org/app", "pull")
        yield api


async def test_an_id_token_is_exchanged_for_what_its_robot_may(
    start_api: Started, issuer: Upstream
) -> None:
    async with with_rules(start_api, issuer) as api:
        scope = "repository:org/app:pull,push"
        login = Login("oidc", id_token(ref="refs/heads/main"))
        token = await get_token(api.http, login, scope)
        assert claims_of(token)["sub"] == "robot+deploy"
        assert access_of(token) == {"org/app": {"pull", "push"}}
        begun = await api.http.post("/v2/org/app/blobs/uploads/", headers=bearer(token))
        assert begun.status_code == 202
        exchange = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": id_token(ref="refs/heads/topic"),
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "scope": scope,
        }
        answer = await api.http.post("/token", data=exchange)
        assert answer.status_code == 200
        assert claims_of(answer.json()["access_token"])["sub"] == "robot+build"
        assert answer.json()["scope"] == "repository:org/app:pull"
        # Tokens of a removed robot are invalid.
        await api.opened.access.robots.remove("deploy", OPERATOR)
        again = await api.http.get("/v2/org/app/manifests/x", headers=bearer(token))
        assert read_challenge(again)["error"] == "invalid_token"


@pytest.mark.parametrize(
    "changed",
    [
        {"repository": "evil/app"},
        {"repository": ["org/app"]},
        {"aud": "another"},
        {"iss": "https://actions.example.org.evil"},
        {"exp": 1},
    ],
    ids=str,
)
async def test_an_id_token_that_no_rule_is_for_is_refused(
    start_api: Started, issuer: Upstream, changed: dict[str, Any]
) -> None:
    async with with_rules(start_api, issuer) as api:
        before = len(issuer.requests)
        login = Login("oidc", id_token(**changed))
        answer = await api.http.get("/token", headers=login.basic)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert len(issuer.requests) == before
        [event] = [
            row for row in await read_audit(api.opened.access.audit) if row.kind == "sign-in.fail"
        ]
        assert event.target == "oidc"
        assert login.secret not in event.detail
