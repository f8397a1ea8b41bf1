"""Tests of kill -9 of a replica during a real client's push: the client's retries succeed."""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scenarios.clients.client import Client
from tests.scenarios.clients.conftest import busybox, client_env, docker, home, podman, skopeo
from tests.scenarios.clients.images import Layout, tar_of
from tests.support.breakpoints import Breakpoints
from tests.support.servers.nginx import Nginx
from tests.support.servers.postgres import Cluster
from tests.support.servers.replicas import Replicas, kit_of, running_replicas
from tests.support.servers.seaweed import Seaweed
from tests.support.servers.server import Server

__all__ = ["busybox", "client_env", "docker", "home", "podman", "skopeo"]

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.clients,
    pytest.mark.faults,
    pytest.mark.xdist_group("killed"),
    pytest.mark.timeout(240),
]

LAYERS = 3
SIZE = 6 << 20
POINTS = ["before save_progress", "before link"]


@dataclass(frozen=True)
class Victims:
    """Replicas, and the points at which the first one can be killed."""

    replicas: Replicas
    stops: Breakpoints


@pytest.fixture(scope="session")
def victims(
    postgres: Cluster, seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Victims]:
    folder = tmp_path_factory.mktemp("victims")
    with postgres.database() as url:
        stops = Breakpoints(folder / "stops")
        replicas = Replicas(folder / "replicas", url, seaweed.bucket())
        replicas.a.patches = stops.patches
        with running_replicas(replicas):
            yield Victims(replicas, stops)


@pytest.fixture(scope="session")
def registry(victims: Victims) -> Nginx:
    return victims.replicas.front


@pytest.fixture
def first(victims: Victims) -> Iterator[Server]:
    """Yield the replica to kill, and start it again afterwards."""
    server = victims.replicas.a
    yield server
    if server.running.poll() is not None:
        server.start()


Push = Callable[[str], str]


@pytest.fixture
def push(request: pytest.FixtureRequest, tmp_path: Path) -> Push:
    """Return a function that pushes a new image under a name, with one of the clients."""
    kind: str = request.param
    client: Client = request.getfixturevalue(kind)

    def run(name: str) -> str:
        if kind == "docker":
            context = tmp_path / name.rpartition("/")[2].replace(":", "-")
            context.mkdir()
            lines = ["FROM scratch"]
            for number in range(LAYERS):
                (context / str(number)).write_bytes(os.urandom(SIZE))
                lines.append(f"COPY {number} /")
            (context / "Dockerfile").write_text("\n".join(lines))
            client("build", "--tag", name, str(context), DOCKER_BUILDKIT="0")
            return client("push", name)
        layout = Layout(tmp_path / name.rpartition("/")[2].replace(":", "-"))
        layers = [tar_of({str(number): os.urandom(SIZE)}) for number in range(LAYERS)]
        layout.name(layout.image("amd64", layers), "1")
        if kind == "podman":
            found = client("pull", "--quiet", f"oci:{layout.folder}:1").split()[-1]
            return client("push", found, name)
        copy = ["copy", "--retry-times=3", f"oci:{layout.folder}:1"]
        return client(*copy, f"docker://{name}")

    return run


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("push", ["docker", "podman", "skopeo"], indirect=True)
async def test_the_client_gets_through(
    push: Push, victims: Victims, first: Server, point: str, request: pytest.FixtureRequest
) -> None:
    front = victims.replicas.front
    path = f"team/{request.node.callspec.id.replace(' ', '').replace('_', '-')}"
    victims.stops.set(point)
    number = 0
    standing = asyncio.create_task(victims.stops.reached(point))
    while True:  # until one of the tested requests reaches the first replica
        number += 1
        name = f"localhost:{front.port}/{path}:{number}"
        pushing = asyncio.create_task(asyncio.to_thread(push, name))
        await asyncio.wait([standing, pushing], return_when=asyncio.FIRST_COMPLETED)
        if standing.done():
            break
        await pushing
    await standing
    first.kill()
    await pushing
    async with kit_of(victims.replicas.b) as kit:
        answer = await kit.http.get(f"/v2/{path}/manifests/{number}")
        assert answer.status_code == 200
        document = answer.json()
        for part in [document["config"], *document["layers"]]:
            blob = await kit.http.get(f"/v2/{path}/blobs/{part['digest']}")
            assert (blob.status_code, len(blob.content)) == (200, part["size"])
