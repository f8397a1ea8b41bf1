"""Referrers: the index of the manifests with a given subject.

Source: OCI distribution-spec, sections Listing Referrers and Referrers Tag Schema.
"""

import json

from registry.oci.descriptors import Descriptor
from registry.oci.media_types import OCI_INDEX
from registry.oci.references import Tag
from storage.digest import Digest

_FALLBACK_HEX = 64


def fallback_tag(digest: Digest) -> Tag:
    """Return the tag under which clients of older registries store the referrers of `digest`."""
    return Tag.parse(f"{digest.algorithm}-{digest.hex[:_FALLBACK_HEX]}")


class IndexBuilder:
    """A builder for an index of up to `limit` bytes, entry by entry."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: list[bytes] = []
        self._size = len(_HEAD) + len(_TAIL)

    def add(self, entry: Descriptor) -> bool:
        """Add an entry. Return False if it does not fit.

        The first entry always fits, so that pagination makes progress.
        """
        encoded = _encode(entry.as_json())
        size = self._size + len(encoded) + bool(self._entries)
        if size >= self._limit and self._entries:
            return False
        self._entries.append(encoded)
        self._size = size
        return True

    def build(self) -> bytes:
        """Return the index with the added entries."""
        return _HEAD + b",".join(self._entries) + _TAIL


def _encode(value: object) -> bytes:
    # UTF-8 instead of \u escapes, which could triple the size of annotations: a page of one entry
    # is then not larger than its manifest. "replace" handles surrogates from other sources.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


_HEAD = _encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})[: -len("]}")]
_TAIL = b"]}"
