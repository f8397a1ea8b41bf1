"""The memory of a server does not depend on the size of blobs."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.servers.seaweed import Bucket
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.soak, pytest.mark.timeout(900)]

SOAK = int(os.environ.get("MOORAGE_SOAK", "0")) << 30
"""Bytes of the blob with MOORAGE_SOAK, which is in GiB; 0 for the default size of a test."""

PIECE = hashlib.shake_256(b"memory").digest(1 << 20)
MOST = 64 << 20
MOST_AT_ALL = 200 << 20
"""Maximum bytes of a process that has 64 MiB of parts in memory."""
EACH = 8 << 20
"""Additional bytes for each concurrent client: chunks, and the gaps they leave in the heap."""


def pieces(size: int) -> Iterator[bytes]:
    for number in range(size // len(PIECE)):
        yield number.to_bytes(8) + PIECE[8:]


def resident(server: Server) -> int:
    """Return the peak resident memory of the server in bytes."""
    status = Path(f"/proc/{server.running.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


async def push_and_pull(server: Server, size: int) -> None:
    running = hashlib.sha256()
    for piece in pieces(size):
        running.update(piece)
    digest = f"sha256:{running.hexdigest()}"

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces(size):
            yield piece

    async with httpx.AsyncClient(base_url=server.url, timeout=300) as http:
        location = (await http.post("/v2/large/blobs/uploads/")).headers["Location"]
        answer = await http.patch(location, content=body())
        assert answer.status_code == 202, answer.text
        assert answer.headers["Range"] == f"0-{size - 1}"
        answer = await http.put(location, params={"digest": digest})
        assert answer.status_code == 201, answer.text
        pulled = hashlib.sha256()
        async with http.stream("GET", f"/v2/large/blobs/{digest}") as stream:
            async for piece in stream.aiter_raw(1 << 20):
                pulled.update(piece)
        assert f"sha256:{pulled.hexdigest()}" == digest


async def test_a_large_blob_moves_the_resident_set_by_little(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data", fresh=True)) as server:
        before = resident(server)
        await push_and_pull(server, SOAK or 1 << 30)
        assert resident(server) - before < MOST


@pytest.mark.parametrize(("clients", "size"), [(1, 256 << 20), (8, 40 << 20)])
async def test_to_a_bucket_and_back_it_takes_what_its_parts_may(
    tmp_path: Path, bucket: Bucket, clients: int, size: int
) -> None:
    settings = {**bucket.overrides(), "storage.driver": "s3"}
    environ = {f"MOORAGE_{k.upper().replace('.', '__')}": v for k, v in settings.items()}
    with serving(Server(tmp_path / "data", settings=environ, fresh=True)) as server:
        await asyncio.gather(*(push_and_pull(server, SOAK or size) for _ in range(clients)))
        assert resident(server) < MOST_AT_ALL + clients * EACH
