"""Tests that a deletion or revocation at one replica holds at the other for all later requests."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from storage.digest import Digest
from tests.support.accounts import Accounts, Login, bearer, get_token, signed
from tests.support.admin import Admin
from tests.support.kit import Kit
from tests.support.servers.postgres import Cluster
from tests.support.servers.replicas import Replicas, running_replicas
from tests.support.servers.seaweed import Seaweed
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("at-once"), pytest.mark.timeout(240)]

NAME = "team/app"
AT_ONCE = 6
STALE = """\
import asyncio
import time
from registry.metadata.revisions.watch import RevisionWatch

real = RevisionWatch.read
begin = RevisionWatch.start_read
known = {}

async def read(self, since=None):
    at, heads = known.get(self, (0, None))
    if time.monotonic() - at > 5:
        heads = await real(self, since)
        known[self] = time.monotonic(), heads
    return heads

def start_read(self):
    at, heads = known.get(self, (0, None))
    if time.monotonic() - at > 5:
        return begin(self)
    future = asyncio.get_running_loop().create_future()
    future.set_result(heads)
    return future

RevisionWatch.read = read
RevisionWatch.start_read = start_read
"""
"""Makes a server use what it has read for five seconds without asking the database."""


@pytest.fixture(scope="module")
def guarded(
    postgres: Cluster, seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    """Yield replicas that require authentication."""
    folder = tmp_path_factory.mktemp("guarded")
    settings = {"auth.mode": "token"}
    with (
        postgres.database() as url,
        running_replicas(Replicas(folder, url, seaweed.bucket(), settings)) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def stale(guarded: Replicas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield one more replica, which answers from its caches without asking the database."""
    server = guarded.make("stale")
    server.patches = tmp_path_factory.mktemp("patches")
    (server.patches / "sitecustomize.py").write_text(STALE)
    with serving(server):
        yield server


def http_of(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, timeout=30)


@dataclass
class Seen:
    """What a reader saw before the removal, and in requests that started after it."""

    before: int = 0
    late: list[int] = field(default_factory=list)


async def watch(
    reader: httpx.AsyncClient,
    path: str,
    headers: dict[str, str],
    take: Callable[[], Awaitable[object]],
    is_old: Callable[[httpx.Response], bool],
) -> Seen:
    """Read without pause during the removal. Return which answers still had the old content."""
    seen = Seen()
    acknowledged = False
    over = False

    async def pour() -> None:
        while not over:
            late = acknowledged
            answer = await reader.get(path, headers=headers)
            assert answer.status_code < 500, answer.text
            if not late:
                seen.before += is_old(answer)
            elif is_old(answer):
                seen.late.append(answer.status_code)

    pouring = [asyncio.create_task(pour()) for _ in range(AT_ONCE)]
    try:
        while seen.before < AT_ONCE:
            await asyncio.sleep(0.01)
            assert not any(task.done() for task in pouring)
        await take()
        acknowledged = True
        await asyncio.sleep(0.25)
    finally:
        over = True
        await asyncio.gather(*pouring)
    return seen


def is_there(answer: httpx.Response) -> bool:
    return answer.status_code == 200


@dataclass(frozen=True)
class Scene:
    """The users and clients that act at the first replica."""

    http: httpx.AsyncClient
    root: Login
    admin: Admin
    accounts: Accounts

    @property
    def kit(self) -> Kit:
        return signed(self.http, self.root.basic)


@pytest.fixture
async def scene(guarded: Replicas) -> AsyncIterator[Scene]:
    async with guarded.operating() as accounts, http_of(guarded.a) as http:
        root = await accounts.user(f"root-{uuid.uuid4().hex}", admin=True)
        yield Scene(http, root, Admin(http, root), accounts)


async def content(
    scene: Scene, kind: str, seed: str
) -> tuple[str, Callable[[], Awaitable[object]]]:
    """Create content. Return its path, and the function that removes it."""
    kit = scene.kit
    if kind == "blob":
        digest = await kit.push_blob(NAME, f"{kind} {seed}".encode())
        path = f"/v2/{NAME}/blobs/{digest}"
        return path, lambda: delete(kit, path)
    digest, _ = await kit.push_image(NAME, f"v-{seed}", seed)
    tagged = f"/v2/{NAME}/manifests/v-{seed}"
    whole = f"/v2/{NAME}/manifests/{digest}"
    if kind == "tag":
        return tagged, lambda: delete(kit, tagged)
    if kind == "tag of a manifest":
        return tagged, lambda: delete(kit, whole)
    assert kind == "manifest"
    return whole, lambda: delete(kit, whole)


