"""Real upstreams: Debian's docker-registry, and Moorage with a token server on another origin."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from registry.client.breaker import BreakerState
from registry.client.credentials import Source, from_settings
from registry.errors import (
    UpstreamCredentialsError,
    UpstreamDeniedError,
    UpstreamUnavailableError,
    UpstreamUnknownError,
)
from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST
from registry.oci.references import Tag
from registry.oci.referrers import fallback_tag
from storage.digest import Digest
from tests.client.conftest import REPOSITORY, calling
from tests.support.kit import descriptor, image_manifest, index_manifest
from tests.support.servers.debian_registry import DebianRegistry, debian_registry
from tests.support.servers.server import Server, add_admin, serving

pytestmark = pytest.mark.anyio

USER, PASSWORD = "ann", "correct horse battery staple"
CONFIG = b'{"architecture": "amd64", "os": "linux"}'
LAYER = bytes(range(256)) * 4096
IMAGE = image_manifest(CONFIG, [LAYER])
TAGS = [f"v{n}" for n in range(5)]
SIGNATURE = image_manifest(CONFIG, [], subject=descriptor(IMAGE, OCI_MANIFEST))


@dataclass(frozen=True)
class Registry:
    """A registry with the image. `credentials` is None if it is open."""

    url: str
    credentials: Source | None = None
    login: tuple[str, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)


def push(registry: Registry) -> None:
    """Push the image, its tags and a signature, as clients of 2015 do."""
    base = f"{registry.url}/v2/{REPOSITORY}"
    with httpx.Client(auth=registry.login, headers=registry.headers, timeout=60) as http:
        for data in (CONFIG, LAYER):
            begun = http.post(f"{base}/blobs/uploads/")
            assert begun.status_code == 202, begun.text
            place = httpx.URL(registry.url).join(begun.headers["Location"])
            place = place.copy_merge_params({"digest": str(Digest.of(data))})
            assert http.put(place, content=data).status_code == 201
        index = index_manifest([SIGNATURE])
        puts = [(tag, IMAGE, OCI_MANIFEST) for tag in TAGS]
        puts += [(str(Digest.of(SIGNATURE)), SIGNATURE, OCI_MANIFEST)]
        puts += [(str(fallback_tag(Digest.of(IMAGE))), index, OCI_INDEX)]
        for reference, raw, media_type in puts:
            sent = {"Content-Type": media_type}
            answer = http.put(f"{base}/manifests/{reference}", content=raw, headers=sent)
            assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with debian_registry(tmp_path_factory.mktemp("open")) as running:
        registry = Registry(running.url)
        push(registry)
        yield registry


@pytest.fixture(scope="module")
def htpasswd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    folder = tmp_path_factory.mktemp("htpasswd")
    with debian_registry(folder, user=USER, password=PASSWORD) as running:
        push(Registry(running.url, login=(USER, PASSWORD)))
        yield running


@pytest.fixture(scope="module")
def moorage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a registry that issues its own tokens."""
    data = tmp_path_factory.mktemp("moorage") / "data"
    add_admin(data, USER, PASSWORD)
    settings = {"MOORAGE_AUTH__MODE": "token", "MOORAGE_AUTH__SERVICE": "tokens"}
    with serving(Server(data, settings=settings)) as server:
        push(Registry(server.url, headers=find_token(server.url)))
        yield server


