"""Hidden content: no response reveals whether content exists that the caller may not pull."""

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from registry.api.v2.routes import ROUTES
from registry.metadata.content import repositories
from registry.metadata.engine.transaction import Transaction
from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST
from registry.oci.names import RepositoryName
from storage.digest import Digest
from tests.api.conftest import SERVED, Api, Started
from tests.support.accounts import (
    ANONYMOUS,
    AUTH,
    Accounts,
    Login,
    bearer,
    get_token,
    signed,
)
from tests.support.kit import CONFIG, LAYER, descriptor, image_manifest

pytestmark = pytest.mark.anyio

THERE = "hidden/real"
NOWHERE = "hidden/none"
MINE = "mine/app"
BLOB = b"a blob of the hidden repository"
MISSING = Digest.of(b"what nobody has ever pushed")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VARYING = {"x-request-id", "date"}
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests that do not depend on the database, or whose server tests run on both."""
IN_PROCESS = pytest.mark.skipif(
    SERVED, reason="thousands of requests, answered alike over the wire"
)


@pytest.fixture
def driver() -> str:
    return "memory"


@dataclass(frozen=True)
class Scene:
    """A hidden repository, and callers who may not see it."""

    api: Api
    accounts: Accounts
    bob: Login
    root: Login
    hidden: Digest
    session: str

    @property
    def http(self) -> httpx.AsyncClient:
        return self.api.http

    async def callers(self, *scopes: str) -> dict[str, dict[str, str]]:
        """Return the headers of all callers without permission, also with tokens for `scopes`."""
        personal = await self.accounts.token("bob")
        robot = await self.accounts.robot("ci")
        return {
            "nothing": {},
            "anonymous token": bearer(await get_token(self.http, ANONYMOUS, *scopes)),
            "password": self.bob.basic,
            "token": bearer(await get_token(self.http, self.bob, *scopes)),
            "token for something else": bearer(
                await get_token(self.http, self.bob, f"repository:{MINE}:pull,push")
            ),
            "access token": personal.basic,
            "robot": robot.basic,
            "token of a robot": bearer(await get_token(self.http, robot, *scopes)),
        }


@pytest.fixture
async def scene(start_api: Started) -> AsyncIterator[Scene]:
    async with start_api(AUTH) as api:
        accounts = Accounts.of(api.opened)
        root = await accounts.user("root", admin=True)
        bob = await accounts.user("bob")
        await accounts.grant("bob", "mine/**", "pull,push,delete")
        kit = signed(api.http, root.basic)
        await kit.push_blob(THERE, BLOB)
        digest, raw = await kit.push_image(THERE, "latest", "hidden")
        signature = image_manifest(b"{}", [], subject=descriptor(raw, OCI_MANIFEST))
        await kit.push_blob(THERE, b"{}")
        assert (await kit.put_manifest(THERE, "signature", signature)).status_code == 201
        location = await kit.start_upload(THERE)
        mine = signed(api.http, bob.basic)
        await mine.push_image(MINE, "latest", "mine")
        await mine.push_blob(MINE, b"{}")
        yield Scene(api, accounts, bob, root, digest, location.rpartition("/")[2])


def shape(answer: httpx.Response, **names: str) -> str:
    """Return a whole response as text, with names from the request replaced."""
    text = repr(
        (
            answer.status_code,
            sorted((k, v) for k, v in answer.headers.multi_items() if k not in _VARYING),
            answer.content,
        )
    )
    for placeholder, name in names.items():
        text = text.replace(name, placeholder)
    return _UUID.sub("UUID", text)


def list_requests(scene: Scene) -> list[tuple[str, str]]:
    """Return every method of every repository route, with names that exist."""
    values = {
        "{digest}": [str(Digest.of(BLOB)), str(scene.hidden)],
        "{reference}": ["latest", str(scene.hidden)],
        "{upload}": [scene.session],
    }
    found = []
    for entry in ROUTES:
        if "{name:path}" not in entry.path:
            continue
        parameters = [key for key in values if key in entry.path]
        for combination in itertools.product(*(values[key] for key in parameters)):
            path = entry.path.replace("{name:path}", "NAME")
            for key, value in zip(parameters, combination, strict=True):
                path = path.replace(key, value)
            found += [(method, path) for method in entry.methods]
    return found


EXTRAS = ["", f"?digest={Digest.of(BLOB)}", f"?mount={Digest.of(BLOB)}&from={THERE}", "?n=1&last=a"]


@IN_PROCESS
async def test_a_forbidden_repository_is_as_one_that_is_not_there(scene: Scene) -> None:
    requests = list_requests(scene)
    assert len(requests) >= 20
    scopes = [f"repository:{name}:pull,push,delete" for name in (THERE, NOWHERE)]
    bodies: dict[str, bytes] = {"PUT": BLOB, "PATCH": BLOB, "POST": BLOB}
    for caller, headers in (await scene.callers(*scopes)).items():
        for (method, path), extra in itertools.product(requests, EXTRAS):
            if extra and (method in {"GET", "HEAD", "DELETE"}) != extra.startswith("?n"):
                continue
            shapes = [
                shape(
                    await scene.http.request(
                        method,
                        path.replace("NAME", name) + extra,
                        headers={**headers, "If-None-Match": "*", "Range": "bytes=0-3"},
                        content=bodies.get(method),
                    ),
                    NAME=name,
                )
                for name in (THERE, NOWHERE)
            ]
            assert shapes[0] == shapes[1], (caller, method, path, extra)
            assert shapes[0].startswith(("(401,", "(403,")), shapes[0]


@SQLITE
@IN_PROCESS
async def test_a_forbidden_repository_does_not_say_what_it_holds(scene: Scene) -> None:
    """Responses do not reveal whether a digest, tag or session exists in it."""
    pairs = [
        (f"/v2/{THERE}/blobs/{Digest.of(BLOB)}", f"/v2/{THERE}/blobs/{MISSING}"),
        (f"/v2/{THERE}/manifests/{scene.hidden}", f"/v2/{THERE}/manifests/{MISSING}"),
        (f"/v2/{THERE}/manifests/latest", f"/v2/{THERE}/manifests/absent"),
        (f"/v2/{THERE}/referrers/{scene.hidden}", f"/v2/{THERE}/referrers/{MISSING}"),
        (
            f"/v2/{THERE}/blobs/uploads/{scene.session}",
            f"/v2/{THERE}/blobs/uploads/00000000-0000-0000-0000-000000000000",
        ),
    ]
    for caller, headers in (await scene.callers(f"repository:{THERE}:*")).items():
        for method, pair in itertools.product(("GET", "HEAD", "PUT", "PATCH", "DELETE"), pairs):
            answers = [await scene.http.request(method, path, headers=headers) for path in pair]
            shapes = [
                shape(answer, PATH=path.rpartition("/")[2])
                for answer, path in zip(answers, pair, strict=True)
            ]
            assert shapes[0] == shapes[1], (caller, method, pair)


Request = Callable[[Digest], Awaitable[httpx.Response]]


def list_probes(scene: Scene, headers: dict[str, str]) -> dict[str, Request]:
    """Return requests to the caller's own repository that could reveal a blob elsewhere."""
    kit = signed(scene.http, headers)
    uploads = f"/v2/{MINE}/blobs/uploads/"

    async def send(method: str, path: str, **more: str) -> httpx.Response:
        return await kit.http.request(method, path, headers=more)

    async def complete_empty(digest: Digest) -> httpx.Response:
        location = await kit.start_upload(MINE)
        return await kit.http.put(location, params={"digest": str(digest)})

    async def complete_other(digest: Digest) -> httpx.Response:
        location = await kit.start_upload(MINE)
        await kit.http.patch(location, content=b"other ")
        return await kit.http.put(location, params={"digest": str(digest)}, content=b"bytes")

    async def post_other(digest: Digest) -> httpx.Response:
        return await kit.http.post(f"{uploads}?digest={digest}", content=b"other bytes")

    return {
        "GET": lambda d: send("GET", f"/v2/{MINE}/blobs/{d}"),
        "GET, a part": lambda d: send("GET", f"/v2/{MINE}/blobs/{d}", Range="bytes=0-1"),
        "GET, if new": lambda d: send(
            "GET", f"/v2/{MINE}/blobs/{d}", **{"If-None-Match": f'"{d}"'}
        ),
        "HEAD": lambda d: send("HEAD", f"/v2/{MINE}/blobs/{d}"),
        "GET as manifest": lambda d: send("GET", f"/v2/{MINE}/manifests/{d}"),
        "HEAD as manifest": lambda d: send("HEAD", f"/v2/{MINE}/manifests/{d}"),
        "DELETE": lambda d: send("DELETE", f"/v2/{MINE}/blobs/{d}"),
        "DELETE as manifest": lambda d: send("DELETE", f"/v2/{MINE}/manifests/{d}"),
        "mount from it": lambda d: send("POST", f"{uploads}?mount={d}&from={THERE}"),
        "mount from nowhere": lambda d: send("POST", f"{uploads}?mount={d}&from={NOWHERE}"),
        "mount from here": lambda d: send("POST", f"{uploads}?mount={d}&from={MINE}"),
        "mount": lambda d: send("POST", f"{uploads}?mount={d}"),
        "mount and push": lambda d: send("POST", f"{uploads}?mount={d}&digest={d}"),
        "an empty body as it": lambda d: send("POST", f"{uploads}?digest={d}"),
        "another body as it": post_other,
        "PUT of nothing as it": complete_empty,
        "PUT of something else as it": complete_other,
        "referrers": lambda d: send("GET", f"/v2/{MINE}/referrers/{d}"),
        "tag at": lambda d: send("PUT", f"/v2/{MINE}/manifests/{d}"),
        "if it is at": lambda d: send(
            "DELETE", f"/v2/{MINE}/manifests/absent", **{"If-Match": f'"{d}"'}
        ),
    }