async def delete(kit: Kit, path: str) -> None:
    answer = await kit.http.delete(path)
    assert answer.status_code == 202, answer.text


KINDS = ["tag", "tag of a manifest", "manifest", "blob"]


@pytest.mark.parametrize("kind", KINDS)
async def test_content(guarded: Replicas, scene: Scene, kind: str) -> None:
    async with http_of(guarded.b) as reader:
        for number in range(3):
            path, take = await content(scene, kind, f"{kind[-4:].strip()}-{number}")
            seen = await watch(reader, path, scene.root.basic, take, is_there)
            assert seen.before
            assert seen.late == []


async def test_a_moved_tag(guarded: Replicas, scene: Scene) -> None:
    old, _ = await scene.kit.push_image(NAME, "moving", "old")
    new, raw = await scene.kit.push_image(NAME, "waiting", "new")

    async def move() -> None:
        assert (await scene.kit.put_manifest(NAME, "moving", raw)).status_code == 201

    def is_old(answer: httpx.Response) -> bool:
        assert answer.headers["Docker-Content-Digest"] in {str(old), str(new)}
        return answer.headers["Docker-Content-Digest"] == str(old)

    async with http_of(guarded.b) as reader:
        path = f"/v2/{NAME}/manifests/moving"
        seen = await watch(reader, path, scene.root.basic, move, is_old)
    assert seen.before
    assert seen.late == []


async def rights(scene: Scene, kind: str) -> tuple[dict[str, str], Callable[[], Awaitable[object]]]:
    """Return headers of a user who may pull, and the function that revokes the permission."""
    name = f"some-{uuid.uuid4().hex}"
    send = scene.admin.send
    if kind == "robot":
        login = await scene.accounts.robot(name)
        await scene.accounts.grant(f"robot:{name}", NAME, "pull")
    else:
        login = await scene.accounts.user(name)
        await scene.accounts.grant(name, NAME, "pull")
    token = await get_token(scene.http, login, f"repository:{NAME}:pull")
    if kind == "grant":
        given = {"subject": name, "pattern": NAME, "actions": ["pull"]}
        return bearer(token), lambda: send("POST", "/grants/revoke", given, expect=204)
    if kind == "robot":
        return bearer(token), lambda: send("DELETE", f"/robots/{name}", expect=204)
    if kind == "user":
        return bearer(token), lambda: send("DELETE", f"/users/{name}", expect=204)
    if kind == "disabled user":
        return login.basic, lambda: send("PATCH", f"/users/{name}", {"disabled": True})
    assert kind == "signing key"
    keys = (await send("GET", "/keys"))["items"]
    [kid] = [key["kid"] for key in keys if key["state"] == "active"]
    await send("POST", "/keys/rotate", expect=201)
    return bearer(token), lambda: send("POST", f"/keys/{kid}/revoke", expect=204)


RIGHTS = ["grant", "robot", "user", "disabled user", "signing key"]


@pytest.mark.parametrize("kind", RIGHTS)
async def test_rights(guarded: Replicas, scene: Scene, kind: str) -> None:
    digest = await scene.kit.push_blob(NAME, b"a blob of the team")
    headers, take = await rights(scene, kind)
    async with http_of(guarded.b) as reader:
        path = f"/v2/{NAME}/blobs/{digest}"
        seen = await watch(reader, path, headers, take, is_there)
    assert seen.before
    assert seen.late == []


@pytest.mark.parametrize("kind", ["tag", "right"])
async def test_a_stale_replica_is_found_out(stale: Server, scene: Scene, kind: str) -> None:
    """The negative control: these tests can fail."""
    if kind == "tag":
        path, take = await content(scene, "tag", "stale")
        headers = scene.root.basic
    else:
        data = b"a blob of the team"
        await scene.kit.push_blob(NAME, data)
        path = f"/v2/{NAME}/blobs/{Digest.of(data)}"
        headers, take = await rights(scene, "grant")
    async with http_of(stale) as reader:
        seen = await watch(reader, path, headers, take, is_there)
    assert seen.late != []
