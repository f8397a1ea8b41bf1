"""Endpoint 10: delete blobs."""

import pytest

from storage.digest import Digest
from tests.api.blobs.helpers import ABSENT, DATA, LOCAL, SQLITE, url
from tests.api.conftest import Api, Started
from tests.support.kit import (
    codes,
    image_manifest,
    index_manifest,
)

pytestmark = pytest.mark.anyio


async def test_10_takes_the_blob_out_of_this_repository_alone(api: Api) -> None:
    digest = await api.push_blob("app", DATA)
    await api.push_blob("app", b"something else")
    await api.push_blob("other", DATA)
    answer = await api.http.delete(url("app", digest))
    assert (answer.status_code, answer.content) == (202, b"")
    for method in ("GET", "HEAD", "DELETE"):
        assert (await api.http.request(method, url("app", digest))).status_code == 404
    assert (await api.http.get(url("other", digest))).content == DATA


async def test_10_an_unknown_blob_or_repository_is_404(api: Api) -> None:
    await api.push_blob("app", DATA)
    for name in ("app", "nobody/here"):
        answer = await api.http.delete(url(name, ABSENT))
        assert answer.status_code == 404
        assert codes(answer) == ["BLOB_UNKNOWN"]


async def test_10_a_blob_in_use_stays_and_the_answer_names_its_users(api: Api) -> None:
    first, raw = await api.push_image("app", "one", seed="x")
    config, layer = b"{}", b"layer one x"
    await api.push_blob("app", config)
    second = image_manifest(config, [layer])
    assert (await api.put_manifest("app", "two", second)).status_code == 201
    users = sorted([str(first), str(Digest.of(second))])

    answer = await api.http.delete(url("app", Digest.of(layer)))
    assert answer.status_code == 405
    assert codes(answer) == ["UNSUPPORTED"]
    assert answer.headers["Allow"] == "GET, HEAD"
    assert answer.json()["errors"][0]["detail"] == {"manifests": users}
    assert (await api.http.get(url("app", Digest.of(layer)))).content == layer
    held_by_one = await api.http.delete(url("app", Digest.of(config)))  # configs count too
    assert held_by_one.status_code == 405

    # The manifests still use the blob without the tag.
    assert (await api.http.delete("/v2/app/manifests/one")).status_code == 202
    assert (await api.http.delete(url("app", Digest.of(layer)))).status_code == 405
    for manifest in (raw, second):
        gone = await api.http.delete(f"/v2/app/manifests/{Digest.of(manifest)}")
        assert gone.status_code == 202
    assert (await api.http.delete(url("app", Digest.of(layer)))).status_code == 202


async def test_10_a_blob_that_an_index_lists_is_in_use(api: Api) -> None:
    """The caches of BuildKit are indexes of blobs."""
    layer = await api.push_blob("app", DATA)
    index = index_manifest([])[:-2] + b"]}"
    index = index.replace(
        b'"manifests": []',
        b'"manifests": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",'
        b' "digest": "%b", "size": %d}]' % (str(layer).encode(), len(DATA)),
    )
    assert (await api.put_manifest("app", "cache", index)).status_code == 201
    answer = await api.http.delete(url("app", layer))
    assert answer.status_code == 405
    assert answer.json()["errors"][0]["detail"] == {"manifests": [str(Digest.of(index))]}


async def test_10_use_in_another_repository_does_not_hold_the_blob(api: Api) -> None:
    await api.push_image("user", "latest", seed="x")
    layer = await api.push_blob("app", b"layer one x")
    assert (await api.http.delete(url("app", layer))).status_code == 202
    assert (await api.http.get(url("app", layer))).status_code == 404
    assert (await api.http.get(url("user", layer))).status_code == 200


async def test_10_the_last_blob_takes_the_repository_along(api: Api) -> None:
    digest = await api.push_blob("app", DATA)
    assert (await api.http.get("/v2/app/tags/list")).status_code == 200
    assert (await api.http.delete(url("app", digest))).status_code == 202
    assert codes(await api.http.get("/v2/app/tags/list")) == ["NAME_UNKNOWN"]
    assert (await api.http.get("/v2/_catalog")).json() == {"repositories": []}


@LOCAL
@pytest.mark.parametrize("switch", ["content.allow_delete=false", "content.read_only=true"])
@SQLITE
async def test_10_switched_off_deletes_nothing(start_api: Started, switch: str) -> None:
    async with start_api() as api:
        digest = await api.push_blob("app", DATA)
    async with start_api(dict([switch.split("=")])) as api:
        for target in (digest, ABSENT):
            answer = await api.http.delete(url("app", target))
            assert answer.status_code == 405
            assert answer.headers["Allow"] == "GET, HEAD"
            assert codes(answer) == ["UNSUPPORTED"]
        assert (await api.http.get(url("app", digest))).content == DATA
