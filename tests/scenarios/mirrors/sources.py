"""Registries from which syncs copy, and to which they push: real servers, filled by tests."""

import json
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST
from storage.digest import Digest
from tests.support.kit import descriptor, image_manifest, media_type_of


@dataclass(frozen=True)
class Image:
    """An image with one layer. `more` are fields of its manifest."""

    name: str
    size: int = 1000
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> bytes:
        return json.dumps({"name": self.name}).encode()

    @property
    def layer(self) -> bytes:
        return (self.name.encode() * self.size)[: self.size]

    @property
    def raw(self) -> bytes:
        return image_manifest(self.config, [self.layer], **self.more)

    @property
    def digest(self) -> str:
        return str(Digest.of(self.raw))


def make_index(images: dict[str, Image]) -> bytes:
    """Return an index with an image for each platform."""
    entries = []
    for platform, image in images.items():
        system, architecture = platform.split("/")
        given = {"os": system, "architecture": architecture}
        entries.append(descriptor(image.raw, OCI_MANIFEST, platform=given))
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document).encode()


def make_signature(subject: bytes) -> Image:
    """Return an artifact that refers to a manifest."""
    return Image("signature", more={"subject": descriptor(subject, media_type_of(subject))})


@dataclass
class Source:
    """A registry at `url`. Used as a context."""

    url: str
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def push(self, name: str, tag: str, image: Image) -> None:
        for data in (image.config, image.layer):
            begun = self.http.post(f"{self.url}/v2/{name}/blobs/uploads/")
            assert begun.status_code == 202, begun.text
            place = httpx.URL(self.url).join(begun.headers["Location"])
            place = place.copy_merge_params({"digest": str(Digest.of(data))})
            assert self.http.put(place, content=data).status_code == 201
        self.put(name, tag, image.raw)

    def put(self, name: str, tag: str, raw: bytes) -> None:
        put = self.http.put(
            f"{self.url}/v2/{name}/manifests/{tag}",
            content=raw,
            headers={"Content-Type": media_type_of(raw)},
        )
        assert put.status_code == 201, put.text

    def delete(self, name: str, reference: str) -> None:
        deleted = self.http.delete(f"{self.url}/v2/{name}/manifests/{reference}")
        assert deleted.status_code == 202, deleted.text

    def get(self, name: str, reference: str) -> bytes | None:
        """Return a manifest with all its blobs present; None if there is none."""
        found = self.http.get(
            f"{self.url}/v2/{name}/manifests/{reference}",
            headers={"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"},
        )
        if found.status_code == 404:
            return None
        assert found.status_code == 200, found.text
        manifest = found.json()
        for part in (*manifest.get("layers", ()), *filter(None, [manifest.get("config")])):
            blob = self.http.get(
                f"{self.url}/v2/{name}/blobs/{part['digest']}", follow_redirects=True
            )
            assert str(Digest.of(blob.content)) == part["digest"]
        return found.content

    def list_tags(self, name: str) -> list[str]:
        found = self.http.get(f"{self.url}/v2/{name}/tags/list")
        return sorted(found.json()["tags"] or []) if found.status_code == 200 else []
