"""Sparse indexes and images: manifests whose content is pushed later or never."""

import asyncio

import pytest

from registry.oci.names import RepositoryName
from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.support.kit import codes, image_manifest, index_manifest

pytestmark = pytest.mark.anyio

NAME = "team/app"
CONFIG = b"{}"
RAW = image_manifest(CONFIG, [b"one", b"two"])
DIGEST = Digest.of(RAW)
INDEX = index_manifest([RAW, b"never"])
BOTH = {"content.allow_sparse_index": "true", "content.allow_sparse_image": "true"}


def manifest(reference: object, name: str = NAME) -> str:
    return f"/v2/{name}/manifests/{reference}"


def blob(data: bytes, name: str = NAME) -> str:
    return f"/v2/{name}/blobs/{Digest.of(data)}"


async def push_image(api: Api, name: str = NAME) -> None:
    for data in (CONFIG, b"one", b"two"):
        await api.push_blob(name, data)
    answer = await api.put_manifest(name, str(DIGEST), RAW)
    assert answer.status_code == 201, answer.text


async def require_in_use(api: Api, path: str, user: bytes) -> None:
    answer = await api.http.delete(path)
    assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"]), path
    [named] = answer.json()["errors"][0]["detail"].values()
    assert str(Digest.of(user)) in named


async def test_7a_sparse_index_excuses_the_entries_of_an_index_alone(start_api: Started) -> None:
    async with start_api({"content.allow_sparse_index": "true"}) as api:
        assert (await api.put_manifest(NAME, "index", INDEX)).status_code == 201
        assert (await api.http.get(manifest("index"))).content == INDEX
        assert (await api.http.get(manifest(DIGEST))).status_code == 404
        answer = await api.put_manifest(NAME, "image", RAW)
        assert codes(answer) == 3 * ["MANIFEST_BLOB_UNKNOWN"]


async def test_7a_sparse_image_excuses_config_and_layers_alone(start_api: Started) -> None:
    async with start_api({"content.allow_sparse_image": "true"}) as api:
        assert (await api.put_manifest(NAME, "image", RAW)).status_code == 201
        assert (await api.http.get(manifest("image"))).content == RAW
        assert (await api.http.get(blob(b"one"))).status_code == 404
        answer = await api.put_manifest(NAME, "index", INDEX)
        assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
        assert (await api.put_manifest(NAME, "index", index_manifest([RAW]))).status_code == 201


async def test_7a_a_manifest_that_comes_late_is_kept(start_api: Started) -> None:
    async with start_api({"content.allow_sparse_index": "true"}) as api:
        await api.put_manifest(NAME, "index", INDEX)
        await push_image(api)
        await require_in_use(api, manifest(DIGEST), INDEX)
        assert (await api.http.delete(manifest(Digest.of(INDEX)))).status_code == 202
        assert (await api.http.delete(manifest(DIGEST))).status_code == 202


async def test_7a_an_entry_that_comes_late_as_a_blob_is_kept(start_api: Started) -> None:
    async with start_api({"content.allow_sparse_index": "true"}) as api:
        await api.put_manifest(NAME, "index", INDEX)
        await api.push_blob(NAME, b"never")
        await require_in_use(api, blob(b"never"), INDEX)


async def test_7a_blobs_that_come_late_are_kept(start_api: Started) -> None:
    """The blobs may be pushed in one request, in a session, or mounted."""
    async with start_api({"content.allow_sparse_image": "true"}) as api:
        await api.put_manifest(NAME, "image", RAW)
        await api.push_blob(NAME, CONFIG)
        location = await api.start_upload(NAME)
        await api.http.patch(location, content=b"one")
        await api.http.put(location, params={"digest": str(Digest.of(b"one"))})
        await api.push_blob("other", b"two")
        mount = {"mount": str(Digest.of(b"two")), "from": "other"}
        await api.http.post(f"/v2/{NAME}/blobs/uploads/", params=mount)
        for data in (CONFIG, b"one", b"two"):
            await require_in_use(api, blob(data), RAW)
        assert (await api.http.delete(blob(b"two", "other"))).status_code == 202
        assert (await api.http.delete(manifest(DIGEST))).status_code == 202
        for data in (CONFIG, b"one", b"two"):
            assert (await api.http.delete(blob(data))).status_code == 202


async def test_7a_content_of_another_repository_is_not_the_one_awaited(
    start_api: Started,
) -> None:
    async with start_api(BOTH) as api:
        await api.put_manifest(NAME, "index", INDEX)
        await api.put_manifest(NAME, "image", RAW)
        await push_image(api, "other")
        for data in (CONFIG, b"one"):
            assert (await api.http.get(blob(data))).status_code == 404
        assert (await api.http.delete(manifest(DIGEST, "other"))).status_code == 202
        assert (await api.http.delete(blob(CONFIG, "other"))).status_code == 202


async def test_7a_a_blob_pushed_anew_because_it_was_damaged_is_kept(start_api: Started) -> None:
    async with start_api(BOTH) as api:
        blobs = api.opened.registry.blobs
        for data in (CONFIG, b"one", b"entry"):
            digest = await api.push_blob(NAME, data)
            await blobs.note_damage(await blobs.get(RepositoryName(NAME), digest))
            assert (await api.http.get(blob(data))).status_code == 404
        for tag, raw in (("image", RAW), ("index", index_manifest([b"entry"]))):
            assert (await api.put_manifest(NAME, tag, raw)).status_code == 201
        for data in (CONFIG, b"one", b"entry"):
            await api.push_blob(NAME, data)
            assert (await api.http.get(blob(data))).content == data
        await require_in_use(api, blob(CONFIG), RAW)
        await require_in_use(api, blob(b"one"), RAW)
        await require_in_use(api, blob(b"entry"), index_manifest([b"entry"]))


async def test_7a_content_that_comes_at_the_same_moment_is_kept(start_api: Started) -> None:
    async with start_api(BOTH) as api:
        for n in range(20):
            data, child = f"layer {n}".encode(), index_manifest([], annotations={"n": str(n)})
            image = image_manifest(data, [])
            index = index_manifest([child])
            await asyncio.gather(
                api.put_manifest(NAME, "image", image),
                api.push_blob(NAME, data),
                api.put_manifest(NAME, "index", index),
                api.put_manifest(NAME, "child", child),
            )
            await require_in_use(api, blob(data), image)
            await require_in_use(api, manifest(Digest.of(child)), index)


@pytest.mark.parametrize("driver", ["local"])
async def test_7a_sparse_manifests_outlive_the_setting(start_api: Started) -> None:
    async with start_api(BOTH) as api:
        await api.put_manifest(NAME, "index", INDEX)
        await api.put_manifest(NAME, "image", RAW)
    async with start_api() as api:
        assert (await api.http.get(manifest("index"))).content == INDEX
        assert (await api.http.get(manifest("image"))).content == RAW
        answer = await api.put_manifest(NAME, "image", RAW)
        assert codes(answer) == 3 * ["MANIFEST_BLOB_UNKNOWN"]
        await push_image(api)
        await require_in_use(api, blob(b"one"), RAW)
        await require_in_use(api, manifest(DIGEST), INDEX)
