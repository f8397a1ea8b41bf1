"""Requests whose responses must not differ for hidden and for missing content."""

import json
from collections.abc import Awaitable, Callable

import httpx

from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST
from storage.digest import Digest
from tests.api.access.hidden.scene import (
    MINE,
    NOWHERE,
    THERE,
    Scene,
)
from tests.support.accounts import (
    signed,
)
from tests.support.kit import CONFIG, LAYER, descriptor

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
