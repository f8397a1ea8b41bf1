"""Lists of upstreams in memory, for the time to live of tags."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from registry.errors import UpstreamError, UpstreamUnavailableError, UpstreamUnknownError
from registry.services.mirrors.manifests import DECIDE_S
from registry.services.mirrors.mirror import Mirror
from registry.services.mirrors.options import read_seconds

T = TypeVar("T")

LONGEST_S = 3600.0
"""The time after which a list is asked for again, whatever the time to live of tags is."""

MOST_ENTRIES = 200_000
"""Entries of all lists in memory. Larger lists are asked for each time."""


@dataclass(frozen=True, slots=True)
class UpstreamList(Generic[T]):
    """A list as the upstream has it. It is current until `deadline` (of `time.monotonic`).

    `items` is None if the upstream does not have the repository. If the upstream failed, `problem`
    is its error, and there are no items.
    """

    items: list[T] | None
    deadline: float
    problem: UpstreamError | None = None


class UpstreamLists(Generic[T]):
    """Lists of upstreams by key. Callers with the same key share one request."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, UpstreamList[T]] = OrderedDict()
        self._entries = 0
        self._tasks: dict[Hashable, asyncio.Task[UpstreamList[T]]] = {}

    async def get(
        self, mirror: Mirror, key: Hashable, fetch: Callable[[], Awaitable[list[T]]]
    ) -> UpstreamList[T]:
        """Return the list. `fetch` asks the upstream, and raises UpstreamError."""
        key = (mirror.name, mirror.version, key)
        known = self._known.get(key)
        if known is not None and time.monotonic() < known.deadline:
            return known
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(self._fetch(mirror, key, fetch))
            task.add_done_callback(partial(self._end, key))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel all requests."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, key: Hashable, task: asyncio.Task[UpstreamList[T]]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # no caller may be left

    async def _fetch(
        self, mirror: Mirror, key: Hashable, fetch: Callable[[], Awaitable[list[T]]]
    ) -> UpstreamList[T]:
        options = mirror.options
        items: list[T] | None = None
        ttl = options.tag_ttl
        try:
            async with asyncio.timeout(DECIDE_S):
                items = await fetch()
        except UpstreamUnknownError:
            ttl = options.negative_ttl
        except UpstreamError as error:
            return UpstreamList(None, 0.0, error)
        except TimeoutError:
            text = f"{mirror.url} did not send its list within {DECIDE_S:g} s"
            return UpstreamList(None, 0.0, UpstreamUnavailableError(text))
        found = UpstreamList(items, time.monotonic() + min(read_seconds(ttl), LONGEST_S))
        self._keep(key, found)
        return found

    def _keep(self, key: Hashable, found: UpstreamList[T]) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._entries -= _count(known)
        self._known[key] = found
        self._entries += _count(found)
        while self._entries > MOST_ENTRIES:
            _, dropped = self._known.popitem(last=False)
            self._entries -= _count(dropped)


def _count(found: UpstreamList[T]) -> int:
    return 1 + len(found.items or ())
