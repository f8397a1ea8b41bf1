"""Clients that retry failed pushes as Docker does, from the beginning of a blob."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from storage.digest import Digest
from tests.support.kit import Kit, image_manifest
from tests.support.pushing import Acknowledged, Ledger, blob_bytes

ATTEMPTS = 12
PAUSE = 1.0
"""Delay between two attempts, in seconds."""


class AgainError(Exception):
    """A response after which a client retries."""


@dataclass
class Retrying:
    """Clients that push images forever. `ledger` holds the acknowledged pushes."""

    url: str
    size: int
    ledger: Ledger = field(default_factory=Ledger)
    again: list[str] = field(default_factory=list)
    """Reasons for the retries."""
    longest: float = 0.0
    """Longest time for an image with all attempts, in seconds."""

    async def run(self, number: int, stop: asyncio.Event) -> None:
        """Run one client until `stop` is set."""
        count = 0
        # Use a new connection for each request, so that requests alternate between replicas.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self.url, timeout=30, limits=limits) as http:
            while not stop.is_set():
                count += 1
                begun = time.monotonic()
                await self._image(Kit(http), f"team/{number}", str(count))
                self.longest = max(self.longest, time.monotonic() - begun)

    async def _image(self, kit: Kit, name: str, tag: str) -> None:
        parts = [blob_bytes(f"{name}:{tag}:{n}", self.size if n else 300) for n in range(3)]
        digests = []
        for data in parts:
            await self._again(lambda data=data: self._blob(kit, name, data))  # type: ignore[misc]
            digests.append(Digest.of(data))
        raw = image_manifest(parts[0], parts[1:])
        await self._again(lambda: self._manifest(kit, name, tag, raw))
        self.ledger.pushes.append(Acknowledged(name, tag, raw, tuple(digests)))

    async def _again(self, work: Callable[[], Awaitable[None]]) -> None:
        for attempt in range(ATTEMPTS):
            try:
                return await work()
            except (AgainError, httpx.TransportError) as error:
                self.again.append(f"{type(error).__name__} {error}")
                if attempt + 1 == ATTEMPTS:
                    raise
                await asyncio.sleep(PAUSE)
        return None

    async def _blob(self, kit: Kit, name: str, data: bytes) -> None:
        digest = Digest.of(data)
        answer = await kit.http.head(f"/v2/{name}/blobs/{digest}")
        if answer.status_code == 200:
            return
        require(answer, 404)
        answer = await kit.http.post(f"/v2/{name}/blobs/uploads/")
        require(answer, 202)
        location = answer.headers["Location"]
        middle = len(data) // 2
        for part in (data[:middle], data[middle:]):
            require(await kit.http.patch(location, content=part), 202)
        require(await kit.http.put(location, params={"digest": str(digest)}), 201)

    async def _manifest(self, kit: Kit, name: str, tag: str, raw: bytes) -> None:
        require(await kit.put_manifest(name, tag, raw), 201)
        answer = await kit.http.get(f"/v2/{name}/manifests/{tag}")
        require(answer, 200)
        assert answer.content == raw


def require(answer: httpx.Response, status: int) -> None:
    """Require `status`. Raises AgainError for a response after which a client retries."""
    if answer.status_code in {409, 502, 503, 504}:
        raise AgainError(f"{answer.request.method} {answer.status_code}")
    assert answer.status_code == status, (answer.status_code, answer.text)


@contextlib.asynccontextmanager
async def pushing(pusher: Retrying, clients: int) -> AsyncIterator[None]:
    """Push with `clients` clients while the block runs, and raise their final failures."""
    stop = asyncio.Event()
    running = [asyncio.create_task(pusher.run(number, stop)) for number in range(clients)]
    try:
        yield
    finally:
        stop.set()
        results = await asyncio.gather(*running, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
