"""Commits whose response is lost."""

import time

import httpx
import pytest
import sqlalchemy as sa

from registry.metadata import tables
from storage.digest import Digest
from tests.server.outages.helpers import CONFIG, LAYER, NAME, Scene, require_whole
from tests.support.kit import Kit, codes, image_manifest
from tests.support.pushing import blob_bytes

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]


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
