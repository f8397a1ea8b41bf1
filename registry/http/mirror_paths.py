"""Mirrors as registries of their own, below their prefix: `/docker.io/v2/library/alpine/…`.

Clients whose settings have a host with a path send such requests.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from registry.services.mirrors.lookup import MirrorLookup

_V2 = "/v2/"


class MirrorPaths:
    """ASGI middleware that moves the prefix of a mirror behind `/v2/`, where routes expect it."""

    def __init__(self, app: ASGIApp, lookup: MirrorLookup) -> None:
        self._app = app
        self._lookup = lookup

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(_V2):
            prefix, found, rest = scope["path"].partition(_V2)
            if found and (await self._lookup.get(scope["moorage.began"])).has_prefix(prefix[1:]):
                scope["path"] = f"{_V2}{prefix[1:]}/{rest}" if rest else _V2
        await self._app(scope, receive, send)
