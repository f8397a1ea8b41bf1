"""Documents and headers of an upstream, checked before they are used."""

import json
import re
from collections.abc import Mapping

from registry.client.response import Response
from registry.client.targets import Target
from registry.errors import ManifestInvalidError, UpstreamProtocolError
from registry.oci.descriptors import Descriptor
from registry.oci.media_types import MANIFEST_TYPES, normalize
from storage.digest import Digest, DigestInvalidError

_NEXT = re.compile(r'<([^<>]*)>[^,<>]*;\s*rel="?next"?', re.IGNORECASE)


def require_manifest_type(response: Response) -> str:
    """Return the media type. Raises UpstreamProtocolError unless it is a manifest's."""
    media_type = normalize(response.headers.get("Content-Type"))
    if media_type not in MANIFEST_TYPES:
        raise UpstreamProtocolError(
            f"{response.where} returned a media type that is not a supported manifest's"
        )
    return media_type


def read_digest(response: Response) -> Digest | None:
    """Return the digest in the headers, or None if there is none."""
    text = response.headers.get("Docker-Content-Digest")
    try:
        return Digest.parse(text) if text else None
    except DigestInvalidError:
        raise UpstreamProtocolError(f"{response.where} returned an invalid digest") from None


def find_next_page(response: Response, here: Target) -> Target | None:
    """Return the URL of the next page of a list, or None on the last page.

    Raises UpstreamProtocolError if it is on another origin.
    """
    link = _NEXT.search(response.headers.get("Link"))
    if link is None:
        return None
    following = Target.parse(link[1], here)
    if following.origin != here.origin:
        raise UpstreamProtocolError(f"{here.origin} continues a list at another origin")
    return following


def parse_object(raw: bytes, where: str) -> dict[str, object]:
    """Return a JSON object."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UpstreamProtocolError(f"{where} returned a document that is not a JSON object")
    return document


def list_texts(page: Mapping[str, object], name: str, where: str) -> list[str]:
    """Return the strings of a list in a page."""
    return [value for value in _list(page, name, where) if isinstance(value, str)]


def list_descriptors(page: Mapping[str, object], where: str) -> list[Descriptor]:
    """Return the descriptors of an index."""
    try:
        return [Descriptor.parse(value, "manifests") for value in _list(page, "manifests", where)]
    except ManifestInvalidError:
        raise UpstreamProtocolError(f"{where} returned an invalid index") from None


def _list(page: Mapping[str, object], name: str, where: str) -> list[object]:
    values = page.get(name) or []  # Distribution sends null for an empty list
    if not isinstance(values, list):
        raise UpstreamProtocolError(f"{where} returned {name} that are not a list")
    return values
