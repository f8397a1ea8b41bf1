"""Every route with every method for every role, compared with a reviewed file.

`tests/auth/matrix.txt` is the reviewed file. The test fails for a route that is missing in it, and
for a route in it that no longer exists. To update the file, run the test and copy the file that the
failure names. Then review each line that has changed.
"""

import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.routing import BaseRoute, Route, Router

from registry import clock
from registry.auth.keys.jose import jwk_of
from storage.digest import Digest
from tests.api.conftest import SERVED, Api, Started
from tests.support.accounts import (
    ANONYMOUS,
    AUTH,
    Accounts,
    Login,
    bearer,
    get_token,
    signed,
)
from tests.support.forged_tokens import assemble, signer
from tests.support.kit import Kit, image_manifest

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.skipif(SERVED, reason="thousands of requests, answered alike over the wire"),
]

REVIEWED = Path(__file__).resolve().parents[2] / "auth" / "matrix.txt"
NAME = "team/app"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
ROLES = {
    "pull": "pull",
    "create": "create",
    "overwrite": "overwrite",
    "pull,create": "pull,create",
    "pull,overwrite": "pull,overwrite",
    "pull,push": "pull,push",
    "delete": "delete",
    "pull,delete": "pull,delete",
    "repository admin": "admin",
}
"""Actions that each user has in the repository."""

SCOPES = [f"repository:{NAME}:pull,push,delete", "registry:catalog:*"]
LOOSE = b"a blob that no manifest names"
GRANT: dict[str, object] = {"subject": "nobody", "pattern": NAME, "actions": ["delete"]}
BODIES: dict[str, dict[str, object]] = {
    "POST /api/v1/users": {"name": "made", "password": "a long password"},
    "PATCH /api/v1/users/absent": {"disabled": True},
    "PUT /api/v1/users/absent/password": {"password": "a long password"},
    "POST /api/v1/htpasswd": {"htpasswd": ""},
    "POST /api/v1/users/absent/tokens": {"name": "made"},
    "POST /api/v1/groups": {"name": "made"},
    "POST /api/v1/robots": {"name": "made"},
    "POST /api/v1/grants": GRANT,
    "POST /api/v1/grants/revoke": GRANT,
}
"""Valid request bodies for the admin API, so that no response is about invalid input."""

QUERIES = {"/api/v1/grants/check": f"?subject=nobody&repository={NAME}&action=pull"}


@pytest.fixture
def driver() -> str:
    return "memory"


@dataclass(frozen=True)
class Scene:
    """An existing repository, and the headers of every role."""

    api: Api
    root: Kit
    roles: dict[str, dict[str, str]]
    other: bytes

    @property
    def http(self) -> httpx.AsyncClient:
        return self.api.http

    async def restore(self) -> None:
        """Restore the repository to its state before each request of the matrix."""
        await self.root.push_blob(NAME, LOOSE)
        _, raw = await self.root.push_image(NAME, "latest", "there")
        assert (await self.root.put_manifest(NAME, "kept", self.other)).status_code == 201
        await self.root.http.delete(f"/v2/{NAME}/manifests/new")
        assert Digest.of(raw) == self.there

    @property
    def there(self) -> Digest:
        return Digest.of(there())

    async def start_upload(self, headers: dict[str, str]) -> str:
        """Return a session of the caller, or of another user if the caller may not start one."""
        path = f"/v2/{NAME}/blobs/uploads/"
        for given in (headers, dict(self.root.http.headers)):
            answer = await self.http.post(path, headers=given)
            if answer.status_code == 202:
                return str(answer.headers["Docker-Upload-UUID"])
        raise AssertionError


def there() -> bytes:
    config = json.dumps({"architecture": "amd64", "os": "linux", "seed": "there"}).encode()
    return image_manifest(config, [b"layer one there", b"layer two there"])


@pytest.fixture
async def scene(start_api: Started, tmp_path: Path) -> AsyncIterator[Scene]:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk_of(key.public_key())]}))
    settings = {"jwks_file": "keys.json", "issuer": "outside", "audience": "here"}
    outside = {f"auth.{name}": value for name, value in settings.items()}
    async with start_api({**AUTH, **outside, "limits.failed_sign_ins": "0"}) as api:
        accounts = Accounts.of(api.opened)
        admin = await accounts.user("root", admin=True)
        root = signed(api.http, admin.basic)
        _, other = await root.push_image(NAME, "kept", "kept")
        scene = Scene(api, root, await _make_roles(accounts, api, admin, key), other)
        await scene.restore()
        yield scene


