"""A transport that sends each read to a server with answers from memory, and to one without.

Both serve the same application. The server with answers gets each request twice, so that the second
response comes from memory if the first one may be repeated. All three responses must be equal.
"""

import httpx

from registry import metrics
from registry.app import Runtime

VARYING = {b"date", b"x-request-id"}
"""The header fields that differ between two responses to the same request."""

Seen = tuple[int, list[tuple[bytes, bytes]], bytes]


def count_hits() -> float:
    """Return the number of requests that this process answered from memory."""
    metrics.update()
    return metrics.REGISTRY.get_sample_value("moorage_answers_from_memory_total") or 0.0


class Differential(httpx.AsyncBaseTransport):
    """Compares the responses, and returns the first one."""

    def __init__(self, opened: Runtime, plain: httpx.URL) -> None:
        """Compare with the server at `plain`. `opened` is the registry behind both."""
        self._opened = opened
        self._plain = plain
        self._wire = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        is_v2 = request.url.path.startswith("/v2/")
        if request.method not in {"GET", "HEAD"} or has_body or not is_v2:
            return await self._wire.handle_async_request(request)
        watch = self._opened.watch
        mark = watch.read_mark()
        first = await self._send(request, request.url)
        seen = await _look(first)
        if mark != watch.read_mark():  # a HEAD may extend the grace period, which is a commit
            mark = watch.read_mark()
            seen = await _look(await self._send(request, request.url))
        second = await _look(await self._send(request, request.url))
        plain = request.url.copy_with(host=self._plain.host, port=self._plain.port)
        third = await _look(await self._send(request, plain))
        if mark is not None and mark == watch.read_mark():
            assert second == seen, f"the second response to {request.url} differs"
            assert third == seen, f"the response to {request.url} without the memory differs"
        return first

    async def _send(self, request: httpx.Request, url: httpx.URL) -> httpx.Response:
        copy = httpx.Request(
            request.method, url, headers=request.headers.raw, extensions=request.extensions
        )
        return await self._wire.handle_async_request(copy)

    async def aclose(self) -> None:
        await self._wire.aclose()


async def _look(response: httpx.Response) -> Seen:
    body = await response.aread()
    fields = [field for field in response.headers.raw if field[0].lower() not in VARYING]
    boundary = response.headers.get("content-type", "").partition("boundary=")[2].encode()
    if boundary:  # is random
        body = body.replace(boundary, b"")
        fields = [(name, value.replace(boundary, b"")) for name, value in fields]
    return response.status_code, fields, body
