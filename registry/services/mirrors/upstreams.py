"""The clients of the upstreams, one for each mirror, kept open between requests."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry import clock, metrics
from registry.errors import (
    ConfigError,
    UpstreamError,
    UpstreamUnavailableError,
    UpstreamUnknownError,
)
from registry.services.mirrors.mirror import Mirror
from registry.services.throttle import Throttle

if TYPE_CHECKING:
    from registry.client.credentials import Source
    from registry.client.failover import AnyUpstream
    from registry.client.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Failure:
    """The last error of an upstream, and its time in microseconds."""

    message: str
    at: int


@dataclass(slots=True)
class _Opened:
    """A client, the number of requests that use it, and its last error.

    `throttle` limits the bytes of blobs.
    """

    mirror: Mirror
    upstream: "AnyUpstream"
    throttle: Throttle
    users: int = 0
    is_retired: bool = False
    failure: Failure | None = None

    def note(self) -> None:
        """Set the metrics to the state of the upstream."""
        name, limit = self.mirror.name, self.upstream.rate_limit
        metrics.MIRROR_UPSTREAM_UP.labels(name).set(self.upstream.breaker.cause is None)
        if limit is not None:
            metrics.MIRROR_QUOTA_LIMIT.labels(name).set(limit.limit)
            metrics.MIRROR_QUOTA_REMAINING.labels(name).set(limit.remaining)


class Upstreams:
    """The clients of the upstreams. A changed mirror gets a new one."""

    def __init__(self, data: Path) -> None:
        """Resolve file names of options relative to the directory `data`."""
        self._data = data
        self._opened: dict[str, _Opened] = {}
        self._retired: list[_Opened] = []

    @contextlib.asynccontextmanager
    async def use(self, mirror: Mirror) -> AsyncIterator["AnyUpstream"]:
        """Return the client of a mirror.

        Raises UpstreamUnavailableError if its options cannot be used, for example a missing file.
        """
        opened = self._find(mirror)
        opened.users += 1
        try:
            yield opened.upstream
        except UpstreamUnknownError:
            raise  # the upstream has answered
        except UpstreamError as error:
            opened.failure = Failure(error.message, clock.now_us())
            raise
        finally:
            opened.note()
            opened.users -= 1
            if opened.is_retired and not opened.users:
                self._retired.remove(opened)
                await opened.upstream.close()

    def find_failure(self, name: str) -> Failure | None:
        """Return the last error of the upstream of a mirror in this process."""
        opened = self._opened.get(name)
        return opened.failure if opened is not None else None

    def get_throttle(self, mirror: Mirror) -> Throttle:
        """Return the limit of the bytes of blobs from a mirror, which all its downloads share.

        Raises the error of `use`.
        """
        return self._find(mirror).throttle

    async def ping(self, mirror: Mirror) -> None:
        """Check that the upstream answers, and accepts the credentials.

        Raises UpstreamError.
        """
        async with self.use(mirror) as upstream:
            await upstream.ping()

    async def close(self) -> None:
        """Close all clients."""
        for opened in [*self._opened.values(), *self._retired]:
            await opened.upstream.close()
        self._opened.clear()
        self._retired.clear()

    def _find(self, mirror: Mirror) -> _Opened:
        opened = self._opened.get(mirror.name)
        if opened is not None and opened.mirror == mirror:
            return opened
        try:
            new = _Opened(mirror, self._open(mirror), Throttle(mirror.options.bytes_per_second))
        except ConfigError as error:
            raise UpstreamUnavailableError(f"mirror {mirror.name}: {error.message}") from error
        self._opened[mirror.name] = new
        if opened is not None:
            # An idle client keeps only idle connections, which the upstream closes.
            opened.is_retired = True
            if opened.users:
                self._retired.append(opened)
        return new

    def _open(self, mirror: Mirror) -> "AnyUpstream":
        from registry.client.failover import Failover  # noqa: PLC0415 - see `_open_url`

        first = self._open_url(mirror, mirror.url, self._find_credentials(mirror))
        others = mirror.options.fallback_upstreams
        if not others:
            return first
        # The credentials are those of the upstream, and no other server may get them.
        return Failover([first, *(self._open_url(mirror, url, None) for url in others)])

    def _open_url(self, mirror: Mirror, url: str, credentials: "Source | None") -> "Upstream":
        # Most registries call no other server, and the client takes memory.
        from registry.client.upstream import Upstream  # noqa: PLC0415

        options = mirror.options
        return Upstream(
            url,
            credentials=credentials,
            token_origins=options.token_origins,
            allow_private=options.allow_private,
            ca_file=self._data / options.ca_file if options.ca_file else None,
            proxy=options.http_proxy,
            max_connections=options.max_connections,
            on_bytes=metrics.MIRROR_RECEIVED_BYTES.labels(mirror.name).inc,
        )

    def _find_credentials(self, mirror: Mirror) -> "Source | None":
        from registry.client import credentials  # noqa: PLC0415 - see `_open_url`

        options = mirror.options
        if options.credential_helper:
            key = credentials.find_helper_key(mirror.url)
            return credentials.from_helper(options.credential_helper, key)
        if options.password_file:
            return credentials.from_file(options.username, self._data / options.password_file)
        if mirror.password is not None:
            return credentials.from_settings(options.username, mirror.password)
        return None
