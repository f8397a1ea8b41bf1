"""Manifests: the raw bytes, which are authoritative, and the fields that the registry uses.

Sources: OCI image-spec manifest.md and image-index.md; Docker's image manifest specification v2.2.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from registry.errors import ManifestInvalidError, ManifestTooLargeError
from registry.oci.descriptors import Descriptor
from registry.oci.documents import (
    Fields,
    annotations_of,
    list_of,
    media_type_of,
    read_document,
)
from registry.oci.media_types import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    NON_DISTRIBUTABLE,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    normalize,
)

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
SCHEMA_VERSION = 2

LARGE = 256 * 1024
"""Size in bytes from which manifests are parsed one at a time: 4 MiB take 100 MiB when parsed."""

_one_large = threading.Lock()

_SCHEMA1_MESSAGE = (
    "Docker schema 1 manifests are not supported: push an OCI or a Docker schema 2 manifest"
)


class ManifestKind(Enum):
    """Whether a manifest describes one image or artifact, or a list of manifests."""

    IMAGE = "image manifest"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid manifest. Untrusted bytes must go through `parse_manifest`.

    `artifact_type` is the effective type, by which referrers are filtered. Without an own type, an
    image has the media type of its config, and an index has none.
    """

    raw: bytes = field(repr=False)
    media_type: str
    kind: ManifestKind
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    entries: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: Mapping[str, str] = field(hash=False)

    @property
    def distributable_layers(self) -> tuple[Descriptor, ...]:
        """The layers that must exist. Clients do not push the others."""
        return tuple(layer for layer in self.layers if layer.media_type not in NON_DISTRIBUTABLE)

    @property
    def required_blobs(self) -> tuple[Descriptor, ...]:
        """The blobs that must exist: the layers that clients push, and the config."""
        config = () if self.config is None else (self.config,)
        return (*self.distributable_layers, *config)


def parse_manifest(raw: bytes, content_type: str | None) -> Manifest:
    """Parse a manifest with this Content-Type.

    Raises ManifestTooLargeError above the size limit, and ManifestInvalidError for an invalid
    manifest.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ManifestTooLargeError(f"a manifest must not exceed {MAX_MANIFEST_BYTES} bytes")
    if len(raw) < LARGE:
        return _parse(raw, content_type)
    with _one_large:
        return _parse(raw, content_type)


def _parse(raw: bytes, content_type: str | None) -> Manifest:
    fields = read_document(raw)
    media_type = _decide_type(fields, content_type)
    _check_version(fields)
    kind = ManifestKind.INDEX if media_type in INDEX_TYPES else ManifestKind.IMAGE
    _check_shape(fields, kind)
    config = Descriptor.parse(fields["config"], "config") if kind is ManifestKind.IMAGE else None
    subject = fields.get("subject")
    artifact_type = media_type_of(fields, "artifactType")
    if artifact_type is None and config is not None:
        artifact_type = config.media_type
    return Manifest(
        raw=raw,
        media_type=media_type,
        kind=kind,
        config=config,
        layers=_descriptors(fields, "layers"),
        entries=_descriptors(fields, "manifests"),
        subject=None if subject is None else Descriptor.parse(subject, "subject"),
        artifact_type=artifact_type,
        annotations=annotations_of(fields) or {},
    )


def _decide_type(fields: Fields, content_type: str | None) -> str:
    """Return the type from Content-Type, or else from `mediaType`, or else from the structure."""
    announced = normalize(content_type or "")
    own = media_type_of(fields, "mediaType")
    for media_type in (announced, own):
        if media_type:
            _check_known(media_type)
    # One digest must not be an image to one client and an index to another (CVE-2021-41190).
    if announced and own and announced != own:
        raise ManifestInvalidError(f"Content-Type is {announced}, but mediaType is {own}")
    return announced or own or _type_of_shape(fields)


def _check_known(media_type: str) -> None:
    if media_type in SCHEMA1_TYPES:
        raise ManifestInvalidError(_SCHEMA1_MESSAGE)
    if media_type not in MANIFEST_TYPES:
        raise ManifestInvalidError(
            f"{media_type[:255]!a} is not a supported manifest type",
            {"supported": sorted(MANIFEST_TYPES)},
        )


def _type_of_shape(fields: Fields) -> str:
    # Docker types require mediaType in the body, so a body without it is an OCI one.
    return OCI_INDEX if "manifests" in fields else OCI_MANIFEST


def _check_version(fields: Fields) -> None:
    version = fields.get("schemaVersion")
    if version == 1:
        raise ManifestInvalidError(_SCHEMA1_MESSAGE)
    if not isinstance(version, int) or version != SCHEMA_VERSION:
        raise ManifestInvalidError(f"schemaVersion must be {SCHEMA_VERSION}")


def _check_shape(fields: Fields, kind: ManifestKind) -> None:
    """Reject a body that lacks its kind's key or has the other's, even null, as containerd does."""
    required, foreign = {
        ManifestKind.IMAGE: ("config", ("manifests",)),
        ManifestKind.INDEX: ("manifests", ("config", "layers")),
    }[kind]
    for key in foreign:
        if key in fields:
            raise ManifestInvalidError(f"an {kind.value} cannot have {key}")
    if required not in fields:
        raise ManifestInvalidError(f"an {kind.value} must have {required}")


def _descriptors(fields: Fields, key: str) -> tuple[Descriptor, ...]:
    return tuple(
        Descriptor.parse(value, f"{key}[{number}]")
        for number, value in enumerate(list_of(fields, key))
    )
