"""Tests that each tag is a linearizable register for concurrent clients of several workers (I4)."""

import asyncio
import json
import os
import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic_ns

import httpx
import pytest
import sqlalchemy as sa

from registry.oci.media_types import OCI_INDEX
from storage.digest import Digest
from tests.scenarios.model.linear import Operation, find_order
from tests.scenarios.model.look import Replay, look
from tests.support.servers.server import Server, serving

pytestmark = pytest.mark.anyio

SOAK = int(os.environ.get("MOORAGE_SOAK", "1"))
CLIENTS, OPERATIONS = 8, 50
TAGS = ("latest", "v1", "v2")
PATH = "/v2/shared/manifests"


@dataclass
class Client:
    """A client that sends random operations and records the answers."""

    number: int
    http: httpx.AsyncClient
    chance: random.Random
    history: dict[str, list[Operation]]
    mine: list[tuple[str, str]] = field(default_factory=list)
    """Tag and digest of each manifest that the client pushed."""
    seen: dict[str, str] = field(default_factory=dict)

    async def run(self, operations: int) -> None:
        for turn in range(operations):
            tag = self.chance.choice(TAGS)
            act = self.chance.choice(
                (self.get, self.get, self.head, self.put, self.put, self.swap, self.delete)
            )
            if self.mine and self.chance.random() < 0.1:
                await self.drop()
            else:
                await act(tag, turn)

    async def _send(
        self, operation: Operation, tag: str, method: str, target: str, **more: object
    ) -> httpx.Response:
        """Send the operation, and record it with its answer. `done` means a 2xx status."""
        operation = replace(operation, start=monotonic_ns())
        answer = await self.http.request(method, f"{PATH}/{target}", **more)  # type: ignore[arg-type]
        assert answer.status_code < 500, answer.text
        found = answer.headers.get("Docker-Content-Digest") if operation.kind == "get" else None
        if found is not None:
            operation = replace(operation, seen=found)
            self.seen[tag] = found
        done = operation.kind == "get" or answer.is_success
        self.history[tag].append(replace(operation, end=monotonic_ns(), done=done))
        return answer

    async def get(self, tag: str, _turn: int, method: str = "GET") -> None:
        answer = await self._send(Operation(self.number, "get", 0), tag, method, tag)
        assert answer.status_code in {200, 404}
        if answer.status_code == 200 and method == "GET":
            digest = str(Digest.of(answer.content))
            assert digest == answer.headers["Docker-Content-Digest"]

    async def head(self, tag: str, turn: int) -> None:
        await self.get(tag, turn, "HEAD")

    async def put(self, tag: str, turn: int, expected: str | None = None) -> None:
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        raw = json.dumps({**body, "annotations": {"by": f"{self.number}.{turn}"}}).encode()
        digest = str(Digest.of(raw))
        operation = Operation(self.number, "put", 0, value=digest)
        headers = {"Content-Type": OCI_INDEX}
        if expected is not None:
            operation = replace(operation, kind="swap", seen=expected)
            headers["If-Match"] = f'"{expected}"'
        answer = await self._send(operation, tag, "PUT", tag, content=raw, headers=headers)
        assert answer.status_code in ({201} if expected is None else {201, 412})
        if answer.is_success:
            self.mine.append((tag, digest))
            self.seen[tag] = digest

    async def swap(self, tag: str, turn: int) -> None:
        await self.put(tag, turn, self.seen.get(tag))

    async def delete(self, tag: str, _turn: int) -> None:
        answer = await self._send(Operation(self.number, "delete", 0), tag, "DELETE", tag)
        assert answer.status_code in {202, 404}

    async def drop(self) -> None:
        """Delete a manifest that this client pushed, and its tag if that still points to it."""
        tag, digest = self.mine.pop(self.chance.randrange(len(self.mine)))
        operation = Operation(self.number, "drop", 0, value=digest)
        answer = await self._send(operation, tag, "DELETE", digest)
        assert answer.status_code == 202, answer.text


