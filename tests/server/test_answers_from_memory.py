"""Answers from memory in servers with one and with several workers, and changes that end them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from registry.app import Runtime, open_runtime
from registry.auth.policy.principals import OPERATOR
from registry.config import load
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from tests.support.accounts import SECRET
from tests.support.authenticated_server import alone
from tests.support.kit import Kit, image_manifest
from tests.support.servers.postgres import Cluster
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

NAME = RepositoryName("team/app")
TAG = f"/v2/{NAME}/manifests/1"
UNVALIDATED = """\
import asyncio
from collections import deque
from registry.server.waiting_requests import WaitingRequests

def add(self, request):
    batch = deque([request])
    asyncio.get_running_loop().call_soon(lambda: self._end(batch, succeeded=True))

WaitingRequests.add = add
"""
"""Makes a server with PostgreSQL repeat responses without asking the database."""
HITS = "moorage_answers_from_memory_total "


def use_postgres(url: str) -> dict[str, str]:
    return {"MOORAGE_DATABASE__URL": url, "MOORAGE_AUTH__SECRET": SECRET}


async def count_hits(http: httpx.AsyncClient) -> float:
    """Return the number of requests that all workers answered from memory."""
    lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.removeprefix(HITS)) for line in lines if line.startswith(HITS))


async def ask_all(server: Server, path: str, times: int = 3) -> list[httpx.Response]:
    """Return the responses of each worker, to several requests on one connection."""
    responses = []
    for pid in server.worker_pids() if server.workers > 1 else [server.running.pid]:
        with alone(server, pid) if server.workers > 1 else memoryview(b""):
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
                responses += [await http.get(path) for _ in range(times)]
    return responses


async def ask_until_remembered(server: Server, http: httpx.AsyncClient) -> None:
    """Request the tag until as many responses came from memory as there are workers.

    A job that commits meanwhile prevents that, and other workers count within 100 ms.
    """
    before = await count_hits(http)
    for _ in range(50):
        assert {answer.status_code for answer in await ask_all(server, TAG)} == {200}
        if await count_hits(http) >= before + server.workers:
            return
        await asyncio.sleep(0.2)
    raise AssertionError("no response came from memory")


@pytest.fixture(params=["sqlite-1", "sqlite-3", "postgres-1", "postgres-3"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Run a server with one worker, and with several, on each database."""
    database, _, workers = request.param.partition("-")
    if database == "sqlite":
        with serving(Server(tmp_path / "data", int(workers))) as server:
            yield server
        return
    postgres: Cluster = request.getfixturevalue("postgres")
    with (
        postgres.database() as url,
        serving(Server(tmp_path / "data", int(workers), use_postgres(url))) as server,
    ):
        yield server


@pytest.fixture
async def opened(server: Server) -> AsyncIterator[Runtime]:
    """Yield the same registry in another process: this one."""
    settings = load(config=None, data=server.data, overrides={}, environ=server.settings)
    async with open_runtime(settings) as opened:
        yield opened


async def push(kit: Kit) -> str:
    """Push an image with the tags 1 and 2. Return its digest."""
    await kit.push_image(str(NAME), "2")
    return str(await kit.push_image(str(NAME), "1"))


async def test_a_tag_that_another_process_deletes(
    server: Server, kit: Kit, opened: Runtime
) -> None:
    await push(kit)
    await ask_until_remembered(server, kit.http)
    await opened.registry.manifests.delete(NAME, Tag("1"), OPERATOR)
    assert {answer.status_code for answer in await ask_all(server, TAG)} == {404}
    assert {answer.status_code for answer in await ask_all(server, f"{TAG[:-1]}2")} == {200}


async def test_a_memory_that_does_not_wait_for_the_database(
    postgres: Cluster, tmp_path: Path
) -> None:
    """The negative control: these tests can fail."""
    patches = tmp_path / "patches"
    patches.mkdir()
    (patches / "sitecustomize.py").write_text(UNVALIDATED)
    with (
        postgres.database() as url,
        serving(Server(tmp_path / "data", 1, use_postgres(url), patches=patches)) as server,
    ):
        settings = load(config=None, data=server.data, overrides={}, environ=server.settings)
        async with (
            open_runtime(settings) as opened,
            httpx.AsyncClient(base_url=server.url) as http,
        ):
            await push(Kit(http))
            await ask_until_remembered(server, http)
            await opened.registry.manifests.delete(NAME, Tag("1"), OPERATOR)
            assert 200 in {answer.status_code for answer in await ask_all(server, TAG)}


async def test_a_tag_that_a_client_moves(server: Server, kit: Kit) -> None:
    await push(kit)
    old = {answer.content for answer in await ask_all(server, TAG)}
    raw = image_manifest(b"{}", [], annotations={"moved": "yes"})
    await kit.push_blob(str(NAME), b"{}")
    assert (await kit.put_manifest(str(NAME), "1", raw)).status_code == 201
    assert {answer.content for answer in await ask_all(server, TAG)} == {raw} != old


async def test_the_first_user_closes_the_registry(
    server: Server, kit: Kit, opened: Runtime
) -> None:
    await push(kit)
    for path in ("/v2/", TAG):
        assert {answer.status_code for answer in await ask_all(server, path)} == {200}
    await opened.access.users.add_first_admin("ann", "a password of the first user")
    for path in ("/v2/", TAG):
        assert {answer.status_code for answer in await ask_all(server, path)} == {401}


async def test_switched_off(tmp_path: Path) -> None:
    """The negative control: nothing comes from memory."""
    settings = {"MOORAGE_HTTP__ANSWER_FROM_MEMORY": "false"}
    with serving(Server(tmp_path / "data", 1, settings)) as server:
        async with httpx.AsyncClient(base_url=server.url) as http:
            assert {answer.status_code for answer in await ask_all(server, "/v2/")} == {200}
            assert await count_hits(http) == 0


async def test_a_hit_is_counted_and_logged_like_any_request(tmp_path: Path) -> None:
    settings = {"MOORAGE_JOBS__IN_SERVE": "false"}  # a job that commits prevents hits
    with serving(Server(tmp_path / "data", settings=settings)) as server:
        async with httpx.AsyncClient(base_url=server.url) as http:
            await http.get("/v2/")  # the server is read to find out whether it runs
            requests = await _count(http)
            hits = await count_hits(http)
            answers = [await http.get("/v2/", headers={"user-agent": "ann"}) for _ in range(4)]
            assert await _count(http) == requests + 4
            assert await count_hits(http) == hits + 3
    lines = [line for line in server.log.read_text().splitlines() if "user_agent=ann" in line]
    assert len(lines) == 4
    for line, answer in zip(lines, answers, strict=True):
        assert f"request_id={answer.headers['x-request-id']}" in line
    known = {line.partition("request_id=")[0][24:] for line in lines}
    assert known == {" INFO  moorage.access "}
    ends = {line.partition(" request ")[2].partition(" duration_ms")[0] for line in lines}
    assert ends == {"method=GET path=/v2/ status=200"}
    assert len({line.partition("bytes_in")[2] for line in lines}) == 1


async def _count(http: httpx.AsyncClient) -> float:
    name = 'moorage_requests_total{method="GET",route="/v2/",status="200"} '
    lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))
