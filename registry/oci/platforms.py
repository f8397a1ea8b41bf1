"""Platforms of the images in an index, such as `linux/arm64/v8`.

Source: OCI image-spec image-index.md.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Self

from registry.errors import InputInvalidError
from storage.digest import Digest, DigestInvalidError

_PART = r"[a-z0-9][a-z0-9._-]{0,63}"
_PLATFORM = re.compile(rf"({_PART})/({_PART})(?:/({_PART}))?")
_SUBJECT_ANNOTATION = "vnd.docker.reference.digest"
"""Annotation of an attestation of BuildKit, which names the image in the same index."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform. Without a variant, it stands for all of them."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `os/architecture` or `os/architecture/variant`. Raises InputInvalidError."""
        match = _PLATFORM.fullmatch(text)
        if match is None:
            raise InputInvalidError(
                f"{text[:128]!a} is not a platform; expected a form such as linux/amd64 or "
                "linux/arm/v7"
            )
        # Images for arm64 state this variant or none, which is the same.
        variant = "" if match[2] == "arm64" and match[3] == "v8" else match[3] or ""
        return cls(match[1], match[2], variant)

    def covers(self, other: "Platform") -> bool:
        """Return whether `other` is this platform, or a variant of it."""
        return (self.os, self.architecture) == (other.os, other.architecture) and (
            self.variant in {"", other.variant}
        )


def list_excluded(index: bytes, wanted: tuple[Platform, ...]) -> set[Digest]:
    """Return the entries of an index for platforms that are not wanted, and their attestations.

    Entries without a platform are not excluded. Nothing is excluded if nothing is wanted. `index`
    is valid, as `parse_manifest` checks.
    """
    if not wanted:
        return set()
    entries = [each for each in json.loads(index).get("manifests", ()) if isinstance(each, dict)]
    excluded: set[Digest] = set()
    for entry in entries:
        platform = _find_platform(entry)
        if platform is None or any(each.covers(platform) for each in wanted):
            continue
        excluded.add(Digest.parse(entry["digest"]))
    for entry in entries:
        subject = _find_subject(entry)
        if subject is None:
            continue
        (excluded.add if subject in excluded else excluded.discard)(Digest.parse(entry["digest"]))
    return excluded


def _find_platform(entry: dict[str, Any]) -> Platform | None:
    given = entry.get("platform")
    if not isinstance(given, dict):
        return None
    os, architecture, variant = (given.get(name) for name in ("os", "architecture", "variant"))
    if not isinstance(os, str) or not isinstance(architecture, str):
        return None
    return Platform(os, architecture, variant if isinstance(variant, str) else "")


def _find_subject(entry: dict[str, Any]) -> Digest | None:
    annotations = entry.get("annotations")
    text = annotations.get(_SUBJECT_ANNOTATION) if isinstance(annotations, dict) else None
    try:
        return Digest.parse(text) if isinstance(text, str) else None
    except DigestInvalidError:
        return None
