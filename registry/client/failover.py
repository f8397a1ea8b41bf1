"""Several registries with the same content, of which the first that answers is used."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from registry.client.blob_body import BlobBody
from registry.client.breaker import Breaker
from registry.client.refusals import RateLimit
from registry.client.upstream import Manifest, ManifestHead, Upstream
from registry.errors import UpstreamError, UpstreamUnavailableError
from registry.oci.descriptors import Descriptor
from registry.oci.names import RepositoryName
from registry.oci.references import Reference, Tag
from storage.digest import Digest

T = TypeVar("T")

PATIENCE_S = 3.0
"""Seconds until the next registry is asked. Clients wait about ten seconds for a decision."""


class Failover:
    """An upstream, and others to use while it does not answer. The methods are those of `Upstream`.

    Only the first one can say that something does not exist or is denied: the others may be copies
    that lack it. `breaker` and `rate_limit` are those of the first one.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = upstreams
        self._first = upstreams[0]
        self.url = self._first.url

    @property
    def breaker(self) -> Breaker:
        return self._first.breaker

    @property
    def rate_limit(self) -> RateLimit | None:
        return self._first.rate_limit

    async def close(self) -> None:
        for upstream in self._upstreams:
            await upstream.close()

    async def ping(self) -> None:
        for upstream in self._upstreams:
            await upstream.ping()

    async def head_manifest(self, repository: RepositoryName, reference: Reference) -> ManifestHead:
        return await self._ask(lambda each: each.head_manifest(repository, reference))

    async def get_manifest(self, repository: RepositoryName, reference: Reference) -> Manifest:
        return await self._ask(lambda each: each.get_manifest(repository, reference))

    async def head_blob(self, repository: RepositoryName, digest: Digest) -> int | None:
        return await self._ask(lambda each: each.head_blob(repository, digest))

    async def list_referrers(
        self, repository: RepositoryName, digest: Digest, artifact_type: str = ""
    ) -> list[Descriptor]:
        return await self._ask(lambda each: each.list_referrers(repository, digest, artifact_type))

    @contextlib.asynccontextmanager
    async def open_blob(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        size: int | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> AsyncIterator[BlobBody]:
        async with contextlib.AsyncExitStack() as stack:

            async def open_at(each: Upstream) -> BlobBody:
                opening = each.open_blob(repository, digest, size=size, start=start, stop=stop)
                return await stack.enter_async_context(opening)

            yield await self._ask(open_at)

    async def iter_tags(self, repository: RepositoryName) -> AsyncIterator[Tag]:
        async for tag in self._iter(lambda each: each.iter_tags(repository)):
            yield tag

    async def iter_repositories(self) -> AsyncIterator[RepositoryName]:
        async for name in self._iter(lambda each: each.iter_repositories()):
            yield name

    async def _iter(self, start: Callable[[Upstream], AsyncIterator[T]]) -> AsyncIterator[T]:
        """Yield the items of one registry: the first one whose first item arrives."""

        async def begin(each: Upstream) -> tuple[list[T], AsyncIterator[T]]:
            items = start(each)
            async for item in items:
                return [item], items
            return [], items

        first, rest = await self._ask(begin)
        for item in first:
            yield item
        async for item in rest:
            yield item

    async def _ask(self, ask: Callable[[Upstream], Awaitable[T]]) -> T:
        """Return the answer of the first registry that has one.

        Raises the error of the first registry if no other one answers.
        """
        try:
            return await _ask_in_time(self._first, ask)
        except UpstreamUnavailableError:
            for upstream in self._upstreams[1:]:
                with contextlib.suppress(UpstreamError):
                    return await _ask_in_time(upstream, ask)
            raise


AnyUpstream = Upstream | Failover


async def _ask_in_time(upstream: Upstream, ask: Callable[[Upstream], Awaitable[T]]) -> T:
    """Return the answer. Raises UpstreamUnavailableError if it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await ask(upstream)
    except TimeoutError:
        error = UpstreamUnavailableError(
            f"{upstream.url} did not respond within {PATIENCE_S:g} s, after which others are asked"
        )
        upstream.breaker.record(error, is_attempt=upstream.breaker.cause is not None)
        raise error from None
