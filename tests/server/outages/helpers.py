"""Helpers of the tests of this folder."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import psycopg

from registry.metadata import tables
from storage.digest import Digest
from tests.support.kit import codes, image_manifest, media_type_of
from tests.support.pushing import Ledger
from tests.support.servers.postgres import Cluster
from tests.support.servers.server import Server
from tests.support.servers.tcp_proxy import TcpProxy

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


def require_whole(scene: Scene) -> None:
    """Check the consistency of rows: no key of a blob is pending deletion or used twice."""
    with scene.direct() as session:
        waiting = "SELECT count(*) FROM pending_deletions JOIN blobs USING (store, key)"
        assert session.execute(waiting).fetchone() == (0,)
        twice = "SELECT key FROM blobs GROUP BY key HAVING count(*) > 1"
        assert session.execute(twice).fetchall() == []
        gaps = "SELECT max(revision) - count(*) FROM change_feed"
        assert session.execute(gaps).fetchone() == (0,)
