"""The default mirror: requests that name no mirror, as those of the Docker engine."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from storage.digest import Digest
from tests.scenarios.mirrors.conftest import PREFIX, Image, Place, push, run_place
from tests.scenarios.mirrors.test_pulls import new_name, pull
from tests.support.accounts import (
    ANONYMOUS,
    Docker,
    Login,
    access_of,
    bearer,
    get_token,
    read_challenge,
    signed,
)
from tests.support.authenticated_server import operating
from tests.support.kit import Kit, codes

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


@contextlib.contextmanager
def default(place: Place, *options: str) -> Iterator[None]:
    """Make the mirror the default one for the block."""
    place.moorage("mirror", "default", PREFIX, *options)
    try:
        yield
    finally:
        place.moorage("mirror", "default", "refuse")


async def test_names_without_a_registry_are_pulled_from_the_default_mirror(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("default")
    await push(source, name, "1.0", image)
    assert (await http.get(f"/v2/{name}/manifests/1.0")).status_code == 404
    with default(place, "--without-ns"):
        for _ in range(2):
            found = await pull(http, f"/v2/{name}", "1.0")
            assert found.content == image.raw
        place.requests()
        assert (await pull(http, f"/v2/{name}", "1.0")).content == image.raw
        assert place.requests() == []
    assert (await http.get(f"/v2/{name}/manifests/1.0")).status_code == 404
    stored = place.moorage("repo", "list").split()
    assert f"{PREFIX}/{name}" in stored
    assert name not in stored


async def test_an_unknown_ns_goes_to_the_default_mirror_unless_excluded(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("ns")
    await push(source, name, "1.0", image)
    query = "?ns=other.example"
    with default(place):
        found = await pull(http, f"/v2/{name}", "1.0", query)
        assert found.content == image.raw
        assert found.headers["oci-namespace"] == "other.example"
    with default(place, "--without-ns"):
        found = await http.get(f"/v2/{name}/manifests/1.0{query}")
        assert (found.status_code, codes(found)) == (404, ["NAME_UNKNOWN"])


async def test_an_own_repository_keeps_its_name_also_after_its_end(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, own, other = new_name(), Image.make("own"), Image.make("upstream")
    await push(source, name, "1.0", other)
    await push(source, name, "2.0", other)
    with default(place):
        assert (await pull(http, f"/v2/{name}", "1.0")).content == other.raw
        await push(Kit(http), name, "1.0", own)
        place.requests()
        for _ in range(3):
            assert (await pull(http, f"/v2/{name}", "1.0")).content == own.raw
            assert (await http.get(f"/v2/{name}/manifests/2.0")).status_code == 404
        place.moorage("repo", "delete", name, "--yes")
        assert (await http.get(f"/v2/{name}/manifests/1.0")).status_code == 404
        assert place.requests() == []


async def test_names_with_a_host_and_names_of_mirrors_do_not_go_to_the_default(
    place: Place, http: httpx.AsyncClient
) -> None:
    with default(place, "--without-ns"):
        place.requests()
        for name in ("ghcr.io/team/app", "localhost/app"):
            found = await http.get(f"/v2/{name}/manifests/1.0")
            assert found.status_code == 404
        assert place.requests() == []
        await http.get(f"/v2/{PREFIX}/team/unknown/manifests/1.0")
        assert place.requests() == ["HEAD /v2/team/unknown/manifests/1.0"]


async def test_denied_names_do_not_go_to_the_default(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name = new_name()
    await push(source, name, "1.0", Image.make("denied"))
    with default(place), place.changed(["--deny", "team/**"], ["--deny", ""]):
        place.requests()
        found = await http.get(f"/v2/{name}/manifests/1.0")
        assert found.status_code == 404
        assert place.requests() == []


async def test_a_push_to_a_new_name_does_not_ask_the_upstream(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    """A client asks for blobs before it sends them. One of the upstream would not be sent."""
    name, image = new_name(), Image.make("pushed")
    await push(source, name, "1.0", image)
    with default(place):
        place.requests()
        layer = Digest.of(image.layer)
        assert (await http.head(f"/v2/{name}/blobs/{layer}")).status_code == 404
        await push(Kit(http), name, "1.0", image)
        assert place.requests() == []
        assert name in place.moorage("repo", "list").split()


async def test_removing_the_default_mirror_refuses_again(place: Place) -> None:
    with default(place):
        assert PREFIX in place.moorage("mirror", "default")
        assert '"default_for": "all"' in place.moorage("mirror", "show", PREFIX, "--json")
    assert place.moorage("mirror", "default") == "Requests that name no mirror are refused.\n"


# With users


@pytest.fixture(scope="module")
def closed_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from run_place(tmp_path_factory.mktemp("closed"), workers=1)


@pytest.fixture
async def closed(closed_place: Place) -> Place:
    """Return a default mirror from which anonymous callers and `alice` may pull.

    `alice` may also push to repositories of this registry, and `bob` may do nothing.
    """
    async with operating(closed_place.mirror) as accounts:
        if not await accounts.access.users.list_page(1, ""):
            await accounts.user("root", admin=True)
            for name in ("alice", "bob"):
                await accounts.user(name)
            await accounts.grant("alice", "team/**", "pull,push")
            await accounts.grant("user:alice", f"{PREFIX}/**", "pull")
            await accounts.grant("anonymous", f"{PREFIX}/**", "pull")
            closed_place.moorage("mirror", "default", PREFIX)
    return closed_place


@pytest.fixture
async def upstream(closed: Place) -> AsyncIterator[Kit]:
    async with httpx.AsyncClient(base_url=closed.upstream.url, timeout=60) as http:
        yield Kit(http)


@pytest.fixture
async def client(closed: Place) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=closed.mirror.url, timeout=60) as http:
        yield http


FAILED_SIGN_INS = 30
"""The default of `limits.failed_sign_ins`."""

ALICE, BOB = Login("alice", "the password of alice"), Login("bob", "the password of bob")


@pytest.mark.parametrize("login", [ANONYMOUS, ALICE], ids=["anonymous", "alice"])
async def test_a_token_for_the_name_without_a_registry_is_enough(
    upstream: Kit, client: httpx.AsyncClient, login: Login
) -> None:
    """The Docker engine asks for the scope of the name that it knows, before any challenge."""
    name, image = new_name(), Image.make(f"token of {login.name}")
    await push(upstream, name, "1.0", image)
    token = await get_token(client, login, f"repository:{name}:pull")
    assert access_of(token)[f"{PREFIX}/{name}"] == {"pull"}
    signed_in = signed(client, bearer(token)).http
    assert (await pull(signed_in, f"/v2/{name}", "1.0")).content == image.raw


async def test_an_own_repository_that_the_caller_may_not_read_stays_hidden(
    closed: Place, upstream: Kit, client: httpx.AsyncClient
) -> None:
    name, own, other = new_name(), Image.make("private"), Image.make("public")
    await push(upstream, name, "1.0", other)
    token = await get_token(client, ALICE, f"repository:{name}:pull,push")
    await push(signed(client, bearer(token)), name, "1.0", own)
    closed.requests()
    docker = Docker(client, BOB)
    found = await docker.request("GET", f"/v2/{name}/manifests/1.0")
    assert found.status_code == 401
    assert closed.requests() == []
    found = await Docker(client, ALICE).request("GET", f"/v2/{name}/manifests/1.0")
    assert found.content == own.raw


async def test_a_token_for_a_push_does_not_lead_to_the_mirror(
    closed: Place, upstream: Kit, client: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("same")
    await push(upstream, name, "1.0", image)
    token = await get_token(client, ALICE, f"repository:{name}:pull,push")
    closed.requests()
    head = await client.head(f"/v2/{name}/manifests/1.0", headers=bearer(token))
    assert head.status_code == 404
    assert closed.requests() == []


async def test_callers_without_the_mirror_cannot_tell_which_names_exist(
    closed: Place, client: httpx.AsyncClient
) -> None:
    """Their challenges name the repository in the path, whether it exists or not."""
    own, missing = new_name(), new_name()
    token = await get_token(client, ALICE, f"repository:{own}:pull,push")
    await push(signed(client, bearer(token)), own, "1.0", Image.make("exists"))
    async with operating(closed.mirror) as accounts:
        await accounts.take("anonymous", f"{PREFIX}/**")
    try:
        closed.requests()
        said = []
        for name in (own, missing):
            found = await Docker(client, BOB).request("GET", f"/v2/{name}/manifests/1.0")
            challenge = read_challenge(found)
            said.append(
                (found.text.replace(name, "NAME"), challenge["scope"].replace(name, "NAME"))
            )
        assert said[0] == said[1]
        assert closed.requests() == []
    finally:
        async with operating(closed.mirror) as accounts:
            await accounts.grant("anonymous", f"{PREFIX}/**", "pull")


async def test_credentials_of_another_registry_pull_what_everybody_may_pull(
    upstream: Kit, client: httpx.AsyncClient
) -> None:
    """The Docker engine sends its credentials for Docker Hub to a mirror of it."""
    name, image = new_name(), Image.make("foreign credentials")
    await push(upstream, name, "1.0", image)
    foreign = Login("hub-user", "the password at Docker Hub")
    for scope in (f"repository:{name}:pull", f"repository:{PREFIX}/{name}:pull"):
        token = await get_token(client, foreign, scope)
        assert access_of(token)[f"{PREFIX}/{name}"] == {"pull"}
        signed_in = signed(client, bearer(token)).http
        assert (await pull(signed_in, f"/v2/{name}", "1.0")).content == image.raw
    for _ in range(FAILED_SIGN_INS + 1):
        assert await get_token(client, foreign, f"repository:{name}:pull")
    assert await get_token(client, ALICE, "repository:team/app:push")


@pytest.mark.parametrize(
    "scopes",
    [
        [],
        ["repository:{name}:pull,push"],
        [f"repository:{PREFIX}/{{name}}:pull", "repository:ghcr.io/{name}:pull"],
    ],
    ids=["none", "push", "no mirror"],
)
@pytest.mark.parametrize("user", ["alice", "nobody"])
async def test_wrong_credentials_are_refused_for_anything_else(
    client: httpx.AsyncClient, user: str, scopes: list[str]
) -> None:
    asked = [scope.format(name=new_name()) for scope in scopes]
    found = await client.get(
        "/token", params={"scope": asked}, auth=(user, f"a wrong password {new_name()}")
    )
    assert (found.status_code, codes(found)) == (401, ["UNAUTHORIZED"])


async def test_a_scope_that_is_unknown_here_does_not_hinder_the_others(
    upstream: Kit, client: httpx.AsyncClient
) -> None:
    """Containerd adds the scope of the name at Docker Hub to that of the challenge."""
    name, image = new_name(), Image.make("two scopes")
    await push(upstream, name, "1.0", image)
    asked = ["repository:ghcr.io/unknown:pull", f"repository:{PREFIX}/{name}:pull"]
    found = await client.get("/token", params={"scope": asked})
    token = str(found.json()["token"])
    assert access_of(token) == {f"{PREFIX}/{name}": {"pull"}}
    signed_in = signed(client, bearer(token)).http
    assert (await pull(signed_in, f"/{PREFIX}/v2/{name}", "1.0")).content == image.raw
