"""Validation of the raw path, before routing.

Servers decode `%2F`, `%00` and `..` before an application sees the path, and then the path that the
client sent is lost. This module reads the bytes as sent: it passes on the canonical path and
refuses every path that could be ambiguous.
"""

import re
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from registry.errors import PathInvalidError

_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PLAIN = re.compile(rb"[!$&'()*+,\-./0-9:;=@A-Z_a-z~]*")
_SPLITTERS = re.compile(rb"%(2f|5c|00)", re.IGNORECASE)


def canonical_path(raw: bytes) -> str:
    """Return the only path that `raw`, the path bytes of a request target, can mean.

    Raises PathInvalidError for escaped separators, dot segments, double slashes and other
    characters that no path contains.
    """
    if _ESCAPE.search(raw) or _SPLITTERS.search(raw):
        raise PathInvalidError("the path has an escape sequence that no path of this registry has")
    decoded = unquote_to_bytes(raw)
    if not decoded.startswith(b"/") or not _PLAIN.fullmatch(decoded):
        raise PathInvalidError("the path has a character that no path of this registry has")
    segments = decoded.split(b"/")[1:]
    if any(segment in {b".", b".."} for segment in segments) or b"" in segments[:-1]:
        raise PathInvalidError("the path has a dot segment or a double slash")
    return decoded.decode("ascii")


class PathGuard:
    """ASGI middleware that puts the canonical path into the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = canonical_path(scope["raw_path"])
            scope["path"] = "/v2/" if path == "/v2" else path
        await self._app(scope, receive, send)
