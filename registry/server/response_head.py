"""Serialization of response heads."""

import http
import json
import re
import uuid
from collections.abc import Iterable
from functools import lru_cache

from registry.http.errors import write_message
from registry.server.framing_error import FramingError

# Names whose usual spelling is not Each-Word-Capitalized. People search for them in logs.
_SPELLINGS = {
    name.lower(): name
    for name in (
        b"Docker-Distribution-API-Version",
        b"Docker-Upload-UUID",
        b"ETag",
        b"OCI-Chunk-Min-Length",
        b"OCI-Filters-Applied",
        b"OCI-Namespace",
        b"OCI-Subject",
        b"OCI-Tag",
        b"WWW-Authenticate",
    )
}
RETRY_AFTER = b"5"
"""The time after which a refused client may retry, in seconds."""

_RETRIED = frozenset({429, 503})
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@lru_cache(maxsize=64)
def status_line(status: int) -> bytes:
    """Return the status line of a response, including CRLF."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


@lru_cache(maxsize=256)
def spell(name: bytes) -> bytes:
    """Return a field name in its usual spelling, such as `Docker-Content-Digest`.

    Names are case-insensitive on the wire (RFC 9110 section 5.1). Raises ValueError if the name is
    invalid.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a header field name")
    lower = name.lower()
    return _SPELLINGS.get(lower) or b"-".join(word.capitalize() for word in lower.split(b"-"))


def write_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the lines of header fields; raise ValueError for an invalid name or value."""
    lines: list[bytes] = []
    for name, value in fields:
        if _CONTROL.search(value):
            raise ValueError(f"the value of {name!r} has a control character")
        lines += (spell(name), b": ", value, b"\r\n")
    return b"".join(lines)


def write_refusal(error: FramingError, date: Iterable[tuple[bytes, bytes]], *, body: bool) -> bytes:
    """Return a complete response that refuses a request, in the OCI error format.

    `body` is false for the response to HEAD.
    """
    message = write_message(error.code, error.message)
    content = json.dumps(
        {"errors": [{"code": error.code, "message": message, "detail": None}]},
        separators=(",", ":"),
    ).encode()
    fields = [
        *(field for field in date if field[0] != b"connection"),
        (b"connection", b"close"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"docker-distribution-api-version", b"registry/2.0"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", uuid.uuid4().hex.encode()),
    ]
    if error.status in _RETRIED:
        fields.append((b"retry-after", RETRY_AFTER))
    return status_line(error.status) + write_fields(fields) + b"\r\n" + (content if body else b"")
