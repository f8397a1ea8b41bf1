"""A registry below a path of its host: `https://example.org/registry`.

A proxy in front may strip the path or pass it on; both work.
"""

import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TARGET = re.compile(r"<(?=/)")


class Prefix:
    """ASGI middleware that strips a path from requests and adds it to paths in responses."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        """Use `path`, which begins with a slash and does not end with one."""
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        below = self._path.encode()
        raw = bytes(scope["raw_path"])
        if raw == below or raw.startswith(below + b"/"):
            raw = raw.removeprefix(below) or b"/"
            scope = {**scope, "raw_path": raw, "path": raw.decode("latin-1")}

        async def lead(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("location", "").startswith("/"):
                    headers["Location"] = self._path + headers["Location"]
                if "link" in headers:
                    headers["Link"] = _TARGET.sub(f"<{self._path}", headers["Link"])
            await send(message)

        await self._app(scope, receive, lead)
