"""Tests of kill -9 of a replica during pushes: the other continues, and nothing is left over."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from registry.services.content import upload_leases
from storage.digest import Digest
from tests.support.breakpoints import DURING_PATCH, DURING_PUT, Breakpoints
from tests.support.kit import Kit, codes
from tests.support.pushing import blob_bytes
from tests.support.servers.replicas import Replicas, kit_of, running_replicas, until
from tests.support.servers.server import serving

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300)]

NAME = "team/app"
SIZE = (5 << 20) + 700_001
"""A part and a tail."""


async def with_a_pause(data: bytes, pause: asyncio.Event) -> AsyncIterator[bytes]:
    yield data
    await pause.wait()
    while True:
        yield bytes(100_000)


class Push:
    """A push that the death of a replica interrupts, and the client's continuation of it."""

    def __init__(self, point: str, number: int) -> None:
        self.point = point
        self.data = blob_bytes(f"{point} {number}", SIZE)
        self.location = ""
        self.acknowledged = 0
        self._killed = asyncio.Event()
        self._task: asyncio.Task[httpx.Response] | None = None

    @property
    def digest(self) -> Digest:
        return Digest.of(self.data)

    async def begin(self, kit: Kit, stops: Breakpoints) -> None:
        """Push until the point is reached, and stop there."""
        self.location = await kit.start_upload(NAME)
        if self.point == "body of PATCH":
            self._send(kit, "PATCH", with_a_pause(self.data, self._killed))
            await asyncio.sleep(0.5)
        elif self.point == "body of PUT":
            await self._patch(kit, self.data[:1000])
            self._send(kit, "PUT", with_a_pause(self.data[1000:-5], self._killed))
            await asyncio.sleep(0.5)
        elif self.point in DURING_PATCH:
            await self._patch(kit, self.data[:1000])
            stops.set(self.point)
            self._send(kit, "PATCH", self.data[1000:])
            await stops.reached(self.point)
        elif self.point in DURING_PUT:
            await self._patch(kit, self.data[:-5])
            stops.set(self.point)
            self._send(kit, "PUT", self.data[-5:])
            await stops.reached(self.point)
        else:
            assert self.point == "acknowledged"
            await self._patch(kit, self.data)

    async def _patch(self, kit: Kit, data: bytes) -> None:
        answer = await kit.http.patch(self.location, content=data)
        assert answer.status_code == 202, answer.text
        self.acknowledged += len(data)

    def _send(self, kit: Kit, method: str, content: bytes | AsyncIterator[bytes]) -> None:
        params = {"digest": str(self.digest)} if method == "PUT" else None
        sending = kit.http.request(method, self.location, params=params, content=content)
        self._task = asyncio.create_task(sending)

    async def broke_off(self) -> None:
        """Require that the client saw no success."""
        self._killed.set()
        if self._task is not None:
            with pytest.raises(httpx.TransportError):
                await self._task

    async def retry(self, kit: Kit) -> None:
        """Read the offset of the session and continue from there, until the push is complete."""
        while True:
            answer = await kit.http.get(self.location)
            if answer.status_code == 404:
                break
            assert answer.status_code == 204
            offset = int(answer.headers["Range"].partition("-")[2])
            offset += bool(offset)
            assert offset >= self.acknowledged
            span = {"Content-Range": f"{offset}-{SIZE - 1}"} if offset < SIZE else {}
            answer = await kit.http.put(
                self.location,
                params={"digest": str(self.digest)},
                content=self.data[offset:],
                headers=span,
            )
            if answer.status_code == 201:
                break
            assert answer.status_code == 409, answer.text
            assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
            await asyncio.sleep(0.25)
        await require_blob(kit, self.data)


async def require_blob(kit: Kit, data: bytes) -> None:
    answer = await kit.http.get(f"/v2/{NAME}/blobs/{Digest.of(data)}")
    assert (answer.status_code, answer.content == data) == (200, True)


POINTS = ["body of PATCH", "acknowledged", "body of PUT", *DURING_PATCH, *DURING_PUT]


async def test_sessions_go_on_at_the_other_replica(
    own_replicas: Callable[..., Replicas], tmp_path: Path
) -> None:
    # Each stopped push keeps the buffer of a part.
    replicas = own_replicas(**{"storage.upload_concurrency": str(2 * len(POINTS))})
    stops = Breakpoints(tmp_path / "stops")
    replicas.a.patches = stops.patches
    retried = [Push(point, 1) for point in POINTS]
    abandoned = [Push(point, 2) for point in POINTS]
    with running_replicas(replicas):
        async with kit_of(replicas.a) as a, kit_of(replicas.b) as b:
            for push in [*retried, *abandoned]:
                await push.begin(a, stops)
            replicas.a.kill()
            killed = time.monotonic()
            for push in [*retried, *abandoned]:
                await push.broke_off()
            # A client that starts over, as most do, does not have to wait.
            for push in retried:
                fresh = blob_bytes(f"fresh {push.point}", SIZE)
                location = await b.start_upload(NAME)
                assert (await b.http.patch(location, content=fresh)).status_code == 202
                params = {"digest": str(Digest.of(fresh))}
                assert (await b.http.put(location, params=params)).status_code == 201
                await require_blob(b, fresh)
            await asyncio.gather(*(push.retry(b) for push in retried))
            waited = time.monotonic() - killed
            assert waited < upload_leases.LEASE_S + 15
            assert replicas.list_unowned() == []
            for push in abandoned:
                if push.point == "after link":
                    await require_blob(b, push.data)
        with serving(replicas.make("c", **{"storage.upload_expiry": "1s"})) as c:

            async def is_clean() -> bool:
                return not replicas.list_leftovers()

            with contextlib.suppress(AssertionError):
                await until(is_clean, 120)
            assert replicas.list_leftovers() == []
            assert replicas.count_sessions() == 0
            async with kit_of(c) as kit:
                for push in retried:
                    await require_blob(kit, push.data)
