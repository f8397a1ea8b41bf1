"""Races of many clients: each request succeeds, or fails in a way that the protocol allows."""

import asyncio
import sqlite3
from pathlib import Path

import httpx
import pytest

from storage.digest import Digest
from tests.support.kit import Kit, image_manifest
from tests.support.pushing import blob_bytes, push_in_chunks
from tests.support.servers.server import Server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

CLIENTS = 16


def stored(server: Server) -> list[Path]:
    return list((server.data / "storage").glob("blobs/*/*/*"))


async def test_sixteen_push_the_same_blob(server: Server, kit: Kit) -> None:
    data = blob_bytes("same", 2_000_000)
    names = ["same/blob" if i % 2 else f"same/blob{i}" for i in range(CLIENTS)]
    digests = await asyncio.gather(*(push_in_chunks(kit, name, data) for name in names))
    assert set(digests) == {Digest.of(data)}
    for name in names:
        answer = await kit.http.get(f"/v2/{name}/blobs/{digests[0]}")
        assert (answer.status_code, answer.content) == (200, data)
    for _ in range(100):  # the copies that lost the race are deleted within seconds
        if len(stored(server)) == 1:
            break
        await asyncio.sleep(0.1)
    assert len(stored(server)) == 1


async def test_sixteen_push_the_same_manifest_under_many_tags(server: Server, kit: Kit) -> None:
    config, layer = b"{}", blob_bytes("manifest", 1000)
    await kit.push_blob("same/manifest", config)
    await kit.push_blob("same/manifest", layer)
    raw = image_manifest(config, [layer])
    answers = await asyncio.gather(
        *(kit.put_manifest("same/manifest", f"tag{i % 40}", raw) for i in range(CLIENTS * 5))
    )
    assert {answer.status_code for answer in answers} == {201}
    listed = (await kit.http.get("/v2/same/manifest/tags/list")).json()["tags"]
    assert listed == sorted(f"tag{i}" for i in range(40))
    connection = sqlite3.connect(server.data / "moorage.db")
    assert connection.execute("SELECT count(*) FROM manifests").fetchone() == (1,)
    connection.close()


async def test_one_moving_tag_is_always_readable_and_whole(kit: Kit) -> None:
    name = "moving/tag"
    layers = {i: blob_bytes(f"moving{i}", 2000) for i in range(CLIENTS)}
    await kit.push_blob(name, b"{}")
    await kit.push_blob(name, layers[0])
    answer = await kit.put_manifest(name, "latest", image_manifest(b"{}", [layers[0]]))
    assert answer.status_code == 201
    done = asyncio.Event()

    async def move(number: int) -> None:
        await kit.push_blob(name, layers[number])
        raw = image_manifest(b"{}", [layers[number]])
        for _ in range(10):
            answer = await kit.put_manifest(name, "latest", raw)
            assert answer.status_code == 201, answer.text

    async def read() -> int:
        reads = 0
        while not done.is_set():
            answer = await kit.http.get(f"/v2/{name}/manifests/latest")
            assert answer.status_code == 200, answer.text
            assert str(Digest.of(answer.content)) == answer.headers["Docker-Content-Digest"]
            for layer in answer.json()["layers"]:
                blob = await kit.http.head(f"/v2/{name}/blobs/{layer['digest']}")
                assert blob.status_code == 200
            reads += 1
        return reads

    reading = [asyncio.create_task(read()) for _ in range(4)]
    await asyncio.gather(*(move(number) for number in range(CLIENTS)))
    done.set()
    assert all(reads > 0 for reads in await asyncio.gather(*reading))


async def test_of_sixteen_creators_of_a_tag_one_wins(kit: Kit) -> None:
    await kit.push_blob("cas/tag", b"{}")
    layers = [blob_bytes(f"cas{i}", 100) for i in range(CLIENTS)]
    await asyncio.gather(*(kit.push_blob("cas/tag", layer) for layer in layers))
    manifests = [image_manifest(b"{}", [layer]) for layer in layers]
    answers: list[httpx.Response] = await asyncio.gather(
        *(
            kit.put_manifest("cas/tag", "v1", raw, headers={"If-None-Match": "*"})
            for raw in manifests
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [412] * (CLIENTS - 1)
    [winner] = [a.headers["Docker-Content-Digest"] for a in answers if a.status_code == 201]
    answer = await kit.http.get("/v2/cas/tag/manifests/v1")
    assert answer.headers["Docker-Content-Digest"] == winner


async def test_deletes_and_pushes_of_one_repository(kit: Kit) -> None:
    """In any order, every remaining tag can be pulled, and there is no 5xx response."""
    name = "push/delete"

    async def push(number: int) -> None:
        for turn in range(5):
            layer = blob_bytes(f"pd{number % 4}{turn}", 500)
            await kit.push_blob(name, b"{}")
            await kit.push_blob(name, layer)
            answer = await kit.put_manifest(name, f"t{number % 3}", image_manifest(b"{}", [layer]))
            # The blobs may have been deleted with the last manifest of the repository.
            assert answer.status_code in {201, 400}, answer.text

    async def delete(number: int) -> None:
        for _ in range(8):
            answer = await kit.http.get(f"/v2/{name}/manifests/t{number % 3}")
            if answer.status_code == 200:
                digest = answer.headers["Docker-Content-Digest"]
                answer = await kit.http.delete(f"/v2/{name}/manifests/{digest}")
                assert answer.status_code in {202, 404}, answer.text
                for layer in ("pd00", "pd12"):
                    blob = Digest.of(blob_bytes(layer, 500))
                    answer = await kit.http.delete(f"/v2/{name}/blobs/{blob}")
                    assert answer.status_code in {202, 404, 405}, answer.text

    await asyncio.gather(*(push(i) for i in range(8)), *(delete(i) for i in range(4)))
    listed = await kit.http.get(f"/v2/{name}/tags/list")
    for tag in listed.json().get("tags", []) if listed.status_code == 200 else []:
        manifest = await kit.http.get(f"/v2/{name}/manifests/{tag}")
        assert manifest.status_code == 200
        for layer in manifest.json()["layers"]:
            answer = await kit.http.get(f"/v2/{name}/blobs/{layer['digest']}")
            assert answer.status_code == 200
