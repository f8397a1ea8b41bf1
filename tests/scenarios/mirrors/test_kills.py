"""Tests of kill -9 in the middle of a fill: nothing wrong is served, and nothing is left."""

import asyncio
from pathlib import Path

import httpx
import pytest

from storage.digest import Digest
from tests.scenarios.mirrors.conftest import Image
from tests.scenarios.mirrors.fake_upstream import FakeUpstream
from tests.scenarios.mirrors.test_pulls import pull
from tests.support.servers import launcher
from tests.support.servers.replicas import variable
from tests.support.servers.seaweed import Bucket
from tests.support.servers.server import Server, serving
from tests.support.stored_files import list_broken, list_unowned

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300)]

CLIENTS = 10


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("store", ["disk", "s3"])
async def test_a_pull_after_kill_9_in_the_middle_of_a_fill(
    tmp_path: Path, request: pytest.FixtureRequest, store: str, workers: int
) -> None:
    settings = {"MOORAGE_STORAGE__UPLOAD_EXPIRY": "1s"}
    bucket: Bucket | None = request.getfixturevalue("bucket") if store == "s3" else None
    if bucket is not None:
        chosen = {"storage.driver": "s3", "storage.part_size": "5MiB", **bucket.overrides()}
        settings |= {variable(key): text for key, text in chosen.items()}
    mirror = Server(tmp_path / "mirror", workers, settings)
    mirror.data.mkdir()
    image = Image.make("killed", 12 << 20)
    path = f"/v2/hub/app/blobs/{Digest.of(image.layer)}"
    async with FakeUpstream().run() as upstream:
        upstream.add("app", "1.0", image)
        options = ["--upstream", upstream.url, "--allow-private", "--data", str(mirror.data)]
        added = launcher.run("mirror", "add", "hub", *options, cwd=tmp_path)
        assert added.returncode == 0, added.stderr
        with serving(mirror):
            async with httpx.AsyncClient(base_url=mirror.url, timeout=60) as http:
                assert (await http.get("/v2/hub/app/manifests/1.0")).status_code == 200
                upstream.is_held = True
                await read_until_killed(http, path, image.layer, mirror, bucket)
        assert list_left(mirror.data, bucket)
        upstream.is_held = False
        with serving(mirror):
            async with httpx.AsyncClient(base_url=mirror.url, timeout=60) as http:
                pulls = [pull(http, "/v2/hub/app", "1.0") for _ in range(CLIENTS)]
                assert all(each.content == image.raw for each in await asyncio.gather(*pulls))
            await wait_for_nothing_left(mirror.data, bucket)
    if bucket is None:
        assert list_broken(mirror.data) == list_unowned(mirror.data) == []


async def read_until_killed(
    http: httpx.AsyncClient, path: str, content: bytes, mirror: Server, bucket: Bucket | None
) -> None:
    """Read a blob, kill the server when bytes are staged, and check that the end never comes."""
    received = bytearray()
    reading = asyncio.create_task(read(http, path, received))
    async with asyncio.timeout(60):
        while not (received and list_left(mirror.data, bucket)):
            await asyncio.sleep(0.05)
    mirror.kill()
    with pytest.raises(httpx.TransportError):
        await reading
    assert len(received) < len(content)
    assert content.startswith(received)


async def read(http: httpx.AsyncClient, path: str, received: bytearray) -> None:
    async with http.stream("GET", path) as response:
        assert response.status_code == 200
        async for piece in response.aiter_bytes():
            received += piece


async def wait_for_nothing_left(data: Path, bucket: Bucket | None) -> None:
    """Wait until the expiry job has deleted what the killed process has staged."""
    async with asyncio.timeout(60):
        while list_left(data, bucket):
            await asyncio.sleep(0.2)


def list_left(data: Path, bucket: Bucket | None) -> list[str]:
    """Return the staged files, or the uploads in parts that nobody has ended."""
    if bucket is None:
        return [path.name for path in (data / "storage" / "staging").iterdir()]
    return bucket.list_uploads()
