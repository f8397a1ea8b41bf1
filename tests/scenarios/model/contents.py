"""Parts of the model: repositories, manifests and upload sessions as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.scenarios.model.content import NAMED, Document, Json, Named, fallback_tag

Tie = Literal["blob", "child"]


@dataclass
class Stored:
    """A manifest of a repository. `ties` maps each entry to the kind of its content."""

    digest: str
    document: Document
    media_type: str
    ties: dict[str, Tie | None]

    @property
    def named(self) -> Named:
        return NAMED[self.document.label]

    def describe(self, annotations: Mapping[str, str] | None) -> Json:
        """Return the descriptor as in a list of referrers."""
        fields = {
            "mediaType": self.media_type,
            "size": len(self.document.raw),
            "digest": self.digest,
            "annotations": annotations,
            "artifactType": self.named.artifact_type,
        }
        return {key: value for key, value in fields.items() if value is not None}


@dataclass
class Repository:
    """The content of one repository name, in one generation."""

    generation: int
    tags: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, Stored] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)

    def resolve(self, reference: str) -> str | None:
        """Return the digest of a stored manifest by tag or digest, or None."""
        digest = reference if ":" in reference else self.tags.get(reference)
        return digest if digest in self.manifests else None

    def tags_of(self, digest: str) -> list[str]:
        return sorted(tag for tag, target in self.tags.items() if target == digest)

    def parents_of(self, digest: str) -> list[str]:
        return sorted(d for d, m in self.manifests.items() if m.ties.get(digest) == "child")

    def users_of(self, blob: str) -> list[str]:
        """Return the manifests that keep the blob from being deleted."""
        return sorted(
            digest
            for digest, manifest in self.manifests.items()
            if manifest.ties.get(blob) == "blob"
            or blob in {part for _, part in manifest.named.parts}
        )

    def only_lists(self, index: str, referrer: str) -> bool:
        """Return whether the index's only tag is the fallback tag of the referrer's subject."""
        subject = self.manifests[referrer].named.subject
        return subject is not None and self.tags_of(index) == [fallback_tag(subject)]

    def tie(self, entry: str) -> Tie | None:
        if entry in self.manifests:
            return "child"
        return "blob" if entry in self.links else None

    def settle(self, digest: str, kind: Tie | None) -> None:
        """Resolve the digest in every index that waits for it."""
        for manifest in self.manifests.values():
            if digest in manifest.ties and manifest.ties[digest] is None:
                manifest.ties[digest] = kind


@dataclass
class Session:
    """An upload session. `generation` is the repository's, or None if it did not exist."""

    name: str
    generation: int | None
    data: bytes
    active: int
    published: str | None = None
    """The digest of bytes that a crashed request has published. The request can be repeated."""


@dataclass
class Counted:
    """Counts and bytes of a repository's content."""

    tags: int
    manifests: int
    blobs: int
    bytes: int
