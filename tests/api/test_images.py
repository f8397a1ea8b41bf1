"""Deletion of images through the admin API, with all their content and nothing else."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, Accounts
from tests.support.admin import Admin
from tests.support.kit import Kit, descriptor, image_manifest, index_manifest

pytestmark = pytest.mark.anyio

PATH = "/images/delete"


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
async def api(start_api: Started) -> AsyncIterator[Api]:
    async with start_api(AUTH) as started:
        yield started


@pytest.fixture
async def root(api: Api) -> Admin:
    root = Admin(api.http, await Accounts.of(api.opened).user("root", admin=True))
    api.http.headers.update(root.login.basic)
    return root


async def push(kit: Kit, reference: str, raw: bytes) -> Digest:
    digest = Digest.of(raw)
    answer = await kit.put_manifest("app", reference or str(digest), raw)
    assert answer.status_code == 201, answer.text
    return digest


async def image(kit: Kit, reference: str, *layers: bytes, **more: Any) -> tuple[Digest, bytes]:
    for data in (b"{}", *layers):
        await kit.push_blob("app", data)
    raw = image_manifest(b"{}", list(layers), **more)
    return await push(kit, reference, raw), raw


async def here(kit: Kit, *digests: Digest) -> list[bool]:
    found = [await kit.http.head(f"/v2/app/manifests/{digest}") for digest in digests]
    return [answer.status_code == 200 for answer in found]


async def test_an_image_goes_with_all_that_is_its_own(api: Api, root: Admin) -> None:
    kit = Kit(api.http)
    own, own_raw = await image(kit, "", b"own layer", b"shared layer")
    shared, shared_raw = await image(kit, "", b"another layer")
    await image(kit, "other", b"shared layer")
    index = await push(kit, "v1", index_manifest([own_raw, shared_raw]))
    await push(kit, "v2", index_manifest([shared_raw]))
    subject = descriptor(index_manifest([own_raw, shared_raw]), "application/x")
    signature, signature_raw = await image(kit, "", b"signature", subject=subject)
    body = {"repository": "app", "reference": "v1"}
    planned = await root.send("POST", PATH, body | {"dry_run": True})
    assert planned["digest"] == str(index)
    assert planned["tags"] == ["v1"]
    assert sorted(planned["manifests"]) == sorted(map(str, (index, own, signature)))
    manifests = (index_manifest([own_raw, shared_raw]), own_raw, signature_raw)
    assert planned["bytes"] == sum(map(len, (b"own layer", b"signature", *manifests)))
    assert await here(kit, index, own, signature, shared) == [True] * 4
    done = await root.send("POST", PATH, body)
    assert (sorted(done["manifests"]), done["bytes"]) == (
        sorted(planned["manifests"]),
        planned["bytes"],
    )
    assert await here(kit, index, own, signature, shared) == [False, False, False, True]
    # During the grace period, the whole deletion can be undone.
    await root.send("POST", "/tags/restore", {"repository": "app", "tag": "v1"})
    assert await here(kit, index, own, shared) == [True] * 3


async def test_other_tags_are_not_lost_by_accident(api: Api, root: Admin) -> None:
    kit = Kit(api.http)
    digest, raw = await image(kit, "v1", b"layer")
    await push(kit, "latest", raw)
    refused = await root.refused("POST", PATH, {"repository": "app", "reference": "v1"})
    assert refused.startswith("409 CONFLICT: the image has other tags: latest. ")
    assert await here(kit, digest) == [True]
    body = {"repository": "app", "reference": str(digest), "all_tags": True}
    assert (await root.send("POST", PATH, body))["tags"] == ["latest", "v1"]
    assert "no manifest" in await root.refused("POST", PATH, body)


async def test_what_is_not_there_or_is_needed(api: Api, root: Admin) -> None:
    kit = Kit(api.http)
    child, raw = await image(kit, "", b"layer")
    await push(kit, "v1", index_manifest([raw]))
    for reference, said in (
        ("v2", "404 MANIFEST_UNKNOWN: no tag v2 in app; moorage tag list app"),
        (str(Digest.of(b"x")), "404 MANIFEST_UNKNOWN: no manifest sha256:"),
        (str(child), "an index in the repository refers to this manifest"),
        ("sha256:x", "400 INVALID"),
        ("-", "400"),
    ):
        body = {"repository": "app", "reference": reference}
        assert said in await root.refused("POST", PATH, body), reference