@pytest.mark.soak
@pytest.mark.timeout(120 + 60 * SOAK)
async def test_tags_are_registers(database_url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = {"MOORAGE_DATABASE__URL": database_url}
    with serving(Server(data, workers=2, settings=settings)) as server:
        for _ in range(SOAK):
            await _run_clients(server.url)
    engine = sa.create_engine(database_url)
    found = look(engine, data / "storage")
    engine.dispose()
    replay = Replay()
    replay.play(found.changes)  # the old digest of each change must be the tag's digest
    replay.check(found)


async def _run_clients(url: str) -> None:
    history: dict[str, list[Operation]] = defaultdict(list)
    # One connection for each request, so that each may reach another worker.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        for tag in TAGS:
            await http.delete(f"{PATH}/{tag}")
        seed = random.getrandbits(32)
        await asyncio.gather(
            *(
                Client(number, http, random.Random(seed + number), history).run(OPERATIONS)
                for number in range(CLIENTS)
            )
        )
    assert sum(len(operations) for operations in history.values()) == CLIENTS * OPERATIONS
    for operations in history.values():
        find_order(operations)


# The search itself, on histories whose verdict is known.

A, B = "a", "b"
PUT_A = Operation(1, "put", 0, 10, value=A)


@pytest.mark.parametrize(
    "history",
    [
        [PUT_A, Operation(2, "get", 5, 6), Operation(2, "get", 7, 8, seen=A)],
        [PUT_A, Operation(2, "put", 1, 9, value=B), Operation(1, "get", 11, 12, seen=A)],
        [PUT_A, Operation(2, "put", 1, 9, value=B), Operation(1, "get", 11, 12, seen=B)],
        [PUT_A, Operation(2, "delete", 11, 12), Operation(3, "get", 13, 14)],
        [PUT_A, Operation(2, "delete", 1, 2, done=False)],
        [PUT_A, Operation(2, "swap", 11, 12, value=B, seen=A), Operation(1, "get", 13, 14, seen=B)],
        [PUT_A, Operation(2, "swap", 11, 12, value=B, seen=B, done=False)],
        [PUT_A, Operation(2, "drop", 11, 12, value=B), Operation(3, "get", 13, 14, seen=A)],
        [PUT_A, Operation(2, "drop", 11, 12, value=A), Operation(3, "get", 13, 14)],
        # Without an answer the operation may have taken effect late, or never.
        [Operation(1, "put", 0, value=A, done=None), Operation(2, "get", 50, 51)],
        [Operation(1, "put", 0, value=A, done=None), Operation(2, "get", 50, 51, seen=A)],
    ],
)
def test_a_history_that_can_be_explained(history: list[Operation]) -> None:
    assert {id(operation) for operation in find_order(history)} <= {id(o) for o in history}


@pytest.mark.parametrize(
    "history",
    [
        # A stale read after an acknowledged write.
        [PUT_A, Operation(2, "get", 11, 12)],
        # A read that goes back in time.
        [PUT_A, Operation(2, "get", 1, 2, seen=A), Operation(2, "get", 3, 4)],
        # Two readers that saw two writes in different orders.
        [
            PUT_A,
            Operation(2, "put", 0, 10, value=B),
            Operation(3, "get", 1, 2, seen=A),
            Operation(3, "get", 3, 4, seen=B),
            Operation(4, "get", 5, 6, seen=A),
        ],
        # A deletion that did not last.
        [PUT_A, Operation(2, "delete", 11, 12), Operation(3, "get", 13, 14, seen=A)],
        # A deletion of an existing value that reported no value.
        [PUT_A, Operation(2, "delete", 11, 12, done=False)],
        # Two swaps of the same value that both reported success.
        [
            PUT_A,
            Operation(2, "swap", 11, 20, value=B, seen=A),
            Operation(3, "swap", 11, 20, value="c", seen=A),
        ],
        # A value that no client wrote.
        [PUT_A, Operation(2, "get", 1, 2, seen=B)],
    ],
)
def test_a_history_that_cannot(history: list[Operation]) -> None:
    with pytest.raises(AssertionError, match="no order explains"):
        find_order(history)
