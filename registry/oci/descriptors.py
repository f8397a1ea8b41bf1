"""Descriptors: references to content by media type, digest and size.

Source: OCI image-spec descriptor.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from registry.errors import ManifestInvalidError
from registry.oci.documents import Fields, annotations_of, media_type_of, object_of
from storage.digest import Digest, DigestInvalidError

MAX_SIZE = 2**63 - 1
"""Maximum of the specification's int64, and of integers in Go clients and SQL."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content in a manifest. The size is as stated, not verified."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None = None
    annotations: Mapping[str, str] | None = field(default=None, hash=False)

    @classmethod
    def parse(cls, value: object, where: str) -> Self:
        """Parse a JSON value. Raises ManifestInvalidError with the location `where`."""
        fields = object_of(value, where)
        media_type = media_type_of(fields, "mediaType", where)
        if media_type is None:
            raise ManifestInvalidError(f"{where}.mediaType is required")
        return cls(
            media_type=media_type,
            digest=_digest(fields, where),
            size=_size(fields, where),
            artifact_type=media_type_of(fields, "artifactType", where),
            annotations=annotations_of(fields, where),
        )

    def as_json(self) -> dict[str, object]:
        fields: dict[str, object] = {
            "mediaType": self.media_type,
            "size": self.size,
            "digest": str(self.digest),
        }
        if self.annotations is not None:
            fields["annotations"] = dict(self.annotations)
        if self.artifact_type is not None:
            fields["artifactType"] = self.artifact_type
        return fields


def _digest(fields: Fields, where: str) -> Digest:
    text = fields.get("digest")
    if not isinstance(text, str):
        raise ManifestInvalidError(f"{where}.digest must be a string")
    try:
        return Digest.parse(text)
    except DigestInvalidError as error:
        raise ManifestInvalidError(f"{where}.digest: {error}") from error


def _size(fields: Fields, where: str) -> int:
    size = fields.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        raise ManifestInvalidError(f"{where}.size must be an integer from 0 to {MAX_SIZE}")
    return size
