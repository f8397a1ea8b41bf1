"""Clients that push and pull blobs and images with the requests of Docker."""

import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass

from benchmarks.clients.blobs import Blob, make_blob
from benchmarks.clients.exchange import Client, Request, Response

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

Step = Generator[Request, Response, None]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest of an image as bytes, with its digest."""

    raw: bytes
    digest: str


def make_manifest(blobs: list[Blob]) -> Manifest:
    """Return the manifest of an image. The first blob is its config, the others are layers."""
    described = [
        {"mediaType": LAYER if number else CONFIG, "digest": blob.digest, "size": blob.size}
        for number, blob in enumerate(blobs)
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described[0],
        "layers": described[1:],
    }
    raw = json.dumps(document).encode()
    return Manifest(raw, f"sha256:{hashlib.sha256(raw).hexdigest()}")


def find_target(location: str) -> str:
    """Return the path and the query of a Location header, which can be a URL or a path."""
    if location.startswith("/"):
        return location
    return "/" + location.split("/", 3)[3]


def push_blob(repository: str, blob: Blob, headers: dict[str, str]) -> Step:
    """Push a blob as Docker does: open a session, send one chunked PATCH, and complete it."""
    response = yield Request(
        "POST", f"/v2/{repository}/blobs/uploads/", {**headers, "Content-Length": "0"}
    )
    target = find_target(response.expect(202).headers["location"])
    coding = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"}
    response = yield Request("PATCH", target, {**headers, **coding}, blob.list_chunks())
    target = find_target(response.expect(202).headers["location"])
    joint = "&" if "?" in target else "?"
    response = yield Request(
        "PUT", f"{target}{joint}digest={blob.digest}", {**headers, "Content-Length": "0"}
    )
    response.expect(201)


def put_manifest(
    repository: str, reference: str, manifest: Manifest, headers: dict[str, str]
) -> Step:
    given = {"Content-Type": MANIFEST, "Content-Length": str(len(manifest.raw))}
    response = yield Request(
        "PUT",
        f"/v2/{repository}/manifests/{reference}",
        {**headers, **given},
        [manifest.raw],
    )
    response.expect(201)


def push_image(
    repository: str,
    tag: str,
    blobs: list[Blob],
    headers: dict[str, str] | None = None,
    *,
    asks_first: bool = False,
) -> Step:
    """Push an image: three requests for each blob, and the manifest.

    With `asks_first`, each blob is first requested with HEAD, as Docker does for layers.
    """
    given = headers or {}
    for blob in blobs:
        if asks_first:
            response = yield Request("HEAD", f"/v2/{repository}/blobs/{blob.digest}", given)
            response.expect(404)
        yield from push_blob(repository, blob, given)
    yield from put_manifest(repository, tag, make_manifest(blobs), given)


def pull_blob(repository: str, blob: Blob, headers: dict[str, str] | None = None) -> Client:
    response = yield Request("GET", f"/v2/{repository}/blobs/{blob.digest}", headers or {})
    response.expect(200)
    assert response.length == blob.size, f"{response.length} bytes instead of {blob.size}"


def make_small_blobs() -> list[Blob]:
    """Return the blobs of a small image: a config and two layers."""
    return [make_blob(size) for size in (1500, 2048, 4096)]
