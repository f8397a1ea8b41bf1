"""Content rules: manifests that are accepted or refused, and their media types."""

import json
from typing import Any

import httpx
import pytest

from registry.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    NON_DISTRIBUTABLE,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
)
from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.kit import CONFIG, LAYER, codes, descriptor, image_manifest, index_manifest

pytestmark = pytest.mark.anyio
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

EMPTY = b"{}"
IMAGE: dict[str, Any] = {"schemaVersion": 2, "config": descriptor(EMPTY, CONFIG), "layers": []}
INDEX: dict[str, Any] = {"schemaVersion": 2, "manifests": []}
RAW = image_manifest(EMPTY, [])


def url(reference: object, name: str = "team/app") -> str:
    return f"/v2/{name}/manifests/{reference}"


@pytest.fixture
def driver() -> str:
    return "memory"  # manifests are in the database, so the store makes no difference


@pytest.fixture
async def ready(api: Api) -> Api:
    """Return a registry whose team/app has the empty config, so that RAW can be pushed."""
    await api.push_blob("team/app", EMPTY)
    return api


async def put(api: Api, raw: bytes, content_type: str | None = None) -> httpx.Response:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return await api.http.put(url("t"), content=raw, headers=headers)


async def require_stored(api: Api, raw: bytes, media_type: str, reference: object = "t") -> None:
    answer = await api.http.get(url(reference))
    assert (answer.status_code, answer.content) == (200, raw)
    assert answer.headers["Content-Type"] == media_type


# Media type


KINDS = [
    ("image", CONFIG, LAYER, None),
    ("zstd", CONFIG, "application/vnd.oci.image.layer.v1.tar+zstd", None),
    ("estargz", CONFIG, LAYER, None),
    ("docker", "application/vnd.docker.container.image.v1+json", LAYER, None),
    ("helm", "application/vnd.cncf.helm.config.v1+json", "application/tar+gzip", None),
    ("cosign", CONFIG, "application/vnd.dev.cosign.simplesigning.v1+json", None),
    ("notation", "application/vnd.cncf.notary.signature", "application/jose+json", None),
    ("attestation", CONFIG, "application/vnd.in-toto+json", None),
    ("sbom", "application/vnd.oci.empty.v1+json", "application/spdx+json", "application/spdx"),
    ("wasm", "application/vnd.wasm.config.v0+json", "application/wasm", None),
    ("bare", "application/vnd.oci.empty.v1+json", "application/octet-stream", None),
    ("odd", "x", "Not A Type", "ALSO/none; q=1"),
]


@SQLITE
async def test_content_images_and_artifacts_of_every_kind(ready: Api) -> None:
    for name, config_type, layer_type, artifact_type in KINDS:
        layer = descriptor(EMPTY, layer_type, annotations={"dev.estargz": "1"})
        fields = {**IMAGE, "config": descriptor(EMPTY, config_type), "layers": [layer]}
        if artifact_type is not None:
            fields["artifactType"] = artifact_type
        for media_type in (OCI_MANIFEST, DOCKER_MANIFEST):
            raw = json.dumps({**fields, "mediaType": media_type}).encode()
            answer = await put(ready, raw, media_type)
            assert answer.status_code == 201, (name, answer.text)
            await require_stored(ready, raw, media_type)
            for index_type in (OCI_INDEX, DOCKER_LIST):
                index = json.loads(index_manifest([raw])) | {"mediaType": index_type}
                raw_index = json.dumps(index).encode()
                assert (await put(ready, raw_index, index_type)).status_code == 201
                await require_stored(ready, raw_index, index_type)


@SQLITE
async def test_content_without_a_header_the_body_tells_the_type(ready: Api) -> None:
    for fields, media_type in (
        ({**IMAGE, "mediaType": DOCKER_MANIFEST}, DOCKER_MANIFEST),
        ({**INDEX, "mediaType": DOCKER_LIST}, DOCKER_LIST),
        (IMAGE, OCI_MANIFEST),
        (INDEX, OCI_INDEX),
    ):
        raw = json.dumps(fields).encode()
        for content_type in (None, ""):
            assert (await put(ready, raw, content_type)).status_code == 201
            await require_stored(ready, raw, media_type)


