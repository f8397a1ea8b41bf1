"""The right `fill`: who may cause a mirror to fetch content with its credentials."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from registry.oci.names import RepositoryName
from registry.services.mirrors.mirror import Mirror
from registry.services.mirrors.options import MirrorOptions
from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.support.accounts import (
    ANONYMOUS,
    AUTH,
    OPERATOR,
    Accounts,
    Login,
    access_of,
    bearer,
    get_token,
)
from tests.support.kit import Kit, codes, image_manifest
from tests.support.servers.server import Server, serving

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["local"], indirect=True),
    pytest.mark.timeout(180),
]

CONFIG, LAYER = b"{}", b"a layer"
RAW = image_manifest(CONFIG, [LAYER])
PARTS = (CONFIG, LAYER)


@dataclass(frozen=True)
class Place:
    """A registry with a mirror of a private registry, `private`, and one of a public, `public`."""

    api: Api
    upstream: Kit
    ann: Login
    bob: Login
    eve: Login

    async def get(self, login: Login, path: str) -> httpx.Response:
        """Send a request with a token for a pull, as clients do."""
        name = path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]
        token = await get_token(self.api.http, login, f"repository:{name}:pull")
        return await self.api.http.get(path, headers=bearer(token))

    async def pull(self, login: Login, name: str, reference: str = "1") -> httpx.Response:
        """Pull an image. Return the response with the manifest."""
        found = await self.get(login, f"/v2/{name}/manifests/{reference}")
        if found.status_code == 200:
            for part in PARTS:
                blob = await self.get(login, f"/v2/{name}/blobs/{Digest.of(part)}")
                assert (blob.status_code, blob.content) == (200, part)
        return found


@pytest.fixture
async def place(start_api: Started, tmp_path: Path) -> AsyncIterator[Place]:
    with serving(Server(tmp_path / "upstream")) as server:
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=60) as http,
            start_api(AUTH) as api,
        ):
            upstream, accounts = Kit(http), Accounts.of(api.opened)
            for part in PARTS:
                await upstream.push_blob("app", part)
            assert (await upstream.put_manifest("app", "1", RAW)).status_code == 201
            for name, user, password in (("private", "me", "secret"), ("public", "", None)):
                options = MirrorOptions(username=user, allow_private=True)
                mirror = Mirror(name, RepositoryName(name), server.url, options, password)
                await api.opened.registry.mirrors.add(mirror, OPERATOR)
            logins = [await accounts.user(name) for name in ("ann", "bob", "eve")]
            await accounts.grant("ann", "private/**", "pull,fill")
            await accounts.grant("bob", "private/**", "pull")
            await accounts.grant("bob", "public/**", "pull")
            yield Place(api, upstream, *logins)


async def test_private_content_is_fetched_only_for_callers_with_fill(place: Place) -> None:
    """Test 12 of the issue."""
    refused = await place.pull(place.bob, "private/app")
    assert (refused.status_code, codes(refused)) == (404, ["MANIFEST_UNKNOWN"])
    assert "requires fill on private/app" in refused.text
    by_digest = await place.pull(place.bob, "private/app", str(Digest.of(RAW)))
    assert by_digest.status_code == 404
    blob = await place.get(place.bob, f"/v2/private/app/blobs/{Digest.of(LAYER)}")
    assert (blob.status_code, codes(blob)) == (404, ["BLOB_UNKNOWN"])
    # A manifest without its blobs is not enough: the client would fail at the first blob.
    path = "/v2/private/app/manifests/1"
    assert (await place.get(place.ann, path)).content == RAW
    assert (await place.get(place.bob, path)).status_code == 404
    assert (await place.pull(place.ann, "private/app")).content == RAW
    assert (await place.pull(place.bob, "private/app")).content == RAW
    assert (await place.get(place.eve, path)).status_code == 401


async def test_public_content_is_fetched_for_callers_with_pull(place: Place) -> None:
    assert (await place.pull(place.bob, "public/app")).content == RAW


async def test_fill_ends_with_its_grant(place: Place) -> None:
    token = await get_token(place.api.http, place.ann, "repository:private/app:pull")
    path = "/v2/private/app/manifests/1"
    assert (await place.api.http.get(path, headers=bearer(token))).content == RAW
    await Accounts.of(place.api.opened).take("ann", "private/**", "fill")
    blob = f"/v2/private/app/blobs/{Digest.of(LAYER)}"
    assert (await place.api.http.get(blob, headers=bearer(token))).status_code == 404


async def test_an_anonymous_caller_is_asked_to_sign_in(place: Place) -> None:
    await Accounts.of(place.api.opened).grant("anonymous", "private/**", "pull")
    path = "/v2/private/app/manifests/1"
    refused = await place.get(ANONYMOUS, path)
    assert refused.status_code == 401
    assert 'scope="repository:private/app:pull"' in refused.headers["www-authenticate"]
    assert (await place.pull(place.ann, "private/app")).content == RAW
    assert (await place.pull(ANONYMOUS, "private/app")).content == RAW


async def test_a_bounded_token_needs_fill_in_its_scopes(place: Place) -> None:
    accounts = Accounts.of(place.api.opened)
    path = "/v2/private/app/manifests/1"
    without = await accounts.token("ann", "without", [("private/**", "pull")])
    assert (await place.get(without, path)).status_code == 404
    with_fill = await accounts.token("ann", "with", [("private/**", "pull,fill")])
    assert (await place.get(with_fill, path)).content == RAW


async def test_a_token_names_fill_only_if_asked(place: Place) -> None:
    scope = "repository:private/app:"
    for asked, granted in (
        ("pull", {"pull"}),
        ("pull,fill", {"pull", "fill"}),
        ("*", {"pull"}),
    ):
        token = await get_token(place.api.http, place.ann, scope + asked)
        assert access_of(token) == {"private/app": granted}
    token = await get_token(place.api.http, place.bob, scope + "pull,fill")
    assert access_of(token) == {"private/app": {"pull"}}


async def test_a_mirror_with_a_credential_helper_is_private(place: Place) -> None:
    options = MirrorOptions(credential_helper="none", allow_private=True)
    url = str(place.upstream.http.base_url)
    await place.api.opened.registry.mirrors.set("public", OPERATOR, url=url, options=options)
    assert (await place.pull(place.bob, "public/app")).status_code == 404
