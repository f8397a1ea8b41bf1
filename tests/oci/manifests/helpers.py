"""Helpers of the tests of this folder."""

import json

from registry.oci.manifests import Manifest, parse_manifest
from registry.oci.media_types import (
    OCI_MANIFEST,
)
from storage.digest import Digest

Fields = dict[str, object]
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def descriptor(media_type: str = LAYER, content: bytes = b"layer") -> Fields:
    digest = str(Digest.of(content))
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


CONFIG = descriptor("application/vnd.oci.image.config.v1+json", b"{}")
IMAGE: Fields = {"schemaVersion": 2, "config": CONFIG, "layers": [descriptor()]}
INDEX: Fields = {"schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST, b"child")]}


def parse(fields: object, content_type: str | None = None) -> Manifest:
    return parse_manifest(json.dumps(fields).encode(), content_type)