@SQLITE
async def test_content_a_body_without_a_type_is_stored_under_the_headers(ready: Api) -> None:
    for fields, media_type in (
        (IMAGE, OCI_MANIFEST),
        (IMAGE, DOCKER_MANIFEST),
        (INDEX, OCI_INDEX),
        (INDEX, DOCKER_LIST),
    ):
        raw = json.dumps(fields).encode()
        header = f"{media_type.title()};charset=UTF-8"
        assert (await put(ready, raw, header)).status_code == 201
        await require_stored(ready, raw, media_type)


@SQLITE
async def test_content_the_shape_fits_the_type(ready: Api) -> None:
    for fields, media_type in ((IMAGE, OCI_INDEX), (INDEX, OCI_MANIFEST), ({}, OCI_MANIFEST)):
        answer = await put(ready, json.dumps({"schemaVersion": 2, **fields}).encode(), media_type)
        assert (answer.status_code, codes(answer)) == (400, ["MANIFEST_INVALID"])


@SQLITE
async def test_content_empty_and_null_lists_are_accepted(ready: Api) -> None:
    for fields, media_type in (
        ({**INDEX, "manifests": []}, OCI_INDEX),
        ({**INDEX, "manifests": None}, OCI_INDEX),
        ({**IMAGE, "layers": None}, OCI_MANIFEST),
        ({key: IMAGE[key] for key in ("schemaVersion", "config")}, OCI_MANIFEST),
    ):
        raw = json.dumps(fields).encode()
        assert (await put(ready, raw, media_type)).status_code == 201
        await require_stored(ready, raw, media_type)


@SQLITE
async def test_content_schema_1_and_unknown_types_are_refused_by_name(ready: Api) -> None:
    schema1 = {"schemaVersion": 1, "name": "team/app", "tag": "t", "fsLayers": []}
    for media_type in (*sorted(SCHEMA1_TYPES), None):
        answer = await put(ready, json.dumps(schema1).encode(), media_type)
        assert (answer.status_code, codes(answer)) == (400, ["MANIFEST_INVALID"])
        assert "schema 1" in answer.json()["errors"][0]["message"]
    for media_type in ("application/json", "application/vnd.oci.artifact.manifest.v1+json", "a"):
        answer = await put(ready, json.dumps(IMAGE).encode(), media_type)
        assert (answer.status_code, codes(answer)) == (400, ["MANIFEST_INVALID"])
        assert f"{media_type!r} is not a supported" in answer.json()["errors"][0]["message"]


# Refused manifests


def image_with(text: str) -> bytes:
    """Return an image manifest with an additional field, given as text."""
    return json.dumps(IMAGE).encode()[:-1] + b"," + text.encode() + b"}"


