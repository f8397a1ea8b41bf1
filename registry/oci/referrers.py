"""Referrers: the index that answers "what has this manifest as its subject".

Source: OCI distribution-spec, sections Listing Referrers and Referrers Tag Schema.
"""

import json
from collections.abc import Iterable, Sequence

from registry.oci.descriptors import Descriptor
from registry.oci.media_types import OCI_INDEX
from registry.oci.references import Tag
from storage.digest import Digest

_FALLBACK_HEX = 64


def fallback_tag(digest: Digest) -> Tag:
    """Return the tag under which clients of older registries keep the referrers of `digest`."""
    return Tag.parse(f"{digest.algorithm}-{digest.hex[:_FALLBACK_HEX]}")


def build_index(entries: Iterable[Descriptor]) -> bytes:
    return _encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [entry.as_json() for entry in entries],
        }
    )


def page(entries: Sequence[Descriptor], limit_bytes: int) -> tuple[list[Descriptor], bool]:
    """Return the longest prefix whose index stays under `limit_bytes`, and whether more follow.

    At least one entry is returned, so that paging always moves on.
    """
    comma = 1
    size = len(build_index([])) - comma  # n entries take n - 1 commas
    for count, entry in enumerate(entries):
        size += comma + len(_encode(entry.as_json()))
        if size >= limit_bytes and count > 0:
            return list(entries[:count]), True
    return list(entries), False


def _encode(value: object) -> bytes:
    # UTF-8 rather than \u escapes, which could triple the size of annotations: a page of one
    # entry stays no larger than its manifest. "replace" is for surrogates from elsewhere.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")
