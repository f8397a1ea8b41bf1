"""A server whose PostgreSQL is killed, stalled, full or locked responds 503 in time and recovers.

There is never a 500 response, the process stays alive for health checks, and acknowledged content
exists afterwards.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import httpx
import psycopg
import pytest
import sqlalchemy as sa

from registry.metadata import tables
from storage.digest import Digest
from tests.support.kit import Kit, codes, image_manifest, media_type_of
from tests.support.missing import missing
from tests.support.postgres import Cluster, find_binaries, run_cluster
from tests.support.pushing import Ledger, blob_bytes, push_image, verify
from tests.support.server import Server, serving
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

BOUND = 25.0
"""Time limit for responses during an outage, and for the recovery after it, in seconds."""

CONFIG, LAYER = b"{}", b"the layer"
RAW = image_manifest(CONFIG, [LAYER])
NAME = "team/app"


@dataclass
class Scene:
    """A server, its database, and the proxy between them."""

    cluster: Cluster
    proxy: TcpProxy
    server: Server
    url: str
    ledger: Ledger = field(default_factory=Ledger)

    def direct(self) -> psycopg.Connection:
        """Open a database session of another client, without the proxy."""
        return psycopg.connect(self.url.replace("+psycopg", ""))


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


def reads() -> list[tuple[str, str, bytes]]:
    digest = Digest.of(LAYER)
    return [
        ("GET", f"/v2/{NAME}/manifests/v1", b""),
        ("HEAD", f"/v2/{NAME}/manifests/{Digest.of(RAW)}", b""),
        ("GET", f"/v2/{NAME}/blobs/{digest}", b""),
        ("HEAD", f"/v2/{NAME}/blobs/{digest}", b""),
        ("GET", f"/v2/{NAME}/tags/list", b""),
        ("GET", "/v2/_catalog", b""),
    ]


def writes() -> list[tuple[str, str, bytes]]:
    data = b"new"
    return [
        ("PUT", f"/v2/{NAME}/manifests/v2", RAW),
        ("POST", f"/v2/{NAME}/blobs/uploads/", b""),
        ("POST", f"/v2/{NAME}/blobs/uploads/?digest={Digest.of(data)}", data),
        ("DELETE", f"/v2/{NAME}/manifests/none", b""),
    ]


@dataclass
class Seen:
    """Statuses, the longest response time, and the longest response time of `/healthz`."""

    statuses: list[int] = field(default_factory=list)
    longest: float = 0.0
    alive: float = 0.0


async def ask_all(
    http: httpx.AsyncClient, requests: list[tuple[str, str, bytes]], total: int = 50
) -> Seen:
    """Send `total` requests at once, and check the form of refusals.

    While the requests run, the health check is called repeatedly.
    """
    seen = Seen()
    done = asyncio.Event()

    async def ask(method: str, target: str, body: bytes) -> None:
        started = time.monotonic()
        headers = {"Content-Type": media_type_of(RAW)} if body == RAW else {}
        answer = await http.request(method, target, content=body, headers=headers)
        seen.longest = max(seen.longest, time.monotonic() - started)
        seen.statuses.append(answer.status_code)
        if answer.status_code == 503:
            assert answer.headers["Retry-After"].isdigit()
            if method != "HEAD":
                assert codes(answer) == ["UNAVAILABLE"]

    async def watch() -> None:
        while not done.is_set():
            started = time.monotonic()
            assert (await http.get("/healthz")).status_code == 200
            seen.alive = max(seen.alive, time.monotonic() - started)
            await asyncio.sleep(0.1)

    watching = asyncio.ensure_future(watch())
    some = [requests[number % len(requests)] for number in range(total)]
    await asyncio.gather(*(ask(*request) for request in some))
    done.set()
    await watching
    return seen


async def refused(
    http: httpx.AsyncClient, requests: list[tuple[str, str, bytes]] | None = None, total: int = 50
) -> None:
    """Require that all requests get 503 in time."""
    seen = await ask_all(http, [*reads(), *writes()] if requests is None else requests, total)
    print(f"longest {seen.longest:.2f} s, alive {seen.alive:.2f} s")  # noqa: T201
    assert set(seen.statuses) == {503}
    assert seen.longest < BOUND
    assert seen.alive < 20


async def unready(http: httpx.AsyncClient) -> None:
    """Require that many concurrent readiness checks soon get 503, with the failing part."""
    started = time.monotonic()
    answers = await asyncio.gather(*(http.get("/readyz") for _ in range(20)))
    assert time.monotonic() - started < BOUND
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["Retry-After"].isdigit()
        assert answer.json()["status"] == "not ready"
        assert answer.json()["problems"].keys() == {"database"}


async def heals(http: httpx.AsyncClient) -> None:
    """Require that all workers recover in time."""
    started = time.monotonic()
    while True:
        seen = await ask_all(http, [*reads(), *writes()], 20)
        ready = {(await http.get("/readyz")).status_code for _ in range(6)}
        if {*seen.statuses, *ready} <= {200, 201, 202, 404}:
            break
        assert {*seen.statuses, *ready} <= {200, 201, 202, 404, 503}
        assert time.monotonic() - started < BOUND, seen
    print(f"healed after {time.monotonic() - started:.2f} s")  # noqa: T201


@contextlib.contextmanager
def killed(scene: Scene) -> Iterator[None]:
    scene.cluster.kill()
    try:
        yield
    finally:
        scene.cluster.start()


@contextlib.contextmanager
def cut_off(scene: Scene) -> Iterator[None]:
    scene.proxy.refuse()
    try:
        yield
    finally:
        scene.proxy.accept()


@contextlib.contextmanager
def stalled(scene: Scene) -> Iterator[None]:
    scene.proxy.stall()
    try:
        yield
    finally:
        scene.proxy.resume()


@contextlib.contextmanager
def vanished(scene: Scene) -> Iterator[None]:
    """Stall, and never answer on old connections, as if the database moved to another machine."""
    scene.proxy.stall()
    try:
        yield
    finally:
        scene.proxy.refuse()
        scene.proxy.resume()
        scene.proxy.accept()


@contextlib.contextmanager
def full(scene: Scene) -> Iterator[None]:
    """Use up all connections of the database."""
    scene.proxy.refuse()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(scene.direct())
        scene.proxy.accept()
        yield


@contextlib.contextmanager
def shutting_down(scene: Scene) -> Iterator[None]:
    """Shut down in the mode that refuses new sessions and waits for open ones."""
    with scene.direct():
        scene.cluster.stop("smart", wait=False)
        scene.proxy.cut()
        yield
    scene.cluster.wait_until_stopped()
    scene.cluster.start()


@contextlib.contextmanager
def all_locked(scene: Scene) -> Iterator[None]:
    """Lock all tables, as a migration that hangs would."""
    with scene.direct() as session:
        for table in (tables.change_feed_revision, tables.policy_revision, tables.repositories):
            session.execute(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.parametrize(
    ("scene", "fault"),
    [
        *((1, fault) for fault in (killed, cut_off, stalled, vanished, full, shutting_down)),
        *((2, fault) for fault in (killed, vanished)),
    ],
    indirect=["scene"],
)
async def test_without_a_database_all_is_refused_in_time_and_healed(
    scene: Scene, http: httpx.AsyncClient, fault: "type[contextlib.AbstractContextManager[None]]"
) -> None:
    with fault(scene):  # type: ignore[call-arg]
        await refused(http)
        await asyncio.gather(refused(http), unready(http))
    await heals(http)


async def test_what_is_locked_is_refused_in_time(scene: Scene, http: httpx.AsyncClient) -> None:
    with all_locked(scene):
        await refused(http)
    await heals(http)


async def test_where_the_counter_is_locked_reads_go_on(
    scene: Scene, http: httpx.AsyncClient
) -> None:
    new = blob_bytes(f"locked {time.time_ns()}", 10)
    pushes = [("POST", f"/v2/{NAME}/blobs/uploads/?digest={Digest.of(new)}", new)]
    with scene.direct() as session:
        session.execute("SELECT revision FROM change_feed_revision FOR UPDATE")
        refusing = asyncio.ensure_future(refused(http, pushes, 30))
        await asyncio.sleep(0.5)
        seen = await ask_all(http, reads(), 20)
        assert set(seen.statuses) == {200}
        await refusing
    await heals(http)


async def test_where_nothing_can_be_written_reads_go_on(
    scene: Scene, http: httpx.AsyncClient
) -> None:
    """The database is a standby that is not promoted yet."""
    with scene.direct() as session:
        session.autocommit = True
        session.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        session.execute("SELECT pg_reload_conf()")
        try:
            await asyncio.sleep(0.5)
            await refused(http, writes()[:3], 20)
            assert set((await ask_all(http, reads(), 20)).statuses) == {200}
        finally:
            session.execute("SET default_transaction_read_only = off")
            session.execute("ALTER SYSTEM RESET default_transaction_read_only")
            session.execute("SELECT pg_reload_conf()")
    await heals(http)


async def test_a_slow_database_is_used_while_it_answers_in_time(
    scene: Scene, http: httpx.AsyncClient
) -> None:
    try:
        scene.proxy.delay(0.02)
        assert set((await ask_all(http, reads(), 12)).statuses) == {200}
        scene.proxy.delay(2.5)
        await refused(http, total=20)
    finally:
        scene.proxy.delay(0)
    await heals(http)


async def test_pushes_go_on_over_restarts_and_none_that_was_acknowledged_is_lost(
    scene: Scene, http: httpx.AsyncClient
) -> None:
    ending = asyncio.Event()
    kit = Kit(http)

    async def client(number: int) -> None:
        count = 0
        while not ending.is_set():
            count += 1
            try:
                await push_image(kit, scene.ledger, f"{NAME}/{number}", f"{time.time_ns()}", 50_000)
            except AssertionError as error:  # a refusal: continue with the next push
                if "UNAVAILABLE" not in str(error):
                    raise
                await asyncio.sleep(0.1)

    clients = [asyncio.ensure_future(client(number)) for number in range(4)]
    before = len(scene.ledger.pushes)
    for end in (lambda: scene.cluster.stop("immediate"), scene.cluster.kill):
        await asyncio.sleep(1)
        await asyncio.to_thread(end)
        await asyncio.to_thread(scene.cluster.start)
    await asyncio.sleep(1)
    ending.set()
    await asyncio.gather(*clients)
    assert len(scene.ledger.pushes) > before
    require_whole(scene)


def require_whole(scene: Scene) -> None:
    """Check the consistency of rows: no key of a blob is pending deletion or used twice."""
    with scene.direct() as session:
        doomed = "SELECT count(*) FROM pending_deletions JOIN blobs USING (store, key)"
        assert session.execute(doomed).fetchone() == (0,)
        twice = "SELECT key FROM blobs GROUP BY key HAVING count(*) > 1"
        assert session.execute(twice).fetchall() == []
        gaps = "SELECT max(revision) - count(*) FROM change_feed"
        assert session.execute(gaps).fetchone() == (0,)


# Commits whose response is lost.


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_manifest_whose_commit_is_lost_is_pushed_again(
    scene: Scene, http: httpx.AsyncClient, *, delivered: bool
) -> None:
    kit = Kit(http)
    raw = image_manifest(CONFIG, [LAYER], annotations={"of": f"{time.time_ns()}"})
    lost = scene.proxy.lose_answer(b"COMMIT\0", delivered=delivered)
    answer = await kit.put_manifest(NAME, "maybe", raw)
    assert (answer.status_code, codes(answer)) == (503, ["UNAVAILABLE"])
    assert lost.is_set()
    there = await http.get(f"/v2/{NAME}/manifests/{Digest.of(raw)}")
    assert there.status_code == (200 if delivered else 404)
    assert (await kit.put_manifest(NAME, "maybe", raw)).status_code == 201
    assert (await http.get(f"/v2/{NAME}/manifests/maybe")).content == raw
    require_whole(scene)


@pytest.mark.parametrize("delivered", [True, False])
async def test_an_upload_whose_commit_is_lost_is_pushed_again(
    scene: Scene, http: httpx.AsyncClient, *, delivered: bool
) -> None:
    kit = Kit(http)
    data = blob_bytes(f"lost {time.time_ns()}", 100_000)
    digest = Digest.of(data)
    location = await kit.start_upload(NAME)
    assert (await http.patch(location, content=data)).status_code == 202
    lost = scene.proxy.lose_answer(b"COMMIT\0", delivered=delivered)
    answer = await http.put(location, params={"digest": str(digest)})
    assert (answer.status_code, codes(answer)) == (503, ["UNAVAILABLE"])
    assert lost.is_set()
    again = await http.put(location, params={"digest": str(digest)})
    # If the commit succeeded, the session is over. Clients look for the blob or start again.
    assert again.status_code == (404 if delivered else 201)
    assert (await http.head(f"/v2/{NAME}/blobs/{digest}")).status_code == 200
    await kit.push_blob(NAME, data)
    assert (await http.get(f"/v2/{NAME}/blobs/{digest}")).content == data
    with scene.direct() as session:
        query = sa.select(sa.func.count()).where(tables.blobs.c.digest == digest)
        text = str(query.compile(compile_kwargs={"literal_binds": True}))
        assert session.execute(text).fetchone() == (1,)
    require_whole(scene)
