"""Fixtures of the tests of this folder."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.server.outages.helpers import CONFIG, LAYER, NAME, RAW, Scene
from tests.support.kit import Kit
from tests.support.missing import missing
from tests.support.pushing import push_image, verify
from tests.support.servers.postgres import Cluster, find_binaries, run_cluster
from tests.support.servers.server import Server, serving
from tests.support.servers.tcp_proxy import tcp_proxy


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Run a PostgreSQL server for this module, which tests can stop and kill."""
    binaries = find_binaries()
    if binaries is None:
        missing("PostgreSQL")
    with run_cluster(binaries) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=[1])
def scene(
    cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    with (
        cluster.database() as url,
        tcp_proxy(("127.0.0.1", cluster.port)) as proxy,
    ):
        environment = {
            "MOORAGE_DATABASE__URL": url.replace(f":{cluster.port}/", f":{proxy.port}/"),
            # Only requests commit, not background jobs.
            "MOORAGE_JOBS__IN_SERVE": "false",
        }
        data = tmp_path_factory.mktemp("outages") / "data"
        with serving(Server(data, request.param, environment)) as server:
            yield Scene(cluster, proxy, server, url)


@pytest.fixture
async def http(scene: Scene) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client that has pushed content which the outage must not damage."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=scene.server.url, timeout=30, limits=limits) as http:
        kit = Kit(http)
        for data in (CONFIG, LAYER):
            await kit.push_blob(NAME, data)
        assert (await kit.put_manifest(NAME, "v1", RAW)).status_code == 201
        await push_image(kit, scene.ledger, NAME, f"t{len(scene.ledger.pushes)}", 1000)
        yield http
        assert await verify(scene.server.url, scene.ledger.pushes) == []
        assert '"status": 500' not in scene.server.log.read_text()
        assert " 500 " not in scene.server.log.read_text()