BOMBS = {
    "nothing": b"",
    "no JSON": b"{",
    "more than one document": RAW + RAW,
    "a list": b"[]",
    "null": b"null",
    "100,000 lists": b"[" * 100_000,
    "100,000 closed lists": b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "100,000 lists in a field": image_with('"x":' + "[" * 100_000 + "]" * 100_000),
    "100,000 lists in a config": RAW.replace(
        b'"size": 2', b'"size": 2, "data": ' + b"[" * 100_000 + b"]" * 100_000
    ),
    "a number of 100,000 digits": image_with('"x":' + "1" * 100_000),
    "a size of 100,000 digits": RAW.replace(b'"size": 2', b'"size": ' + b"1" * 100_000),
    "a size beyond 64 bits": RAW.replace(b'"size": 2', b'"size": 9223372036854775808'),
    "a size below zero": RAW.replace(b'"size": 2', b'"size": -1'),
    "a size with a fraction": RAW.replace(b'"size": 2', b'"size": 2.0'),
    "an infinite size": RAW.replace(b'"size": 2', b'"size": 1e999'),
    "NaN": image_with('"x":NaN'),
    "Infinity": image_with('"x":-Infinity'),
    "a byte order mark": b"\xef\xbb\xbf" + RAW,
    "UTF-16": RAW.decode().encode("utf-16"),
    "not UTF-8": RAW.replace(b"sha256", b"sha\xff56"),
    "an encoded surrogate": image_with('"x":"y"').replace(b"y", b"\xed\xa0\x80"),
    "a raw NUL": RAW + b"\0",
    "a raw NUL in a string": image_with('"x":"\0"'),
    "the same key": image_with('"schemaVersion":2'),
    "the same key, otherwise written": image_with('"schema\\u0056ersion":2'),
    "the same key deep down": image_with('"x":[{"a":1,"b":{"c":1,"c":1}}]'),
    "two shapes": image_with('"manifests":[]'),
    "two shapes, one null": image_with('"manifests":null'),
    "layers beside manifests": json.dumps({**INDEX, "layers": []}).encode(),
    "another mediaType": json.dumps({**IMAGE, "mediaType": DOCKER_MANIFEST}).encode(),
    "the mediaType of an index": json.dumps({**IMAGE, "mediaType": OCI_INDEX}).encode(),
    "no config": json.dumps({"schemaVersion": 2, "layers": []}).encode(),
    "a config that is null": json.dumps({**IMAGE, "config": None}).encode(),
    "layers that are no list": json.dumps({**IMAGE, "layers": {}}).encode(),
    "a layer that is a string": json.dumps({**IMAGE, "layers": ["x"]}).encode(),
    "a digest that is none": RAW.replace(b"sha256:", b"sha256:../"),
    "a digest with NUL": RAW.replace(b"sha256:", b"sha256:\\u0000"),
    "a subject that is a string": image_with('"subject":"x"'),
    "a subject without a digest": image_with('"subject":{"mediaType":"a","size":1}'),
    "an artifactType with NUL": image_with('"artifactType":"a/b\\u0000"'),
    "an artifactType with a new line": image_with('"artifactType":"a/b\\r\\nX: y"'),
    "an artifactType of 300 characters": image_with(f'"artifactType":"{300 * "a"}"'),
    "a mediaType with NUL": image_with('"mediaType":"a\\u0000"'),
    "a config type with NUL": RAW.replace(b"config.v1", b"config\\u0000"),
    "annotations that are a list": image_with('"annotations":[]'),
    "an annotation that is a number": image_with('"annotations":{"a":1}'),
    "schemaVersion 3": RAW.replace(b'"schemaVersion": 2', b'"schemaVersion": 3'),
    "schemaVersion as text": RAW.replace(b'"schemaVersion": 2', b'"schemaVersion": "2"'),
}


async def test_content_what_is_no_manifest_is_400_and_stored_nowhere(ready: Api) -> None:
    for what, raw in BOMBS.items():
        assert raw != RAW, what
        for content_type in (OCI_MANIFEST, None):
            if "mediaType" in what and content_type is None:
                continue
            answer = await put(ready, raw, content_type)
            assert (answer.status_code, codes(answer)) == (400, ["MANIFEST_INVALID"]), what
            assert len(answer.content) < 2000, what
        assert (await ready.http.get(url(Digest.of(raw)))).status_code == 404
    assert (await ready.http.get("/v2/team/app/tags/list")).json()["tags"] == []


@SQLITE
async def test_content_header_and_body_of_two_types_are_400(ready: Api) -> None:
    for media_type in (DOCKER_MANIFEST, OCI_INDEX, f"{OCI_MANIFEST}, {OCI_INDEX}"):
        answer = await put(ready, RAW, media_type)
        assert (answer.status_code, codes(answer)) == (400, ["MANIFEST_INVALID"])


# Accepted manifests


async def test_content_an_entry_may_be_a_blob_which_then_is_used(ready: Api) -> None:
    await ready.push_blob("team/app", b"cache")
    for media_type in (LAYER, OCI_MANIFEST, "application/vnd.buildkit.cacheconfig.v0"):
        raw = json.dumps({**INDEX, "manifests": [descriptor(b"cache", media_type)]}).encode()
        assert (await put(ready, raw, OCI_INDEX)).status_code == 201
        answer = await ready.http.delete(f"/v2/team/app/blobs/{Digest.of(b'cache')}")
        assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"])
        assert str(Digest.of(raw)) in answer.json()["errors"][0]["detail"]["manifests"]


async def test_content_an_entry_may_be_a_manifest_of_any_announced_type(ready: Api) -> None:
    await ready.put_manifest("team/app", "child", RAW)
    for media_type in (LAYER, DOCKER_LIST, OCI_MANIFEST):
        raw = json.dumps({**INDEX, "manifests": [descriptor(RAW, media_type)]}).encode()
        assert (await put(ready, raw, OCI_INDEX)).status_code == 201


