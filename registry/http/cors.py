"""Cross-origin resource sharing: web pages of the listed origins may use the registry.

Source: the Fetch standard, section 3.2, "CORS protocol".
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.http.sites import Sites

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_ASKED = (
    "Accept, Authorization, Content-Range, Content-Type, If-Match, If-None-Match, "
    "Moorage-Override, Range, X-Request-Id"
)
_SHOWN = (
    "Accept-Ranges, Content-Length, Content-Range, Docker-Content-Digest, "
    "Docker-Distribution-API-Version, Docker-Upload-UUID, ETag, Link, Location, "
    "OCI-Chunk-Min-Length, OCI-Filters-Applied, OCI-Subject, OCI-Tag, Range, Retry-After, Warning, "
    "WWW-Authenticate, X-Request-Id"
)
_REMEMBERED = "600"
"""The time for which a browser may cache a preflight response, in seconds."""


class Cors:
    """ASGI middleware that tells browsers which pages may read a response, including errors."""

    def __init__(self, app: ASGIApp, sites: Sites) -> None:
        self._app = app
        self._sites = sites

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = Headers(scope=scope).get("origin")

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # Also without an origin: a cache may serve the response to a page later.
                headers.add_vary_header("Origin")
                if origin is not None and self._sites.allows(origin):
                    headers["Access-Control-Allow-Origin"] = origin
                    headers["Access-Control-Expose-Headers"] = _SHOWN
                    if self._sites.lists(origin):
                        headers["Access-Control-Allow-Credentials"] = "true"
            await send(message)

        await self._app(scope, receive, tell)


class Preflights:
    """ASGI middleware that answers CORS preflight requests."""

    def __init__(self, app: ASGIApp, sites: Sites) -> None:
        self._app = app
        self._sites = sites

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if (
            scope["method"] == "OPTIONS"
            and "access-control-request-method" in headers
            and origin is not None
            and self._sites.allows(origin)
        ):
            told = {
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": _ASKED,
                "Access-Control-Max-Age": _REMEMBERED,
            }
            await Response(None, 204, told)(scope, receive, send)
            return
        await self._app(scope, receive, send)
