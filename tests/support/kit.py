"""Pushing things in a line, for tests that are about something else."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST
from storage.digest import Digest

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


def descriptor(data: bytes, media_type: str = LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def image_manifest(config: bytes, layers: list[bytes], **more: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(config, CONFIG),
            "layers": [descriptor(layer) for layer in layers],
            **more,
        }
    ).encode()


def index_manifest(children: list[bytes], **more: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [descriptor(child, OCI_MANIFEST) for child in children],
            **more,
        }
    ).encode()


def media_type_of(raw: bytes) -> str:
    return str(json.loads(raw)["mediaType"])


@dataclass(frozen=True)
class Kit:
    """A client of a registry, and the sequences that clients send."""

    http: httpx.AsyncClient

    async def push_blob(self, name: str, data: bytes, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(data, algorithm)
        answer = await self.http.post(
            f"/v2/{name}/blobs/uploads/", params={"digest": str(digest)}, content=data
        )
        assert answer.status_code == 201, answer.text
        return digest

    async def start_upload(self, name: str) -> str:
        answer = await self.http.post(f"/v2/{name}/blobs/uploads/")
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    async def put_manifest(
        self, name: str, reference: str, raw: bytes, **more: Any
    ) -> httpx.Response:
        headers = {"Content-Type": media_type_of(raw), **more.pop("headers", {})}
        return await self.http.put(
            f"/v2/{name}/manifests/{reference}", content=raw, headers=headers, **more
        )

    async def push_image(
        self, name: str, reference: str, seed: str = "", **more: Any
    ) -> tuple[Digest, bytes]:
        """Push a small image with two layers; its digest and manifest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "seed": seed}).encode()
        layers = [f"layer one {seed}".encode(), f"layer two {seed}".encode()]
        for data in (config, *layers):
            await self.push_blob(name, data)
        raw = image_manifest(config, layers, **more)
        digest = Digest.of(raw)
        answer = await self.put_manifest(name, reference or str(digest), raw)
        assert answer.status_code == 201, answer.text
        return digest, raw


def codes(answer: httpx.Response) -> list[str]:
    """The error codes of an answer in the contract's form."""
    assert answer.headers["Content-Type"] == "application/json"
    entries = answer.json()["errors"]
    assert all(set(entry) == {"code", "message", "detail"} for entry in entries)
    return [entry["code"] for entry in entries]
