"""No response reveals whether content exists that the caller may not pull."""

import itertools
import re

import httpx
import pytest

from registry.api.v2.routes import ROUTES
from storage.digest import Digest
from tests.api.access.hidden.probes import list_manifest_probes, list_probes
from tests.api.access.hidden.scene import (
    BLOB,
    IN_PROCESS,
    MINE,
    MISSING,
    NOWHERE,
    SQLITE,
    THERE,
    Scene,
)
from tests.support.accounts import (
    bearer,
    get_token,
    signed,
)
from tests.support.kit import image_manifest

pytestmark = pytest.mark.anyio


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


_VARYING = {"x-request-id", "date"}


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
