"""The time of a response does not reveal hidden content."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from storage.digest import Digest
from tests.api.access.hidden.probes import list_manifest_probes, list_probes
from tests.api.access.hidden.scene import (
    BLOB,
    MISSING,
    NOWHERE,
    THERE,
    Scene,
)

pytestmark = pytest.mark.anyio


ROUNDS, MOST_ROUNDS, SLACK = 10, 80, 0.005


async def take_as_long(
    one: Callable[[], Awaitable[Any]], other: Callable[[], Awaitable[Any]]
) -> bool:
    """Return whether two requests take the same time, by the fastest run of each.

    The runs alternate. The tolerance allows for a busy machine, so only work of another order of
    magnitude is detected, such as reading a file, a hash or a wait. The design discusses smaller
    differences. While the times differ, more runs follow, because one of the requests may not have
    had a fast run yet; a real difference remains.
    """
    spent: tuple[list[float], list[float]] = ([], [])
    for turn in range(MOST_ROUNDS):
        for times, work in zip(spent, (one, other), strict=True):
            started = time.perf_counter()
            await work()
            times.append(time.perf_counter() - started)
        if turn + 1 >= ROUNDS and abs(min(spent[0]) - min(spent[1])) < SLACK:
            return True
    return False


async def test_the_answers_come_as_soon(scene: Scene) -> None:
    headers = scene.bob.basic
    probes = list_probes(scene, headers) | list_manifest_probes(scene, headers)
    for what in ("GET", "mount from it", "mount", "a layer", "PUT of something else as it"):
        ask = probes[what]
        assert await take_as_long(lambda: ask(Digest.of(BLOB)), lambda: ask(MISSING)), what  # noqa: B023

    async def get(name: str) -> None:
        await scene.http.get(f"/v2/{name}/blobs/{Digest.of(BLOB)}", headers=headers)

    async def read_first(name: str) -> None:
        await asyncio.sleep(SLACK * 2)
        await get(name)

    assert await take_as_long(lambda: get(THERE), lambda: get(NOWHERE))
    # Control: the check detects a real difference.
    assert not await take_as_long(lambda: read_first(THERE), lambda: get(NOWHERE))
