"""Tags and referrers of mirrored repositories: those of the upstream, and those that are cached."""

import bisect
import json
import math
from dataclasses import dataclass

from registry.errors import (
    RepositoryUnknownError,
    UpstreamDeniedError,
    UpstreamError,
    UpstreamProtocolError,
)
from registry.oci.descriptors import Descriptor
from registry.oci.referrers import IndexBuilder
from registry.services.content.referrers import PAGE_BYTES, Referrers
from registry.services.content.tags import Tags
from registry.services.mirrors.lists.upstream_lists import UpstreamLists
from registry.services.mirrors.mirror import Mirrored
from registry.services.mirrors.upstreams import Upstreams
from storage.digest import Digest

MOST_TAGS = 100_000
"""Tags of an upstream repository. The list of one with more is not used."""


@dataclass(frozen=True, slots=True)
class ListedTags:
    """Names of tags, which are current until `deadline` (of `time.monotonic`).

    If the upstream failed, `problem` says why, and only cached tags are listed.
    """

    names: list[str]
    deadline: float = math.inf
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ListedReferrers:
    """A page of an index of referrers. `last` is its last digest if more pages follow.

    The other fields are as in `ListedTags`.
    """

    raw: bytes
    last: str | None
    deadline: float = math.inf
    problem: str = ""


class MirroredLists:
    """Lists of the repositories of mirrors."""

    def __init__(self, tags: Tags, referrers: Referrers, upstreams: Upstreams) -> None:
        self._tags = tags
        self._referrers = referrers
        self._upstreams = upstreams
        self._known_tags: UpstreamLists[str] = UpstreamLists()
        self._known_referrers: UpstreamLists[Descriptor] = UpstreamLists()

    async def close(self) -> None:
        """Cancel the requests to upstreams."""
        await self._known_tags.close()
        await self._known_referrers.close()

    async def list_tags(self, at: Mirrored, n: int, last: str) -> ListedTags:
        """Return at most `n` tags after `last`, in byte order.

        Raises RepositoryUnknownError if neither the upstream nor the cache has the repository, and
        UpstreamError if nothing is cached and the upstream fails.
        """

        async def fetch() -> list[str]:
            found: set[str] = set()
            async with self._upstreams.use(at.mirror) as upstream:
                async for tag in upstream.iter_tags(at.remote):
                    found.add(str(tag))
                    if len(found) > MOST_TAGS:
                        raise UpstreamProtocolError(
                            f"{at.mirror.url} has more than {MOST_TAGS} tags in {at.remote}"
                        )
            return sorted(found)

        known = await self._known_tags.get(at.mirror, at.name, fetch)
        try:
            names = await self._tags.list_names(at.name, n, last)
        except RepositoryUnknownError:
            if known.problem is not None:
                raise _translate(at, known.problem) from known.problem
            if known.items is None:
                raise _unknown(at, "the upstream does not have it") from None
            names = []
        if known.problem is not None:
            return ListedTags(names, 0.0, known.problem.message)
        items = known.items or []
        start = bisect.bisect_right(items, last) if last else 0
        return ListedTags(sorted({*items[start : start + n], *names})[:n], known.deadline)

    async def list_referrers(
        self, at: Mirrored, subject: Digest, artifact_type: str | None, last: str, since: float
    ) -> ListedReferrers:
        """Return a page of referrers after the digest `last`, in digest order.

        The other parameters are as in `Referrers.get_page`. Raises UpstreamError if nothing is
        cached and the upstream fails.
        """

        async def fetch() -> list[Descriptor]:
            async with self._upstreams.use(at.mirror) as upstream:
                return await upstream.list_referrers(at.remote, subject, artifact_type or "")

        key = (at.name, subject, artifact_type)
        known = await self._known_referrers.get(at.mirror, key, fetch)
        page = await self._referrers.get_page(at.name, subject, artifact_type, last, since)
        if known.problem is not None:
            if not page.count and not last:
                raise _translate(at, known.problem) from known.problem
            return ListedReferrers(page.raw, page.last, 0.0, known.problem.message)
        if not known.items:
            return ListedReferrers(page.raw, page.last, known.deadline)
        raw, end = _merge(known.items, page.raw, last, page.last)
        return ListedReferrers(raw, end, known.deadline)


def _merge(
    items: list[Descriptor], cached: bytes, last: str, end: str | None
) -> tuple[bytes, str | None]:
    """Return an index of the entries after `last`, and its last digest if more follow.

    `cached` has the cached entries up to the digest `end`, or all if it is None.
    """
    listed = json.loads(cached)["manifests"]
    found = {str(each.digest): each for each in items}
    found |= {each["digest"]: Descriptor.parse(each, "manifests") for each in listed}
    index, after = IndexBuilder(PAGE_BYTES), last
    for digest in sorted(found):
        if digest <= last:
            continue
        if (end is not None and digest > end) or not index.add(found[digest]):
            return index.build(), after
        after = digest
    return index.build(), end


def _translate(at: Mirrored, problem: UpstreamError) -> Exception:
    """Return the error for a list of which nothing is cached."""
    if isinstance(problem, UpstreamDeniedError):
        return _unknown(at, problem.message)
    return problem


def _unknown(at: Mirrored, reason: str) -> RepositoryUnknownError:
    return RepositoryUnknownError(
        f"{at.remote} is not a repository of {at.mirror.url}: {reason}", {"name": str(at.name)}
    )
