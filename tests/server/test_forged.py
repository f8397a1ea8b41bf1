"""Forged tokens over HTTP are all refused, and none makes the server call another server."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.auth.keys.jose import jwk_of
from registry.server.head import MAX_HEAD
from tests.support.accounts import Accounts, bearer, get_token
from tests.support.authenticated_server import SETTINGS, client_of, operating
from tests.support.forged_tokens import (
    Forgery,
    Json,
    assemble,
    forged,
    good_claims,
    missigned,
    signer,
)
from tests.support.servers.raw import Wire
from tests.support.servers.server import Server, serving
from tests.support.servers.upstream import Upstream, upstream

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

NAME = "team/app"
PATH = f"/v2/{NAME}/tags/list"
SCOPE = f"repository:{NAME}:pull,push"
OUTSIDE = "https://gitlab.example.org"
OURS = "moorage"
OUTSIDE_KEY = Ed25519PrivateKey.generate()


@dataclass(frozen=True)
class Scene:
    """A server that also trusts an external issuer, and servers that it must not call."""

    server: Server
    http: httpx.AsyncClient
    accounts: Accounts
    issuer: Upstream
    canary: Upstream

    @property
    def outside_kid(self) -> str:
        return jwk_of(OUTSIDE_KEY.public_key())["kid"]

    def read_key(self, kid: str) -> Ed25519PrivateKey:
        """Return the private key of the registry, which attackers do not have."""
        return Ed25519PrivateKey.from_private_bytes((self.server.data / "keys" / kid).read_bytes())


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def outsiders() -> Iterator[tuple[Upstream, Upstream]]:
    with upstream() as issuer, upstream() as canary:
        issuer.put("/jwks.json", {"keys": [jwk_of(OUTSIDE_KEY.public_key())]})
        yield issuer, canary


@pytest.fixture(scope="module")
async def scene(
    tmp_path_factory: pytest.TempPathFactory, outsiders: tuple[Upstream, Upstream]
) -> AsyncIterator[Scene]:
    issuer, canary = outsiders
    folder: Path = tmp_path_factory.mktemp("forged")
    settings = {
        **SETTINGS,
        "MOORAGE_AUTH__ISSUER": OUTSIDE,
        "MOORAGE_AUTH__AUDIENCE": "container_registry",
        "MOORAGE_AUTH__JWKS_URL": issuer.url("/jwks.json"),
        "MOORAGE_AUTH__ALLOW_PRIVATE_ADDRESSES": "true",
    }
    with serving(Server(folder / "data", 1, settings)) as server:
        async with operating(server) as accounts, client_of(server) as http:
            await accounts.user("admin", admin=True)
            yield Scene(server, http, accounts, issuer, canary)


async def send(scene: Scene, token: str) -> tuple[int, str]:
    """Send any token, and return the status and the error of the challenge."""
    wire = await Wire.open(scene.server.port)
    try:
        raw = f"GET {PATH} HTTP/1.1\r\nHost: registry\r\nAuthorization: Bearer ".encode()
        await wire.send(raw + token.encode("utf-8", "surrogatepass") + b"\r\n\r\n")
        answer = await wire.read()
    finally:
        wire.abort()
    challenge = answer.headers.get("www-authenticate", "")
    return answer.status, challenge.partition('error="')[2].partition('"')[0]


def is_sendable(token: str, good: str) -> bool:
    """Return whether a header can carry the token unchanged and it differs from `good`."""
    return token.strip() != good and not any(c in token for c in "\r\n\0")


async def require_refused(scene: Scene, forgeries: Iterator[Forgery], good: str) -> int:
    await send(scene, good)
    before = len(scene.issuer.requests)
    count = 0
    for what, token in forgeries:
        if is_sendable(token, good):
            count += 1
            too_large = len(token) > MAX_HEAD
            refused = (431, "") if too_large else (401, "invalid_token")
            assert await send(scene, token) == refused, what
    assert len(scene.issuer.requests) == before
    assert scene.canary.requests == []
    assert "Traceback" not in scene.server.log.read_text()
    return count


def calling(scene: Scene, header: Json, claims: Json) -> Iterator[Forgery]:
    """Yield tokens with the URL of a server that has keys for them."""
    mine = Ed25519PrivateKey.generate()
    jwk = jwk_of(mine.public_key())
    places = [scene.canary.put("/jwks.json", {"keys": [jwk]}), scene.canary.url("/")]
    places.append(scene.canary.url().replace("http://", "http://user:word@") + "/a")
    for place in places:
        for kid in (header["kid"], jwk["kid"], place, f"{place}#{jwk['kid']}"):
            for name in ("jku", "x5u", "jwks_uri", "iss", "url"):
                named = {**header, "kid": kid, name: place}
                yield f"{name} {place} kid {kid}", assemble(named, claims, signer(mine))
        named = {**claims, "iss": place}
        yield f"issuer {place}", assemble({**header, "kid": jwk["kid"]}, named, signer(mine))
        both = {**header, "kid": jwk["kid"], "jwk": jwk, "jku": place}
        yield f"jwk and jku {place}", assemble(both, claims, signer(mine))


async def test_forgeries_of_our_tokens(scene: Scene) -> None:
    login = await scene.accounts.user("alice")
    await scene.accounts.grant("alice", "team/**", "pull,push")
    good = await get_token(scene.http, login, SCOPE)
    header = jwt.get_unverified_header(good)
    [jwk] = (await scene.http.get("/.well-known/jwks.json")).json()["keys"]
    assert jwk["kid"] == header["kid"]
    public = scene.read_key(header["kid"]).public_key()
    assert jwk_of(public) == jwk
    assert (await send(scene, good))[0] == 404  # accepted, but the repository does not exist
    count = await require_refused(scene, forged(OURS, OURS, good, public), good)
    assert count > 100
    claims = jwt.decode(good, options={"verify_signature": False})
    await require_refused(scene, calling(scene, header, claims), good)


async def test_what_our_key_signed_wrongly(scene: Scene) -> None:
    """Tokens that are valid except for one claim or header are refused too."""
    login = await scene.accounts.user("carol")
    await scene.accounts.grant("carol", "team/**", "pull,push")
    good = await get_token(scene.http, login, SCOPE)
    claims = jwt.decode(good, options={"verify_signature": False})
    header = jwt.get_unverified_header(good)
    key = scene.read_key(header["kid"])
    more = {name: claims[name] for name in ("credential", "policy", "sub")}
    control = {**good_claims(OURS, OURS), **more}
    assert (await send(scene, assemble(header, control, signer(key))))[0] == 404
    forgeries = missigned(OURS, OURS, header["kid"], key, more)
    assert await require_refused(scene, forgeries, good) > 100

    def ours() -> Iterator[Forgery]:
        for name, values in {
            "credential": (..., None, 1, [], "user:admin", "user:carol:", "secret:x", "robot:x:y"),
            "policy": (..., None, "0", 1.5, [0], "\u0660"),
        }.items():
            for value in values:
                changed = {k: v for k, v in {**control, name: value}.items() if v is not ...}
                yield f"{name} {value!r}", assemble(header, changed, signer(key))

    await require_refused(scene, ours(), good)


async def test_another_kind_of_token_in_its_place(scene: Scene) -> None:
    login = await scene.accounts.user("dave")
    params = {"service": "moorage", "offline_token": "true"}
    body = (await scene.http.get("/token", params=params, headers=login.basic)).json()
    personal = await scene.accounts.token("dave")
    robot = await scene.accounts.robot("ci")
    kinds = [body["refresh_token"], personal.secret, robot.secret, login.secret]
    for kind in kinds:
        assert await send(scene, kind) == (401, "invalid_token")
    stranger = Ed25519PrivateKey.generate()
    other = {"typ": "JWT", "alg": "EdDSA", "kid": jwk_of(stranger.public_key())["kid"]}
    token = assemble(other, good_claims(OURS, OURS), signer(stranger))
    assert await send(scene, token) == (401, "invalid_token")


async def test_forgeries_of_the_outside_issuers_tokens(scene: Scene) -> None:
    header = {"typ": "JWT", "alg": "EdDSA", "kid": scene.outside_kid}
    claims = good_claims(OUTSIDE, "container_registry")
    good = assemble(header, claims, signer(OUTSIDE_KEY))
    assert (await send(scene, good))[0] == 404
    audience = "container_registry"
    public = OUTSIDE_KEY.public_key()
    await require_refused(scene, forged(OUTSIDE, audience, good, public), good)
    await require_refused(scene, calling(scene, header, claims), good)

    def crossed() -> Iterator[Forgery]:
        """Yield tokens in the name of one issuer, signed with the key of the other."""
        for issuer in (OURS, OUTSIDE):
            for whom in (OURS, audience):
                if (issuer, whom) != (OUTSIDE, audience):
                    made = good_claims(issuer, whom)
                    yield f"{issuer} for {whom}", assemble(header, made, signer(OUTSIDE_KEY))
        kid = next(
            path.name for path in (scene.server.data / "keys").iterdir() if len(path.name) == 43
        )
        ours = signer(scene.read_key(kid))
        yield "our key for outside", assemble({**header, "kid": kid}, claims, ours)
        yield "our key, their kid", assemble(header, claims, ours)

    await require_refused(scene, crossed(), good)
    assert len(scene.issuer.requests) == 1


async def test_tokens_at_the_token_endpoint(scene: Scene) -> None:
    """Forged tokens are not credentials, and an unknown issuer of ID tokens is not called."""
    await scene.accounts.user("erin")
    mine = Ed25519PrivateKey.generate()
    header = {"alg": "EdDSA", "kid": jwk_of(mine.public_key())["kid"], "typ": "JWT"}
    token = assemble(header, good_claims(scene.canary.url(), "moorage"), signer(mine))
    answer = await scene.http.get("/token", headers=bearer(token))
    assert answer.status_code == 401
    for kind in ("urn:ietf:params:oauth:token-type:id_token", "jwt", ""):
        fields = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": kind,
            "subject_token": token,
        }
        answer = await scene.http.post("/token", data=fields)
        assert answer.status_code in {400, 401}, json.dumps(fields)
    assert scene.canary.requests == []