def list_manifest_probes(scene: Scene, headers: dict[str, str]) -> dict[str, Request]:
    """Return pushes of manifests that refer to the blob."""
    kit = signed(scene.http, headers)

    async def put(raw: bytes) -> httpx.Response:
        return await kit.put_manifest(MINE, "probe", raw)

    def entry(digest: Digest, kind: str) -> dict[str, object]:
        return {"mediaType": kind, "digest": str(digest), "size": 31}

    def document(config: dict[str, object], layer: dict[str, object]) -> bytes:
        fields = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config}
        return json.dumps({**fields, "layers": [layer]}).encode()

    async def put_image(digest: Digest) -> httpx.Response:
        return await put(document(descriptor(b"{}", CONFIG), entry(digest, LAYER)))

    async def put_config(digest: Digest) -> httpx.Response:
        return await put(document(entry(digest, CONFIG), descriptor(b"{}", LAYER)))

    async def put_index(digest: Digest) -> httpx.Response:
        fields = {"schemaVersion": 2, "mediaType": OCI_INDEX}
        entries = [entry(digest, OCI_MANIFEST)]
        return await put(json.dumps({**fields, "manifests": entries}).encode())

    return {"a layer": put_image, "a config": put_config, "an entry of an index": put_index}


async def test_my_own_repository_does_not_tell_of_others(scene: Scene) -> None:
    token = await get_token(scene.http, scene.bob, f"repository:{MINE}:pull,push,delete")
    for headers in (scene.bob.basic, bearer(token)):
        probes = list_probes(scene, headers) | list_manifest_probes(scene, headers)
        for what, probe in probes.items():
            for secret in (Digest.of(BLOB), scene.hidden):
                shapes = [shape(await probe(digest), D=str(digest)) for digest in (secret, MISSING)]
                assert shapes[0] == shapes[1], what
        # A push is the same whether another repository has the blob or not.
        kit = signed(scene.http, headers)
        for push in (_push_whole, _push_in_two):
            new = f"bytes that are new {push} {headers}".encode()[:31].ljust(len(BLOB), b"!")
            shapes = [
                shape(await push(kit.http, data), D=str(Digest.of(data))) for data in (BLOB, new)
            ]
            assert shapes[0] == shapes[1]
            assert (await kit.http.delete(f"/v2/{MINE}/blobs/{Digest.of(BLOB)}")).status_code == 202


