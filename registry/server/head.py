"""Strict parsing of request heads: RFC 9112 sections 2, 3, 5 and 6, RFC 9110 section 7.

Everything that two implementations could parse differently is an error. Behind a proxy, such a
request would let one client inject a request of another client (request smuggling).
"""

import re

from msgspec import Struct

from registry.server.framing_error import FramingError

MAX_HEAD = 64 << 10
"""The maximum size of a request head, from the request line to the last field, in bytes."""

MAX_FIELDS = 100
"""The maximum number of header fields of a request."""

MAX_TARGET = 8 << 10
"""The maximum size of a request target, in bytes."""

MAX_LONG_TARGET = 48 << 10
"""The maximum size of the target of a GET of a path with long queries, in bytes.

Clients that cannot use POST ask the token endpoint for 500 repositories.
"""

TLS_HANDSHAKE = 0x16
"""The first byte of a TLS client (RFC 8446 section 5.1). No HTTP request begins with it."""

LINE_REST = 64
"""The size of the method and the version in a request line, in bytes."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([^\x00-\x20\x7f]+) (HTTP/.*)")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]+")
_LENGTH = re.compile(rb"[0-9]{1,19}")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}


class RequestHead(Struct, frozen=True):
    """A parsed request head.

    The names in `headers` are in lower case. `length` is the size of the body in bytes, None with
    the chunked transfer coding.
    """

    method: str
    path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    length: int | None
    keep_alive: bool
    expects_continue: bool


def check_partial_head(
    data: bytes | bytearray, start: int, long_query_paths: tuple[bytes, ...] = ()
) -> None:
    """Raise FramingError if the start of a head cannot become valid.

    Bytes before `start` have been checked already. A GET of one of `long_query_paths`, in exactly
    this spelling, may have a target of `MAX_LONG_TARGET` bytes. The limits apply while the head
    arrives, so that no client makes the server buffer more.
    """
    if len(data) > MAX_HEAD:
        raise _head_too_large()
    if len(data) > MAX_TARGET + LINE_REST:
        most = _find_max_target(data, long_query_paths)
        if len(data) > most + LINE_REST and data.find(b"\n", 0, most + LINE_REST) < 0:
            raise _target_too_long(most)
    if _BARE_LF.search(data, start):
        raise FramingError("a line of the request head ends without CR")


def parse_head(data: bytes, long_query_paths: tuple[bytes, ...] = ()) -> RequestHead:
    """Parse a head without the empty line that ends it; raise FramingError.

    `long_query_paths` is as in `check_partial_head`.
    """
    if len(data) > MAX_HEAD:
        raise _head_too_large()
    lines = data.split(b"\r\n")
    if len(lines) - 1 > MAX_FIELDS:
        raise FramingError(
            f"the request has {len(lines) - 1} header fields; at most {MAX_FIELDS} are allowed", 431
        )
    method, target, version = _parse_request_line(lines[0], long_query_paths)
    headers = [_parse_field(line) for line in lines[1:]]
    authority, path, query = _split_target(method, target)
    _set_host(headers, authority, required=version == "1.1")
    return RequestHead(
        method,
        path,
        query,
        version,
        headers,
        _find_length(headers, version),
        version == "1.1" and b"close" not in _list_tokens(headers, b"connection"),
        version == "1.1" and b"100-continue" in _list_tokens(headers, b"expect"),
    )


def _find_max_target(data: bytes | bytearray, long_query_paths: tuple[bytes, ...]) -> int:
    beginnings = tuple(b"GET %b?" % path for path in long_query_paths)
    return MAX_LONG_TARGET if data.startswith(beginnings) else MAX_TARGET


def _parse_request_line(line: bytes, long_query_paths: tuple[bytes, ...]) -> tuple[str, bytes, str]:
    most = MAX_TARGET if len(line) <= MAX_TARGET else _find_max_target(line, long_query_paths)
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if len(line) > most + LINE_REST:
            raise _target_too_long(most)
        raise FramingError("the request line is not METHOD TARGET HTTP/1.1")
    if len(match[2]) > most:
        raise _target_too_long(most)
    version = _VERSIONS.get(match[3])
    if version is None:
        raise FramingError("only HTTP/1.1 and HTTP/1.0 are supported")
    return match[1].decode("ascii"), match[2], version


def _parse_field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        # A line that begins with a space would be obs-fold. A space before the colon makes a field
        # that some servers ignore and others accept.
        raise FramingError("a header field is not NAME: VALUE on one line")
    value = value.strip(b" \t")
    if _CONTROL.search(value):
        raise FramingError("a header field has a control character in its value")
    return name.lower(), value


def _split_target(method: str, target: bytes) -> tuple[bytes | None, bytes, bytes]:
    """Return the authority, path and query of a target in origin or absolute form."""
    authority = None
    if method == "CONNECT":
        raise FramingError("CONNECT is not supported: this is not a proxy", 405)
    if not target.startswith(b"/"):
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            raise FramingError("the request target is neither a path nor an http URL")
        authority, target = match[1], match[2]
        if not target.startswith(b"/"):
            target = b"/" + target
    if b"#" in target:
        raise FramingError("the request target has a fragment")
    path, _, query = target.partition(b"?")
    return authority, path, query


def _set_host(
    headers: list[tuple[bytes, bytes]], authority: bytes | None, *, required: bool
) -> None:
    """Check that there is one Host field.

    The authority of an absolute target replaces its value.
    """
    places = [index for index, (name, _) in enumerate(headers) if name == b"host"]
    if len(places) > 1 or (required and not places):
        raise FramingError(f"the request has {len(places)} Host fields; exactly one is required")
    for index in places:
        if authority is not None:
            headers[index] = (b"host", authority)
        if not _HOST.fullmatch(headers[index][1]):
            raise FramingError("Host is not a host name with an optional port")


def _find_length(headers: list[tuple[bytes, bytes]], version: str) -> int | None:
    """Return the body length in bytes, None for the chunked coding (RFC 9112 section 6.3)."""
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    lengths = [value for name, value in headers if name == b"content-length"]
    if codings:
        if lengths:
            raise FramingError("the request has both Content-Length and Transfer-Encoding")
        if version != "1.1" or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise FramingError("the only supported Transfer-Encoding is chunked, in HTTP/1.1")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise FramingError("Content-Length is not one number")
    return int(lengths[0])


def _list_tokens(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [
        token.strip(b" \t").lower()
        for each, value in headers
        if each == name
        for token in value.split(b",")
    ]


def _head_too_large() -> FramingError:
    return FramingError(f"the request head exceeds {MAX_HEAD} bytes", 431)


def _target_too_long(most: int) -> FramingError:
    return FramingError(f"the request target exceeds {most} bytes", 414)
