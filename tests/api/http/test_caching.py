"""Caching headers: a shared cache must not serve private content to other callers."""

from collections.abc import AsyncIterator

import pytest

from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, Accounts, Login, bearer, get_token, signed
from tests.support.kit import Kit

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

NAME = "team/app"
DATA = b"a layer of the team"
IMMUTABLE = "max-age=31536000, immutable"


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
async def api(start_api: Started) -> AsyncIterator[Api]:
    async with start_api(AUTH) as started:
        yield started


@pytest.fixture
async def alice(api: Api) -> Login:
    accounts = Accounts.of(api.opened)
    login = await accounts.user("alice")
    await accounts.grant("alice", NAME, "pull,push")
    return login


async def list_caching(kit: Kit) -> dict[str, tuple[str, str]]:
    """Return `Cache-Control` and `Vary` of each kind of read request."""
    digest = await kit.push_blob(NAME, DATA)
    manifest, _ = await kit.push_image(NAME, "latest")
    blob = f"/v2/{NAME}/blobs/{digest}"
    tag = f"/v2/{NAME}/manifests/latest"
    requests = {
        "blob": ("GET", blob, {}),
        "head of a blob": ("HEAD", blob, {}),
        "range": ("GET", blob, {"Range": "bytes=0-3"}),
        "unchanged blob": ("GET", blob, {"If-None-Match": f'"{digest}"'}),
        "tag": ("GET", tag, {}),
        "head of a tag": ("HEAD", tag, {}),
        "unchanged tag": ("GET", tag, {"If-None-Match": f'"{manifest}"'}),
        "by digest": ("GET", f"/v2/{NAME}/manifests/{manifest}", {}),
    }
    found = {}
    for what, (method, path, headers) in requests.items():
        answer = await kit.http.request(method, path, headers=headers)
        assert answer.status_code in {200, 206, 304}, (what, answer.text)
        found[what] = (answer.headers["Cache-Control"], answer.headers.get("Vary", ""))
    return found


def require(found: dict[str, tuple[str, str]], who: str, vary: str) -> None:
    for what, (control, varies) in found.items():
        rule = IMMUTABLE if "blob" in what or what == "range" else "no-cache"
        assert (control, varies) == (f"{who}, {rule}", vary), what


async def test_what_needs_a_right_is_private(api: Api, alice: Login) -> None:
    require(await list_caching(signed(api.http, alice.basic)), "private", "Authorization")
    scope = f"repository:{NAME}:pull,push"
    token = await get_token(api.http, alice, scope)
    require(await list_caching(signed(api.http, bearer(token))), "private", "Authorization")


async def test_what_anybody_may_pull_is_public(api: Api, alice: Login) -> None:
    await Accounts.of(api.opened).grant("anonymous", "team/**", "pull")
    require(await list_caching(signed(api.http, alice.basic)), "public", "")
    # From here on, the content needs permission again.
    await Accounts.of(api.opened).take("anonymous", "team/**")
    require(await list_caching(signed(api.http, alice.basic)), "private", "Authorization")


async def test_an_open_registry_is_public(start_api: Started) -> None:
    async with start_api() as opened:
        require(await list_caching(opened), "public", "")


async def test_everything_else_is_not_stored(api: Api, alice: Login) -> None:
    kit = signed(api.http, alice.basic)
    await kit.push_image(NAME, "latest")
    for path, status in {
        "/v2/": 200,
        "/v2/_catalog": 200,
        f"/v2/{NAME}/tags/list": 200,
        f"/v2/{NAME}/manifests/missing": 404,
        f"/v2/{NAME}/blobs/sha256:{'0' * 64}": 404,
        "/v2/other/app/tags/list": 403,
    }.items():
        answer = await kit.http.get(path)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (status, "no-store"), path