async def _push_whole(http: httpx.AsyncClient, data: bytes) -> httpx.Response:
    digest = Digest.of(data)
    return await http.post(f"/v2/{MINE}/blobs/uploads/?digest={digest}", content=data)


async def _push_in_two(http: httpx.AsyncClient, data: bytes) -> httpx.Response:
    location = (await http.post(f"/v2/{MINE}/blobs/uploads/")).headers["Location"]
    await http.patch(location, content=data[:10])
    return await http.put(location, params={"digest": str(Digest.of(data))}, content=data[10:])


@SQLITE
async def test_a_subject_in_another_repository_has_no_referrers_there(scene: Scene) -> None:
    kit = signed(scene.http, scene.bob.basic)
    await kit.push_blob(MINE, b"{}")
    for subject in (scene.hidden, MISSING):
        named = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1}
        raw = image_manifest(b"{}", [], subject={**named, "digest": str(subject)})
        answer = await kit.put_manifest(MINE, f"s{str(subject)[7:13]}", raw)
        assert answer.status_code == 201
        found = (await kit.http.get(f"/v2/{MINE}/referrers/{subject}")).json()["manifests"]
        assert [each["digest"] for each in found] == [str(Digest.of(raw))]
    root = signed(scene.http, scene.root.basic)
    found = (await root.http.get(f"/v2/{THERE}/referrers/{scene.hidden}")).json()["manifests"]
    assert len(found) == 1


async def test_a_mount_finds_only_what_i_may_pull(scene: Scene) -> None:
    """The result is the same if many hidden repositories, which fill pages, have the blob."""
    root = signed(scene.http, scene.root.basic)
    path = f"/v2/{MINE}/blobs/uploads/?mount={Digest.of(BLOB)}"
    answer = await scene.http.post(path, headers=scene.bob.basic)
    assert answer.status_code == 202
    await root.push_blob("mine/source", BLOB)
    narrow = await get_token(scene.http, scene.bob, f"repository:{MINE}:pull,push")
    assert (await scene.http.post(path, headers=bearer(narrow))).status_code == 202
    assert (await scene.http.post(path, headers=scene.bob.basic)).status_code == 201