async def test_content_a_manifest_is_no_layer(ready: Api) -> None:
    await ready.put_manifest("team/app", "t", RAW)
    answer = await put(ready, image_manifest(EMPTY, [RAW]), OCI_MANIFEST)
    assert (answer.status_code, codes(answer)) == (400, ["MANIFEST_BLOB_UNKNOWN"])


ACCEPTED: dict[str, dict[str, Any]] = {
    "data": {"config": {**descriptor(EMPTY, CONFIG), "data": "e30="}},
    "unknown fields": {"x": {"y": [1, 2.5, True, None, "z"]}, "Config": {}, "MANIFESTS": []},
    "keys that differ in case": {"mediatype": "x", "Layers": 1},
    "the empty config": {"config": descriptor(EMPTY, "application/vnd.oci.empty.v1+json")},
    "a wrong size": {"config": {**descriptor(EMPTY, CONFIG), "size": 10**18}},
    "size zero": {"config": {**descriptor(EMPTY, CONFIG), "size": 0}},
    "platform": {"config": descriptor(EMPTY, CONFIG, platform={"os": "linux"})},
    "subject null": {"subject": None},
    "annotations null": {"annotations": None},
    "annotations of NUL": {"annotations": {"a\0": "\0b"}, "artifactType": "a/b"},
    "lone surrogates": {"annotations": {"\ud800": "\udfff"}, "artifactType": "a/\ud800"},
    "no ASCII": {"annotations": {"ä": "\U0001f40b"}, "artifactType": "ü/\u0600"},
    "empty artifactType": {"artifactType": ""},
    "the key a hundred times in a hundred objects": {"x": 100 * [{"a": 1}]},
    "deep, but not too deep": {"x": json.loads("[" * 100 + "]" * 100)},
}


async def test_content_what_is_not_judged_is_stored_as_it_is(ready: Api) -> None:
    subject = descriptor(b"subject", OCI_MANIFEST)
    for what, more in ACCEPTED.items():
        for also in ({}, {"subject": subject}):
            for ascii_only in (True, False):
                text = json.dumps({**IMAGE, **also, **more}, ensure_ascii=ascii_only)
                raw = text.encode("utf-8", "surrogatepass")
                if "surrogates" in what and not ascii_only:
                    continue  # not UTF-8
                answer = await put(ready, raw, OCI_MANIFEST)
                assert answer.status_code == 201, (what, answer.text)
                await require_stored(ready, raw, OCI_MANIFEST)
    answer = await ready.http.get(f"/v2/team/app/referrers/{subject['digest']}")
    assert answer.status_code == 200
    assert len(answer.json()["manifests"]) > 10


async def test_content_layers_that_are_not_distributed_may_be_absent(ready: Api) -> None:
    for media_type in sorted(NON_DISTRIBUTABLE):
        layer = descriptor(b"foreign", media_type, urls=["http://127.0.0.1:1/never"])
        raw = json.dumps({**IMAGE, "layers": [layer]}).encode()
        assert (await put(ready, raw, OCI_MANIFEST)).status_code == 201
        await require_stored(ready, raw, OCI_MANIFEST)
        # Only layers may be missing, and `urls` alone do not allow that.
        for change in (
            {"layers": [descriptor(b"foreign", LAYER, urls=["http://127.0.0.1:1/"])]},
            {"config": descriptor(b"foreign", media_type)},
        ):
            answer = await put(ready, json.dumps({**IMAGE, **change}).encode(), OCI_MANIFEST)
            assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
        index = json.dumps({**INDEX, "manifests": [layer]}).encode()
        assert codes(await put(ready, index, OCI_INDEX)) == ["MANIFEST_BLOB_UNKNOWN"]


async def test_content_a_present_layer_that_is_not_distributed_is_used(ready: Api) -> None:
    digest = await ready.push_blob("team/app", b"foreign")
    layer = descriptor(b"foreign", min(NON_DISTRIBUTABLE))
    await put(ready, json.dumps({**IMAGE, "layers": [layer]}).encode(), OCI_MANIFEST)
    assert (await ready.http.delete(f"/v2/team/app/blobs/{digest}")).status_code == 405