@pytest.fixture(scope="module")
def two_origins(moorage: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Yield a registry whose tokens the other one issues, as Docker Hub has it."""
    settings = {
        "MOORAGE_AUTH__MODE": "token",
        "MOORAGE_AUTH__LOCAL_USERS": "false",
        "MOORAGE_AUTH__ISSUER": "tokens",
        "MOORAGE_AUTH__AUDIENCE": "tokens",
        "MOORAGE_AUTH__REALM": f"{moorage.url}/token",
        "MOORAGE_AUTH__JWKS_URL": f"{moorage.url}/.well-known/jwks.json",
        "MOORAGE_AUTH__ALLOW_PRIVATE_ADDRESSES": "true",
    }
    data = tmp_path_factory.mktemp("hub") / "data"
    with serving(Server(data, settings=settings)) as server:
        push(Registry(server.url, headers=find_token(moorage.url)))
        yield Registry(server.url)


def find_token(url: str) -> dict[str, str]:
    query = {"service": "tokens", "scope": f"repository:{REPOSITORY}:pull,push"}
    answer = httpx.get(f"{url}/token", params=query, auth=(USER, PASSWORD), timeout=60)
    return {"Authorization": f"Bearer {answer.json()['token']}"}


@pytest.fixture(params=["debian", "htpasswd", "moorage", "two_origins"])
def registry(request: pytest.FixtureRequest) -> Registry:
    served = request.getfixturevalue(request.param)
    signed_in = None if request.param == "debian" else from_settings(USER, PASSWORD)
    return Registry(served.url, signed_in)


async def test_everything_that_a_mirror_needs(
    registry: Registry, moorage: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.client.upstream._PAGE_SIZE", 2)
    digest = Digest.of(IMAGE)
    async with calling(
        registry.url, credentials=registry.credentials, token_origins=[moorage.url]
    ) as upstream:
        await upstream.ping()
        for reference in (Tag(TAGS[0]), digest):
            head = await upstream.head_manifest(REPOSITORY, reference)
            assert (head.media_type, head.digest, head.size) == (OCI_MANIFEST, digest, len(IMAGE))
            manifest = await upstream.get_manifest(REPOSITORY, reference)
            assert (manifest.digest, manifest.body) == (digest, IMAGE)
        blob = Digest.of(LAYER)
        assert await upstream.head_blob(REPOSITORY, blob) == len(LAYER)
        for start, stop in ((0, None), (1000, None), (0, 1), (5, 400_000), (7, 1 << 30)):
            async with upstream.open_blob(
                REPOSITORY, blob, size=len(LAYER), start=start, stop=stop
            ) as body:
                assert b"".join([piece async for piece in body]) == LAYER[start:stop]
                assert (body.size, body.start) == (len(LAYER), start)
                assert body.stop == min(len(LAYER), stop or len(LAYER))
        tags = [str(tag) async for tag in upstream.iter_tags(REPOSITORY)]
        assert sorted(tags) == [str(fallback_tag(digest)), *TAGS]
        [found] = await upstream.list_referrers(REPOSITORY, digest)
        assert found.digest == Digest.of(SIGNATURE)
        assert await upstream.list_referrers(REPOSITORY, digest, "application/other") == []
        assert await upstream.list_referrers(REPOSITORY, Digest.of(LAYER)) == []
        with pytest.raises(UpstreamUnknownError):
            await upstream.get_manifest(REPOSITORY, Tag("unknown"))
        with pytest.raises(UpstreamUnknownError):
            await upstream.head_blob(REPOSITORY, Digest.of(b"unknown"))


async def test_the_catalog(debian: Registry) -> None:
    async with calling(debian.url) as upstream:
        assert [name async for name in upstream.iter_repositories()] == [REPOSITORY]
    async with calling(f"{debian.url}/team") as upstream:
        [below] = [name async for name in upstream.iter_repositories()]
        assert str(below) == "app"
        assert (await upstream.head_manifest(below, Tag(TAGS[0]))).size == len(IMAGE)


async def test_parallel_pulls_share_connections(debian: Registry) -> None:
    async def pull() -> int:
        async with upstream.open_blob(REPOSITORY, Digest.of(LAYER), size=len(LAYER)) as body:
            return sum([len(piece) async for piece in body])

    async with calling(debian.url, max_connections=3) as upstream:
        assert await asyncio.gather(*(pull() for _ in range(12))) == [len(LAYER)] * 12
        assert 1 <= len(upstream._transport._pools["http"].connections) <= 3


async def test_a_closed_body_gives_the_connection_back(debian: Registry) -> None:
    async with calling(debian.url, max_connections=1) as upstream:
        for _ in range(3):
            async with upstream.open_blob(REPOSITORY, Digest.of(LAYER)) as body:
                await anext(body)
        for turns in range(20):  # a cancelled request gives it back as well
            pull = asyncio.create_task(upstream.get_manifest(REPOSITORY, Tag(TAGS[0])))
            for _ in range(turns):
                await asyncio.sleep(0)
            pull.cancel()
            await asyncio.gather(pull, return_exceptions=True)
        assert (await upstream.get_manifest(REPOSITORY, Tag(TAGS[0]))).body == IMAGE
        assert upstream.breaker.state is BreakerState.CLOSED


async def test_basic_credentials_are_sent_at_once_after_the_first_challenge(
    htpasswd: DebianRegistry,
) -> None:
    async with calling(htpasswd.url, credentials=from_settings(USER, PASSWORD)) as upstream:
        await upstream.ping()
        before = htpasswd.count("authorization error") + htpasswd.count("http.response.status=401")
        for _ in range(3):
            await upstream.head_manifest(REPOSITORY, Tag(TAGS[0]))
        after = htpasswd.count("authorization error") + htpasswd.count("http.response.status=401")
    assert after == before


@pytest.mark.parametrize("name", ["htpasswd", "moorage"])
async def test_a_wrong_password_is_tried_once(name: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(name).url
    async with calling(url, credentials=from_settings(USER, "wrong" * 5)) as upstream:
        with pytest.raises(UpstreamCredentialsError, match="correct the credentials") as caught:
            await upstream.ping()
        assert "wrong" not in caught.value.message
        assert upstream.breaker.state is BreakerState.OPEN
        with pytest.raises(UpstreamUnavailableError, match="is not called before"):
            await upstream.get_manifest(REPOSITORY, Tag(TAGS[0]))
        upstream.breaker.reset()
        with pytest.raises(UpstreamCredentialsError):
            await upstream.ping()


async def test_private_content_is_denied_without_credentials(
    htpasswd: DebianRegistry, moorage: Server, two_origins: Registry
) -> None:
    for url in (htpasswd.url, moorage.url, two_origins.url):
        async with calling(url) as upstream:
            with pytest.raises(UpstreamDeniedError):
                await upstream.get_manifest(REPOSITORY, Tag(TAGS[0]))
            assert upstream.breaker.state is BreakerState.CLOSED


async def test_a_token_server_elsewhere_must_be_allowed(
    two_origins: Registry, moorage: Server
) -> None:
    async with calling(two_origins.url, credentials=from_settings(USER, PASSWORD)) as upstream:
        with pytest.raises(UpstreamDeniedError, match=f"issued by {moorage.url}") as caught:
            await upstream.ping()
        assert type(caught.value) is UpstreamDeniedError


async def test_a_registry_that_is_down(tmp_path: Path) -> None:
    with debian_registry(tmp_path) as running:
        url = running.url
        async with calling(url) as upstream:
            await upstream.ping()
    async with calling(url) as upstream:
        for _ in range(5):
            with pytest.raises(UpstreamUnavailableError, match="cannot reach"):
                await upstream.ping()
        with pytest.raises(UpstreamUnavailableError, match="is not called before"):
            await upstream.ping()


async def test_a_kept_connection_that_the_server_cuts_off_costs_no_error() -> None:
    answer = b'{"tags": ["a"]}'
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
        await reader.read(1)  # the next request
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with calling(url) as upstream:
            for _ in range(2):
                assert [str(tag) async for tag in upstream.iter_tags(REPOSITORY)] == ["a"]
        assert len(writers) == 2
        await asyncio.sleep(0.05)
