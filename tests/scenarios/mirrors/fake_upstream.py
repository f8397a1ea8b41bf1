"""An upstream registry in the test process, which fails as the test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from registry.oci.media_types import OCI_MANIFEST
from storage.digest import Digest
from tests.scenarios.mirrors.conftest import Image
from tests.support.servers.hostile import Hostile, Script, hostile, response

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class FakeUpstream:
    """A registry with the images that were added.

    Requests whose path contains `failing` get the script `failure`, if there is one. While
    `is_held` is set, the second half of each response with a blob is held back.
    """

    def __init__(self) -> None:
        self.failure: Script | None = None
        self.failing = ""
        self.is_held = False
        self._responses: dict[str, bytes] = {}
        self._server: Hostile | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator["FakeUpstream"]:
        async with hostile(self._answer) as self._server:
            yield self

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    @property
    def requests(self) -> list[str]:
        """The request lines so far, without the version."""
        return [head.split(" HTTP/", 1)[0] for head in self.heads]

    @property
    def heads(self) -> list[str]:
        """The heads of the requests so far."""
        assert self._server is not None
        return self._server.heads

    def add(self, name: str, tag: str, image: Image) -> None:
        """Add an image."""
        digest = Digest.of(image.raw)
        lines = (f"Content-Type: {OCI_MANIFEST}", f"Docker-Content-Digest: {digest}")
        for reference in (tag, digest):
            self._responses[f"/v2/{name}/manifests/{reference}"] = response(image.raw, *lines)
        for data in (image.config, image.layer):
            path = f"/v2/{name}/blobs/{Digest.of(data)}"
            self._responses[path] = response(data, "Content-Type: application/octet-stream")

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        method, path = self.requests[-1].split(" ", 1)
        if self.failure is not None and self.failing in path:
            await self.failure(writer)
            return
        raw = self._responses.get(path, NOT_FOUND)
        if method == "HEAD":
            raw = raw[: raw.index(b"\r\n\r\n") + 4]
        half = len(raw) // 2
        writer.write(raw[:half])
        while self.is_held and "/blobs/" in path:
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(raw[half:])
        await writer.drain()
