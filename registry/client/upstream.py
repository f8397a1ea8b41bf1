"""Client of one upstream registry. Source: OCI distribution-spec."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from registry.client.authorization import Authorization
from registry.client.blob_body import BlobBody, BlobRange, read_length
from registry.client.breaker import LIMITED_PAUSE_S, Breaker
from registry.client.credentials import CredentialCache, Source
from registry.client.documents import (
    find_next_page,
    list_descriptors,
    list_texts,
    parse_object,
    read_digest,
    require_manifest_type,
)
from registry.client.refusals import RateLimit, parse_rate_limit, read_refusal
from registry.client.response import Deadlines, Response
from registry.client.targets import Target
from registry.client.transport import Transport
from registry.errors import (
    TagInvalidError,
    UpstreamDeniedError,
    UpstreamDigestError,
    UpstreamProtocolError,
    UpstreamRateLimitedError,
    UpstreamUnavailableError,
    UpstreamUnknownError,
)
from registry.oci.descriptors import Descriptor
from registry.oci.media_types import MANIFEST_TYPES, OCI_INDEX, normalize
from registry.oci.names import RepositoryName, is_repository_name
from registry.oci.references import Reference, Tag
from registry.oci.referrers import fallback_tag
from storage.digest import Digest

MAX_MANIFEST = 4 << 20
"""Maximum size of a manifest, in bytes."""

MAX_REDIRECTS = 5
MAX_REFERRERS = 20_000
"""Maximum number of referrers of one manifest."""


_MAX_PAGE = 8 << 20
_MAX_PAGES = 1000
_PAGE_SIZE = 1000
_MAX_ATTEMPTS = 5
_OK, _PARTIAL, _UNAUTHORIZED = 200, 206, 401
_REDIRECTS = {301, 302, 303, 307, 308}
_ACCEPT = {"Accept": ", ".join(sorted(MANIFEST_TYPES))}


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What a HEAD request returned for a manifest; None is unknown."""

    media_type: str
    digest: Digest | None
    size: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest whose bytes match its digest."""

    media_type: str
    digest: Digest
    body: bytes


class Upstream:
    """The registry at `url`.

    A path in the URL is prepended to repository names, as required by registries that mirror
    several others. Without credentials, requests are anonymous. Credentials are sent only to the
    origin of the URL and to token servers on it or on `token_origins`.

    Every method raises UpstreamUnavailableError if there is no answer, UpstreamRateLimitedError,
    UpstreamDeniedError, UpstreamUnknownError, UpstreamAddressError and UpstreamProtocolError. The
    messages are for operators, and contain neither secrets nor text of the upstream.

    `on_bytes` is called with the bytes of manifests and blobs as they arrive.

    The constructor raises ConfigError if `ca_file` or `proxy` is unusable, and
    UpstreamProtocolError for an invalid URL.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Source | None = None,
        token_origins: Collection[str] = (),
        allow_private: bool = False,
        ca_file: Path | None = None,
        proxy: str = "",
        max_connections: int = 16,
        deadlines: Deadlines | None = None,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.url = url
        self._on_bytes = on_bytes
        self._target = Target.parse(url)
        self._where = self._target.origin
        self._prefix = self._target.path.strip("/")
        self._transport = Transport(
            allow_private=allow_private,
            ca_file=ca_file,
            proxy=proxy,
            max_connections=max_connections,
            deadlines=deadlines,
        )
        self._authorization = Authorization(
            self._transport,
            self._target,
            CredentialCache(credentials) if credentials else None,
            token_origins,
        )
        self.breaker = Breaker(self._where)
        self.pull_breaker = Breaker(self._where)
        """A breaker of manifest GETs alone, which opens when the pull limit is reached."""
        self.rate_limit: RateLimit | None = None
        """The last quota of pulls that the upstream has stated."""

    async def close(self) -> None:
        """Close all connections."""
        self._authorization.close()
        await self._transport.close()

    async def ping(self) -> None:
        """Check that the registry answers, and accepts the credentials."""
        await self._fetch("/v2/", scope="", most=_MAX_PAGE)

    async def head_manifest(self, repository: RepositoryName, reference: Reference) -> ManifestHead:
        """Return media type, digest and size of a manifest. Docker Hub does not count this."""
        response, _ = await self._fetch(
            f"{self._path(repository)}/manifests/{reference}",
            scope=self._scope(repository),
            headers=_ACCEPT,
            method="HEAD",
        )
        head = ManifestHead(
            require_manifest_type(response), read_digest(response), read_length(response)
        )
        if isinstance(reference, Digest) and head.digest not in {None, reference}:
            raise UpstreamDigestError(f"{response.where} returned another digest than requested")
        return head

    async def get_manifest(self, repository: RepositoryName, reference: Reference) -> Manifest:
        """Return a manifest. Its bytes match the reference and the digest in the response."""
        self.pull_breaker.require_closed()
        try:
            response, body = await self._fetch(
                f"{self._path(repository)}/manifests/{reference}",
                scope=self._scope(repository),
                headers=_ACCEPT,
                most=MAX_MANIFEST,
            )
        except UpstreamRateLimitedError as error:
            if error.is_pull_limit:
                self.pull_breaker.open(error, error.retry_after or LIMITED_PAUSE_S)
            raise
        self.pull_breaker.reset()
        self._on_bytes(len(body))
        stated = read_digest(response)
        asked = reference if isinstance(reference, Digest) else stated
        digest = Digest.of(body, asked.algorithm) if asked else Digest.of(body)
        if asked not in {None, digest} or (stated and Digest.of(body, stated.algorithm) != stated):
            raise UpstreamDigestError(f"{response.where} returned bytes that differ from {asked}")
        return Manifest(require_manifest_type(response), digest, body)

    async def head_blob(self, repository: RepositoryName, digest: Digest) -> int | None:
        """Return the size of a blob, or None if the upstream does not state it."""
        response, _ = await self._fetch(
            f"{self._path(repository)}/blobs/{digest}",
            scope=self._scope(repository),
            method="HEAD",
        )
        return read_length(response)

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
        """Open the bytes of a blob from `start` to before `stop`, or to its end.

        The digest is not verified. `size` is the size of the blob, if it is known: a body of
        another size is an error. Closing before the end is normal.
        """
        asked = BlobRange(start, stop, size)
        async with self._limited(is_whole=False):
            response = await self._open(
                "GET",
                f"{self._path(repository)}/blobs/{digest}",
                self._scope(repository),
                asked.headers,
                accepted=(_OK, _PARTIAL),
            )
        async with response:
            try:
                yield BlobBody(response, asked, self._on_bytes)
            except UpstreamUnavailableError as error:
                self.breaker.record(error)
                raise
            self.breaker.succeed()

    async def iter_tags(self, repository: RepositoryName) -> AsyncIterator[Tag]:
        """Yield the tags of a repository. Tags that this registry cannot have are skipped."""
        path = f"{self._path(repository)}/tags/list?n={_PAGE_SIZE}"
        async for page in self._iter_pages(path, self._scope(repository)):
            for text in list_texts(page, "tags", self._where):
                with contextlib.suppress(TagInvalidError):
                    yield Tag.parse(text)

    async def iter_repositories(self) -> AsyncIterator[RepositoryName]:
        """Yield the repositories of the catalog below the path of the URL.

        Many registries have no catalog.
        """
        below = f"{self._prefix}/" if self._prefix else ""
        path = f"/v2/_catalog?n={_PAGE_SIZE}"
        async for page in self._iter_pages(path, "registry:catalog:*"):
            for text in list_texts(page, "repositories", self._where):
                name = text.removeprefix(below)
                if text.startswith(below) and is_repository_name(name):
                    yield RepositoryName.parse(name)

    async def list_referrers(
        self, repository: RepositoryName, digest: Digest, artifact_type: str = ""
    ) -> list[Descriptor]:
        """Return the referrers of a manifest, of one artifact type if it is given.

        If the upstream has no referrers API, they are read from the fallback tag.
        """
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        path = f"{self._path(repository)}/referrers/{digest}{query}"
        found: list[Descriptor] = []
        try:
            async for page in self._iter_pages(path, self._scope(repository), OCI_INDEX):
                found += list_descriptors(page, self._where)
                if len(found) > MAX_REFERRERS:
                    raise UpstreamProtocolError(f"{self._where} returned too many referrers")
        except UpstreamUnknownError:
            with contextlib.suppress(UpstreamUnknownError):
                manifest = await self.get_manifest(repository, fallback_tag(digest))
                found = list_descriptors(parse_object(manifest.body, self._where), self._where)
        return [each for each in found if artifact_type in {"", each.artifact_type}]

    async def _iter_pages(
        self, path: str, scope: str, media_type: str = "application/json"
    ) -> AsyncIterator[dict[str, object]]:
        """Yield the JSON objects of all pages, which `Link` headers connect."""
        seen: set[str] = set()
        while path not in seen and len(seen) < _MAX_PAGES:
            seen.add(path)
            response, raw = await self._fetch(
                path, scope=scope, headers={"Accept": media_type}, most=_MAX_PAGE
            )
            yield parse_object(raw, self._where)
            following = find_next_page(response, self._target.with_path(path))
            if following is None:
                return
            path = following.path
        raise UpstreamProtocolError(f"{self._where} returned a list without end")

    async def _fetch(
        self,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        most: int = 0,
        method: str = "GET",
    ) -> tuple[Response, bytes]:
        """Return a closed response and its body of at most `most` bytes."""
        async with (
            self._limited(),
            await self._open(method, path, scope, headers or {}) as response,
        ):
            return response, await response.read_all(most)

    @contextlib.asynccontextmanager
    async def _limited(self, *, is_whole: bool = True) -> AsyncIterator[None]:
        """Limit the time of the block, and let the breaker admit and watch it."""
        deadline = self._transport.deadlines.headers_s
        with self.breaker.watch(is_whole=is_whole):
            try:
                async with asyncio.timeout(deadline):
                    yield
            except TimeoutError:
                raise UpstreamUnavailableError(
                    f"{self._where} did not respond within {deadline:g} s"
                ) from None

    async def _open(
        self,
        method: str,
        path: str,
        scope: str,
        headers: Mapping[str, str],
        accepted: Collection[int] = (_OK,),
    ) -> Response:
        """Return a response with an accepted status. The caller must close it."""
        response = await self._authorize(method, self._target.with_path(path), scope, headers)
        try:
            await self._check(response, accepted)
        except BaseException:
            await response.close()
            raise
        return response

    async def _check(self, response: Response, accepted: Collection[int]) -> None:
        self.rate_limit = parse_rate_limit(response.headers) or self.rate_limit
        if response.status not in accepted:
            raise await read_refusal(response)
        if normalize(response.headers.get("Content-Type")) == "text/html":
            raise UpstreamProtocolError(f"{response.where} returned a web page")

    async def _authorize(
        self, method: str, target: Target, scope: str, headers: Mapping[str, str]
    ) -> Response:
        """Send a request, with the authorization that the upstream asks for."""
        header = await self._authorization.find(scope)
        is_new = False
        for _ in range(_MAX_ATTEMPTS):
            response = await self._follow(method, target, header, headers)
            if response.status != _UNAUTHORIZED:
                return response
            await response.discard()
            if response.where != target.origin:
                raise UpstreamDeniedError(
                    f"{response.where} requires authentication, but is another origin than the "
                    "upstream"
                )
            if is_new and header.startswith("Bearer "):
                break
            header = await self._authorization.answer(scope, header, response)
            is_new = bool(header)
        raise UpstreamDeniedError(f"{target.origin} denies access (status 401)")

    async def _follow(
        self, method: str, target: Target, header: str, headers: Mapping[str, str]
    ) -> Response:
        """Send a request, and follow redirects. Other origins do not get `header`."""
        own = {"Authorization": header} if header else {}
        place = target
        for _ in range(MAX_REDIRECTS + 1):
            sent = {**headers, **own} if place.origin == target.origin else headers
            response = await self._transport.open(method, place, sent)
            if response.status not in _REDIRECTS:
                return response
            await response.discard()
            following = Target.parse(response.headers.get("Location"), place)
            if place.scheme == "https" and following.scheme == "http":
                raise UpstreamProtocolError(f"{place.origin} redirects to a server without TLS")
            place = following
        raise UpstreamProtocolError(f"{target.origin} redirects too many times")

    def _path(self, repository: RepositoryName) -> str:
        return f"/v2/{quote(self._name(repository))}"

    def _scope(self, repository: RepositoryName) -> str:
        return f"repository:{self._name(repository)}:pull"

    def _name(self, repository: RepositoryName) -> str:
        return f"{self._prefix}/{repository}" if self._prefix else str(repository)