async def walk(http: httpx.AsyncClient, headers: dict[str, str], path: str) -> list[list[str]]:
    pages = []
    while path:
        answer = await http.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        pages.append(list(answer.json()["repositories"]))
        link = answer.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""
    return pages


async def test_the_catalogue_leaves_no_gaps(scene: Scene) -> None:
    """The sizes of pages and the links are the same as without the hidden repositories."""
    root = signed(scene.http, scene.root.basic)
    hidden = [f"{prefix}/{kind}" for prefix in "amz" for kind in ("a", "b", "c", "d")]
    for name in hidden:
        await root.push_blob(name, BLOB)
    shown = [MINE]
    for name in ("mine/b", "mine/z", "public/a", "public/z"):
        await root.push_blob(name, BLOB)
        shown.append(name)
    await scene.accounts.grant("anonymous", "public/*", "pull")
    catalogue = "registry:catalog:*"
    tokens = {
        who.name: bearer(await get_token(scene.http, who, catalogue))
        for who in (scene.bob, ANONYMOUS)
    }
    for headers, names in (
        (tokens["bob"], shown),
        (scene.bob.basic, shown),
        (tokens[""], ["public/a", "public/z"]),
    ):
        for n, last in itertools.product((1, 2, 3, 50), ["", *hidden[::3], "mine/b", "zz", "n"]):
            left = [name for name in names if name > last]
            expected = [left[start : start + n] for start in range(0, len(left), n)] or [[]]
            query = f"/v2/_catalog?n={n}" + (f"&last={last}" if last else "")
            assert await walk(scene.http, headers, query) == expected, (n, last)


@SQLITE
async def test_the_catalogue_asks_no_more_of_the_database_for_what_is_hidden(scene: Scene) -> None:
    """Otherwise the response time would reveal how many hidden repositories exist."""
    catalogue = bearer(await get_token(scene.http, scene.bob, "registry:catalog:*"))
    database = scene.api.opened.database
    asked: list[tuple[str, str]] = []

    def note(*args: Any) -> None:
        asked.append((str(args[2]), str(args[3])))

    async def ask(headers: dict[str, str]) -> list[tuple[str, str]]:
        del asked[:]
        answer = await scene.http.get("/v2/_catalog?n=5", headers=headers)
        assert answer.json() == {"repositories": [MINE]}
        return [each for each in asked if "repositories" in each[0]]

    callers = (scene.bob.basic, catalogue)
    sa.event.listen(database._reader, "before_cursor_execute", note)
    before = [await ask(headers) for headers in callers]

    def hide(tx: Transaction) -> None:
        for number in range(1100):
            repositories.ensure(tx, RepositoryName(f"hidden/{number}"))

    await database.write(hide, actor="root", timeout_s=60)
    assert [await ask(headers) for headers in callers] == before
    assert all(len(statements) == 1 for statements in before)
    sa.event.remove(database._reader, "before_cursor_execute", note)


ROUNDS, MOST_ROUNDS, SLACK = 10, 80, 0.005


async def take_as_long(
    one: Callable[[], Awaitable[Any]], other: Callable[[], Awaitable[Any]]
) -> bool:
    """Return whether two requests take the same time, by the fastest run of each.

    The runs alternate. The tolerance allows for a busy machine, so only work of another order of
    magnitude is detected, such as reading a file, a hash or a wait. The design discusses smaller
    differences. While the times differ, more runs follow, because one of the requests may not have
    had a fast run yet; a real difference remains.
    """
    spent: tuple[list[float], list[float]] = ([], [])
    for turn in range(MOST_ROUNDS):
        for times, work in zip(spent, (one, other), strict=True):
            started = time.perf_counter()
            await work()
            times.append(time.perf_counter() - started)
        if turn + 1 >= ROUNDS and abs(min(spent[0]) - min(spent[1])) < SLACK:
            return True
    return False


async def test_the_answers_come_as_soon(scene: Scene) -> None:
    headers = scene.bob.basic
    probes = list_probes(scene, headers) | list_manifest_probes(scene, headers)
    for what in ("GET", "mount from it", "mount", "a layer", "PUT of something else as it"):
        ask = probes[what]
        assert await take_as_long(lambda: ask(Digest.of(BLOB)), lambda: ask(MISSING)), what  # noqa: B023

    async def get(name: str) -> None:
        await scene.http.get(f"/v2/{name}/blobs/{Digest.of(BLOB)}", headers=headers)

    async def read_first(name: str) -> None:
        await asyncio.sleep(SLACK * 2)
        await get(name)

    assert await take_as_long(lambda: get(THERE), lambda: get(NOWHERE))
    # Control: the check detects a real difference.
    assert not await take_as_long(lambda: read_first(THERE), lambda: get(NOWHERE))
