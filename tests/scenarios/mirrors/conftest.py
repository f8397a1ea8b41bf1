"""A mirror and its upstream, each a real server, with a proxy between them that can fail."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.kit import Kit, image_manifest, index_manifest
from tests.support.servers import launcher
from tests.support.servers.server import Server, serving
from tests.support.servers.tcp_proxy import TcpProxy, tcp_proxy

HOST = "hub.example"
"""The host of the upstream, as clients name it in `ns`."""

PREFIX = "hub"


@dataclass
class Place:
    """A mirror, its upstream, and the connection between them."""

    mirror: Server
    upstream: Server
    proxy: TcpProxy
    counted: int = field(default=0)

    def requests(self) -> list[str]:
        """Return the requests that the upstream got since the last call, but those of the test.

        The access log is written a moment late, so a request of the test marks the end.
        """
        mark = f"end-{self.counted}"
        httpx.get(f"{self.upstream.url}/{mark}", headers={"User-Agent": "test"})
        text = self.upstream.wait_for_log(f'"/{mark}"')
        lines = [json.loads(line) for line in text.splitlines() if '"moorage.access"' in line]
        new, self.counted = lines[self.counted :], len(lines)
        return [f"{e['method']} {e['path']}" for e in new if e["user_agent"] == "moorage"]

    def moorage(self, *arguments: str) -> str:
        """Run a command on the data of the mirror, and return its output."""
        done = launcher.run(*arguments, "--data", str(self.mirror.data), cwd=self.mirror.data)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def changed(self, options: list[str], before: list[str]) -> Iterator[None]:
        """Change options of the mirror for the block, and set those of `before` after it."""
        self.moorage("mirror", "set", PREFIX, *options)
        try:
            yield
        finally:
            self.moorage("mirror", "set", PREFIX, *before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("mirror")
    yield from run_place(folder, workers=1)


def run_place(folder: Path, workers: int) -> Iterator[Place]:
    settings = {"MOORAGE_JOBS__IN_SERVE": "false", "MOORAGE_LOG__FORMAT": "json"}
    upstream = Server(folder / "upstream", settings=settings)
    with serving(upstream), tcp_proxy(("127.0.0.1", upstream.port)) as proxy:
        mirror = Server(folder / "mirror", workers, settings)
        mirror.data.mkdir()
        place = Place(mirror, upstream, proxy)
        url = f"http://127.0.0.1:{proxy.port}"
        options = ["--prefix", PREFIX, "--host", HOST, "--allow-private", "--tag-ttl", "1h"]
        place.moorage("mirror", "add", PREFIX, "--upstream", url, *options)
        with serving(mirror):
            yield place


@pytest.fixture
async def source(place: Place) -> AsyncIterator[Kit]:
    """Return a client of the upstream."""
    async with httpx.AsyncClient(base_url=place.upstream.url, timeout=60) as http:
        yield Kit(http)


@pytest.fixture
async def http(place: Place) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the mirror. The upstream is reachable afterwards."""
    async with httpx.AsyncClient(base_url=place.mirror.url, timeout=60) as http:
        yield http
    place.proxy.accept()
    place.proxy.resume()


@dataclass(frozen=True)
class Image:
    """An image with one layer."""

    config: bytes
    layer: bytes
    raw: bytes

    @classmethod
    def make(cls, text: str, size: int = 1000) -> "Image":
        return cls.of(json.dumps({"name": text}).encode(), (text.encode() * size)[:size])

    @classmethod
    def of(cls, config: bytes, layer: bytes) -> "Image":
        return cls(config, layer, image_manifest(config, [layer]))


async def push(source: Kit, name: str, tag: str, image: Image) -> None:
    for data in (image.config, image.layer):
        await source.push_blob(name, data)
    assert (await source.put_manifest(name, tag, image.raw)).status_code == 201


async def push_index(source: Kit, name: str, tag: str, images: list[Image]) -> bytes:
    """Push an index with its images, and return its bytes."""
    for number, image in enumerate(images):
        await push(source, name, f"{tag}-{number}", image)
    raw = index_manifest([image.raw for image in images])
    assert (await source.put_manifest(name, tag, raw)).status_code == 201
    return raw