async def _make_roles(
    accounts: Accounts, api: Api, admin: Login, key: Ed25519PrivateKey
) -> dict[str, dict[str, str]]:
    """Return the headers of each role, which has a token unless its name says otherwise."""
    nobody = await accounts.user("nobody")
    robot = await accounts.robot("ci")
    await accounts.grant("robot:ci", NAME, "pull,push")
    await accounts.grant("anonymous", "public/**", "pull")

    async def by_token(login: Login) -> dict[str, str]:
        return bearer(await get_token(api.http, login, *SCOPES))

    roles: dict[str, dict[str, str]] = {"nothing": {}, "anonymous": await by_token(ANONYMOUS)}
    roles |= {"no grants": await by_token(nobody), "no grants, password": nobody.basic}
    for number, (role, rights) in enumerate(ROLES.items()):
        login = await accounts.user(f"user{number}")
        await accounts.grant(login.name, NAME, rights)
        roles[role] = await by_token(login)
        if role in {"pull", "repository admin"}:
            roles[f"{role}, password"] = login.basic
    roles["robot: pull,push"] = await by_token(robot)
    now = clock.now_us() // 1_000_000
    claims = {"iss": "outside", "aud": "here", "sub": "ci", "iat": now, "exp": now + 300}
    access = [{"type": "repository", "name": NAME, "actions": ["pull", "push"]}]
    header = {"alg": "EdDSA", "kid": jwk_of(key.public_key())["kid"]}
    roles["outside: pull,push"] = bearer(
        assemble(header, {**claims, "access": access}, signer(key))
    )
    roles["admin"] = await by_token(admin)
    roles["admin, password"] = admin.basic
    return roles


def list_routes(api: Api) -> list[BaseRoute]:
    """Return the routes of the application."""
    transport = api.http._transport
    assert isinstance(transport, httpx.ASGITransport)
    layer: Any = transport.app
    while not isinstance(layer, Router):
        layer = layer._app
    return list(layer.routes)


def list_variants(path: str) -> list[dict[str, str]]:
    """Return the values of the path parameters; objects of the admin API do not exist."""
    values: dict[str, dict[str, list[str]]] = {
        "/v2/{name:path}/blobs/{digest}": {"{digest}": [str(Digest.of(LOOSE))]},
        "/v2/{name:path}/manifests/{reference}": {"{reference}": ["latest", "new", "DIGEST"]},
        "/v2/{name:path}/referrers/{digest}": {"{digest}": [str(Digest.of(LOOSE))]},
        "/v2/{name:path}/blobs/uploads/{upload}": {"{upload}": ["UPLOAD"]},
    }
    mine = values.get(path, {})
    return [
        dict(zip(mine, combination, strict=True))
        for combination in itertools.product(*mine.values())
    ]


async def ask(scene: Scene, method: str, path: str, headers: dict[str, str]) -> int:
    more = dict(headers)
    body = None
    if method in {"PUT", "PATCH", "POST"}:
        given = BODIES.get(f"{method} {path}", {})
        body = json.dumps(given).encode() if path.startswith("/api/") else b""
        more["Content-Type"] = "application/json" if body else "application/x-www-form-urlencoded"
    if "/manifests/" in path and method == "PUT":
        body = there() if path.endswith(str(scene.there)) else scene.other
        more["Content-Type"] = "application/vnd.oci.image.manifest.v1+json"
    if path.endswith("/UPLOAD"):
        path = path.replace("UPLOAD", await scene.start_upload(headers))
        if method == "PUT":
            path, body = f"{path}?digest={Digest.of(b'done')}", b"done"
    target = path + QUERIES.get(path, "")
    answer = await scene.http.request(method, target, headers=more, content=body)
    changes = method not in {"GET", "HEAD"} and "/uploads/" not in path
    if changes and answer.is_success and path.startswith(f"/v2/{NAME}/"):
        await scene.restore()
    return answer.status_code


def fill(path: str, variant: dict[str, str], there: Digest) -> str:
    for name, value in variant.items():
        path = path.replace(name, value.replace("DIGEST", str(there)))
    path = path.replace("{name:path}", NAME)
    while "{" in path:  # parameters of the admin API
        start, end = path.index("{"), path.index("}")
        number = "id" in path[start:end]
        path = path[:start] + ("999999" if number else "absent") + path[end + 1 :]
    return path


async def make_matrix(scene: Scene) -> str:
    lines = [f"{number + 1:2} {role}" for number, role in enumerate(scene.roles)]
    for route in list_routes(scene.api):
        assert isinstance(route, Route)
        for variant in list_variants(route.path):
            path = fill(route.path, variant, scene.there)
            shown = f"{route.path} {' '.join(variant.values())}".strip()
            lines.append(f"\n{shown}")
            for method in METHODS:
                statuses = [
                    await ask(scene, method, path, headers) for headers in scene.roles.values()
                ]
                if set(statuses) != {405}:
                    lines.append(f"  {method:6} {' '.join(map(str, statuses))}")
    return "\n".join(lines) + "\n"


async def test_every_route_does_to_every_role_what_was_reviewed(
    scene: Scene, tmp_path: Path
) -> None:
    made = await make_matrix(scene)
    new = tmp_path / "matrix.txt"
    new.write_text(made)
    reviewed = REVIEWED.read_text() if REVIEWED.exists() else ""
    assert made.splitlines() == reviewed.splitlines(), f"the matrix as it is now: {new}"
